"""Gambles, matrix games and the cliff walk: exact distributions, thresholds, rules by hand, public forms, runs."""

import pickle
import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from rqe_mappo import registry
from rqe_mappo.config import default_config
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs import cliff_walk, gambles, matrix_games, step_games
from rqe_mappo.envs.cliff_walk.model import WORLDS, Grid
from rqe_mappo.envs.gambles import RISKY, SAFE, BatchedGamble, GambleConfig, GambleEnv, PathConfig, gamble_game
from rqe_mappo.envs.tabular import return_distribution
from rqe_mappo.training.loop import train

Distribution = tuple[np.ndarray, np.ndarray]
BATCHES = [
    (gambles.BatchedGamble, gambles.SCENARIOS["m3"]),
    (gambles.BatchedGamble, gambles.SCENARIOS["m5"]),
    (matrix_games.BatchedMatrix, matrix_games.SCENARIOS["sc1"]),
    (matrix_games.BatchedMatrix, matrix_games.SCENARIOS["risky-safe"]),
    (cliff_walk.BatchedCliff, cliff_walk.CliffConfig(horizon=8)),
    (cliff_walk.BatchedCliff, cliff_walk.SCENARIOS["authors"]),
    (step_games.BatchedStepGame, step_games.SCENARIOS["two-step"]),
    (step_games.BatchedStepGame, step_games.MStepConfig(steps=4, good_branches=4)),
]


# Risk of a distribution with few values, straight from the definitions


def entropic(distribution: Distribution, tau: float) -> float:
    return -tau * np.log(np.exp(-distribution[0] / tau) @ distribution[1])


def variance(distribution: Distribution) -> float:
    return (distribution[0] - distribution[0] @ distribution[1]) ** 2 @ distribution[1]


def distorted(distribution: Distribution, distortion) -> float:
    """Sum of z_i (D(F_i) - D(F_{i-1})): the distorted mean, D increasing on [0, 1]."""
    cdf = np.concatenate(([0.0], distribution[1].cumsum().clip(max=1.0)))
    return distribution[0] @ np.diff(distortion(cdf))


def cvar(distribution: Distribution, level: float) -> float:
    return distorted(distribution, lambda u: np.minimum(u / level, 1))


def expectile(distribution: Distribution, level: float) -> float:
    def balance(e):
        return (np.where(distribution[0] > e, level, 1 - level) * (distribution[0] - e)) @ distribution[1]

    return brentq(balance, distribution[0].min() - 1, distribution[0].max() + 1)


MEASURES = {  # with an interval that holds the threshold; the higher end is the more tolerant one where `up`
    "entropic": (entropic, 2, 50),
    "cvar": (cvar, 0.1, 0.999),
    "mean-variance": (lambda distribution, b: distribution[0] @ distribution[1] - b * variance(distribution), 0, 1),
    "mean-std": (lambda distribution, k: distribution[0] @ distribution[1] - k * variance(distribution) ** 0.5, 0, 1),
    "expectile": (expectile, 0.1, 0.5),
    "dual power": (lambda distribution, k: distorted(distribution, lambda u: 1 - (1 - u) ** k), 1, 3),
    "wang": (lambda distribution, shift: distorted(distribution, lambda u: ndtr(ndtri(u) + shift)), 0, 2),
    "gini": (lambda distribution, g: distorted(distribution, lambda u: u + g * u * (1 - u)), 0, 1),
}
GAMBLE_THRESHOLDS = {
    "entropic": 8.8321, "cvar": 6 / 7, "mean-variance": 1 / 18, "mean-std": 1 / 6, "expectile": 5 / 12,
    "dual power": 1.2630, "wang": 0.2104, "gini": 1 / 3,
}  # fmt: skip
CLIFF_THRESHOLDS = {"entropic": 13.29, "cvar": 0.6206, "mean-variance": 0.0482, "mean-std": 0.2494, "expectile": 0.3579}


