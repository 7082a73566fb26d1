"""Finite games: the model's checks, the exact computations by hand, and the sampler against the model."""

import copy
import math
import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from gymnasium.spaces import Discrete
from scipy.stats import chisquare

from rqe_mappo.envs.contract import action_counts
from rqe_mappo.envs.tabular import BatchedTabular, FiniteGame, exact, joint_policy, return_bounds, return_distribution


def ladder(horizon: int = 3, width: int = 3) -> FiniteGame:
    """Two players on the rungs 0 to 3, of which 3 is the end. If both climb (1), they rise with probability 0.7, if one
    does, with 0.2; every rise pays 1 to player 0 and costs player 1 half a point. The start is rung 0 or, with 0.4, 1.

    Outcomes: stay, rise, and padding up to `width`.
    """
    s, climb = 4, np.array([0.0, 0.2, 0.2, 0.7])
    next_state, prob = np.zeros((s, 4, width), int), np.zeros((s, 4, width))
    reward = np.zeros((2, s, 4, width))
    rungs = np.arange(s)[:, None]
    next_state[..., 0], next_state[..., 1] = rungs, np.minimum(rungs + 1, s - 1)
    prob[..., 0], prob[..., 1] = 1 - climb, climb
    reward[0, ..., 1], reward[1, ..., 1] = 1.0, -0.5
    reward[..., 2:] = 99.0  # what never happens counts nowhere
    obs = np.zeros((s, 2, 2), np.float32)
    obs[..., 0], obs[..., 1] = np.arange(s)[:, None] / 3, (0.0, 1.0)
    return FiniteGame(
        ("lead", "second"), (2, 2), next_state, prob, reward, np.arange(s) == 3, np.array([0.6, 0.4, 0, 0]), horizon,
        obs, obs[..., :1], tuple("0123"),
    )  # fmt: skip


ALWAYS = [np.tile([0.0, 1.0], (4, 1))] * 2
EVEN = [np.full((4, 2), 0.5)] * 2


# The model


def test_joint_actions_are_counted_as_numpy_does():
    game = ladder()
    assert game.n_states == 4 and game.n_joint == 4
    assert game.joint(np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError):
        game.joint(np.array([[2, 0]]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_actions": (2,)}, "n_actions must name one number a player"),
        ({"n_actions": (2, 3)}, r"prob must be \[4, 6, K\]"),
        ({"next_state": np.zeros((4, 4, 2), int)}, r"next_state must be \[4, 4, 3\]"),
        ({"next_state": np.full((4, 4, 3), 4)}, "next_state must lie in 0 to 3"),
        ({"prob": np.full((4, 4, 3), 0.3)}, "prob must be >= 0 and sum to 1"),
        ({"prob": np.tile([1.5, -0.5, 0.0], (4, 4, 1))}, "prob must be >= 0"),
        ({"reward": np.full((2, 4, 4, 3), np.nan)}, "reward must be finite"),
        ({"reward": np.zeros((1, 4, 4, 3))}, r"reward must be \[2, 4, 4, 3\]"),
        ({"start": np.array([0.0, 0.0, 0.0, 1.0])}, "start must give terminal states probability 0"),
        ({"start": np.array([0.5, 0.0, 0.0, 0.0])}, "start must be >= 0 and sum to 1"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"obs": np.zeros((4, 1, 2), np.float32)}, r"obs must be \[4, 2, D\]"),
        ({"state_names": ("a", "b")}, "state_names must be 4 or none"),
    ],
)
def test_contradictions_are_named_in_one_line(change, words):
    with pytest.raises(ValueError, match=words) as caught:
        replace(ladder(), **change)
    assert "\n" not in str(caught.value)


# Exact computations


def test_joint_policy_is_the_product():
    mixed = [np.tile([0.3, 0.7], (4, 1)), np.tile([0.1, 0.9], (4, 1))]
    np.testing.assert_allclose(joint_policy(ladder(), mixed)[0], [0.03, 0.27, 0.07, 0.63])
    moving = [np.tile([0.3, 0.7], (3, 4, 1)), mixed[1]]
    assert joint_policy(ladder(), moving).shape == (3, 4, 4)


def test_distribution_of_the_return_by_hand():
    """From rung 1 two rises end the game; three steps at 0.7: binomial, capped at two."""
    game = ladder()
    values, probs = return_distribution(game, ALWAYS, start=np.array([0.0, 1.0, 0, 0]))
    np.testing.assert_allclose(values, [0, 1, 2])
    np.testing.assert_allclose(probs, [0.027, 0.189, 0.784])
    values, probs = return_distribution(game, ALWAYS, player=1)
    np.testing.assert_allclose(values, [-1.5, -1, -0.5, 0])
    binomial = [0.343, 0.441, 0.189, 0.027]
    np.testing.assert_allclose(probs, 0.6 * np.array(binomial) + 0.4 * np.array([0, 0.784, 0.189, 0.027]))


