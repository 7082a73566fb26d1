"""Environments by name that fail, or whose agents take turns: one line that names them, and nothing is lost."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

from rqe_mappo import cli
from rqe_mappo.envs.by_name import ByNameConfig, batched_from


class Relay(ParallelEnv):
    """One acts for two steps at 1 each, then the other for three at 10 each."""

    metadata = {"name": "relay"}  # noqa: RUF012
    possible_agents = ["one", "other"]  # noqa: RUF012

    def observation_space(self, agent):
        return Box(0, 9, (1,), np.float32)

    def action_space(self, agent):
        return Discrete(2)

    def see(self, agents):
        return {agent: np.array([self.time], np.float32) for agent in agents}

    def reset(self, seed=None, options=None):
        self.time, self.agents = 0, ["one"]
        return self.see(self.agents), {}

    def step(self, actions):
        self.time += 1
        who = list(actions)
        ends = {agent: self.time == {"one": 2, "other": 5}[agent] for agent in who}
        self.agents = ["one"] if self.time < 2 else ["other"] if self.time < 5 else []
        pay = {agent: 1.0 if agent == "one" else 10.0 for agent in who}
        return self.see({*who, *self.agents}), pay, ends, dict.fromkeys(who, False), {}


class Unseen(Relay):
    """Whoever joins is not shown anything."""

    def step(self, actions):
        seen, *others = super().step(actions)
        return {agent: seen[agent] for agent in actions}, *others


class Stays(Relay):
    """The first has ended after two steps, and is never taken out of agents."""

    def reset(self, seed=None, options=None):
        super().reset()
        self.agents = ["one", "other"]
        return self.see(self.agents), {}

    def step(self, actions):
        self.time += 1
        self.agents = ["one", "other"] if self.time < 4 else []
        ends = {"one": self.time >= 2, "other": self.time >= 4}
        return self.see(["one", "other"]), dict.fromkeys(actions, 1.0), ends, dict.fromkeys(actions, False), {}


class StaysUnseen(Stays):
    """And is not shown anything either."""

    def step(self, actions):
        seen, *others = super().step(actions)
        return {agent: seen[agent] for agent in seen if agent == "other" or self.time < 2}, *others


class Unfair(Relay):
    """Common rewards that are none."""

    metadata = {"name": "unfair", "common_reward": True}  # noqa: RUF012

    def reset(self, seed=None, options=None):
        super().reset()
        self.agents = ["one", "other"]
        return self.see(self.agents), {}

    def step(self, actions):
        no = dict.fromkeys(actions, False)
        return self.see(actions), {"one": 1.0, "other": 5.0}, no, no, {}


class Alone(gymnasium.Env):
    """Pays 1 a step, and does `after` in its 1500th."""

    observation_space, action_space = Box(0, 9, (1,), np.float32), Discrete(2)
    steps = 0

    def after(self):
        return None

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        type(self).steps += 1
        if self.steps > 1500:
            self.after()
        return np.full(1, self.time, np.float32), 1.0, self.time == 4, False, {}


class Quits(Alone):
    def after(self):
        sys.exit()


class Stumbles(Alone):
    def after(self):
        return {}["who"]


class Seedless(Alone):
    def reset(self):
        return super().reset()


class Blind(Alone):
    observation_space = Box(0, 1, (0,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(0, np.float32), {}

    def step(self, action):
        return np.zeros(0, np.float32), *super().step(action)[1:]


class Unmade(Alone):
    def __init__(self):
        raise ValueError("no\nlicence")


NOTHING = 5


def played(made, steps):
    env = batched_from(made, 1, ByNameConfig("toy", 9, 0.0, 10.0))
    env.reset(0)
    return [env.step(np.zeros((1, 2), np.int64)) for _ in range(steps)]


def test_who_joins_as_all_others_leave_goes_on_with_the_episode():
    steps = played(Relay, 5)
    assert [step.active[0].tolist() for step in steps] == [[1, 0], [0, 1], [0, 1], [0, 1], [1, 0]]
    assert steps[1].terminated[0].tolist() == [True, False] and not len(steps[1].episodes["copy"])
    assert steps[4].episodes["return"].tolist() == [[2, 30]] and steps[4].episodes["length"].tolist() == [[2, 3]]


@pytest.mark.parametrize("made", [Stays, StaysUnseen])
def test_who_stays_in_agents_after_its_end_acts_no_more_and_is_named(made, capsys):
    steps = played(made, 4)
    assert steps[1].terminated[0].tolist() == [True, False] and not steps[2].terminated.any()
    assert [step.active[0].tolist() for step in steps] == [[1, 1], [0, 1], [0, 1], [1, 1]]
    assert steps[3].episodes["length"].tolist() == [[2, 4]]
    assert capsys.readouterr().err.count("one is still in agents after its end") == 1


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Unseen, r"step\(\) gives no observation of other, which is in agents"),
        (Unfair, "common_reward.*says that all.*same reward, and they are given 1 and 5 in one step"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(made, message):
    with pytest.raises(ValueError, match=f"--env toy: .*{message}"):
        played(made, 3)


def trained(env, folder, algo="qmix"):
    few = ("--max-steps", "8", "--num-envs", "4", "--total-timesteps", "2000", "--eval-episodes", "4")
    cli.train(["--env", f"{__name__}:{env}", "--algo", algo, *few, "--out", str(folder)])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Quits", r"step() raised SystemExit in {file}, line "),
        ("Stumbles", r"step() raised KeyError in {file}, line "),
        ("Seedless", "reset() must take seed and options"),
        ("Unmade", "cannot be opened: it raised ValueError in {file}, line "),
        ("NOTHING", "NOTHING is of type int: name a class or a function"),
    ],
)
def test_an_environment_that_fails_is_named_in_one_line_and_what_was_learned_is_kept(env, message, tmp_path, capsys):
    Alone.steps = Quits.steps = Stumbles.steps = 0
    with pytest.raises(SystemExit) as stop:
        trained(env, tmp_path / "run")
    said = capsys.readouterr().err
    last = said.strip().split("\n")[-1]
    assert stop.value.code == 2 and last.startswith("rqe-train: ") and "Traceback" not in said
    assert f"--env {__name__}:{env}" in last and message.format(file=__file__) in last
    if env in ("Quits", "Stumbles"):
        assert (tmp_path / "run" / "latest").read_text().strip() > "step_000000001000"


def test_agents_that_observe_nothing_can_learn_and_be_evaluated(tmp_path, capsys):
    trained("Blind", tmp_path / "run")
    assert "mean return" in capsys.readouterr().out