def distribution_of(scenario: str, *actions: int, gamma: float = 1.0, first: str | None = None) -> Distribution:
    """The return when `actions` are taken at the choices, in the order of the states; from state `first`."""
    game = gamble_game(gambles.SCENARIOS[scenario])
    policy = np.tile([1.0, 0.0], (game.n_states, 1))
    choices = [i for i, name in enumerate(game.state_names) if name.startswith("choice")]
    policy[choices] = np.eye(2)[list(actions)]
    start = None if first is None else np.eye(game.n_states)[game.state_names.index(first)]
    return return_distribution(game, [policy], gamma=gamma, start=start)


def mixed(*distributions: Distribution) -> Distribution:
    """One of the distributions, at even odds."""
    values, probs = (np.concatenate(parts) for parts in zip(*distributions, strict=True))
    order = values.argsort()
    return values[order], probs[order] / len(distributions)


@pytest.mark.parametrize(
    ("scenario", "measure", "threshold"),
    [(scenario, *item) for scenario in ("m1", "m2") for item in GAMBLE_THRESHOLDS.items()]
    + [("m5", *item) for item in CLIFF_THRESHOLDS.items()],
)
def test_thresholds(scenario, measure, threshold):
    value, low, high = MEASURES[measure]
    safe, risky = distribution_of(scenario, SAFE), distribution_of(scenario, RISKY)
    found = brentq(lambda x: value(risky, x) - value(safe, x), low, high)
    assert found == pytest.approx(threshold, rel=5e-4)
    tolerant = high if measure in ("entropic", "cvar", "expectile") else low
    assert value(risky, tolerant) > value(safe, tolerant)


@pytest.mark.parametrize("scenario", ["m1", "m2", "m4"])
def test_the_gamble_itself(scenario):
    values, probs = distribution_of(scenario, RISKY)
    assert values.tolist() == [-2, 4] and probs.tolist() == [0.5, 0.5]
    assert distribution_of(scenario, SAFE)[0].tolist() == [0.5]


def test_mean_and_variance_along_the_cliff():
    short = distribution_of("m5", RISKY)
    assert short[0] @ short[1] == pytest.approx(2.2901, abs=5e-5)
    assert variance(short) == pytest.approx(26.764, abs=5e-4)
    assert distribution_of("m5", SAFE)[0] == pytest.approx(1.0)
    assert gamble_game(gambles.SCENARIOS["m5"]).horizon == 20


def test_static_and_nested_differ_where_the_prize_is_seen():
    static = {
        (low, high): cvar(distribution_of("m3", low, high), 0.5) for low in (SAFE, RISKY) for high in (SAFE, RISKY)
    }
    assert static[SAFE, SAFE] == pytest.approx(1.0)
    assert static[RISKY, SAFE] == static[RISKY, RISKY] == pytest.approx(1.5) == max(static.values())
    for state in ("choice without", "choice with prize"):
        assert cvar(distribution_of("m3", SAFE, SAFE, first=state), 0.5) == pytest.approx(1.0)
        assert cvar(distribution_of("m3", RISKY, RISKY, first=state), 0.5) == pytest.approx(-1.0)


def test_memory_pays_where_the_prize_is_hidden():
    def with_prize(prize, action):
        values, probs = distribution_of("m3b", action, first="choice")
        return values + prize, probs

    remembering = {(low, high): mixed(with_prize(0, low), with_prize(6, high)) for low in (0, 1) for high in (0, 1)}
    for action in (SAFE, RISKY):
        np.testing.assert_allclose(remembering[action, action][0], distribution_of("m3b", action)[0])
    values = {actions: cvar(distribution, 0.5) for actions, distribution in remembering.items()}
    assert values == pytest.approx({(SAFE, SAFE): 1, (SAFE, RISKY): 1, (RISKY, SAFE): 2, (RISKY, RISKY): 0})
    averse = {actions: entropic(distribution, 3.0) for actions, distribution in remembering.items()}
    assert averse[SAFE, SAFE] == pytest.approx(2.699, abs=5e-4) == max(averse.values())


def test_discounting_halves_the_static_threshold():
    def threshold(**view):
        return brentq(
            lambda tau: (
                entropic(distribution_of("m4", RISKY, **view), tau) - entropic(distribution_of("m4", SAFE, **view), tau)
            ),
            2,
            50,
        )

    assert threshold(gamma=0.5) == pytest.approx(4.416, abs=1e-3)
    assert threshold(first="choice") == pytest.approx(8.832, abs=1e-3)
    assert default_config("gamble", "m4").gamma == 0.5


