"""Tag: mpe2's simple_tag step by step, its rules by hand, scripted prey, and what chasers reach."""

from dataclasses import replace

import numpy as np
import pytest
from mpe2 import simple_tag_v3

from rqe_mappo import cli
from rqe_mappo.envs import tag
from rqe_mappo.envs.tag import SCENARIOS, Tag, TagConfig, batched_tag
from rqe_mappo.envs.tag.dynamics import outside
from rqe_mappo.envs.tag.scripted import by_name
from rqe_mappo.evaluation.episodes import run_episodes

MPE = SCENARIOS["mpe"]
LEARNED = {
    "as mpe2 has it": MPE,
    "srpo": TagConfig(prey="learned", reward_scale=1.0),
    "no obstacles": replace(MPE, n_obstacles=0, n_chasers=1, horizon=60),
    "many": replace(MPE, n_chasers=6, n_prey=3, n_obstacles=5, horizon=100),
    "continuous": replace(MPE, n_chasers=4, n_prey=2, continuous=True, horizon=80),
    "prey at half its speed": replace(MPE, prey_speed=0.5, horizon=50),
    "prey at three quarters": replace(MPE, prey_speed=SCENARIOS["slow"].prey_speed, n_prey=2, horizon=50),
}


def reference(config: TagConfig):
    """The same game of mpe2; prey is slowed as its curriculum does, whose stages cannot be chosen in every release."""
    env = simple_tag_v3.parallel_env(
        num_good=config.n_prey, num_adversaries=config.n_chasers, num_obstacles=config.n_obstacles,
        max_cycles=config.horizon, continuous_actions=config.continuous,
    )  # fmt: skip
    for body in env.unwrapped.world.agents:
        if not body.adversary:
            body.max_speed, body.accel = 1.3 * config.prey_speed, 4.0 * config.prey_speed
    return env


def crowded(env: tag.TagEnv, other) -> None:
    """Put everybody into a tenth of the field, so that much is touched."""
    world, game = other.unwrapped.world, env.batch.game
    for entity in world.entities:
        entity.state.p_pos = entity.state.p_pos * 0.3 + 0.4
    game.x[0], game.obstacles[0] = 0.3 * game.x[0] + 0.4, 0.3 * game.obstacles[0] + 0.4


@pytest.mark.slow
@pytest.mark.parametrize("config", LEARNED.values(), ids=LEARNED)
@pytest.mark.parametrize("dense", [False, True], ids=["anywhere", "crowded"])
def test_whole_episodes_are_those_of_mpe2(config, dense):
    """The same seed and actions: the same observations and rewards, to single precision."""
    env, other, touched = tag.TagEnv(config), reference(config), 0
    for seed in range(3):
        (seen, _), (wanted, _), rng = env.reset(seed=seed), other.reset(seed=seed), np.random.default_rng(seed)
        assert env.agents == other.agents
        if dense:
            crowded(env, other)
        agents, steps = env.agents, 0
        while other.agents:
            heading = rng.integers(0, 5, len(agents))  # kept for some steps, so that bodies get somewhere
            for _ in range(rng.integers(1, 8)):
                pushes = np.eye(5, dtype=np.float32)[heading] * rng.random((len(agents), 5), np.float32)
                chosen = pushes + 0.3 * rng.random(pushes.shape, np.float32) if config.continuous else heading
                actions = dict(zip(agents, chosen, strict=True))
                seen, rewards, terminated, truncated, _ = env.step(actions)
                if config.continuous:
                    actions = {agent: action.clip(0, 1) for agent, action in actions.items()}
                wanted, paid, ended, cut, _ = other.step(actions)
                steps += 1
                assert (terminated, truncated) == (ended, cut)
                for agent in agents:
                    row = seen[agent]
                    size = len(wanted[agent])
                    np.testing.assert_allclose(row[:size], wanted[agent], rtol=0, atol=1e-6)
                    assert not row[size:].any()
                    assert rewards[agent] == pytest.approx(paid[agent], rel=1e-6, abs=1e-6)
                touched += max(paid.values()) >= 10
                if not other.agents:
                    break
        assert steps == config.horizon and not env.agents
    assert touched > 0 or not dense


