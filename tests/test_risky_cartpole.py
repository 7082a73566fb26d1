"""Risky CartPole: physics as Gymnasium's, wind as stated, and the same numbers in every form."""

import copy
import math
import pickle
import warnings
from dataclasses import replace
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scipy.stats import binomtest, bootstrap, kstest, norm

from rqe_mappo.envs.risky_cartpole import SCENARIOS, BatchedRiskyCartPole, RiskyCartPoleConfig, RiskyCartPoleEnv
from rqe_mappo.envs.risky_cartpole.dynamics import STEP_S, CartPoleDynamics
from rqe_mappo.envs.risky_cartpole.scripted import first_episodes, lqr, lqr_gain

GUSTY = RiskyCartPoleConfig(rate0_hz=2.0, rate1_hz=5.0)


def assert_same(ours, theirs) -> None:
    """Equal bit for bit, through dicts and arrays of objects."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    else:
        np.testing.assert_array_equal(ours, theirs)


# Gymnasium's interfaces


@pytest.mark.parametrize("scenario", ["calm", "default", "storm"])
def test_check_env_finds_nothing(scenario):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("rqe/RiskyCartPole-v0", scenario=scenario).unwrapped, skip_render_check=True)
        check_env(RiskyCartPoleEnv(scenario), skip_render_check=True)


def test_cartpole_v1_has_gymnasiums_spaces():
    ours, theirs = RiskyCartPoleEnv("cartpole-v1"), gymnasium.make("CartPole-v1")
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space


@pytest.mark.slow
def test_cartpole_v1_gives_gymnasiums_trajectories():
    ours = gymnasium.make("rqe/RiskyCartPole-v0", scenario="cartpole-v1")
    theirs = gymnasium.make("CartPole-v1")
    rng = np.random.default_rng(0)
    steps = falls = time_limits = 0
    for seed in range(20):
        seen = ours.reset(seed=seed)[0]
        np.testing.assert_array_equal(seen, theirs.reset(seed=seed)[0])
        held = seed % 4 == 0  # every fourth episode is driven well enough to meet the time limit
        over = False
        while not over:
            action = int(lqr_gain() @ seen < 0) if held else int(rng.integers(2))
            seen, reward, terminated, truncated, _ = ours.step(action)
            expected, *outcome, _ = theirs.step(action)
            np.testing.assert_array_equal(seen, expected)
            assert [reward, terminated, truncated] == outcome
            over = terminated or truncated
            steps, falls, time_limits = steps + 1, falls + terminated, time_limits + truncated
    assert (falls, time_limits) == (15, 5)
    assert steps > 2700


def test_a_vector_of_one_equals_gymnasiums_vector_of_one():
    ours = gymnasium.make_vec(
        "rqe/RiskyCartPole-v0", 1, vectorization_mode="vector_entry_point", scenario="storm", rate0_hz=5.0
    )
    single = lambda: RiskyCartPoleEnv("storm", rate0_hz=5.0)  # noqa: E731
    theirs = SyncVectorEnv([single], autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    rng, ends = np.random.default_rng(3), 0
    for _ in range(300):
        actions = rng.integers(0, 2, 1)
        mine, other = ours.step(actions), theirs.step(actions)
        for ours_part, their_part in zip(mine[:-1], other[:-1], strict=True):
            assert_same(ours_part, their_part)
        assert_same({key: mine[-1][key] for key in other[-1]}, other[-1])
        ended = mine[2] | mine[3]
        assert (mine[-1]["_cost"] == ~ended).all()  # Gymnasium leaves out a key that nobody has; we only mask it
        ends += int(ended[0])
    assert ends > 5


def test_a_vector_equals_single_carts_given_the_same_gusts():
    vector = gymnasium.make_vec(
        "rqe/RiskyCartPole-v0", 16, vectorization_mode="vector_entry_point", rate0_hz=3.0, horizon=60
    )
    singles = [RiskyCartPoleEnv(rate0_hz=0.0, rate1_hz=0.0, horizon=60) for _ in range(16)]
    vector.reset(seed=0)
    for single in singles:
        single.reset(seed=0)
    rng, gusts = np.random.default_rng(1), 0
    for _ in range(200):
        before = vector.unwrapped.dynamics.values.copy()
        actions = rng.integers(0, 2, 16)
        seen, rewards, terminations, truncations, infos = vector.step(actions)
        ended = terminations | truncations
        forces = np.where(ended, infos.get("final_info", {}).get("gust", 0.0), infos.get("gust", 0.0))
        gusts += np.count_nonzero(forces)
        for i, single in enumerate(singles):
            single.dynamics.values[:, 0] = before[:, i]
            single.dynamics.wind[:] = forces[i]
            single.ended = False
            last, reward, terminated, truncated, info = single.step(int(actions[i]))
            assert (reward, terminated, truncated) == (rewards[i], terminations[i], truncations[i])
            assert info == {"cost": float(terminated), "gust": forces[i]}
            expected = infos["final_obs"][i] if ended[i] else seen[i]
            np.testing.assert_allclose(last[[0, 1, 2, 3, 5]], expected[[0, 1, 2, 3, 5]], rtol=0, atol=1e-6)
    assert gusts > 100


# Wind


def blow(config: RiskyCartPoleConfig, x_m: float, carts: int, steps: int) -> np.ndarray:
    """Wind force `[steps, carts]` on carts held at `x_m`."""
    dynamics, rng = CartPoleDynamics(config, carts), np.random.default_rng(0)
    dynamics.reset(rng)
    forces = np.empty((steps, carts))
    for t in range(steps):
        dynamics.values[:4] = [[x_m], [0.0], [0.0], [0.0]]
        dynamics.step(np.zeros(carts, int), rng)
        forces[t] = dynamics.gust_n
    return forces


@pytest.mark.parametrize(
    ("reward", "x_m", "rate_hz"),
    [("windy-side", -2.0, 0.2), ("windy-side", 0.6, 1.45), ("windy-side", 2.4, 5.2), ("survival", -1.0, 5.2)],
)
def test_gusts_come_at_the_stated_rate(reward, x_m, rate_hz):
    config = RiskyCartPoleConfig(reward=reward, rate0_hz=0.2, rate1_hz=5.0)
    forces = blow(config, x_m, carts=2000, steps=100)
    free = np.zeros(2000, int)
    starts = chances = 0
    for now in forces:  # a gust blocks the 4 steps that follow its first
        chances += np.count_nonzero(free == 0)
        begins = (free == 0) & (now != 0)
        starts += np.count_nonzero(begins)
        free = np.where(begins, config.gust_steps - 1, np.maximum(free - 1, 0))
    interval = binomtest(starts, chances).proportion_ci(0.99)
    assert interval.low <= 1 - math.exp(-rate_hz * STEP_S) <= interval.high


def test_gusts_are_lognormal_of_either_sign_and_last_five_steps():
    config = RiskyCartPoleConfig(rate0_hz=0.2)
    forces = blow(config, -1.0, carts=4000, steps=200)
    lengths, strengths = [], []
    for wind in forces.T:
        edges = np.flatnonzero(np.diff(wind, prepend=0.0, append=0.0))
        for begin, end in pairwise(edges):
            if wind[begin] != 0 and end < len(wind):  # the last one may be cut off by the end of the record
                lengths.append(end - begin)
                strengths.append(wind[begin])
    assert set(lengths) == {5}
    strengths = np.array(strengths)
    logs = np.log(np.abs(strengths))
    assert kstest(logs, norm(math.log(11.0), 0.6).cdf).pvalue > 0.01
    below = np.count_nonzero(np.abs(strengths) < 11.0)
    for count in (below, np.count_nonzero(strengths > 0)):
        interval = binomtest(count, len(strengths)).proportion_ci(0.99)
        assert interval.low <= 0.5 <= interval.high


def test_wind_is_seen_when_it_starts_and_never_before():
    env = RiskyCartPoleEnv(rate0_hz=3.0, gust_steps=3)
    gusts = 0
    for seed in range(60):
        shown = [env.reset(seed=seed)[0][4] * 10]
        acted, over = [], False
        while not over:
            seen, _, terminated, truncated, info = env.step(len(acted) % 2)
            shown.append(seen[4] * 10)
            acted.append(info["gust"])
            over = terminated or truncated
        for t, force in enumerate(acted):
            if force != 0 and shown[t] == 0:  # step t is the first of a gust
                gusts += 1
                rest = np.array(shown[t + 1 : t + 4])
                np.testing.assert_allclose(rest, np.array([force, force, 0.0])[: len(rest)], rtol=1e-6)
        assert all(force == pytest.approx(wind) for wind, force in zip(shown, acted, strict=False) if wind)
    assert gusts > 20


def test_wind_pushes_the_cart_as_the_drivers_push_does():
    env = BatchedRiskyCartPole(SCENARIOS["calm"], 2)
    env.reset(0)
    env.dynamics.values[:4] = 0.0
    env.dynamics.wind[1] = 20.0  # with a push to the left: 10 N to the right in all
    env.dynamics.gust_left[1] = 5
    env.step(np.array([[1], [0]]))
    np.testing.assert_array_equal(env.dynamics.values[:4, 0], env.dynamics.values[:4, 1])
    # from rest, 10 N: theta_acc = -(10/1.1) / (0.5 (4/3 - 0.1/1.1)) = -600/41, x_acc = 10/1.1 + 0.05 (600/41) / 1.1
    assert env.dynamics.theta_dot[0] == pytest.approx(-0.02 * 600 / 41)
    assert env.dynamics.x_dot[0] == pytest.approx(0.02 * (10 + 30 / 41) / 1.1)


# Reward, cost, ends, records


def test_reward_and_cost_by_hand():
    env = BatchedRiskyCartPole(SCENARIOS["calm"], 5)
    env.reset(0)
    env.dynamics.values[:4] = 0.0
    env.dynamics.x[:] = [0.0, 1.2, -2.4, 2.39, 0.6]
    env.dynamics.x_dot[3] = 1.0  # 2.39 + 0.02 is beyond the edge
    env.dynamics.theta[4] = 0.21  # beyond 12 degrees
    step = env.step(np.ones((5, 1), int))
    np.testing.assert_allclose(step.reward[:, 0], [1.0, 1.4, 0.2, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(step.cost[:, 0], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(step.terminated[:, 0], [False, False, False, True, True])
    assert not step.truncated.any()
    np.testing.assert_array_equal(step.episodes["copy"], [3, 4])
    np.testing.assert_array_equal(step.episodes["fell"], [[True], [True]])
    np.testing.assert_array_equal(step.episodes["length"], [[1], [1]])
    np.testing.assert_allclose(step.episodes["mean_x_m"], [[2.41], [0.6]])


def test_survival_pays_one_on_every_step():
    env = BatchedRiskyCartPole(replace(GUSTY, reward="survival"), 32)
    env.reset(0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        step = env.step(rng.integers(0, 2, (32, 1)))
        assert (step.reward == 1).all()
        np.testing.assert_array_equal(step.episodes["return"], step.episodes["length"])


@pytest.mark.slow
@pytest.mark.parametrize("config", [replace(GUSTY, horizon=40), replace(SCENARIOS["cartpole-v1"], horizon=40)])
def test_steps_keep_the_contract(config):
    env, e = BatchedRiskyCartPole(config, 32), 32
    seen = env.reset(0)
    d = env.observation_space.shape[0]
    rng, returns, lengths = np.random.default_rng(0), np.zeros(e), np.zeros(e, int)
    fell = cut = 0
    for _ in range(200):
        assert seen.obs.shape == seen.state.shape == (e, 1, d)
        assert seen.obs.dtype == seen.state.dtype == np.float32
        assert seen.active.all()
        actions = np.where(rng.random(e) < 0.5, rng.integers(0, 2, e), lqr(0.5)(env)[:, 0])
        step = env.step(actions[:, None])
        assert step.reward.shape == step.cost.shape == step.terminated.shape == step.truncated.shape == (e, 1)
        assert not (step.terminated & step.truncated).any()
        assert env.reward_bounds[0] <= step.reward.min() <= step.reward.max() <= env.reward_bounds[1]
        returns, lengths = returns + step.reward[:, 0], lengths + 1
        ended = np.flatnonzero(step.terminated | step.truncated)
        np.testing.assert_array_equal(step.episodes["copy"], ended)
        np.testing.assert_allclose(step.episodes["return"][:, 0], returns[ended], rtol=1e-5)
        np.testing.assert_array_equal(step.episodes["length"][:, 0], lengths[ended])
        np.testing.assert_array_equal(step.episodes["fell"], step.terminated[ended])
        np.testing.assert_array_equal(step.episodes["cost"], step.terminated[ended])
        assert ((env.return_bounds[0] <= returns) & (returns <= env.return_bounds[1])).all()
        timed_out = (lengths[ended] == 40) & ~step.episodes["fell"][:, 0]
        np.testing.assert_array_equal(np.flatnonzero(step.truncated), ended[timed_out])
        assert step.final_state.shape == (np.count_nonzero(step.truncated), d)
        if config.observation == "scaled":
            assert (step.final_state[:, 5] == 0).all()
            assert (step.obs[ended, 0, 5] == 1).all()
            assert (step.obs[ended, 0, 4] == 0).all()
            assert (env.dynamics.gust_left[ended] == 0).all()
        returns[ended], lengths[ended] = 0, 0
        fell, cut, seen = fell + step.terminated.sum(), cut + step.truncated.sum(), step
    assert fell > 20
    assert cut > 20


def test_a_fall_on_the_last_step_is_no_truncation():
    env = BatchedRiskyCartPole(replace(SCENARIOS["calm"], horizon=1), 2)
    env.reset(0)
    env.dynamics.theta[0] = 0.5
    step = env.step(np.zeros((2, 1), int))
    np.testing.assert_array_equal(step.terminated[:, 0], [True, False])
    np.testing.assert_array_equal(step.truncated[:, 0], [False, True])
    assert step.final_state.shape == (1, 6)


def test_facts_for_the_program():
    default, cartpole = (BatchedRiskyCartPole(SCENARIOS[name], 1) for name in ("default", "cartpole-v1"))
    assert default.return_bounds == (0.0, 900.0)
    assert default.reward_bounds == (0.0, 1.8)
    assert (default.reward_step, default.horizon, default.time_in_observation) == (None, 500, True)
    assert cartpole.return_bounds == (1.0, 500.0)
    assert (cartpole.reward_bounds, cartpole.reward_step, cartpole.time_in_observation) == ((1.0, 1.0), 1.0, False)
    assert BatchedRiskyCartPole(RiskyCartPoleConfig(bonus=1.5), 1).return_bounds == (-250.0, 1250.0)


# Reproducibility


def trajectory(env: BatchedRiskyCartPole, steps: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    return [env.step(rng.integers(0, 2, (env.num_envs, 1))) for _ in range(steps)]


def assert_same_steps(ours: list, theirs: list) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("obs", "state", "reward", "cost", "terminated", "truncated", "final_state", "episodes"):
            assert_same(getattr(mine, name), getattr(other, name))


def test_same_seed_same_trajectory():
    one, two, other = (BatchedRiskyCartPole(GUSTY, 8) for _ in range(3))
    one.reset(5)
    two.reset(1)
    trajectory(two, 20, seed=0)
    two.reset(5)  # nothing of what came before may be left
    other.reset(6)
    ours = trajectory(one, 100, seed=0)
    assert_same_steps(ours, trajectory(two, 100, seed=0))
    assert not np.array_equal(ours[-1].obs, trajectory(other, 100, seed=0)[-1].obs)


def test_restored_snapshot_goes_on_bitwise():
    env, fresh = BatchedRiskyCartPole(GUSTY, 8), BatchedRiskyCartPole(GUSTY, 8)
    env.reset(0)
    trajectory(env, 37, seed=0)
    assert (env.dynamics.wind != 0).any()  # in the middle of a gust
    saved = pickle.dumps(env.snapshot())
    seen = env.dynamics.observe()
    ours = trajectory(env, 100, seed=1)
    for again in (fresh, env):
        np.testing.assert_array_equal(again.restore(pickle.loads(saved)).obs[:, 0], seen)
        assert_same_steps(ours, trajectory(again, 100, seed=1))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_and_pickles_go_on_alone(duplicate):
    env = BatchedRiskyCartPole(GUSTY, 8)
    env.reset(0)
    trajectory(env, 37, seed=0)
    twin = duplicate(env)
    assert_same_steps(trajectory(env, 100, seed=1), trajectory(twin, 100, seed=1))


# Ground truth


@pytest.mark.parametrize(
    ("setpoint_m", "mean", "std", "cvar5", "falls"),
    [(0.0, 494.8, 43.8, 388.1, 0.019), (1.8, 592.6, 196.7, 108.2, 0.395)],
)
def test_lqr_meets_the_known_trade_off(setpoint_m, mean, std, cvar5, falls):
    """The numbers come from an independent implementation, 1500 episodes a set-point."""
    env = BatchedRiskyCartPole(SCENARIOS["default"], 400)
    records = first_episodes(env, lqr(setpoint_m), seed=0)
    np.testing.assert_array_equal(records["copy"], np.arange(400))
    interval = binomtest(int(records["fell"].sum()), 400).proportion_ci(0.99)
    assert interval.low <= falls <= interval.high
    tail = lambda returns, axis: np.sort(returns, axis).take(np.arange(20), axis).mean(axis)  # noqa: E731
    for statistic, known in ((np.mean, mean), (np.std, std), (tail, cvar5)):
        spread = bootstrap((records["return"],), statistic, n_resamples=1000, confidence_level=0.99, rng=0)
        assert spread.confidence_interval.low <= known <= spread.confidence_interval.high


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [("bonus", -0.1), ("bonus", math.inf), ("rate0_hz", -1), ("rate1_hz", math.nan), ("gust_median_n", 0.0),
     ("gust_sigma", -0.5), ("gust_steps", 0), ("gust_steps", 1.5), ("horizon", 0), ("reward", "windy"),
     ("observation", "raw")],
)  # fmt: skip
def test_bad_settings_are_named_in_one_line(name, value):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} must [^\n]* \\(got {value}\\)$"):
        RiskyCartPoleConfig(**{name: value})


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="scenario gale is unknown: use calm, default, storm, cartpole-v1"):
        RiskyCartPoleEnv("gale")
    with pytest.raises(ValueError, match="argument wind is unknown: use reward, bonus"):
        RiskyCartPoleEnv(wind=3)
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        BatchedRiskyCartPole(SCENARIOS["default"], 0)


def test_bad_steps_are_refused():
    env = RiskyCartPoleEnv(horizon=1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must be 0"):
        env.step(2)
    env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    vector = gymnasium.make_vec("rqe/RiskyCartPole-v0", 2, vectorization_mode="vector_entry_point")
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="actions must be 2 numbers"):
        vector.step(np.array([0, 2]))