@pytest.mark.parametrize("scenario", list(gambles.SCENARIOS))
def test_gambles_never_meet_their_horizon(scenario):
    env = BatchedGamble(gambles.SCENARIOS[scenario], 64)
    assert env.time_in_observation
    env.reset(0)
    rng = np.random.default_rng(0)
    for _ in range(3 * env.horizon):
        assert not env.step(rng.integers(0, 2, (64, 1))).truncated.any()


def test_gambling_is_recorded_for_each_prize():
    for scenario, prize in (("m3", 10), ("m3b", 6)):
        env = BatchedGamble(gambles.SCENARIOS[scenario], 4000)
        env.reset(0)
        first = env.step(np.ones((4000, 1), int))  # before the choice, so this is no gambling
        risky = (first.reward == 0) & (np.random.default_rng(0).random((4000, 1)) < 0.25)
        episodes = env.step(risky.astype(int)).episodes
        np.testing.assert_array_equal(episodes["gambled"], risky)
        np.testing.assert_array_equal(episodes["banked"], first.reward)
        assert episodes["gambled"].dtype == bool
        assert set(np.unique(episodes["banked"])) == {0, prize}


def test_hidden_prize_shows_nowhere():
    env = BatchedGamble(gambles.SCENARIOS["m3b"], 100)
    env.reset(0)
    step = env.step(np.zeros((100, 1), int))
    assert len(np.unique(step.reward)) == 2
    assert len(np.unique(step.obs, axis=0)) == len(np.unique(step.state, axis=0)) == 1
    shown = BatchedGamble(gambles.SCENARIOS["m3"], 100)
    shown.reset(0)
    assert len(np.unique(shown.step(np.zeros((100, 1), int)).obs, axis=0)) == 2


# Matrix games


@pytest.mark.parametrize("scenario", list(matrix_games.GAMES))
def test_matrix_games_pay_what_the_table_says(scenario):
    config = matrix_games.SCENARIOS[scenario]
    payoffs = matrix_games.GAMES[config.game].payoffs
    actions = np.indices(payoffs.shape[1:]).reshape(2, -1).T
    env = matrix_games.BatchedMatrix(config, len(actions))
    env.reset(0)
    step = env.step(actions)
    np.testing.assert_allclose(step.reward, payoffs[:, actions[:, 0], actions[:, 1]].T, rtol=1e-6)
    np.testing.assert_array_equal(step.episodes["action"], actions)
    assert step.terminated.all() and (step.obs == 1).all() and (step.state == 1).all()
    assert env.time_in_observation
    assert env.reward_bounds == env.return_bounds == (payoffs.min(), payoffs.max())


def test_matrix_games_may_have_any_shape():
    payoffs = np.arange(36.0).reshape(3, 2, 3, 2)
    game = matrix_games.matrix_game(matrix_games.MatrixGame("odd", payoffs, (("a", "b"),) * 3, "none"))
    assert game.n_actions == (2, 3, 2) and game.players == ("player_0", "player_1", "player_2")
    assert game.reward[2, 0, game.joint(np.array([1, 2, 0])), 0] == payoffs[2, 1, 2, 0]


# The cliff walk


def pair(grid: Grid, one: tuple[int, int], two: tuple[int, int]) -> int:
    """The state of two cells (row, column)."""
    cells = [np.flatnonzero((grid.row == row) & (grid.column == column))[0] for row, column in (one, two)]
    return int(cells[0] * grid.size + cells[1])


def outcome(game, state: int, actions: tuple[int, int]) -> tuple[dict[int, float], dict[int, np.ndarray]]:
    """Probability and rewards of each next state."""
    joint = int(game.joint(np.array(actions)))
    probs, rewards = {}, {}
    for k in np.flatnonzero(game.prob[state, joint]):
        following = int(game.next_state[state, joint, k])
        probs[following] = probs.get(following, 0.0) + game.prob[state, joint, k]
        rewards[following] = game.reward[:, state, joint, k]
    return probs, rewards