# Rules by hand


def at(chasers: list, runners: list, obstacles: list | None = None, **settings) -> Tag:
    """One copy with everybody at rest in these places."""
    obstacles = obstacles or []
    counts = dict(n_chasers=len(chasers), n_prey=len(runners), n_obstacles=len(obstacles))
    game = Tag(replace(SCENARIOS["default"], **counts, **settings), 1)
    game.x[0], game.obstacles[0] = [*chasers, *runners], np.reshape(obstacles, (-1, 2))
    return game


def test_a_body_moves_by_its_velocity_of_before_and_then_pushes():
    game = at([(0, 0)], [(9, 9)], prey="still")
    game.play(np.array([[2]]), np.empty((1, 0)))
    assert game.x[0, 0].tolist() == [0, 0] and game.v[0, 0] == pytest.approx([0.3, 0])
    game.play(np.array([[4]]), np.empty((1, 0)))
    assert game.x[0, 0] == pytest.approx([0.03, 0]) and game.v[0, 0] == pytest.approx([0.225, 0.3])
    for _ in range(30):
        game.play(np.array([[1]]), np.empty((1, 0)))
    assert game.v[0, 0] == pytest.approx([-1, 0], abs=1e-3)  # the top speed; alone it would be 1.2


def test_every_chaser_is_paid_for_every_pair_that_touches_and_prey_for_its_own():
    game = at([(0, 0), (0.1, 0), (0.6, 0)], [(0.05, 0.05), (0.65, 0)], prey="learned", reward_scale=1.0)
    played = game.play(np.zeros((1, 5), int), np.empty((1, 0)))
    assert played.reward.tolist() == [[30, 30, 30, -20, -10]] and played.counts["catches"].tolist() == [3]
    assert played.counts["caught_steps"].tolist() == [1]
    assert played.cost.tolist() == [[1, 1, 0, 0, 0]]  # the first two chasers touch each other


def test_nearness_is_paid_where_it_is_asked_for():
    game = at([(0, 0), (1, 0)], [(0, 2), (4, 4)], prey="learned", reward_scale=0.5, shaped=True)
    played, plain = (
        form.play(np.zeros((1, 4), int), np.empty((1, 0)))
        for form in (game, at([(0, 0), (1, 0)], [(0, 2), (4, 4)], prey="learned", reward_scale=0.5))
    )
    chasers, first = -(2 + 5**0.5), 2 + 5**0.5
    added = [chasers, chasers, first, 32**0.5 + 5]
    assert (played.reward - plain.reward)[0] == pytest.approx([0.05 * part for part in added])


def test_touching_ends_at_the_sum_of_both_radii():
    for gap, reward in ((0.1249, 1.0), (0.1251, 0.0)):
        played = at([(0, 0)], [(gap, 0)], prey="still").play(np.zeros((1, 1), int), np.empty((1, 0)))
        assert played.reward.tolist() == [[reward]]


def test_obstacles_push_back_and_count_as_cost():
    game = at([(0.25, 0)], [(5, 5)], [(0, 0)], prey="still")
    played = game.play(np.zeros((1, 1), int), np.empty((1, 0)))
    assert played.cost.tolist() == [[1]] and game.v[0, 0] == pytest.approx([100 * 0.025 * 0.1, 0])


def test_leaving_the_field_costs_prey_what_the_formula_says():
    places = np.array([0.5, -0.89, 0.95, -1.0, 1.5, 2, 3, -50])
    wanted = [0, 0, 0.5, 1, np.exp(1), np.exp(2), 10, 10]
    assert outside(places) == pytest.approx(wanted)


