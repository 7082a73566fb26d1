"""Whatever the user gets wrong ends in one line that names it and the fix, exit code 2, and nothing lost."""

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch

from rqe_mappo import checkpoint, cli
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import default_config
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.sumo_intersection import network
from rqe_mappo.envs.sumo_intersection.dynamics import junction_of
from rqe_mappo.envs.sumo_intersection.junction import copies_of
from rqe_mappo.envs.sumo_intersection.simulation import Simulation, SimulationCrashed
from rqe_mappo.training.loop import train

SMALL = {"total_timesteps": 256, "num_envs": 4, "num_steps": 16, "eval_episodes": 0, "n_atoms": 11}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of a few hundred decisions."""
    return train(default_config("cartpole").replace(**SMALL, out=str(tmp_path_factory.mktemp("runs") / "run")))


def complaint(capsys, command, *args: str) -> str:
    """The one line that `command` says, and its exit code 2."""
    with pytest.raises(SystemExit) as stop:
        command(list(args))
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "Traceback" not in said.err, said.err
    return said.err


def test_results_of_rqe_eval_go_neither_into_a_file_nor_into_another_run(run, tmp_path, capsys):
    file, other = tmp_path / "file", tmp_path / "other"
    file.touch()
    other.mkdir()
    (other / "latest").touch()
    for out, word in ((file, "cannot be written"), (other, "another run")):
        said = complaint(capsys, cli.evaluate, str(run), "--episodes", "2", "--out", str(out))
        assert f"--out {out}" in said and word in said
    assert [path.name for path in other.iterdir()] == ["latest"]


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        (cli.train, ["--num-env", "3"], "--num-env is no flag: do you mean --num-envs?"),
        (
            cli.train,
            ["--algo", "qmix", "--batch-epsiodes=3"],
            "--batch-epsiodes is no flag: do you mean --batch-episodes?",
        ),
        (cli.train, ["--xyzzy"], "--xyzzy is no flag (see rqe-train --help)"),
        (cli.evaluate, ["sumo", "--driver", "sumo", "--collision-cots", "3"], "do you mean --collision-cost?"),
    ],
)
def test_unknown_flags_are_told_what_they_look_like(command, args, said, capsys):
    assert said in complaint(capsys, command, *args)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--tau", "0"], ["--tau", "must be > 0", "inf"]),
        (["--tau", "-1"], ["--tau", "must be > 0", "-1"]),
        (["--tau", "nan"], ["--tau", "nan"]),
        (["--tau", "abc"], ["--tau", "abc"]),
        (["--eps", "-0.1"], ["--eps"]),
        (["--n-atoms", "1e9"], ["--n-atoms", "[5, 100000]"]),
        (["--n-atoms", "9" * 300], ["--n-atoms", "64 bits"]),
        (["--worker-timeout", "1e7"], ["--worker-timeout must be at most 1e+06"]),
        (["--env", "gamble", "--win", "1e308"], ["--win must lie within -1e+15 and 1e+15"]),
        (["--env", "cliff", "--goal-reward", "1e16"], ["--goal-reward must lie within"]),
        (["--env", "sumo", "--collision-cost", "1e300"], ["--collision-cost must lie within"]),
        (["--env", "cartpole", "--bonus", "1e300"], ["--bonus must lie within 0"]),
        (["--clip-coef", "1e308"], ["--clip-coef must be at most 1e+15"]),
        (["--algo", "mappo", "--huber-delta", "1e308"], ["--huber-delta must be at most 1e+15, or inf"]),
        (["--recurrent", "--gru-size", "1e12"], ["--gru-size must be in [1, 100000]"]),
        (["--actor-hidden", "1e12"], ["--actor-hidden", "from 1 to 100000"]),
        (["--env", "chess"], ["--env chess", "cartpole"]),
        (["--env"], ["--env"]),
        (["--scenario", "moon"], ["--scenario moon", "default"]),
        (["--risk", "luck"], ["--risk luck", "entropic"]),
        (["--risk", "cvar:2"], ["--risk", "cvar"]),
        (["--risk", "gini:0.5", "--advantage", "nested"], ["--advantage nested", "--risk gini:0.5", "cvar:LEVEL"]),
        (["--tau", "0.3,1"], ["--tau 0.3,1 names 2 agents", "one value for all"]),
        (["--tau", "0.3,-1"], ["--tau", "must be > 0", "-1"]),
        (["--tau", "0.3,abc"], ["--tau", "0.3,abc"]),
        (["--eps", "0.1,nan"], ["--eps", "0.1,nan"]),
        (["--risk", "var:0.1"], ["--risk var:0.1", "cannot be trained on", "cvar:0.1"]),
        (["--risk", "worst-case"], ["--risk worst-case", "cannot be trained on"]),
        (["--risk", "wang"], ["--risk wang", "wang:ETA"]),
        (["--risk", "expectile:1.5"], ["--risk expectile:1.5", "LEVEL"]),
        (["--discount-tau", "--advantage", "nested"], ["--discount-tau", "influence"]),
        (["--advantage", "rqe", "--time-limit", "bootstrap"], ["--algo exact-rqe", "--time-limit terminal"]),
        (["--env", "gymnasium:CartPole-v1", "--advantage", "rqe"], ["--algo exact-rqe", "time left", "rqe-mappo"]),
        (["--env", "matrix", "--advantage", "rqe", "--risk", "gini:0.5"], ["--risk gini:0.5", "--rqe-penalty"]),
        (["--env", "sumo", "--n-agents", "5", "--advantage", "rqe"], ["--algo exact-rqe", "1024"]),
        (["--env", "matrix", "--game", "chess"], ["--game", "chess", "stag-hunt"]),
        (["--critic-first", "0.9"], ["--critic-first"]),
        (["--settle", "-0.1"], ["--settle"]),
        (["--average", "0.2", "--settle", "0"], ["--average", "--settle"]),
        (
            ["--average", "0.2", "--settle", "0.1", "--advantage", "rqe", "--time-limit", "terminal"],
            ["--average", "rqe"],
        ),
        (["--advantage", "magic"], ["--advantage", "magic"]),
        (["--taus", "1"], ["--taus"]),
        (["--gamma", "1.5"], ["--gamma", "1.5"]),
        (["--gamma", "1", "--time-limit", "bootstrap"], ["--gamma", "--time-limit terminal"]),
        (["--scenario", "cartpole-v1", "--time-limit", "terminal"], ["--time-limit terminal", "use bootstrap"]),
        (["--num-envs", "5", "--num-workers", "2"], ["--num-workers", "5"]),
        (["--worker-timeout", "0"], ["--worker-timeout must be > 0"]),
        (["--num-envs", "1", "--num-steps", "1"], ["--num-steps", "at least 2"]),
        (["--total-timesteps", "0"], ["--total-timesteps"]),
        (["--device", "toaster"], ["--device toaster", "cpu"]),
        (["--gust-steps", "-1"], ["rqe-train: --gust-steps must be", "-1"]),
        (["--env", "sumo", "--step-s", "0.5"], ["rqe-train: --step-s must", "miss collisions"]),
        (["--env", "sumo", "--n-agents", "0"], ["rqe-train: --n-agents must be at least 1"]),
    ],
)
def test_wrong_flag(capsys, args, words):
    said = complaint(capsys, cli.train, *(["--env", "cartpole"] if "--env" not in args else []), *args)
    for word in words:
        assert word in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(capsys, tmp_path):
    out = tmp_path / "run"
    said = complaint(capsys, cli.train, "--env", "cartpole", "--device", "cuda", "--out", str(out))
    assert "--device cuda" in said and "use cpu" in said
    assert not out.exists()


def test_missing_sumo(capsys, monkeypatch, tmp_path):
    for name in ("sumo", "libsumo", "sumolib"):
        monkeypatch.setitem(sys.modules, name, None)
    said = complaint(capsys, cli.train, "--env", "sumo", "--out", str(tmp_path / "run"))
    assert "pip install" in said and "rqe-mappo[sumo]" in said


def test_damaged_network(capsys, monkeypatch, tmp_path):
    """A built-in junction, or the copies of one that are trained on."""
    pytest.importorskip("libsumo")
    monkeypatch.setenv("RQE_MAPPO_CACHE", str(tmp_path))
    config = default_config("sumo")
    junction = junction_of(config.env_config)
    copies = network.keep(copies_of(junction, config.num_envs), f"junction_{config.num_envs}")
    (built,) = copies.parent.glob("built_*")
    for net in (copies, built):
        net.write_text(net.read_text()[:2000])
        said = complaint(capsys, cli.train, "--env", "sumo", "--out", str(tmp_path / "run"))
        assert str(net) in said and "delete it" in said


def test_cache_that_cannot_be_written(capsys, monkeypatch, tmp_path):
    pytest.importorskip("libsumo")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RQE_MAPPO_CACHE", str(tmp_path / "file"))
    assert "RQE_MAPPO_CACHE" in complaint(capsys, cli.train, "--env", "sumo", "--out", str(tmp_path / "run"))


def test_network_that_sumo_refuses(tmp_path):
    pytest.importorskip("libsumo")
    sim = Simulation(tmp_path / "no.net.xml", 0.1)
    try:
        with pytest.raises(SimulationCrashed, match=r"SUMO stopped.*no\.net\.xml"):
            sim.load(0)
    finally:
        sim.close()


def test_out_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = complaint(capsys, cli.train, "--env", "cartpole", "--out", str(tmp_path / "file" / "run"))
    assert "--out" in said and "another folder" in said


def test_out_that_holds_a_run_is_not_overwritten(capsys, run):
    before = (run / "latest").read_text()
    said = complaint(capsys, cli.train, "--env", "cartpole", "--out", str(run))
    assert "--resume" in said
    assert (run / "latest").read_text() == before


def test_resume_without_run_or_checkpoint(capsys, tmp_path, run):
    assert "config.json" in complaint(capsys, cli.train, "--resume", str(tmp_path / "nothing"))
    for name in ("config.json", "metrics.csv"):  # it has learned, and its checkpoints are gone
        (tmp_path / name).write_text((run / name).read_text())
    assert "holds no checkpoint" in complaint(capsys, cli.train, "--resume", str(tmp_path))
    assert (tmp_path / "metrics.csv").read_text() == (run / "metrics.csv").read_text()


def test_evaluation_refuses_an_unknown_measure(capsys, run):
    assert "--risk luck is unknown" in complaint(capsys, cli.evaluate, str(run), "--risk", "luck")


def test_resume_refuses_other_settings(capsys, run):
    assert "--gamma" in complaint(capsys, cli.train, "--resume", str(run), "--gamma", "0.9")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"env": "cartpole"}', '{"env": "moon", "scenario": "default"}'])
def test_damaged_config(capsys, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    complaint(capsys, cli.train, "--resume", str(tmp_path))


class Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def damaged(kind: str, good: Path, folder: Path) -> Path:
    path = folder / f"{kind}.policy.pt"
    if kind == "pickle bomb":
        path.write_bytes(pickle.dumps(Bomb(folder / "boom")))
    elif kind == "torch bomb":
        torch.save({"format": checkpoint.POLICY_FORMAT, "modules": Bomb(folder / "boom")}, path)
    elif kind == "truncated":
        path.write_bytes(good.read_bytes()[:-500])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "foreign":
        torch.save({"state_dict": {"weight": torch.zeros(3)}}, path)
    elif kind == "without actor":
        content = torch.load(good, weights_only=True)
        del content["modules"]["actor"]
        torch.save(content, path)
    elif kind == "other shapes":
        content = torch.load(good, weights_only=True)
        content["networks"]["actor"]["obs_dim"] = 77
        torch.save(content, path)
    return path


KINDS = ["pickle bomb", "torch bomb", "truncated", "empty", "text", "foreign", "without actor", "other shapes"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_foreign_or_malicious_checkpoint(capsys, tmp_path, run, kind):
    path = damaged(kind, checkpoint.newest(run)[0], tmp_path)
    with pytest.raises(CheckpointError, match="checkpoint"):
        Policy.load(path)
    assert str(path) in complaint(capsys, cli.evaluate, str(path))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("kind", ["pickle bomb", "truncated"])
def test_damaged_training_state(capsys, tmp_path, run, kind):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(run)).parent.mkdir(exist_ok=True)
            (copy / path.relative_to(run)).write_bytes(path.read_bytes())
    training = checkpoint.newest(copy)[1]
    damaged(kind, training, tmp_path).replace(training)
    said = complaint(capsys, cli.train, "--resume", str(copy), "--total-timesteps", "1000")
    assert training.name in said
    assert not (tmp_path / "boom").exists()


def test_more_than_the_memory_holds_is_told_in_one_line(capsys, monkeypatch):
    def build(config, resume):
        raise MemoryError("Unable to allocate 29.1 TiB")

    monkeypatch.setattr("rqe_mappo.training.loop.train", build)
    said = complaint(capsys, cli.train, "--env", "cartpole")
    assert "not enough memory" in said and "--num-envs" in said


def test_eval_of_nothing(capsys, tmp_path):
    assert "does not exist" in complaint(capsys, cli.evaluate, str(tmp_path / "nothing"))
    assert "--episodes" in complaint(capsys, cli.evaluate, str(tmp_path), "--episodes", "0")
    assert "--rigm needs the measures" in complaint(capsys, cli.evaluate, str(tmp_path), "--rigm")
    for flags in (("--risk", "cvar:0.1"), ("--deterministic",)):
        said = complaint(capsys, cli.evaluate, str(tmp_path), "--rigm", "cvar:0.25", *flags)
        assert f"leave {flags[0]} out" in said


def test_observation_of_the_wrong_width(run):
    policy = Policy.load(run)
    with pytest.raises(ValueError, match="observation must have 6 features"):
        policy.act([0.0, 1.0])