UP, DOWN, LEFT, RIGHT, STAY = range(5)


def test_far_apart_both_move_as_meant_nine_times_in_ten():
    grid, game = Grid.of("6x6"), cliff_walk.cliff_game(cliff_walk.SCENARIOS["default"])
    probs, _ = outcome(game, pair(grid, (1, 1), (1, 4)), (RIGHT, STAY))
    assert len(probs) == 17 and sum(probs.values()) == pytest.approx(1)
    assert probs[pair(grid, (1, 2), (1, 4))] == pytest.approx(0.9)
    assert probs[pair(grid, (1, 2), (2, 4))] == pytest.approx(0.1 / 16)


@pytest.mark.parametrize(("other", "chance"), [((2, 2), 0.5), ((1, 1), 0.5), ((2, 1), 0.5), ((1, 3), 0.9)])
def test_near_each_other_both_are_unsteady(other, chance):
    grid, game = Grid.of("6x6"), cliff_walk.cliff_game(cliff_walk.SCENARIOS["default"])
    probs, _ = outcome(game, pair(grid, (1, 1), other), (STAY, STAY))
    assert probs[pair(grid, (1, 1), other)] == pytest.approx(chance)


def test_at_the_edge_moves_and_slips_stay_within_the_grid():
    grid, game = Grid.of("6x6"), cliff_walk.cliff_game(cliff_walk.SCENARIOS["default"])
    probs, _ = outcome(game, pair(grid, (0, 0), (0, 5)), (UP, RIGHT))
    assert probs[pair(grid, (0, 0), (0, 5))] == pytest.approx(0.9)
    slips = [pair(grid, one, two) for one in ((1, 0), (0, 1)) for two in ((1, 5), (0, 4))]
    assert [probs[state] for state in slips] == pytest.approx([0.025] * 4)


def test_cliff_and_goal_pay_once_and_hold():
    config = cliff_walk.CliffConfig(step_reward=-0.1)
    grid, game = Grid.of("6x6"), cliff_walk.cliff_game(config)
    before, after = pair(grid, (3, 1), (3, 5)), pair(grid, (4, 1), (3, 4))
    probs, rewards = outcome(game, before, (DOWN, LEFT))
    assert probs[after] == pytest.approx(0.9 + 0.1 / 12)
    assert rewards[after].tolist() == [-2.0, -0.1]
    assert not game.terminal[after]
    probs, rewards = outcome(game, after, (UP, STAY))
    assert set(probs) == {pair(grid, (4, 1), two) for two in ((3, 4), (2, 4), (4, 4), (3, 3), (3, 5))}
    assert all(reward[0] == 0 for reward in rewards.values())
    assert rewards[pair(grid, (4, 1), (4, 4))].tolist() == [0.0, -2.0]
    assert game.terminal[pair(grid, (4, 1), (4, 4))] and game.terminal[pair(grid, (5, 2), (5, 3))]
    home = pair(grid, (5, 2), (4, 3))
    assert outcome(game, home, (UP, DOWN))[1][pair(grid, (5, 2), (5, 3))].tolist() == [0.0, 1.0]


def test_the_others_goal_is_a_cell_like_any_other():
    grid, game = Grid.of("6x6"), cliff_walk.cliff_game(cliff_walk.SCENARIOS["default"])
    assert game.start[pair(grid, (0, 0), (0, 5))] == 1
    for mine, goal in (((5, 3), False), ((5, 2), True)):
        probs, _ = outcome(game, pair(grid, mine, (0, 5)), (UP, STAY))
        stayed = probs.get(pair(grid, mine, (0, 5)), 0.0)
        assert stayed == pytest.approx(0.9 if goal else 0.0)