def test_critics_see_all_velocities_and_agents_those_of_prey():
    game = at([(0, 0), (1, 1)], [(0.5, 0)], prey="learned")
    game.v[0] = [(0.1, 0.2), (0.3, 0.4), (0.5, 0.6)]
    obs, state = game.obs()[0], game.state()[0]
    assert obs[0].tolist() == [0.1, 0.2, 0, 0, 1, 1, 0.5, 0, 0.5, 0.6]
    assert obs[2].tolist() == [0.5, 0.6, 0.5, 0, -0.5, 0, 0.5, 1, 0, 0]
    assert state[0].tolist() == [0.1, 0.2, 0, 0, 1, 1, 0.5, 0, 0.3, 0.4, 0.5, 0.6]
    assert state[2].tolist() == [0.5, 0.6, 0.5, 0, -0.5, 0, 0.5, 1, 0.1, 0.2, 0.3, 0.4]


def test_fleeing_prey_goes_away_from_the_nearer_chaser_and_turns_back_at_the_edge():
    game = at([(0.2, 0), (0, 0.9)], [(0, 0)])
    game.play(np.zeros((1, 2), int), np.empty((1, 0)))
    assert game.v[0, 2] == pytest.approx([-0.4, 0])
    game = at([(0.2, 0), (0, 0.9)], [(-1.5, 0)])
    game.play(np.zeros((1, 2), int), np.empty((1, 0)))
    assert game.v[0, 2] == pytest.approx([0.4, 0])


def test_random_prey_pushes_in_every_direction_alike_and_still_prey_in_none():
    for prey, shares in (("random", [0.2] * 5), ("still", [1, 0, 0, 0, 0])):
        game = Tag(replace(SCENARIOS["default"], n_chasers=1, n_obstacles=0, prey=prey), 5000)
        rng = np.random.default_rng(0)
        game.x[:, 0] = 5
        game.play(np.zeros((5000, 1), int), rng.random((5000, game.step_draws)))
        found, counts = np.unique(game.v[:, 1].round(6), axis=0, return_counts=True)
        assert len(found) == sum(share > 0 for share in shares)
        assert np.sort(counts / 5000)[::-1][: len(found)] == pytest.approx(shares[: len(found)], abs=0.02)


def test_who_is_an_agent_and_what_is_common_depends_on_who_moves_the_prey():
    scripted, learned = batched_tag(SCENARIOS["default"], 1), batched_tag(MPE, 1)
    assert scripted.possible_agents == ("adversary_0", "adversary_1") and scripted.common_reward
    assert learned.possible_agents == ("adversary_0", "adversary_1", "adversary_2", "agent_0")
    assert not learned.common_reward and learned.reward_step is None and scripted.reward_step == 1
    assert scripted.return_bounds == (0, 200) and learned.return_bounds == (-50 * 25, 30 * 25)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_chasers", 0), ("n_prey", 21), ("n_obstacles", -1), ("prey", "hide"), ("prey_speed", 0.0), ("prey_speed", 1.5),
     ("reward_scale", 0.0), ("reward_scale", float("nan")), ("horizon", 0)],
)  # fmt: skip
def test_bad_settings_are_named_in_one_line(name, value):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} must [^\n]*\\(got {value}\\)$"):
        TagConfig(**{name: value})


# What can be reached


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "continuous", "low", "high"),
    [("default", False, 1.5, 3.5), ("slow", False, 12, 15.5), ("slow", True, 12, 15.5)],
    ids=["default", "slow", "continuous"],
)
def test_chasers_catch_far_more_than_those_who_move_at_random(scenario, continuous, low, high):
    config, found = replace(SCENARIOS[scenario], continuous=continuous), {}
    for name in ("chase", "random", "stay"):
        driver = by_name(name)
        records, _ = run_episodes(batched_tag(config, 300), lambda env, seen, act=driver: act(env), 1, seed=1)
        found[name] = records["return"].mean()
        np.testing.assert_allclose(records["return"][:, 0], records["catches"], rtol=1e-6)  # a tenth of 10
    assert low < found["chase"] < high and found["random"] < 0.2 and found["stay"] < 0.2


def test_rqe_eval_measures_a_driver(capsys):
    cli.evaluate(["tag/slow", "--driver", "chase", "--episodes", "4", "--n-chasers", "3", "--horizon", "20"])
    shown = capsys.readouterr().out
    assert "catches" in shown and "caught_steps" in shown.replace(" ", "_")
