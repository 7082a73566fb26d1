"""Environments of other packages by their name, against one whose every number is known."""

import math
import random
import warnings
from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Tuple, flatdim, flatten
from pettingzoo import ParallelEnv
from pettingzoo.utils import parallel_to_aec

from benchmarks import simple_spread
from rqe_mappo import cli
from rqe_mappo.command_line import train_config
from rqe_mappo.config import default_config
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import BatchedCopies, ByNameConfig, batched_from, make
from rqe_mappo.envs.by_name.actions import common_space
from rqe_mappo.envs.by_name.own_spaces import spaces_of
from rqe_mappo.envs.contract import PaddedBox, PaddedDiscrete, action_dtype
from rqe_mappo.training.loop import train
from tests import toy
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


def test_the_benchmark_asks_both_sides_for_the_same():
    settings = simple_spread.Settings()
    ours, _ = train_config(settings.ours(3))
    theirs = settings.theirs(3)
    experiment = theirs["experiment"]
    rows, own = ours.num_envs * ours.num_steps, ours.algorithm
    assert ours.seed == theirs["seed"] == 3
    assert ours.total_timesteps == simple_spread.AGENTS * experiment["max_n_frames"]
    assert ours.total_timesteps % (simple_spread.AGENTS * rows) == 0  # neither side rounds up
    assert rows == experiment["on_policy_collected_frames_per_batch"]
    assert rows == own.num_minibatches * experiment["on_policy_minibatch_size"]
    assert own.update_epochs == own.critic_epochs == experiment["on_policy_n_minibatch_iters"]
    assert own.learning_rate == own.critic_learning_rate == experiment["lr"]
    assert own.actor_hidden == own.critic_hidden == theirs["hidden"]
    assert not (own.norm_adv or own.anneal_lr or own.value_norm or own.value_clip)


def test_the_benchmark_evaluates_an_actor(monkeypatch):
    monkeypatch.setattr(simple_spread, "EPISODES", 12)
    monkeypatch.setattr(simple_spread, "COPIES", 4)
    actor = simple_spread.untrained(simple_spread.Settings())
    found = simple_spread.evaluated(actor)
    assert found.n == 12
    assert -60 < found.low < found.value < found.high < -10
    assert found == simple_spread.evaluated(actor)


def test_the_benchmark_compares_runs_of_one_budget():
    runs = [("ours", 1, -20.0), ("ours", 2, -19.0), ("BenchMARL", 1, -22.0), ("BenchMARL", 2, -21.0)]
    rows = [
        {
            "side": side,
            "seed": seed,
            "frames": 6000,
            "return": got,
            "decisions_per_cpu_s": 300.0 if side == "ours" else 100,
        }
        for side, seed, got in runs
    ]
    summary = simple_spread.summarise([*rows, {**rows[0], "frames": 12_000, "return": 0.0}], 6000)
    found = {row["what"]: row["value"] for row in summary}
    assert found["ours: return"] == -19.5
    assert found["return, ours less BenchMARL's (Welch)"] == 2.0
    assert found["probability that a run of ours has the higher return"] == 1.0
    assert found["decisions per CPU second, ours / BenchMARL's"] == 3.0


