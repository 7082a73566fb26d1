"""Environments of other packages by their name, against one whose every number is known."""

import math
from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from pettingzoo.utils import parallel_to_aec

from rqe_mappo import cli
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import ByNameConfig, batched_from, make, trial
from rqe_mappo.training.loop import train
from tests import toy
from tests.odd_envs import Endless
from tests.parallel_toy import Countdown, Echo

TOY = ByNameConfig("pettingzoo:tests.parallel_toy")


def test_agents_that_differ_are_padded_and_leave_one_by_one():
    env = make(TOY, 2)
    assert env.observation_space.shape == (4,)
    assert env.state_space.shape == (8,)
    assert env.action_space.counts == (2, 3)
    seen = env.reset(0)
    assert seen.active.all()
    assert (seen.obs[:, 0, 2:] == 0).all()
    actions = np.array([[1, 2], [0, 1]])
    first = env.step(actions)
    assert first.reward.tolist() == [[1, 2], [0, 1]]
    assert first.cost.tolist() == [[0, 1], [0, 1]]
    second = env.step(actions)
    assert second.terminated.tolist() == [[True, False]] * 2
    assert second.active.tolist() == [[False, True]] * 2
    assert (second.obs[:, 0] == 0).all() and (second.state[:, 0] == 0).all()
    env.step(actions)
    last = env.step(actions)
    assert last.truncated.tolist() == [[False, True]] * 2
    assert last.final_state.shape == (2, 8)
    assert last.final_state[:, 3].tolist() == [4, 4]  # the time that `slow` saw at its end, its own observation first
    assert np.array_equal(last.final_obs, last.final_state[:, :4])
    assert np.array_equal(last.final_obs[:, :3], seen.obs[:, 1, :3])  # what it drew in reset() and sees all along
    assert last.episodes["copy"].tolist() == [0, 1]
    assert last.episodes["return"].tolist() == [[2, 8], [0, 4]]
    assert last.episodes["length"].tolist() == [[2, 4]] * 2
    assert last.episodes["cost"].tolist() == [[0, 4]] * 2
    assert last.active.all()  # the next episode has begun


def test_the_critic_sees_its_own_agent_first():
    env = make(TOY, 1)
    seen = env.reset(3)
    own, other = seen.obs[0]
    assert np.array_equal(seen.state[0, 0], np.concatenate((own, other)))
    assert np.array_equal(seen.state[0, 1], np.concatenate((other, own)))


def test_same_seed_same_start_and_copies_differ():
    env = make(TOY, 2)
    first = env.reset(5).obs.copy()
    assert np.array_equal(first, env.reset(5).obs)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, env.reset(6).obs)


def test_episodes_are_cut_at_max_steps():
    env = make(replace(TOY, max_steps=1), 1)
    env.reset(0)
    step = env.step(np.array([[0, 0]]))
    assert step.truncated.all() and not step.terminated.any()
    assert len(step.final_state) == 2
    assert step.episodes["length"].tolist() == [[1, 1]]


def test_what_an_episode_brought_is_in_units_of_returns_however_long_it_might_last():
    bounds = {make(replace(TOY, max_steps=steps), 1).return_bounds for steps in (50, 500)}
    assert len(bounds) == 1


def test_long_episodes_are_tried_in_part(monkeypatch, tmp_path):
    monkeypatch.setattr(trial, "LONGEST", 60)
    monkeypatch.setattr(Endless, "steps", 0)
    endless = ByNameConfig("tests.odd_envs:Endless", max_steps=240)
    assert make(endless, 1).return_bounds == (0.0, 240.0)
    assert Endless.steps == 2 * trial.FIRST + trial.EPISODES * trial.LONGEST
    config = default_config(endless.name, algo="vdn").replace(max_steps=10**9, out=str(tmp_path / "run"))
    with pytest.raises(
        ConfigError, match=r"of up to 1000000000 steps may take .* \(--max-steps of environments by name"
    ):
        train(config, quiet=True)


def test_reward_bounds_are_measured_with_a_margin_or_given():
    assert make(TOY, 1).reward_bounds == (-1.0, 3.0)  # rewards 0 to 2, half their range more
    assert make(replace(TOY, reward_low=0.0, reward_high=2.0), 1).reward_bounds == (0.0, 2.0)
    assert make(ByNameConfig("gymnasium:CartPole-v1"), 1).reward_bounds == (0.0, 1.0)


