"""What the learner relies on in gambles, matrix games and the cliff walk."""

import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

from rqe_mappo import registry
from rqe_mappo.config import default_config
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs import cliff_walk, gambles, matrix_games, step_games
from rqe_mappo.envs.gambles import RISKY, SAFE, GambleConfig, GambleEnv, PathConfig
from rqe_mappo.training.loop import train
from tests.test_cliff_walk import DOWN, LEFT, UP

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
