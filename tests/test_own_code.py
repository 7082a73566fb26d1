"""Algorithms and environments of a user's own, in files outside the package, train by name and from Python."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import rqe_mappo
from rqe_mappo import cli, nets, registry
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import ConfigError, from_json, to_json

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-an-algorithm.md"
ENVIRONMENT = '''
import gymnasium
import numpy as np


class Guess(gymnasium.Env):
    """The right action is the sign of the observation; an episode is of four steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2, start=3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def _look(self):
        self.sign = self.np_random.choice([-1.0, 1.0])
        return np.array([self.sign], np.float32)

    def step(self, action):
        assert action in (3, 4)
        reward = float((action == 4) == (self.sign > 0))
        self.t += 1
        return self._look(), reward, self.t == 4, False, {}
'''


TURNS = """
import pettingzoo


class Turns(pettingzoo.AECEnv):
    def __init__(self): self.agents = self.possible_agents = []


env = Turns
"""
GAME = """
import pettingzoo.utils
from my_guess import Guess
from rqe_mappo.envs.by_name.one_agent import OneAgent


def parallel_env():
    return OneAgent(Guess())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the page's algorithm and an environment, forgotten afterwards."""
    code = re.search(r"```python\n(\"\"\"REINFORCE.*?)```", PAGE.read_text(), re.S)[1]
    (tmp_path / "my_reinforce.py").write_text(code)
    (tmp_path / "my_guess.py").write_text(ENVIRONMENT)
    (tmp_path / "my_turns.py").write_text(TURNS)
    (tmp_path / "my_game.py").write_text(GAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "ALGORITHMS", dict(registry.ALGORITHMS))
    monkeypatch.setattr(registry, "ENVIRONMENTS", dict(registry.ENVIRONMENTS))
    yield tmp_path
    for name in ("my_reinforce", "my_guess", "my_network", "my_nan", "my_turns", "my_game"):
        sys.modules.pop(name, None)


ASKED = "--algo my_reinforce:Reinforce --env my_guess:Guess --num-envs 8 --num-steps 32 --eval-episodes 16"


@pytest.mark.slow
def test_the_algorithm_of_the_page_learns_in_an_environment_of_the_users_own(folder):
    cli.train([*ASKED.split(), "--total-timesteps", "15000", "--learning-rate", "0.02", "--out", "run"])
    policy = rqe_mappo.Policy.load("run")
    assert policy.probabilities([[1.0], [-1.0]]).argmax(-1).tolist() == [1, 0]
    assert set(policy.act(np.ones((20, 1)), deterministic=True)) == {4}  # an element of the action space
    assert rqe_mappo.evaluate("run", episodes=64)["mean return"].value > 3.5


def test_resuming_it_is_exact_in_what_was_learned(folder):
    cli.train([*ASKED.split(), "--total-timesteps", "512", "--out", "run"])
    before = rqe_mappo.Policy.load("run").actor.state_dict()
    cli.train(["--resume", "run", "--total-timesteps", "1024"])
    after = rqe_mappo.Policy.load("run").actor.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_from_python_by_registering(folder):
    sys.path.insert(0, str(folder))
    reinforce, guess = importlib.import_module("my_reinforce"), importlib.import_module("my_guess")
    rqe_mappo.register_algorithm("reinforce", reinforce.Reinforce)
    rqe_mappo.register_env("guess", guess.Guess)
    config = rqe_mappo.default_config("guess", algo="reinforce", num_envs=4, num_steps=16, hidden=(4,), max_steps=3)
    run = rqe_mappo.train(config, total_timesteps=128, out="run", quiet=True)
    assert rqe_mappo.Policy.load(run).spec.hidden == (4,)
    assert float(rqe_mappo.evaluate(run, episodes=4)["decisions"].value) == 3  # cut off by --max-steps


def test_help_shows_its_own_flags_and_no_others(folder, capsys):
    with pytest.raises(SystemExit):
        cli.train(["--algo", "my_reinforce:Reinforce", "--env", "cartpole", "--help"])
    shown = capsys.readouterr().out
    assert "--hidden" in shown and "Hidden layers of the policy" in shown
    assert "--tau" not in shown and "--clip-coef" not in shown


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--algo", "my_reinforce:Nothing"], "--algo my_reinforce:Nothing cannot be imported"),
        (["--algo", "nowhere:Thing"], "run from the folder that holds nowhere"),
        (["--algo", "os:path"], "belongs to Python itself"),
        (["--env", "os:abort"], "belongs to Python itself"),
        (
            ["--algo", "my_guess:Guess"],
            "is no algorithm: it needs a method learn, and a Config",
        ),
        (["--env", "my_reinforce:Reinforce"], "--env my_reinforce:Reinforce cannot be opened"),
        (["--env", "CartPole-v1"], "--env CartPole-v1 is unknown: use gymnasium:CartPole-v1"),
        (["--env", "CartPole"], "use gymnasium:CartPole-v1"),
        (["--env", "mpe2.simple_spread_v3"], "use pettingzoo:mpe2.simple_spread_v3"),
        (
            ["--env", "pettingzoo:my_turns"],
            "the module my_turns has no parallel_env(), but an env(): its agents act in turn",
        ),
        (["--env", "my_turns:env"], "--env my_turns:env gives a Turns: its agents act in turn"),
        (["--env", "pettingzoo:nowhere"], "run from the folder that holds nowhere, or pip install"),
    ],
)
def test_what_is_no_such_thing_is_refused_in_one_line(folder, capsys, flags, words):
    with pytest.raises(SystemExit) as stop:
        cli.train([*flags, "--total-timesteps", "64", "--out", "run"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and words in said


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_module_in_the_working_folder_is_found_where_the_command_line_names_it(folder, workers):
    """By the installed commands, which do not look there by themselves."""
    small = "--num-envs 2 --num-steps 8 --total-timesteps 32 --eval-episodes 2 --max-steps 4 --out game"
    command = Path(sys.executable).with_name("rqe-train")
    package = {"PYTHONPATH": str(Path(rqe_mappo.__file__).parent.parent)}
    for args in (
        [command, "--env", "pettingzoo:my_game", "--num-workers", workers, *small.split()],
        [command.with_name("rqe-eval"), "game", "--episodes", "2", "--trust"],
    ):
        done = subprocess.run(args, capture_output=True, text=True, env=os.environ | package, check=False)
        assert done.returncode == 0, done.stderr


def test_names_with_a_colon_are_left_to_modules():
    for register in (rqe_mappo.register_env, rqe_mappo.register_algorithm):
        with pytest.raises(ValueError, match="leave the colon out"):
            register("my:name", object)


def test_a_setting_that_nobody_has_is_named():
    with pytest.raises(ConfigError, match="--cleverness is no setting of --algo mappo with --env sumo"):
        rqe_mappo.default_config("sumo", algo="mappo", cleverness=1)


def test_a_runs_settings_import_nothing_that_the_user_did_not_name(folder, capsys, monkeypatch):
    """A stranger's run names what it likes: nothing of it is imported, unless the run is vouched for."""
    cli.train([*ASKED.split(), "--total-timesteps", "256", "--eval-episodes", "0", "--out", "run"])
    monkeypatch.setattr(registry, "VOUCHED", set())  # as in another process
    for name in ("my_reinforce", "my_guess"):
        sys.modules.pop(name, None)
    refused = (
        lambda: cli.evaluate(["run", "--episodes", "2"]),
        lambda: cli.train(["--resume", "run", "--total-timesteps", "512"]),
    )
    for command in refused:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            command()
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "add --trust if the run is your own" in said
        assert not {"my_reinforce", "my_guess"} & set(sys.modules)
    cli.evaluate(["run", "--episodes", "2", "--trust"])
    assert "mean return" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gymnasium:os:Foo-v0", "pettingzoo:antigravity", "numpy:show_config", "os:abort"])
def test_names_in_files_that_lead_to_code_are_refused(name):
    text = to_json(rqe_mappo.default_config("cartpole")).replace('"env": "cartpole"', f'"env": "{name}"')
    with pytest.raises(ValueError, match="--trust"):
        from_json(text)


def test_names_of_registered_environments_may_come_from_files():
    config = rqe_mappo.default_config("gymnasium:CartPole-v1")
    assert from_json(to_json(config)) == config
    assert from_json(to_json(rqe_mappo.default_config("pettingzoo:mpe2.simple_spread_v3"))).env.startswith(
        "pettingzoo:"
    )


NETWORK = """
import torch
from dataclasses import dataclass
from rqe_mappo import nets
from my_reinforce import Reinforce, ReinforceConfig


class Wider(nets.PolicyActor):
    kind = "wider actor"


nets.register(Wider.kind, Wider, nets.ActorSpec)


class Own(Reinforce):
    def __init__(self, run, env, generator):
        super().__init__(run, env, generator)
        self.actor = self.modules["actor"] = Wider(self.actor.spec)
        self.adam = torch.optim.Adam(self.actor.parameters())
"""


def test_a_network_of_the_users_own_loads_where_its_module_is_named(folder, monkeypatch):
    (folder / "my_network.py").write_text(NETWORK)
    flags = ["--env", "cartpole", "--total-timesteps", "8192", "--eval-episodes", "2", "--out", "own"]
    cli.train(["--algo", "my_network:Own", *flags])
    assert type(rqe_mappo.Policy.load("own").actor).__name__ == "Wider"
    monkeypatch.setattr(nets, "NETWORKS", {k: v for k, v in nets.NETWORKS.items() if k != "wider actor"})
    with pytest.raises(CheckpointError, match="import the module that registers it first"):
        rqe_mappo.Policy.load("own")


@pytest.mark.parametrize("odd", [None, "high", [1.0, 2.0]])
def test_a_scalar_that_is_no_number_is_named(folder, odd):
    sys.path.insert(0, str(folder))
    reinforce = importlib.import_module("my_reinforce").Reinforce

    class Odd(reinforce):
        def learn(self, chunk, progress):
            return {"my/scalar": odd}

    rqe_mappo.register_algorithm("odd", Odd)
    with pytest.raises(ValueError, match="learn gave my/scalar"):
        rqe_mappo.train(rqe_mappo.default_config("cartpole", algo="odd"), total_timesteps=100, out="odd", quiet=True)


def test_an_actor_that_could_not_be_loaded_again_is_refused_before_it_trains(folder):
    sys.path.insert(0, str(folder))
    reinforce = importlib.import_module("my_reinforce").Reinforce

    class Nameless(reinforce):
        def __init__(self, run, env, generator):
            super().__init__(run, env, generator)
            self.modules = {"policy": self.actor}

    rqe_mappo.register_algorithm("nameless", Nameless)
    with pytest.raises(ConfigError, match="must be in `modules` as 'actor'"):
        rqe_mappo.train(rqe_mappo.default_config("cartpole", algo="nameless"), out="nameless", quiet=True)


def test_a_reward_that_is_no_number_ends_the_run_with_what_was_learned(folder):
    counted = "type(self).count = getattr(self, 'count', 0) + 1\n        "
    code = ENVIRONMENT.replace("reward = float(", counted + "reward = float('nan') if self.count > 400 else float(")
    (folder / "my_nan.py").write_text(code)
    small = {"num_envs": 1, "num_steps": 64, "reward_low": 0.0, "reward_high": 1.0}
    with pytest.raises(RuntimeError, match="--env my_nan:Guess: agent in copy 0 was given nan in its reward"):
        rqe_mappo.train("my_nan:Guess", **small, out="nan", quiet=True)
    policy = rqe_mappo.Policy.load("nan")
    assert policy.timesteps > 0 and all(bool(w.isfinite().all()) for w in policy.actor.parameters())
