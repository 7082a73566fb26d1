"""Code that a file names is not imported: only what the command line names, or what `--trust` allows."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import rqe_mappo
from rqe_mappo import checkpoint, cli, registry
from rqe_mappo.deploy.export import command as export
from rqe_mappo.live.cli import play
from rqe_mappo.sweeps import cli as sweeps
from tests import toy

EVIL = '''
"""Whoever imports this module, or opens what is in it, leaves a mark."""
from pathlib import Path

MARK = Path(__file__).with_name("mark")
MARK.touch()


class Algo:
    Config = None


def parallel_env():
    MARK.touch()


Env = parallel_env
'''
NAMED = {
    "pettingzoo": {"env": "pettingzoo:evil", "env_config": {"name": "pettingzoo:evil"}},
    "gymnasium": {"env": "gymnasium:evil:Env-v0", "env_config": {"name": "gymnasium:evil:Env-v0"}},
    "factory": {"env": "evil:Env", "env_config": {"name": "evil:Env"}},
    "pettingzoo behind another name": {"env_config": {"name": "pettingzoo:evil"}},
    "factory behind another name": {"env_config": {"name": "evil:Env"}},
    "algorithm": {"algo": "evil:Algo"},
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    """A sweep's folder with one run, by name."""
    folder = tmp_path_factory.mktemp("honest")
    asked = (
        "tau --env gymnasium:CartPole-v1 --taus 1 --seeds 1 --episodes 2 --num-envs 4 --num-steps 16 --max-steps 5 "
        f"--total-timesteps 64 --out {folder / 'sweep'}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sweeps.sweep(asked.split())
    return folder


@pytest.fixture
def stranger(honest, tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Gives the run of a stranger's folder in which all files name the evil module, which could be imported."""
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "VOUCHED", set())
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    shutil.copytree(honest / "sweep", tmp_path / "sweep")

    def made(kind: str) -> Path:
        path = next((tmp_path / "sweep").rglob("config.json"))
        settings = json.loads(path.read_text())
        for name, value in NAMED[kind].items():
            settings[name] = settings[name] | value if isinstance(value, dict) else value
        path.write_text(json.dumps(settings))
        for file in path.parent.rglob("*.policy.pt"):
            content = torch.load(file, weights_only=True)
            torch.save(content | {"config": json.dumps(settings)}, file)
        return path.parent

    return made


COMMANDS: dict[str, Callable[[Path], None]] = {
    "rqe-eval": lambda run: cli.evaluate([str(run), "--episodes", "2"]),
    "rqe-eval of a file": lambda run: cli.evaluate([str(checkpoint.newest(run)[0]), "--episodes", "2"]),
    "rqe-eval --driver": lambda run: cli.evaluate([str(run), "--driver", "random"]),
    "rqe-eval --render": lambda run: cli.evaluate([str(run), "--render", "film.gif"]),
    "rqe-eval --mix": lambda run: cli.evaluate(["--mix", str(run), str(run), "--alpha", "0.5", "--out", "mixed"]),
    "rqe-play": lambda run: play([str(run), "--port", "0"]),
    "rqe-train --resume": lambda run: cli.train(["--resume", str(run), "--total-timesteps", "128"]),
    "rqe-export": lambda run: export([str(run), "file.onnx"]),
    "rqe-report": lambda run: sweeps.report(["sweep"]),
    "rqe-plot": lambda run: sweeps.plot(["sweep"]),
    "Policy.load": lambda run: print(rqe_mappo.Policy.load(run)),
    "evaluate": lambda run: print(rqe_mappo.evaluate(run, 2)),
    "evaluate a policy": lambda run: print(rqe_mappo.evaluate(rqe_mappo.Policy.load(run), 2)),
    "evaluate a mixture": lambda run: print(
        rqe_mappo.evaluate(rqe_mappo.interpolate(*(rqe_mappo.Policy.load(run) for _ in range(2)), 0.5), 2)
    ),
    "a policy of the Hub": lambda run: print(rqe_mappo.evaluate(published(run), 2)),
}
READ_TABLES = {"rqe-report", "rqe-plot"}
IMPORT_NOTHING = {"rqe-export", "Policy.load"} | READ_TABLES


def published(run: Path) -> rqe_mappo.Policy:
    """The run as a stranger publishes it, read again."""
    rqe_mappo.Policy.load(run).save_pretrained("published")
    return rqe_mappo.Policy.from_pretrained("published")


CASES = [(kind, command) for kind in NAMED for command in COMMANDS if command not in READ_TABLES or kind == "factory"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "command"), CASES)
def test_what_a_file_names_is_not_imported(stranger, capsys, kind, command):
    run = stranger(kind)
    refused = ""
    try:
        COMMANDS[command](run)
    except SystemExit as stop:
        assert stop.code == 2
        refused = capsys.readouterr().err
        assert refused.count("\n") == 1
    except ValueError as error:
        refused = str(error)
    assert not Path("mark").exists() and "evil" not in sys.modules
    if command not in IMPORT_NOTHING:
        assert "evil" in refused and ("--trust" in refused or "--name" in refused), refused


@pytest.mark.slow
def test_rqe_sweep_goes_on_with_no_run_of_other_settings_and_imports_nothing_for_that(stranger, capsys):
    run = stranger("factory")
    with pytest.raises(SystemExit) as stop:
        sweeps.sweep(["tau", "--env", "gymnasium:CartPole-v1", "--taus", "1", "--seeds", "1", "--out", "sweep"])
    assert stop.value.code == 2 and "--trust" in capsys.readouterr().err
    assert run.is_dir() and not Path("mark").exists() and "evil" not in sys.modules


@pytest.mark.parametrize("of", ["folder", "policy", "mixture"])
def test_python_asks_for_trust_too_and_takes_it(tmp_path, monkeypatch, of):
    (tmp_path / "pets.py").write_text("import gymnasium\n\nPole = lambda: gymnasium.make('CartPole-v1')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    small = {"num_envs": 2, "num_steps": 8, "total_timesteps": 32, "max_steps": 5}
    run = rqe_mappo.train("pets:Pole", **small, out="run", quiet=True)
    monkeypatch.setattr(registry, "VOUCHED", set())
    policy = rqe_mappo.Policy.load(run)
    mine = {"folder": run, "policy": policy, "mixture": rqe_mappo.interpolate(policy, rqe_mappo.Policy.load(run), 0.5)}
    with pytest.raises(ValueError, match="trust=True"):
        rqe_mappo.evaluate(mine[of], 2)
    assert rqe_mappo.evaluate(mine[of], 2, trust=True).episodes == 2
    sys.modules.pop("pets", None)


def test_a_run_with_code_of_a_module_says_that_its_evaluation_needs_trust(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
    monkeypatch.setattr(registry, "leads_to_code", lambda name: name == "toy")
    out = tmp_path / "run"
    flags = ["--num-envs", "2", "--num-steps", "8", "--total-timesteps", "16", "--eval-episodes", "0"]
    cli.train(["--env", "toy", *flags, "--out", str(out)])
    assert f"rqe-eval {out} --episodes 1000 --trust says" in capsys.readouterr().out
    monkeypatch.undo()
    for name in ("tests.toy:make", "pettingzoo:evil", "gymnasium:evil:Env-v0"):
        assert registry.leads_to_code(name)
    for name in ("sumo", "gymnasium:CartPole-v1", "pettingzoo:mpe2.simple_spread_v3"):
        assert not registry.leads_to_code(name)
