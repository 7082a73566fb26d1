"""The cliff walk for two, against its rules and its authors."""

from dataclasses import replace

import numpy as np
import pytest

from rqe_mappo.envs import cliff_walk
from rqe_mappo.envs.cliff_walk.model import WORLDS, Grid

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