def test_authors_world():
    """Four actions, fifteen steps, and at every step the worth of the cell where it begins."""
    grid, game = Grid.of("4x3"), cliff_walk.cliff_game(cliff_walk.SCENARIOS["authors"])
    assert WORLDS["4x3"] == ("1.a", "#..", "#..", "0.b")
    assert game.n_actions == (4, 4) and game.horizon == 15 and not game.terminal.any()
    assert game.start[pair(grid, (0, 2), (3, 2))] == 1
    cases = {((0, 0), (3, 0)): (0.1, 0.1), ((3, 0), (0, 0)): (1, 1), ((1, 0), (0, 1)): (-2, 0.1)}
    for cells, worth in cases.items():
        state = pair(grid, *cells)
        np.testing.assert_allclose(game.reward[:, state], np.broadcast_to(np.reshape(worth, (2, 1, 1)), (2, 16, 17)))
    probs, _ = outcome(game, pair(grid, (1, 0), (0, 1)), (RIGHT, RIGHT))  # near a fallen agent one is unsteady too
    assert probs[pair(grid, (1, 0), (0, 2))] == pytest.approx(0.5 + 0.5 / 3)


def test_two_that_plan_together_reach_this_much():
    """Backward induction over joint actions, which docs/games.md quotes."""
    game = cliff_walk.cliff_game(cliff_walk.SCENARIOS["default"])
    gain = (game.prob * game.reward.sum(0)).sum(-1)
    value = np.zeros(game.n_states)
    for _ in range(game.horizon):
        before = value
        value = np.where(game.terminal, 0.0, (gain + (game.prob * before[game.next_state]).sum(-1)).max(-1))
        if np.abs(value - before).max() < 1e-6:
            break
    assert value @ game.start / 2 == pytest.approx(0.687, abs=5e-4)


@pytest.mark.parametrize(("other_is_home", "mean", "threshold"), [(False, 0.917, 0.5905), (True, 0.445, 1.7261)])
def test_below_this_tolerance_it_is_better_to_hide(other_is_home, mean, threshold):
    """Agent 0 against a partner that stays at its start, or is home: what docs/games.md says of walking and hiding."""
    grid, game = Grid.of("6x6"), cliff_walk.cliff_game(cliff_walk.SCENARIOS["default"])
    partner = grid.goal[1] if other_is_home else grid.start[1]
    start = grid.start[0] * grid.size + partner
    joint = [int(game.joint(np.array([action, STAY]))) for action in range(5)]
    prob, following, reward = game.prob[:, joint], game.next_state[:, joint], game.reward[0][:, joint]

    def averse(tau: float) -> float:
        """The best entropic value, by backward induction on E exp(-Z / tau)."""
        weight, cost = prob * np.exp(-reward / tau), np.ones(game.n_states)
        for _ in range(game.horizon):
            cost = np.where(game.terminal, 1.0, (weight * cost[following]).sum(-1).min(-1))
        return -tau * np.log(cost[start])

    assert averse(1e6) == pytest.approx(mean, abs=5e-4)
    assert averse(0.98 * threshold) < 0 < averse(1.02 * threshold)


def test_cliff_shows_both_cells_own_first():
    grid = Grid.of("6x6")
    env = cliff_walk.BatchedCliff(cliff_walk.SCENARIOS["default"], 2)
    seen = env.reset(0)
    assert env.time_in_observation and seen.obs.shape == (2, 2, 73)
    first, second = grid.start
    assert np.flatnonzero(seen.obs[0, 0]).tolist() == [first, 36 + second, 72]
    assert np.flatnonzero(seen.state[0, 1]).tolist() == [second, 36 + first, 72]


def test_falls_and_goals_are_recorded():
    env = cliff_walk.BatchedCliff(replace(cliff_walk.SCENARIOS["default"], horizon=40), 200)
    env.reset(0)
    rng, costs = np.random.default_rng(0), np.zeros((200, 2))
    records = []
    for _ in range(400):
        step = env.step(rng.integers(0, 5, (200, 2)))
        costs += step.cost
        ended = step.episodes["copy"]
        np.testing.assert_array_equal(step.episodes["fell"], costs[ended] == 1)
        costs[ended] = 0
        records.append(step.episodes)
    fell, home, returns = (np.concatenate([r[name] for r in records]) for name in ("fell", "reached_goal", "return"))
    assert fell.any() and home.any() and not (fell & home).any()
    np.testing.assert_array_equal(returns, np.where(fell, -2.0, np.where(home, 1.0, 0.0)))
    assert env.reward_step == 1.0 and env.return_bounds == (-2.0, 1.0)