@pytest.mark.slow
def test_a_gymnasium_environment_trains_and_a_policy_loads(tmp_path, capsys):
    config = default_config("gymnasium:CartPole-v1")
    small = {"total_timesteps": 3000, "eval_episodes": 0, "num_steps": 64, "out": str(tmp_path / "run")}
    folder = train(config.replace(**small))
    cli.evaluate([str(folder), "--episodes", "8"])
    assert "mean return" in capsys.readouterr().out
    assert Policy.load(folder).agents == ("agent",)


def test_an_environment_with_continuous_actions_trains_within_their_bounds(tmp_path):
    small = {"total_timesteps": 1000, "eval_episodes": 0, "num_steps": 64, "out": str(tmp_path / "run")}
    policy = Policy.load(train(default_config("gymnasium:Pendulum-v1").replace(**small)))
    actions = policy.act(np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32))
    assert actions.shape == (100, 1) and actions.dtype == np.float32
    assert np.abs(actions).max() <= 2.0 and actions.std() > 0.1


def test_a_pettingzoo_environment_trains(tmp_path):
    config = default_config("pettingzoo:tests.parallel_toy")
    small = {"total_timesteps": 8000, "eval_episodes": 0, "out": str(tmp_path / "run"), "tau": float("inf")}
    policy = Policy.load(train(config.replace(**small, learning_rate=5e-3)))
    env = make(TOY, 4)
    seen = env.reset(0)
    shares = policy.probabilities(seen.obs, np.broadcast_to([0, 1], seen.active.shape))
    assert (shares[:, 0, 2] == 0).all()  # `quick` has no third action
    assert shares[:, 0, 1].mean() > 0.6 and shares[:, 1, 2].mean() > 0.5  # and both learned to earn


@pytest.mark.slow
def test_simple_spread_trains_is_evaluated_and_goes_on(tmp_path, capsys):
    folder = tmp_path / "run"
    small = ["--num-envs", "2", "--num-steps", "50", "--eval-episodes", "10"]
    cli.train(["--algo", "mappo", "--env", "pettingzoo:mpe2.simple_spread_v3", *small,
               "--total-timesteps", "600", "--out", str(folder)])  # fmt: skip
    message = capsys.readouterr().out
    assert "mean return" in message and "25 to 25" in message  # an episode is of 25 decisions
    policy = Policy.load(folder)
    assert policy.agents == ("agent_0", "agent_1", "agent_2")
    assert policy.timesteps == 600
    assert policy.value(np.zeros((3, 54)), np.arange(3)).shape == (3,)  # of what all three observe
    cli.train(["--resume", str(folder), "--total-timesteps", "1200"])
    assert Policy.load(folder).timesteps == 1200
    assert "mean return" in capsys.readouterr().out


def test_an_agent_cut_off_unseen_keeps_what_it_saw_last():
    class Silent(Countdown):
        def step(self, actions):
            seen, *rest = super().step(actions)
            return {agent: row for agent, row in seen.items() if agent in self.agents}, *rest

    env = batched_from(Silent, 1)
    env.reset(0)
    steps = [env.step(np.array([[0, 0]])) for _ in range(4)]
    assert steps[3].truncated.tolist() == [[False, True]]
    assert np.array_equal(steps[3].final_obs[0], steps[2].obs[0, 1]) and steps[3].final_obs[0, 3] == 3


def test_a_common_reward_is_declared():
    spaces = {"a": Discrete(2), "b": Discrete(2)}
    assert not batched_from(lambda: Echo(spaces), 1).common_reward
    assert batched_from(lambda: Echo(spaces, common_reward=True), 1).common_reward
    assert make(ByNameConfig("gymnasium:CartPole-v1"), 1).common_reward


