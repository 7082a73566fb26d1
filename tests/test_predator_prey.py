"""Predator-prey: what is conserved, who may do what, every reward counted again, and both public forms."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from rqe_mappo.envs import predator_prey
from rqe_mappo.envs.predator_prey import SCENARIOS, BatchedPredators, PredatorPreyConfig
from rqe_mappo.envs.predator_prey.dynamics import CATCH, DOWN, FREE, LEFT, PREDATOR, PREY, RIGHT, STAY, UP, WALL

CROWDED = PredatorPreyConfig(size=5, n_predators=7, n_prey=5, sight=1, punishment=1.5, horizon=40, observe_time=True)
CONFIGS = [SCENARIOS["default"], SCENARIOS["punish"], CROWDED]


def random_actions(rng: np.random.Generator, avail: np.ndarray) -> np.ndarray:
    """An available action of each agent, all alike."""
    return (rng.random(avail.shape) * avail).argmax(-1)


def placed(predators: list[tuple[int, int]], prey: list[tuple[int, int]], **settings) -> BatchedPredators:
    """One copy with everybody where rows and columns say."""
    config = PredatorPreyConfig(n_predators=len(predators), n_prey=len(prey), **settings)
    env = BatchedPredators(config, 1)
    env.reset(0)
    world = env.dynamics
    world.grid[:, world.cells] = FREE
    for array, cells, kind in ((world.predators, predators, PREDATOR), (world.prey, prey, PREY)):
        array[0] = [world.cells[row * config.size + column] for row, column in cells]
        world.grid[0, array[0]] = kind
    return env


def where(env: BatchedPredators) -> list[tuple[int, int]]:
    """Row and column of each predator of the first copy."""
    return [divmod(int(place), env.config.size) for place in env.features.place[env.dynamics.predators[0]]]


# What is conserved


@pytest.mark.parametrize("config", CONFIGS)
def test_no_cell_holds_two_and_prey_and_captures_are_constant(config):
    env, rng = BatchedPredators(config, 64), np.random.default_rng(0)
    seen, world, caught = env.reset(0), env.dynamics, 0
    for _ in range(1000):
        kept = env.totals["captures"].copy()
        seen = env.step(random_actions(rng, seen.avail))
        for cells, here, kind in ((world.predators, world.hunting, PREDATOR), (world.prey, world.alive, PREY)):
            copy, index = np.nonzero(here)
            assert (world.grid[copy, cells[copy, index]] == kind).all()
            assert ((world.grid == kind).sum(1) == here.sum(1)).all()
        np.testing.assert_array_equal(world.alive.sum(1) + env.totals["captures"], config.n_prey)
        assert ((world.grid == WALL).sum(1) == world.width**2 - config.size**2).all()
        assert (env.totals["captures"] >= kept)[~np.isin(np.arange(64), seen.episodes["copy"])].all()
        assert (seen.episodes["captures"] <= config.most_captures).all()
        assert (config.n_predators - world.hunting.sum(1) >= 2 * env.totals["captures"]).all()
        caught += seen.episodes["captures"].sum()
    assert caught > 50


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_available_has_its_effect_and_what_is_not_has_none(config):
    env, rng = BatchedPredators(config, 64), np.random.default_rng(1)
    seen, world = env.reset(1), env.dynamics
    for _ in range(200):
        before, avail = world.predators.copy(), seen.avail
        assert avail.shape == (64, config.n_predators, 6) and avail[..., STAY].all()
        around = before[..., None] + world.beside
        kinds = world.grid[np.arange(64)[:, None, None], around]
        acting = seen.active
        np.testing.assert_array_equal(avail[acting][:, UP : RIGHT + 1], kinds[acting] == FREE)
        np.testing.assert_array_equal(avail[acting][:, CATCH], (kinds[acting] == PREY).any(-1))
        assert avail[~acting].all()
        actions = rng.integers(0, 6, before.shape)
        allowed = np.take_along_axis(avail, actions[..., None], -1)[..., 0]
        seen = env.step(actions)
        going = ~np.isin(np.arange(64), seen.episodes["copy"])[:, None] & acting
        moved = world.predators != before
        target = before + world.moves[actions]
        assert (world.predators == target)[going & moved].all()
        assert not moved[going & (~allowed | (actions == STAY) | (actions == CATCH))].any()
        late = going & allowed & (actions >= UP) & (actions <= RIGHT) & ~moved  # another was there first
        assert (world.predators[:, None, :] == target[:, :, None]).any(-1)[late].all()
        assert not (seen.cost > 0)[~allowed].any()


@pytest.mark.parametrize("config", CONFIGS)
def test_every_reward_is_ten_a_capture_less_every_lone_catch(config):
    env, rng = BatchedPredators(config, 64), np.random.default_rng(2)
    seen = env.reset(2)
    team, lone, own = np.zeros(64), np.zeros(64), np.zeros((64, config.n_predators))
    episodes = 0
    for _ in range(600):
        acting = seen.active
        seen = env.step(random_actions(rng, seen.avail))
        paid = np.where(acting, seen.reward, -np.inf).max(1)
        assert ((seen.reward == paid[:, None]) | ~acting).all() and (seen.reward[~acting] == 0).all()
        team, lone, own = team + paid, lone + seen.cost.sum(1), own + seen.reward
        ended, record = seen.episodes["copy"], seen.episodes
        np.testing.assert_allclose(team[ended], 10 * record["captures"] - config.punishment * record["lone_catches"])
        np.testing.assert_allclose(team[ended], record["team_reward"])
        np.testing.assert_array_equal(lone[ended], record["lone_catches"])
        np.testing.assert_allclose(own[ended], record["return"], atol=1e-4)
        low, high = env.return_bounds
        assert (own >= low).all() and (own <= high).all()
        assert env.reward_bounds[0] <= paid.min() and paid.max() <= env.reward_bounds[1]
        np.testing.assert_allclose(paid / env.reward_step, np.round(paid / env.reward_step), atol=1e-5)
        team[ended], lone[ended], own[ended] = 0, 0, 0
        episodes += len(ended)
    assert episodes > 20


# Rules by hand


def test_two_beside_a_prey_catch_it_together_and_leave():
    env = placed([(4, 3), (4, 5), (0, 0), (9, 9)], [(4, 4), (0, 9)], punishment=2.0)
    step = env.step(np.array([[CATCH, CATCH, STAY, STAY]]))
    assert step.reward.tolist() == [[10] * 4] and not step.cost.any()
    assert step.terminated.tolist() == [[True, True, False, False]] and not step.truncated.any()
    assert step.active.tolist() == [[False, False, True, True]] and env.dynamics.alive[0].tolist() == [False, True]
    assert not step.obs[0, :2].any() and not step.state[0, :2].any() and step.avail[0, :2].all()
    assert not step.obs[0, 2:, 25:50].any()  # the other prey is far away
    step = env.step(np.array([[CATCH, CATCH, DOWN, UP]]))
    assert step.reward.tolist() == [[0] * 4] and where(env)[2:] == [(1, 0), (8, 9)]


@pytest.mark.parametrize("punishment", [0.0, 2.0])
def test_a_lone_catch_is_fined_and_nobody_leaves(punishment):
    env = placed([(4, 3), (9, 9)], [(4, 4)], punishment=punishment)
    step = env.step(np.array([[CATCH, CATCH]]))  # the second stands beside no prey: it stays
    assert step.reward.tolist() == [[-punishment] * 2] and step.cost.tolist() == [[1, 0]]
    assert step.active.all() and env.dynamics.alive.all()


def test_each_predator_counts_for_one_prey():
    env = placed([(4, 4), (5, 5), (9, 9)], [(4, 5), (5, 4)], punishment=2.0)  # both stand beside both prey
    step = env.step(np.array([[CATCH, CATCH, STAY]]))
    assert step.reward.tolist() == [[10] * 3] and env.dynamics.alive.sum() == 1
    env = placed([(4, 4), (5, 5), (6, 4)], [(4, 5), (5, 4)], punishment=2.0)
    step = env.step(np.array([[CATCH] * 3]))  # the third is left alone beside the second prey
    assert step.reward.tolist() == [[8] * 3] and step.cost.tolist() == [[0, 0, 1]]


def test_three_that_catch_one_prey_all_leave():
    env = placed([(4, 3), (4, 5), (3, 4), (9, 9)], [(4, 4), (0, 0)])
    step = env.step(np.array([[CATCH, CATCH, CATCH, STAY]]))
    assert step.reward[0, 0] == 10 and step.active.tolist() == [[False, False, False, True]]


def test_an_episode_ends_when_no_prey_is_left_or_no_predator():
    env = placed([(4, 3), (4, 5), (9, 9)], [(4, 4)])
    step = env.step(np.array([[CATCH, CATCH, STAY]]))
    assert step.terminated.all() and not step.truncated.any() and step.active.all()  # the next episode
    assert step.episodes["captures"].tolist() == [1] and step.episodes["team_reward"].tolist() == [10]
    assert env.dynamics.alive.all() and env.dynamics.t.tolist() == [0]
    env = placed([(4, 3), (4, 5)], [(4, 4), (0, 0)])
    assert env.step(np.array([[CATCH, CATCH]])).terminated.all()


def test_one_cell_takes_one_predator_and_each_comes_first_at_times():
    first = set()
    for seed in range(20):
        env = placed([(4, 3), (4, 5)], [(9, 9)])
        env.rng = np.random.default_rng(seed)
        env.step(np.array([[RIGHT, LEFT]]))
        assert sorted(where(env)) in ([(4, 3), (4, 4)], [(4, 4), (4, 5)])
        first.add(where(env).index((4, 4)))
    assert first == {0, 1}


def test_prey_moves_to_every_free_cell_alike_and_stays_where_there_is_none():
    counts: dict[tuple[int, int], int] = {}
    for seed in range(1000):
        env = placed([(0, 0)], [(4, 4)])
        env.rng = np.random.default_rng(seed)
        env.step(np.array([[STAY]]))
        cell = divmod(int(env.features.place[env.dynamics.prey[0, 0]]), 10)
        counts[cell] = counts.get(cell, 0) + 1
    assert set(counts) == {(3, 4), (5, 4), (4, 3), (4, 5)} and min(counts.values()) > 200
    env = placed([(0, 1), (1, 0)], [(0, 0)])
    env.step(np.array([[STAY, STAY]]))
    assert env.features.place[env.dynamics.prey[0, 0]] == 0


def test_predators_see_cells_around_them_and_the_critic_all():
    env = placed([(0, 0), (1, 2)], [(2, 0), (9, 9)])
    seen = env._observed()
    predators, prey, walls = seen.obs[0, 0].reshape(3, 5, 5)
    assert np.argwhere(predators).tolist() == [[2, 2], [3, 4]] and np.argwhere(prey).tolist() == [[4, 2]]
    assert walls[:2].all() and walls[:, :2].all() and not walls[2:, 2:].any()
    predators, prey, own = seen.state[0, 1].reshape(3, 10, 10)
    assert np.argwhere(predators).tolist() == [[0, 0], [1, 2]] and np.argwhere(prey).tolist() == [[2, 0], [9, 9]]
    assert np.argwhere(own).tolist() == [[1, 2]]


# What the learner relies on


@pytest.mark.parametrize("config", CONFIGS)
def test_who_stops_acting_terminates_or_is_truncated_and_what_follows_is_kept(config):
    config = replace(config, horizon=23)
    env, rng = BatchedPredators(config, 16), np.random.default_rng(3)
    seen = env.reset(3)
    shape = (16, config.n_predators)
    assert seen.active.all() and env.time_in_observation == config.observe_time
    cut = 0
    for _ in range(150):
        acting = seen.active
        seen = env.step(random_actions(rng, seen.avail))
        assert seen.obs.shape == (*shape, *env.observation_space.shape) and seen.obs.dtype == np.float32
        assert seen.state.shape == (*shape, *env.state_space.shape) and seen.state.dtype == np.float32
        assert not (seen.terminated & seen.truncated).any() and not (seen.terminated | seen.truncated)[~acting].any()
        going = ~np.isin(np.arange(16), seen.episodes["copy"])[:, None]
        np.testing.assert_array_equal((seen.terminated | seen.truncated) & going, acting & ~seen.active & going)
        assert (seen.terminated | seen.truncated)[~going[:, 0]][acting[~going[:, 0]]].all()
        assert not seen.obs[~seen.active].any() and not seen.state[~seen.active].any()
        count = seen.truncated.sum()
        assert seen.final_obs.shape == (count, *env.observation_space.shape)
        assert seen.final_state.shape == (count, *env.state_space.shape)
        if config.observe_time and count:
            assert (seen.final_obs[:, -1] == 0).all() and (seen.final_state[:, -1] == 0).all()
        assert (seen.episodes["length"] <= 23).all() and (seen.episodes["length"] >= 1).all()
        cut += count
    assert cut > 50


@pytest.mark.parametrize("config", CONFIGS)
def test_seeds_and_snapshots_repeat_everything(config):
    config = replace(config, horizon=30)

    def play(env: BatchedPredators, seen, steps: int) -> list:
        rng, found = np.random.default_rng(4), []
        for _ in range(steps):
            seen = env.step(random_actions(rng, seen.avail))
            found.append(seen)
        return found

    one, two = BatchedPredators(config, 8), BatchedPredators(config, 8)
    same(play(one, one.reset(5), 40), play(two, two.reset(5), 40))
    saved, now = pickle.dumps(one.snapshot()), one._observed()
    ours = play(one, now, 60)
    for again in (BatchedPredators(config, 8), one):
        same(ours, play(again, again.restore(pickle.loads(saved)), 60))


def same(ours: list, theirs: list) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("obs", "state", "active", "avail", "reward", "cost", "terminated", "truncated", "final_obs",
                     "final_state"):  # fmt: skip
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
        for key, value in mine.episodes.items():
            np.testing.assert_array_equal(value, other.episodes[key])


@pytest.mark.parametrize("config", CONFIGS)
def test_a_batch_of_one_is_the_single_form(config):
    config = replace(config, horizon=50)
    batch, single = BatchedPredators(config, 1), predator_prey.PredatorPreyEnv(config)
    seen, (shown, infos), rng = batch.reset(6), single.reset(seed=6), np.random.default_rng(6)
    names = single.possible_agents
    while single.agents:
        for agent in single.agents:
            i = names.index(agent)
            np.testing.assert_array_equal(seen.obs[0, i], shown[agent])
            np.testing.assert_array_equal(seen.avail[0, i], infos[agent]["action_mask"])
        np.testing.assert_array_equal(seen.state[0], single.state())
        actions, acting = random_actions(rng, seen.avail), list(single.agents)
        seen = batch.step(actions)
        shown, rewards, terminated, truncated, infos = single.step({a: int(actions[0, names.index(a)]) for a in acting})
        for agent in acting:
            i = names.index(agent)
            found = rewards[agent], terminated[agent], truncated[agent], infos[agent]["cost"]
            assert found == (seen.reward[0, i], seen.terminated[0, i], seen.truncated[0, i], seen.cost[0, i])
    last = [shown[agent] for agent in acting if truncated[agent]]
    np.testing.assert_array_equal(seen.final_obs, np.reshape(last, seen.final_obs.shape))
    np.testing.assert_array_equal(seen.final_state, single.state()[[names.index(a) for a in acting if truncated[a]]])


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_pettingzoo_accepts_both_scenarios(scenario):
    parallel_api_test(predator_prey.parallel_env(scenario, horizon=60), num_cycles=200)


def test_bounds_are_those_of_four_pairs():
    assert BatchedPredators(SCENARIOS["default"], 1).return_bounds == (0, 40)
    punish = BatchedPredators(SCENARIOS["punish"], 1)
    assert punish.return_bounds == (-3200, 40) and punish.reward_bounds == (-16, 40) and punish.reward_step == 2
    assert BatchedPredators(PredatorPreyConfig(punishment=1 / 3), 1).reward_step is None
    assert punish.common_reward and not punish.time_in_observation


def test_what_does_not_exist_is_refused():
    env = BatchedPredators(SCENARIOS["default"], 2)
    env.reset(0)
    for actions in (np.full((2, 8), 6), np.full((2, 8), -1), np.zeros((2, 7), int)):
        with pytest.raises(ValueError, match=r"^actions must be \[2, 8\] numbers from 0 to 5$"):
            env.step(actions)
    single = predator_prey.parallel_env()
    single.reset(seed=0)
    with pytest.raises(ValueError, match="missing: predator_1"):
        single.step({"predator_0": 0})


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 1), ("size", 51), ("n_predators", 0), ("n_predators", 100), ("n_prey", 93), ("sight", 0), ("sight", 11),
     ("punishment", -1.0), ("punishment", float("nan")), ("punishment", 1e9), ("horizon", 0), ("horizon", 2.5)],
)  # fmt: skip
def test_bad_settings_are_named_in_one_line(name, value):
    with pytest.raises(
        ValueError, match=f"^--{name.replace('_', '-')} must [^\n]* \\(got {value}\\)$".replace("+", ".")
    ):
        PredatorPreyConfig(**{name: value})