SPACES = {
    "Discrete from one number on": (
        {"a": Discrete(3, start=5), "b": Discrete(2, start=5)}, PaddedDiscrete([3, 2], start=5),
        [[7, 6]], {"a": 7, "b": 6},
    ),
    "Discrete from several": (
        {"a": Discrete(3, start=5), "b": Discrete(3, start=-1)}, Discrete(3), [[2, 0]], {"a": 7, "b": -1},
    ),
    "MultiDiscrete": (
        {"a": MultiDiscrete([2, 3], start=[1, 4]), "b": MultiDiscrete([2, 3], start=[1, 4])},
        MultiDiscrete([2, 3], start=[1, 4]), [[[1, 6], [2, 4]]], {"a": [1, 6], "b": [2, 4]},
    ),
    "MultiDiscrete from several": (
        {"a": MultiDiscrete([2, 3], start=[1, 4]), "b": MultiDiscrete([2, 3])},
        MultiDiscrete([2, 3]), [[[1, 2], [0, 2]]], {"a": [2, 6], "b": [0, 2]},
    ),
    "a table of choices": (
        {"a": MultiDiscrete([[2, 3], [4, 5]])}, MultiDiscrete([2, 3, 4, 5]), [[[1, 2, 3, 4]]], {"a": [[1, 2], [3, 4]]},
    ),
    "MultiBinary": ({"a": MultiBinary(2)}, MultiDiscrete([2, 2]), [[[0, 1]]], {"a": [0, 1]}),
    "Box": (
        {"a": Box(-1, 2, (2, 1), np.float64)}, Box(-1, 2, (2,), np.float32), [[[9, -0.5]]], {"a": [[2], [-0.5]]},
    ),
    "Box without bounds": ({"a": Box(-np.inf, np.inf, (1,))}, Box(-np.inf, np.inf, (1,)), [[[1e6]]], {"a": [1e6]}),
    "Boxes that differ": (
        {"a": Box(-1, 1, (2,)), "b": Box(0, 3, (1,))}, Box(np.float32([-1, -1]), np.float32([3, 1])),
        [[[3, 0.5], [-1, 7]]], {"a": [1, 0.5], "b": [0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPACES)
def test_agents_with_any_actions_share_a_space_and_are_given_their_own(kind):
    spaces, common, actions, received = SPACES[kind]
    env = batched_from(lambda: Echo(spaces), 1)  # whose rewards are measured with random actions, each in its space
    assert env.action_space == common
    env.reset(0)
    step = env.step(np.array(actions, action_dtype(common)))
    given = env.envs[0].received[-1]
    assert given.keys() == received.keys()
    for agent, action in given.items():
        assert np.array_equal(action, received[agent])
    assert step.reward.tolist() == [[np.sum(action) for action in received.values()]]


def test_unlike_boxes_keep_their_widths():
    env = batched_from(lambda: Echo({"a": Box(-1, 1, (2,)), "b": Box(0, 3, (1,))}), 1)
    assert isinstance(env.action_space, PaddedBox) and env.action_space.widths == (2, 1)


@pytest.mark.parametrize(
    "spaces",
    [
        {"a": Discrete(2), "b": Box(0, 1, (1,))},
        {"a": MultiDiscrete([2, 3]), "b": MultiDiscrete([3, 2])},
        {"a": Tuple((Discrete(2), Discrete(2)))},
    ],
    ids=["kinds", "sizes", "tuple"],
)
def test_actions_without_a_common_space_are_refused(spaces):
    with pytest.raises(
        ValueError, match=r"^--env toy: agents must all have Discrete actions, .*: wrap the env"
    ) as error:
        batched_from(lambda: Echo(spaces), 1, ByNameConfig("toy"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("space", "width"),
    [
        (Discrete(4, start=2), 4),
        (MultiDiscrete([2, 3]), 5),
        (MultiBinary(3), 3),
        (Tuple((Discrete(2), Box(0, 1, (2, 2)))), 6),
        (Dict({"near": Discrete(3), "far": Dict({"x": Box(0, 1, (1,))})}), 4),
    ],
    ids=["Discrete", "MultiDiscrete", "MultiBinary", "Tuple", "Dict"],
)
def test_observations_are_flattened_as_gymnasium_does(space, width):
    env = batched_from(lambda: Echo({"a": Discrete(2)}, {"a": space}), 1)
    seen = env.reset(0)
    assert env.observation_space.shape == (width,)
    space.seed(0)
    assert np.array_equal(seen.obs[0, 0], flatten(space, space.sample()))


def test_observations_without_a_fixed_length_are_refused():
    with pytest.raises(ValueError, match=r"^--env toy: observations of .* have no fixed length: wrap"):
        batched_from(lambda: Echo({"a": Discrete(2)}, {"a": Sequence(Discrete(2))}), 1, ByNameConfig("toy"))


MASKS = {"a": [[1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 1, 1]], "b": [[0, 1], [1, 0], [1, 1], [1, 1]]}


def masked() -> Echo:
    """Agent `a` has a mask in its info, `b` in its observation, `c` none."""
    parts = {"observation": Box(0, 9, (2,)), "action_mask": Box(0, 1, (2,), np.int8)}
    return Echo(
        {"a": Discrete(3, start=1), "b": Discrete(2, start=1), "c": Discrete(2, start=1)},
        {"a": Box(0, 9, (2,)), "b": Dict(parts), "c": Box(0, 9, (2,))},
        MASKS,
    )


def test_masks_are_passed_on_and_are_no_part_of_what_is_observed():
    env = batched_from(masked, 2)
    assert env.observation_space.shape == (2,)
    seen = env.reset(0)
    first = [[True, False, True], [False, True, False], [True, True, False]]
    assert seen.avail.tolist() == [first] * 2
    step = env.step(np.array([[1, 2, 2]] * 2))
    assert step.avail.tolist() == [[[False, True, False], [True, False, False], [True, True, False]]] * 2
    env.step(np.array([[2, 1, 1]] * 2))
    assert env.step(np.array([[3, 2, 1]] * 2)).avail.tolist() == [first] * 2  # of the next episode


def test_masks_that_come_late_are_refused():
    class Late(Echo):
        def reset(self, seed=None, options=None):
            seen, _ = super().reset(seed, options)
            return seen, {}

    env = batched_from(lambda: Late({"a": Discrete(2)}, masks={"a": [[1, 1]] * 4}), 1, ByNameConfig("toy", 9, 0.0, 1.0))
    env.reset(0)
    with pytest.raises(
        ValueError, match=r"^--env toy: a has an action_mask now and had none at first: give it in reset"
    ):
        env.step(np.array([[0]]))


def test_agents_that_left_have_no_masks():
    spaces = {"a": Discrete(2), "b": Discrete(2)}
    env = batched_from(lambda: Echo(spaces, masks=dict.fromkeys(spaces, [[0, 1]] * 4)), 1)
    env.reset(0)
    env.envs[0].agents.remove("b")
    assert env.step(np.array([[1, 1]])).avail.tolist() == [[[False, True], [True, True]]]


@pytest.mark.parametrize(
    ("space", "masks", "message"),
    [
        (MultiDiscrete([2, 2]), [[1, 1, 1, 1]] * 4, "the action_mask of a needs Discrete actions"),
        (Discrete(2), [[1, 1], [0, 0], [1, 1], [1, 1]], "the action_mask of a allows nothing: allow an action"),
    ],
)
def test_masks_that_do_not_fit_are_refused(space, masks, message):
    with pytest.raises(ValueError, match=f"^--env toy: {message}"):
        batched_from(lambda: Echo({"a": space}, masks={"a": masks}), 1, ByNameConfig("toy"))
    with pytest.raises(ValueError, match=f"^--env toy: {message}"):
        env = batched_from(lambda: Echo({"a": space}, masks={"a": masks}), 1, ByNameConfig("toy", 9, 0.0, 1.0))
        env.reset(0)
        env.step(np.array([[0]]))


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


class Odd(Countdown):
    """A countdown that gives what it is told to."""

    given: tuple = ()

    def step(self, actions):
        parts = super().step(actions)
        for index, change in self.given:
            change(parts[index], self)
        return parts


SEEN, REWARDS, DEAD, CUT, INFOS = range(5)


def odd(*given: tuple, bounds: bool = True) -> BatchedCopies:
    """Two copies of one that differs from `Countdown` by `given`."""
    made = type("Odd", (Odd,), {"given": given})
    low, high = (0.0, 2.0) if bounds else (None, None)
    return batched_from(made, 2, ByNameConfig("toy", 9, low, high))


def leave(part: dict, env: Countdown) -> None:
    """No entry for agents that leave."""
    for agent in set(part) - set(env.agents):
        del part[agent]


def test_agents_without_entries_in_their_last_step_have_terminated_and_earned_nothing(capsys):
    env = odd(*((index, leave) for index in range(5)))
    env.reset(0)
    steps = [env.step(np.array([[1, 2]] * 2)) for _ in range(4)]
    assert steps[1].terminated.tolist() == [[True, False]] * 2 and steps[1].reward.tolist() == [[0, 2]] * 2
    assert steps[3].terminated.tolist() == [[False, True]] * 2 and not any(step.truncated.any() for step in steps)
    assert steps[3].episodes["length"].tolist() == [[2, 4]] * 2
    said = capsys.readouterr().err.strip().split("\n")
    assert len(said) == 2 and all("without a termination or truncation" in line for line in said)  # one an agent


def test_agents_left_out_of_rewards_earned_nothing():
    env = odd((REWARDS, lambda part, env: part.pop("slow", None)))
    env.reset(0)
    assert env.step(np.array([[1, 2]] * 2)).reward.tolist() == [[1, 0]] * 2


def test_rewards_of_agents_that_left_are_said_and_change_nothing(capsys):
    env = odd((REWARDS, lambda part, env: part.update(quick=7.0) if env.time > 2 else part.update(quick=1.0)))
    env.reset(0)
    steps = [env.step(np.array([[1, 2]] * 2)) for _ in range(4)]
    assert steps[3].episodes["return"].tolist() == [[2, 8]] * 2
    (said,) = capsys.readouterr().err.strip().split("\n")
    assert "quick was given a reward of float 7.0 while it did not act" in said


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("step", ({}, {}, {}, {}), r"step\(\) must give observations, rewards, terminations, truncations, infos, each a"
         r" dict by agent \(got 4 values\)"),
        ("step", None, r"step\(\) must give .* \(got NoneType\)"),
        ("step", ({}, 1.0, {}, {}, {}), r"the rewards that step\(\) gives must be a dict by agent \(got float 1.0\)"),
        ("reset", {"quick": 1}, r"reset\(\) must give observations, infos, each a dict by agent \(got dict\)"),
        ("reset", ({}, None), r"the infos that reset\(\) gives must be a dict by agent"),
    ],
)  # fmt: skip
def test_what_is_no_parallel_environment_is_refused_by_name(method, given, message):
    made = type("Old", (Countdown,), {method: lambda self, *args, **kwargs: given})
    with pytest.raises(ValueError, match=f"^--env toy: {message}") as error:
        env = batched_from(made, 2, ByNameConfig("toy", 9, 0.0, 2.0))
        env.reset(0)
        env.step(np.array([[1, 2]] * 2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((REWARDS, lambda part, env: part.update(slow=None)), "the reward of slow must be a number .got NoneType None"),
        ((REWARDS, lambda part, env: part.update(slow=1e300)), "the reward of slow must fit single precision"),
        ((REWARDS, lambda part, env: part.update(slow=[1, 2])), "the reward of slow must be a number"),
        ((INFOS, lambda part, env: part.update(slow={"cost": None})), "the cost of slow must be a number"),
        ((SEEN, lambda part, env: part.update(quick=np.full(2, -1e300))), "the observation of quick must fit single"),
        ((SEEN, lambda part, env: part.update(quick=np.zeros(3))), r"the observation of quick must be an array"),
        ((SEEN, lambda part, env: part.update(slow={"time": [1]})), "the observation of slow must be a dict"),
        ((SEEN, lambda part, env: part.pop("slow")), r"step\(\) gives no observation of slow, which is in agents"),
        ((SEEN, lambda part, env: env.agents.append("late")), "late is in agents and not in possible_agents"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=f"^--env toy: {message}") as error:
        env = odd(given)
        env.reset(0)
        env.step(np.array([[1, 2]] * 2))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_run_that_the_environment_stops_keeps_what_it_learned(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.train(["--env", "tests.odd_envs:Fading", "--num-envs", "2", "--num-steps", "8", "--save-interval", "1000",
                   "--total-timesteps", "5000", "--eval-episodes", "0", "--out", str(tmp_path / "a run")])  # fmt: skip
    said, error = capsys.readouterr()
    assert stop.value.code == 2 and "the reward of quick must be a number (got NoneType None)" in error
    assert f"rqe-train --resume '{tmp_path / 'a run'}'" in said
    assert Policy.load(tmp_path / "a run").timesteps > 100


@pytest.mark.parametrize("value", [np.float64(2), np.array([2.0]), np.array(2), True + 1, np.int8(2)])
def test_rewards_may_be_any_number(value):
    env = odd((REWARDS, lambda part, env: part.update(slow=value)))
    env.reset(0)
    assert env.step(np.array([[1, 2]] * 2)).reward[0, 1] == 2


def test_an_episode_ends_where_the_environment_forgets_to_empty_its_agents():
    def forget(part, env):
        if not env.agents:
            env.agents = ["slow"]

    env = odd((CUT, forget))
    env.reset(0)
    steps = [env.step(np.array([[1, 2]] * 2)) for _ in range(4)]
    assert steps[3].episodes["copy"].tolist() == [0, 1] and steps[3].active.all()


def test_poison_of_agents_that_left_reaches_nobody():
    env = odd((SEEN, lambda part, env: part.update(quick=np.full(2, np.nan)) if env.time == 2 else None))
    env.reset(0)
    for _ in range(4):
        step = env.step(np.array([[1, 2]] * 2))
        assert np.isfinite(step.obs).all() and np.isfinite(step.state).all() and np.isfinite(step.final_state).all()


def test_agents_must_be_listed():
    with pytest.raises(ValueError, match=r"^--env toy has no possible_agents: list all"):
        batched_from(type("None", (Countdown,), {"possible_agents": []}), 1, ByNameConfig("toy"))


class Chancy(gymnasium.Env):
    """Whose layout, start and rewards are drawn from global generators."""

    observation_space, action_space = Box(0, 1, (3,)), Discrete(2)

    def __init__(self):
        self.layout = random.random()

    def _drawn(self):
        return np.array([self.layout, random.random(), np.random.random()], np.float32)

    def reset(self, seed=None, options=None):
        return self._drawn(), {}

    def step(self, action):
        return self._drawn(), float(torch.rand(())), False, False, {}


def test_environments_that_draw_from_global_generators_repeat(capsys):
    def play() -> list[np.ndarray]:
        env = batched_from(Chancy, 2, ByNameConfig("toy", 5, 0.0, 1.0))
        trace = [env.reset(3).obs]
        for _ in range(12):
            random.random(), np.random.random(), torch.rand(())
            step = env.step(np.zeros((2, 1), np.int64))
            trace += [step.obs, step.reward]
        return trace

    random.seed(1)
    first = play()
    random.seed(2)
    again = play()
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first[1][0], first[1][1]) and not np.array_equal(first[0], first[1])
    assert not capsys.readouterr().err


def test_environments_leave_the_programs_generators_alone():
    def drawn() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(()))]

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = drawn()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    env = batched_from(Chancy, 2, ByNameConfig("toy", 5, 0.0, 1.0))
    env.reset(3)
    env.step(np.zeros((2, 1), np.int64))
    assert drawn() == expected


def test_environments_that_no_seed_governs_are_named_once(capsys):
    class Stubborn(Chancy):
        def _drawn(self):
            return np.random.default_rng().random(3).astype(np.float32)

    env = batched_from(Stubborn, 2, ByNameConfig("toy", 5, 0.0, 1.0))
    env.reset(3)
    error = capsys.readouterr().err.strip()
    assert error == "--env toy: the same seed and actions give other episodes: its runs cannot be repeated"


def test_masks_of_a_method_are_heeded():
    class Masking(gymnasium.Env):
        observation_space, action_space = Box(0, 1, (1,)), Discrete(3)

        def reset(self, seed=None, options=None):
            self.allowed = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            assert action == self.allowed
            self.allowed = (action + 1) % 3
            return np.zeros(1, np.float32), 0.0, False, False, {}

        def action_masks(self):
            return np.arange(3) == self.allowed

    env = batched_from(lambda: gymnasium.wrappers.TimeLimit(Masking(), 5), 1, ByNameConfig("toy", 5))
    assert env.reset(0).avail.tolist() == [[[True, False, False]]]
    assert env.step(np.array([[0]])).avail.tolist() == [[[False, True, False]]]


def test_what_looks_like_a_mask_is_said_to_be_observed(capsys):
    seen = Dict({"observation": Box(0, 9, (2,)), "legal_moves": MultiBinary(2)})
    batched_from(lambda: Echo({"a": Discrete(2), "b": Discrete(2)}, {"a": seen, "b": seen}), 1, ByNameConfig("toy"))
    assert capsys.readouterr().err.strip() == (
        "--env toy: legal_moves is a part of what agents see: name it action_mask if it says what they can do"
    )


@pytest.mark.parametrize("mask", [[1], [[1, 0]], [0, 2], [0.5, 1], "10"])
def test_masks_of_another_form_are_refused(mask):
    class Wrong(Echo):
        def _shown(self):
            seen, infos = super()._shown()
            return seen, {agent: {"action_mask": mask} for agent in infos}

    with pytest.raises(ValueError, match=r"^--env toy: the action_mask of a must be 0 or 1 for each of 2 actions"):
        batched_from(lambda: Wrong({"a": Discrete(2)}), 1, ByNameConfig("toy"))


@pytest.mark.parametrize(
    "boxes", [[Box(-1e300, 1e300, (1,), np.float64)], [Box(-1e300, 1, (1,), np.float64), Box(0, 1, (1,))]]
)
def test_bounds_of_actions_beyond_single_precision_are_none(boxes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert common_space(boxes, "--env toy").low.tolist() == [-np.inf]


@pytest.mark.parametrize(
    "space",
    [
        Box(-1, 1, (2, 3)), Box(0, 255, (3, 2), np.uint8), Discrete(4, start=-2), MultiDiscrete([[2, 3], [4, 5]]),
        MultiDiscrete([2, 3], start=[1, -1]), MultiBinary((2, 2)), Tuple((Discrete(2), Box(0, 1, (2, 2), np.float64))),
        Dict({"b": Discrete(3), "a": Tuple((MultiBinary(2), Dict({"x": Box(0, 1, (1,))}))), "1": Box(0, 1, ())}),
    ],
    ids=str,
)  # fmt: skip
def test_a_flat_observation_is_gymnasiums(space):
    own = spaces_of(space, Discrete(2), Discrete(2)).observation
    space.seed(0)
    for _ in range(20):
        value = space.sample()
        assert np.array_equal(own.flat(value), flatten(space, value).astype(np.float32))
    assert own.width == flatdim(space)


@pytest.mark.parametrize("value", [-1, 4, 1.0, [1, 2], None, "1"])
def test_a_choice_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="must be"):
        spaces_of(Discrete(4), Discrete(2), Discrete(2)).observation.flat(value)


class OneStep(ParallelEnv):
    """Two agents for one step, with whatever is given."""

    metadata = {"name": "odd"}  # noqa: RUF012

    def __init__(self, agents=("a", "b"), ended=True, action=None):
        self.possible_agents, self.ended, self.action = list(agents), ended, action or Discrete(2)
        self.taken = []

    def observation_space(self, agent):
        return Box(0, 1, (1,))

    def action_space(self, agent):
        return self.action

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        return {agent: np.zeros(1, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        self.taken += actions.values()
        live, self.agents = self.agents, []
        same = {agent: np.zeros(1, np.float32) for agent in live}
        flags = dict.fromkeys(live, self.ended), dict.fromkeys(live, False)
        return same, dict.fromkeys(live, 0.0), *flags, {agent: {} for agent in live}


@pytest.mark.parametrize("ended", [math.nan, "False", np.array([True, False])])
def test_an_end_that_is_no_truth_is_refused(ended):
    with pytest.raises(ValueError, match=r"(a|one)\b"):
        batched_from(lambda: OneStep(ended=ended), 1)


@pytest.mark.parametrize("agents", [(0, 1), ("a", 1), ("a", "a")])
def test_agents_that_no_file_could_name_are_refused_before_anything_is_learned(agents):
    with pytest.raises(ValueError, match="a name of its own"):
        batched_from(lambda: OneStep(agents), 1)


def test_nobody_at_the_start_is_said():
    class Nobody(Odd):
        def reset(self, seed=None, options=None):
            self.agents = []
            return {}, {}

    with pytest.raises(ValueError, match="nobody in agents"):
        batched_from(Nobody, 1)


def test_whole_numbers_as_actions_are_the_nearest():
    env = batched_from(lambda: OneStep(action=Box(-1, 1, (1,), np.int64)), 1)
    env.reset(0)
    before = len(env.copies[0].env.taken)
    for value in (0.9, -0.6, 0.4):
        env.step(np.full((1, 2, 1), value, np.float32))
    assert [int(taken[0]) for taken in env.copies[0].env.taken[before:]] == [1, 1, -1, -1, 0, 0]