def test_continuous_actions_of_gymnasium_are_clipped_and_final_observations_true():
    env = make(ByNameConfig("gymnasium:Pendulum-v1", max_steps=200), 1)
    twin = gymnasium.make("Pendulum-v1")
    assert env.action_space == Box(-2, 2, (1,), np.float32)
    env.reset(3)
    twin.reset(seed=int(np.random.SeedSequence(3).generate_state(1)[0]) >> 1)
    for _ in range(200):
        step, expected = env.step(np.full((1, 1, 1), 5, np.float32)), twin.step(np.array([2], np.float32))
    assert step.truncated.all() and np.array_equal(step.final_obs[0], expected[0])
    assert step.reward[0, 0] == np.float32(expected[1])


def test_a_factory_gives_a_batched_a_gymnasium_or_a_parallel_environment():
    assert batched_from(toy.batched, 3).num_envs == 3
    assert batched_from(Countdown, 2).possible_agents == ("quick", "slow")
    assert batched_from(partial(gymnasium.make, "CartPole-v1"), 2).possible_agents == ("agent",)
    assert make(ByNameConfig("tests.parallel_toy:Countdown"), 2).num_envs == 2
    assert make(ByNameConfig("tests.toy:batched"), 5).num_envs == 5


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: 7, "gives a int: return a gymnasium.Env or a PettingZoo ParallelEnv, or take num_envs"),
        (lambda num_envs: gymnasium.make("CartPole-v1"), "takes num_envs and gives a .*, which is no BatchedEnv"),
        (lambda: gymnasium.make_vec("CartPole-v1", 2), "return a single environment, of which copies are made"),
        (lambda: parallel_to_aec(Countdown()), "its agents act in turn: convert it with .*aec_to_parallel"),
        (lambda env=Countdown(): env, "gives the same environment twice"),  # noqa: B008
    ],
    ids=["nothing", "single", "vector", "in turn", "twice"],
)
def test_what_else_a_factory_gives_is_refused_in_one_line(factory, message):
    with pytest.raises(ValueError, match=f"^--env toy.*{message}") as error:
        batched_from(factory, 2, ByNameConfig("toy"))
    assert "\n" not in str(error.value)


def fails():
    raise AttributeError("no such screen")


@pytest.mark.parametrize(
    ("opener", "message"),
    [(lambda size: None, "argument: 'size'"), (fails, "no such screen")],
    ids=["argument", "inside"],
)
def test_an_environment_that_cannot_be_opened_gives_the_cause(opener, message, monkeypatch):
    monkeypatch.setattr("tests.parallel_toy.parallel_env", opener)
    with pytest.raises(ValueError, match=message):
        make(TOY, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gymnasium:NoSuchEnv-v0", "NoSuchEnv"),
        ("pettingzoo:no_such_module", "cannot be imported"),
        ("pettingzoo:json", "has no parallel_env"),
        ("gymnasium:", "is unknown"),
        ("pettingzoo:.parallel_toy", "is unknown"),
    ],
)
def test_bad_names_are_answered_in_one_line(name, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        cli.train(["--env", name, "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_bad_bounds_are_refused():
    with pytest.raises(ValueError, match="go together"):
        ByNameConfig(reward_low=0.0)
    with pytest.raises(ValueError, match="must be below"):
        ByNameConfig(reward_low=1.0, reward_high=0.0)
    with pytest.raises(ValueError, match="--reward-low must lie within"):
        ByNameConfig(reward_low=-1e300, reward_high=0.0)
    with pytest.raises(ValueError, match="--reward-high must lie within"):
        ByNameConfig(reward_low=0.0, reward_high=math.nan)
    with pytest.raises(ValueError, match="--max-steps"):
        ByNameConfig(max_steps=0)


def test_what_truncation_hides_is_what_the_next_decision_would_have_shown():
    """Who terminates in the very step of a truncation is gone from the critic's view, as in an episode that goes on."""
    cut, on = (batched_from(Countdown, 2, replace(TOY, max_steps=most)) for most in (2, 4))
    for env in (cut, on):
        env.reset(0)
    for _ in range(2):
        last, shown = (env.step(np.array([[1, 1]] * 2)) for env in (cut, on))
    assert last.terminated.tolist() == [[True, False]] * 2 and last.truncated.tolist() == [[False, True]] * 2
    assert np.array_equal(last.final_obs, shown.obs[:, 1]) and np.array_equal(last.final_state, shown.state[:, 1])
