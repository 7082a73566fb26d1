"""Environments by name that give what is odd: said, refused by name, or repeated exactly."""

import math
import random

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

from rqe_mappo import cli
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import BatchedCopies, ByNameConfig, batched_from
from tests.parallel_toy import Countdown


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


def test_rewards_that_reach_nobody_are_said_once_and_change_nothing(capsys):
    def pay(part, env):
        part.update(quick=env.time + 0.5 if env.time > 2 else 1.0, nobody=3.0, __all__=1.0)

    env = odd((REWARDS, pay))
    env.reset(0)
    steps = [env.step(np.array([[1, 2]] * 2)) for _ in range(12)]
    assert steps[3].episodes["return"].tolist() == steps[11].episodes["return"].tolist() == [[2, 8]] * 2
    said = capsys.readouterr().err.strip().split("\n")
    assert len(said) == 2, said
    assert any("quick was given a reward in a step in which it did not act" in line for line in said)
    assert any("a reward of nobody, which is not in possible_agents" in line for line in said)


class OldStep(gymnasium.Env):
    """As Gym before 0.26 had it."""

    observation_space, action_space, given = Box(0, 1, (2,)), Discrete(2), (np.zeros(2, np.float32), {})

    def reset(self, seed=None, options=None):
        return self.given

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, {}


class OldReset(OldStep):
    """Which gives an observation alone, of three numbers here."""

    observation_space, given = Box(0, 1, (3,)), np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (OldStep, r"step\(\) must give observation, reward, .* \(got 4 values\)"),
        (OldReset, r"reset\(\) must give observation, info, as Gymnasium asks for \(got 1 values\)"),
    ],
)
def test_what_is_no_gymnasium_environment_is_refused_by_name(made, message):
    with pytest.raises(ValueError, match=f"^--env toy.*{message}") as error:
        env = batched_from(made, 1, ByNameConfig("toy", 9, 0.0, 1.0))
        env.reset(0)
        env.step(np.zeros((1, 1), np.int64))
    assert "\n" not in str(error.value)


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
        ((REWARDS, lambda part, env: part.update(slow=[[1], [1, 2]])), "the reward of slow must be a number"),
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


def test_environments_that_draw_an_odd_number_of_normals_or_change_the_generator_repeat_too():
    """NumPy holds the second of two normals back, and forgets it where generators are exchanged."""

    class Bell(Chancy):
        def _drawn(self):
            if self.layout > 0.5:
                np.random.set_bit_generator(np.random.PCG64(7))
            return np.random.normal(size=3).astype(np.float32)

    def play() -> list[np.ndarray]:
        env = batched_from(Bell, 8, ByNameConfig("toy", 5, 0.0, 1.0))
        return [env.reset(3).obs, *(env.step(np.zeros((8, 1), np.int64)).obs for _ in range(12))]

    random.seed(1)
    outside, first = np.random.get_bit_generator(), play()
    random.seed(1)
    assert all(map(np.array_equal, first, play())) and np.random.get_bit_generator() is outside


def test_environments_that_no_seed_governs_are_named_once(capsys):
    class Stubborn(Chancy):
        def _drawn(self):
            return np.random.default_rng().random(3).astype(np.float32)

    env = batched_from(Stubborn, 2, ByNameConfig("toy", 5, 0.0, 1.0))
    env.reset(3)
    error = capsys.readouterr().err.strip()
    assert error == "--env toy: the same seed and actions give other episodes: its runs cannot be repeated"


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