# Everything that the learner relies on


def trajectory(env, steps: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    shape = (env.num_envs, len(env.possible_agents))
    return [env.step(rng.integers(0, env.action_space.n, shape)) for _ in range(steps)]


def assert_same_steps(ours: list, theirs: list) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("obs", "state", "reward", "cost", "terminated", "truncated", "final_obs", "final_state"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
        assert mine.episodes.keys() == other.episodes.keys()
        for key, value in mine.episodes.items():
            np.testing.assert_array_equal(value, other.episodes[key])


@pytest.mark.parametrize(("factory", "config"), BATCHES)
def test_contract(factory, config):
    env = factory(config, 32)
    agents = len(env.possible_agents)
    seen = env.reset(0)
    total, length = np.zeros((32, agents)), np.zeros(32, int)
    for step in (seen, *trajectory(env, 60, seed=0)):
        assert step.obs.shape == (32, agents, *env.observation_space.shape) and step.obs.dtype == np.float32
        assert step.state.shape == (32, agents, *env.state_space.shape) and step.state.dtype == np.float32
        assert all(env.observation_space.contains(row) for row in step.obs.reshape(32 * agents, -1))
        assert step.active.all()
        if step is seen:
            continue
        total += step.reward
        length += 1
        low, high = env.reward_bounds
        assert step.reward.dtype == np.float32
        assert low - 1e-6 <= step.reward.min() and step.reward.max() <= high + 1e-6
        grid = step.reward / env.reward_step
        np.testing.assert_allclose(grid, np.round(grid), atol=1e-4)
        assert len(step.final_obs) == len(step.final_state) == step.truncated.sum()
        ended, record = step.episodes["copy"], step.episodes
        np.testing.assert_array_equal(ended, np.flatnonzero((step.terminated | step.truncated)[:, 0]))
        np.testing.assert_allclose(record["return"], total[ended], atol=1e-5)
        np.testing.assert_array_equal(record["length"], np.tile(length[ended, None], agents))
        assert all(len(value) == len(ended) for value in record.values())
        assert (length <= env.horizon).all()
        assert (total >= env.return_bounds[0] - 1e-5).all() and (total <= env.return_bounds[1] + 1e-5).all()
        total[ended], length[ended] = 0, 0


@pytest.mark.parametrize(("factory", "config"), BATCHES)
def test_seeds_and_snapshots(factory, config):
    one, two = factory(config, 16), factory(config, 16)
    one.reset(5)
    two.reset(5)
    assert_same_steps(trajectory(one, 13, seed=0), trajectory(two, 13, seed=0))
    saved = pickle.dumps(one.snapshot())
    ours = trajectory(one, 30, seed=1)
    for again in (factory(config, 16), one):
        again.restore(pickle.loads(saved))
        assert_same_steps(ours, trajectory(again, 30, seed=1))


@pytest.mark.parametrize("scenario", list(gambles.SCENARIOS))
def test_gymnasium_accepts_gambles(scenario):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("rqe/Gamble-v0", scenario=scenario).unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    "env",
    [
        lambda: matrix_games.parallel_env("sc7"),
        lambda: cliff_walk.parallel_env(horizon=30),
        lambda: cliff_walk.parallel_env("authors"),
    ],
)
def test_pettingzoo_accepts_games(env):
    parallel_api_test(env(), num_cycles=200)


def test_single_and_batched_gambles_follow_the_same_distribution():
    env = GambleEnv("m2")
    returns = []
    env.reset(seed=0)
    for _ in range(400):
        observation, first, *_ = env.step(RISKY)
        assert observation.tolist() == [0, 0, 1]
        _, second, terminated, truncated, _ = env.step(SAFE)
        assert first == 0 and terminated and not truncated
        returns.append(second)
        env.reset()
    assert set(returns) == {-2.0, 4.0} and np.mean(returns) == pytest.approx(1.0, abs=0.6)


def test_single_forms_refuse_what_cannot_be():
    env = GambleEnv("m1")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must lie in 0 to 1"):
        env.step(2)
    game = matrix_games.parallel_env()
    game.reset(seed=0)
    with pytest.raises(ValueError, match="missing: player_1"):
        game.step({"player_0": 0})
    with pytest.raises(ValueError, match="scenario chess is unknown: use default, ghp4"):
        matrix_games.parallel_env("chess")
    with pytest.raises(ValueError, match="argument slip is unknown in scenario default: use world"):
        cliff_walk.parallel_env(slip=0.2)


def test_cliff_tells_who_fell():
    env = cliff_walk.parallel_env(move_probability=1.0, near_probability=1.0)
    env.reset(seed=0)
    for _ in range(3):
        env.step({"agent_0": DOWN, "agent_1": LEFT})
    _, rewards, terminated, _, infos = env.step({"agent_0": DOWN, "agent_1": UP})
    assert rewards == {"agent_0": -2.0, "agent_1": 0.0} and not any(terminated.values())
    assert infos == {"agent_0": {"cost": 1.0}, "agent_1": {"cost": 0.0}}
    _, rewards, terminated, _, infos = env.step({"agent_0": UP, "agent_1": LEFT})
    assert rewards["agent_0"] == 0.0 and infos["agent_0"]["cost"] == 0.0
    assert env.state().shape == env.state_space.shape == (2, 73)


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [(GambleConfig, "win_probability", 1.5), (GambleConfig, "win", -3.0), (GambleConfig, "kind", "soon"),
     (GambleConfig, "sure", float("inf")), (PathConfig, "short_steps", 0), (PathConfig, "slip_probability", -0.1),
     (PathConfig, "goal_reward", float("nan")), (matrix_games.MatrixConfig, "game", "chess"),
     (cliff_walk.CliffConfig, "world", "7x7"), (cliff_walk.CliffConfig, "pay", "twice"),
     (cliff_walk.CliffConfig, "horizon", 0), (cliff_walk.CliffConfig, "near_probability", 2.0)],
)  # fmt: skip
def test_bad_settings_are_named_in_one_line(build, name, value):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} must [^\n]* \\(got {value}\\)$"):
        build(**{name: value})