def test_distribution_discounts_from_the_start():
    values, probs = return_distribution(ladder(horizon=2), ALWAYS, gamma=0.5, start=np.array([1.0, 0, 0, 0]))
    np.testing.assert_allclose(values, [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(probs, [0.09, 0.21, 0.21, 0.49])


def test_policies_may_change_with_time():
    first_only = [np.stack((policy, np.eye(2)[np.zeros(4, int)], np.eye(2)[np.zeros(4, int)])) for policy in ALWAYS]
    values, probs = return_distribution(ladder(), first_only)
    np.testing.assert_allclose(values, [0, 1])
    np.testing.assert_allclose(probs, [0.3, 0.7])


def test_mean_of_the_distribution_is_that_of_backward_recursion():
    game = ladder(horizon=7)
    joint = joint_policy(game, EVEN)
    for player in range(2):
        value = np.zeros(4)
        for _ in range(game.horizon):
            step = (game.prob * (game.reward[player] + 0.9 * value[game.next_state])).sum(-1)
            value = np.where(game.terminal, 0.0, (joint * step).sum(-1))
        values, probs = return_distribution(game, EVEN, player, gamma=0.9)
        assert values @ probs == pytest.approx(value @ game.start)
        assert probs.sum() == pytest.approx(1)


def test_bounds_hold_what_can_be_met_and_nothing_else():
    np.testing.assert_allclose(return_bounds(ladder()), [[0, 3], [-1.5, 0]])
    np.testing.assert_allclose(return_bounds(ladder(horizon=2)), [[0, 2], [-1, 0]])
    assert exact.reward_bounds(ladder()) == (-0.5, 1.0)


def test_bounds_hold_what_is_left_on_the_way():
    """A fee of 1 is paid before a prize of 5: the return is 4, but 5 are still to come after the fee."""
    next_state = np.array([[[1]], [[2]], [[2]]])
    game = FiniteGame(
        ("solo",), (1,), next_state, np.ones((3, 1, 1)), np.array([-1.0, 5.0, 0.0]).reshape(1, 3, 1, 1),
        np.array([False, False, True]), np.array([1.0, 0, 0]), 2, *[np.zeros((3, 1, 1), np.float32)] * 2,
    )  # fmt: skip
    np.testing.assert_allclose(return_bounds(game), [[4, 5]])
    np.testing.assert_allclose(return_distribution(game, [np.ones((3, 1))])[0], [4])


def test_grid_of_the_rewards():
    game = ladder()
    assert exact.reward_step(game) == 0.5
    assert exact.reward_step(replace(game, reward=game.reward * 0.6)) == pytest.approx(0.3)
    assert exact.reward_step(replace(game, reward=game.reward * math.pi)) is None
    assert exact.reward_step(replace(game, reward=game.reward * 0)) is None


def test_horizon_binds_where_a_game_may_still_be_on():
    assert exact.horizon_binds(ladder(horizon=100))
    climbing = ladder(horizon=3)
    climbing.prob[:, :, :2] = [0.0, 1.0]
    assert not exact.horizon_binds(climbing)
    assert exact.horizon_binds(replace(climbing, horizon=2))


# The sampler


def play(env: BatchedTabular, steps: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    return [env.step(rng.integers(0, 2, (env.num_envs, 2))) for _ in range(steps)]


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    else:
        np.testing.assert_array_equal(one, other)


def assert_same_steps(ours: list, theirs: list) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name in (
            "obs",
            "state",
            "reward",
            "cost",
            "terminated",
            "truncated",
            "final_obs",
            "final_state",
            "episodes",
        ):
            assert_same(getattr(mine, name), getattr(other, name))


def test_outcomes_come_as_often_as_the_model_says():
    """The seeds are fixed; over seeds one test in a thousand would fail."""
    game = ladder(horizon=1)
    env = BatchedTabular(game, 20_000)
    env.reset(0)
    for joint, actions in enumerate(([0, 0], [0, 1], [1, 0], [1, 1])):
        state = env.dynamics.state.copy()
        step = env.step(np.tile(actions, (env.num_envs, 1)))
        assert chisquare(np.bincount(state, minlength=2), env.num_envs * game.start[:2]).pvalue > 1e-3
        rises = np.bincount(step.reward[:, 0].astype(int), minlength=2)
        expected = env.num_envs * game.prob[0, joint, :2]
        assert rises[1] == 0 if expected[1] == 0 else chisquare(rises, expected).pvalue > 1e-3


def test_returns_follow_the_exact_distribution():
    """The first episode of every copy: what ends within a time window would count short ones too often."""
    game = ladder(horizon=4)
    env = BatchedTabular(game, 5000)
    env.reset(1)
    waiting, firsts = np.ones(env.num_envs, bool), []
    for step in play(env, 4, seed=2):
        copies = step.episodes["copy"]
        firsts.append(step.episodes["return"][waiting[copies]])
        waiting[copies] = False
    returns = np.concatenate(firsts)
    assert len(returns) == env.num_envs
    for player in range(2):
        values, probs = return_distribution(game, EVEN, player)
        counts = [(returns[:, player] == value).sum() for value in values]
        assert chisquare(counts, env.num_envs * probs).pvalue > 1e-3


def test_padding_is_never_drawn():
    env = BatchedTabular(ladder(width=40), 500)
    env.reset(0)
    assert max(step.reward.max() for step in play(env, 100, seed=0)) == 1.0


def test_records_add_up_and_ends_are_ends():
    env = BatchedTabular(ladder(horizon=3), 50, observe_time=True)
    env.reset(3)
    total, length = np.zeros((50, 2)), np.zeros(50, int)
    for step in play(env, 60, seed=3):
        total += step.reward
        length += 1
        assert not (step.terminated & step.truncated).any()
        assert (step.terminated[:, 0] == step.terminated[:, 1]).all()
        ended = np.flatnonzero((step.terminated | step.truncated)[:, 0])
        record = step.episodes
        np.testing.assert_array_equal(record["copy"], ended)
        np.testing.assert_allclose(record["return"], total[ended])
        np.testing.assert_array_equal(record["length"], np.tile(length[ended, None], 2))
        assert (length[step.truncated[:, 0]] == 3).all() and (record["cost"] == 0).all()
        assert step.final_state.shape == (step.truncated.sum(), 2)
        assert (step.final_state[:, 0] < 1).all() and (step.final_state[:, 1] == 0).all()
        np.testing.assert_array_equal(step.obs[ended, :, 2], 1.0)  # a new episode has all its time
        total[ended], length[ended] = 0, 0


def test_final_states_stand_in_the_order_of_the_truncated():
    game = ladder(horizon=1)
    marked = np.repeat(np.arange(4, dtype=np.float32)[:, None, None], 2, axis=1)
    env = BatchedTabular(replace(game, state=np.concatenate((marked, game.obs[..., 1:]), -1)), 30)
    env.reset(0)
    before = env.dynamics.state.copy()
    step = env.step(np.ones((30, 2), int))
    copies, agents = np.nonzero(step.truncated)
    np.testing.assert_array_equal(step.final_state[:, 1], agents)
    np.testing.assert_array_equal(step.final_state[:, 0], before[copies] + step.reward[copies, 0])
    np.testing.assert_array_equal(step.final_obs[:, 1], agents)
    np.testing.assert_allclose(step.final_obs[:, 0], step.final_state[:, 0] / 3, rtol=1e-6)


def test_time_left_is_shown_where_asked_for():
    env = BatchedTabular(ladder(horizon=4), 5, observe_time=True)
    assert env.time_in_observation and env.observation_space.shape == (3,) and env.state_space.shape == (2,)
    seen = [env.reset(0), *(env.step(np.zeros((5, 2), int)) for _ in range(4))]
    np.testing.assert_array_equal([now.obs[0, 1, -1] for now in seen], [1, 0.75, 0.5, 0.25, 1])
    np.testing.assert_array_equal(seen[1].state[..., -1], 0.75)
    assert not BatchedTabular(ladder(), 5).time_in_observation


def test_same_seed_same_trajectory():
    one, two, other = (BatchedTabular(ladder(), 16) for _ in range(3))
    one.reset(5)
    two.reset(1)
    play(two, 20, seed=0)
    two.reset(5)
    other.reset(6)
    ours = play(one, 50, seed=0)
    assert_same_steps(ours, play(two, 50, seed=0))
    assert any((a.obs != b.obs).any() for a, b in zip(ours, play(other, 50, seed=0), strict=True))


def test_restored_snapshot_goes_on_bitwise():
    env, fresh = (BatchedTabular(ladder(horizon=5), 16, observe_time=True) for _ in range(2))
    env.reset(0)
    last = play(env, 7, seed=0)[-1]
    saved = pickle.dumps(env.snapshot())
    ours = play(env, 40, seed=1)
    for again in (fresh, env):
        np.testing.assert_array_equal(again.restore(pickle.loads(saved)).obs, last.obs)
        assert_same_steps(ours, play(again, 40, seed=1))
    twin = copy.deepcopy(env)
    assert_same_steps(play(env, 20, seed=2), play(twin, 20, seed=2))


def test_steps_handed_out_stay_as_they_were():
    env = BatchedTabular(ladder(), 8)
    env.reset(0)
    steps = play(env, 20, seed=0)
    kept = copy.deepcopy(steps)
    play(env, 20, seed=1)
    assert_same_steps(steps, kept)
    assert all(one.obs is not other.obs for one, other in pairwise(steps))


def test_players_with_fewer_actions_than_others_are_padded_and_refused_beyond_their_own():
    game = FiniteGame(
        ("a", "b"), (2, 3), np.ones((2, 6, 1), int), np.ones((2, 6, 1)), np.zeros((2, 2, 6, 1)),
        np.array([False, True]), np.array([1.0, 0]), 1, *[np.ones((2, 2, 1), np.float32)] * 2,
    )  # fmt: skip
    env = BatchedTabular(game, 1)
    assert env.action_space == Discrete(3) and action_counts(env) == (2, 3)
    env.reset(0)
    assert env.step(np.array([[1, 2]])).terminated.all()
    with pytest.raises(ValueError, match="invalid entry"):
        env.step(np.array([[2, 0]]))


def test_no_copies_at_all_are_refused():
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        BatchedTabular(ladder(), 0)
