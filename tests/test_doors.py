"""What a new user types first: versions, help, numbers, scripted policies in one's own setting, and signs of life."""

import io
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

import rqe_mappo
from rqe_mappo import cli, registry
from rqe_mappo.__main__ import COMMANDS
from rqe_mappo.__main__ import main as package
from rqe_mappo.command_line import train_config, whole_number
from rqe_mappo.config import default_config
from rqe_mappo.data.vector import WorkerEnvs
from rqe_mappo.evaluation import progress
from rqe_mappo.evaluation.episodes import drive, scripted
from tests import toy

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"num_envs": 2, "num_steps": 8, "total_timesteps": 32, "eval_episodes": 0}


def command(place: str) -> Callable[[list[str]], None]:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_knows_its_version(capsys, name):
    command(COMMANDS[name])(["--version"])
    assert capsys.readouterr().out == f"rqe-{name} of rqe-mappo {rqe_mappo.__version__}\n"


def test_python_m_knows_all_console_scripts(capsys):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {f"rqe-{name}": place for name, place in COMMANDS.items()} == scripts
    package(["--version"])
    package([])
    package(["eval", "--version"])
    said = capsys.readouterr().out
    assert f"rqe-mappo {rqe_mappo.__version__}" in said and "train" in said and "rqe-eval of" in said
    with pytest.raises(SystemExit) as stop:
        package(["fly"])
    assert stop.value.code == 2 and "there is no command fly" in capsys.readouterr().err


def test_python_m_runs_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "rqe_mappo", "solve", "--list"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0 and "stag-hunt" in done.stdout


def test_help_of_rqe_train_shows_how_to_go_on(capsys):
    with pytest.raises(SystemExit):
        cli.train(["--env", "cartpole", "--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("--resume FOLDER", "--trust", "--version", "--total-timesteps"))


@pytest.mark.parametrize("text", ["1000000", "1e6", "1_000_000", "1E6", "10.0e5", "1000000.0"])
def test_whole_numbers_may_be_written_as_people_write_them(text):
    config, _ = train_config(["--env", "cartpole", "--total-timesteps", text, "--num-envs", "1.6e1", "--seed", "1_2"])
    assert (config.total_timesteps, config.num_envs, config.seed) == (1_000_000, 16, 12)
    assert type(config.total_timesteps) is int


@pytest.mark.parametrize("text", ["1.5", "1e-3", "inf", "nan", "1e400", "x", "", "1__0", "9" * 300, "-1e19"])
def test_what_is_no_whole_number_is_named(capsys, text):
    with pytest.raises(ValueError, match="is no whole number"):
        whole_number(text)
    with pytest.raises(SystemExit) as stop:
        cli.train(["--env", "cartpole", f"--total-timesteps={text}"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "--total-timesteps" in said


def test_optional_and_listed_whole_numbers_too():
    config, _ = train_config(["--env", "cartpole", "--actor-hidden", "1e1", "2_0"])
    assert config.algorithm.actor_hidden == (10, 20)
    signals, _ = train_config(["--env", "sumo-signals", "--begin-s", "1e2"])
    assert signals.env_config.begin_s == 100
    assert train_config(["--env", "sumo-signals", "--begin-s", "None"])[0].env_config.begin_s is None


@pytest.mark.parametrize("order", [0, 1])
def test_a_scripted_policy_acts_in_settings_given_by_flags_without_any_run(order):
    words = ["cartpole", "--driver", "lqr:-0.1", "--gust-steps", "3", "--episodes", "1e1"]
    asked, config = cli.eval_config(words if order == 0 else [*words[1:], words[0]])
    assert (asked.run, asked.driver, asked.episodes) == ("cartpole", "lqr:-0.1", 10)
    assert config.env == "cartpole" and config.env_config.gust_steps == 3
    asked, config = cli.eval_config(["sumo/dense", "--driver=caution:0.3", "--net", "x.net.xml", "--junction", "J"])
    assert config.scenario == "dense"
    assert (config.env_config.net, config.env_config.junction) == ("x.net.xml", "J")
    assert cli.eval_config(["runs/mine", "--episodes", "3"])[1] is None


def test_flags_of_other_environments_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.evaluate(["cartpole", "--driver", "random", "--junction", "J"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "--junction" in said


def test_rqe_eval_measures_it(capsys):
    cli.evaluate(["cartpole", "--driver", "lqr:-0.1", "--episodes", "2", "--horizon", "20"])
    assert "agent  20 " in capsys.readouterr().out


@pytest.mark.parametrize("env", ["predator-prey", "matrix", "step-games", "gamble", "pettingzoo:mpe2.simple_spread_v3"])
def test_every_environment_has_a_policy_that_acts_at_random(env):
    asked, config = cli.eval_config([env, "--driver", "random", "--episodes", "3"])
    records = drive(config, scripted(config, "random", 1), asked.episodes, 5)
    again = drive(config, scripted(config, "random", 1), asked.episodes, 5)
    other = drive(config, scripted(config, "random", 2), asked.episodes, 5)
    assert records["return"].tolist() == again["return"].tolist()
    assert env in ("step-games", "matrix", "gamble") or records["return"].tolist() != other["return"].tolist()
    with pytest.raises(ValueError, match=r"--driver chase: .* no scripted policy but random"):
        scripted(config, "chase", 1)


@pytest.mark.parametrize(
    ("env", "name", "words"),
    [
        *(("sumo", f"caution:{level}", "a level from 0 to 1") for level in ("2", "-0.1", "nan", "inf", "x", "")),
        *(("cartpole", f"lqr:{place}", "a position from -2.4 to 2.4 m") for place in ("9", "nan", "-inf", "x", "")),
        *(("sumo-signals", f"fixed:{times}", "needs seconds for each phase") for times in ("inf,1", "nan", "0,1", "x")),
    ],
)
def test_scripted_policies_refuse_what_they_have_no_meaning_for(env, name, words):
    pytest.importorskip("libsumo" if env != "cartpole" else "numpy")
    with pytest.raises(ValueError, match=f"--driver {name} .*{words}"):
        scripted(default_config(env), name, 0)


def test_an_evaluation_says_how_far_it_is(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
    seen = []
    config = default_config("toy")
    drive(config, lambda env, observed: 0 * observed.active, 10, 0, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10) and [done for done, _ in seen] == sorted({done for done, _ in seen} | {seen[0][0]})


def test_progress_is_quiet_in_a_pipe_unless_it_takes_long(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.shown("episodes", every_s=15) as show:
        for second in range(40):
            now[0] = float(second)
            show(second, 40)
    assert capsys.readouterr().err.splitlines() == ["15 of 40 episodes", "30 of 40 episodes"]


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.shown("episodes") as show:
        show(500, 1000)
    assert "1000" in terminal.getvalue() or "episodes" in terminal.getvalue()


def test_a_factory_that_no_worker_could_import_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "ENVIRONMENTS", dict(registry.ENVIRONMENTS))
    monkeypatch.setattr(WorkerEnvs, "__init__", lambda *args: pytest.fail("workers were started"))
    rqe_mappo.register_env("guess", lambda num_envs: toy.Toy(toy.ToyConfig(), num_envs))
    with pytest.raises(ValueError, match=r"--env guess cannot be sent to a worker process .* --num-workers 0") as error:
        rqe_mappo.train("guess", **SMALL, num_workers=2, out=str(tmp_path / "run"), quiet=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_training_leaves_the_callers_random_numbers_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    rqe_mappo.train("cartpole", **SMALL, out=str(tmp_path / "run"), quiet=True)
    assert torch.equal(torch.rand(3), expected)