def test_registry_knows_all_and_says_so():
    games = ["gamble", "matrix", "cliff", "step-games", "predator-prey", "macf", "kitchen", "stag-hunt", "tag"]
    assert list(registry.ENVIRONMENTS)[-9:] == games
    with pytest.raises(
        ValueError,
        match=r"^--env chess is unknown: use cartpole, .*, predator-prey, macf, kitchen, stag-hunt or tag$",
    ):
        registry.environment("chess")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "scenario"),
    [
        ("gamble", "m3b"),
        ("gamble", "m4"),
        ("gamble", "m5"),
        ("matrix", "sc1"),
        ("cliff", "authors"),
        ("step-games", "m-step"),
    ],
)
def test_short_runs(tmp_path, env, scenario):
    """Small networks rather than tables, so that this holds whatever the recipes' networks are."""
    config = default_config(env, scenario).replace(
        total_timesteps=2000, num_envs=16, num_steps=16, eval_episodes=0,
        actor_hidden=(8,), critic_hidden=(8,), out=str(tmp_path / "run"),
    )  # fmt: skip
    policy = Policy.load(train(config))
    assert policy.timesteps >= 2000
    copies = registry.load(registry.environment(env).factory)(config.env_config, 4)
    seen = copies.reset(0)
    actions = policy.act(seen.obs, np.broadcast_to(np.arange(len(policy.agents)), seen.active.shape))
    assert actions.shape == seen.active.shape and copies.action_space.contains(actions.max())


@pytest.mark.slow
def test_a_table_learns_the_right_choice(tmp_path):
    """Half of the threshold of `m2` and twice that: safe, then risky."""
    config = default_config("gamble", "m2").replace(total_timesteps=30_000, eval_episodes=0, learning_rate=1e-2)
    for tau, right in ((4.4, SAFE), (17.7, RISKY)):
        policy = Policy.load(train(config.replace(tau=tau, out=str(tmp_path / f"{tau}"))))
        assert policy.probabilities(np.array([1, 0, 0], np.float32))[right] > 0.8
