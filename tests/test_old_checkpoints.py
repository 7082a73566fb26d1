"""Runs and pretrained folders of the format before load, act, are evaluated and exported, and go on where they were."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rqe_mappo import checkpoint, cli
from rqe_mappo.config import default_config, from_json, to_json
from rqe_mappo.deploy import export
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.training import logs
from tests.recorded_losses import same

DATA = Path(__file__).parent / "data"
RUNS = sorted(folder.name for folder in (DATA / "format1").iterdir())
SUMO = ("sumo", "signals")
NEUTRAL = ("ippo", "mappo", "reward-shaped")
TOLERANCE, AFTER_UPDATES = 1e-6, 1e-4  # machines differ that much; on the one that made the files nothing does


@pytest.fixture(params=RUNS)
def name(request) -> str:
    if request.param in SUMO:
        pytest.importorskip("libsumo")
    return request.param


@pytest.fixture
def run(name, tmp_path) -> Path:
    """A copy of the run's folder, which may be written to."""
    return Path(shutil.copytree(DATA / "format1" / name, tmp_path / "run"))


def expected(name: str) -> dict:
    """What the version that wrote the run made of it."""
    return json.loads((DATA / "format1" / name / "expected.json").read_text())


def check(policy: Policy, name: str) -> None:
    """The policy gives what the run's own version gave."""
    known = expected(name)
    agent = known["agent"]
    found = {"probabilities": policy.probabilities(np.array(known["obs"], np.float32), agent)}
    views = np.array(known["state"], np.float32)  # ippo's critic was given these too
    if name == "advantage-rqe":  # the expected payoff of each joint action
        critic = policy.modules["critic"]
        found["mean"] = critic(torch.from_numpy(views), torch.tensor(agent)).softmax(-1).detach() @ critic.atoms
    elif "mean" in known:
        found["mean"] = policy.distribution(views, agent).mean
    if "value" in known:
        found["value"] = policy.value(views, agent)
    for what, values in found.items():
        assert np.shape(values) == np.shape(known[what])
        assert np.allclose(values, known[what], atol=TOLERANCE, rtol=TOLERANCE), what
    assert ("value" in known) == (policy.returns is not None)


def test_policy_is_what_it_was(name):
    policy = Policy.load(DATA / "format1" / name)
    check(policy, name)
    settings = json.loads((DATA / "format1" / name / "config.json").read_text())
    config = from_json(policy.config_json)
    assert config.algo == ("exact-rqe" if name == "advantage-rqe" else settings["algo"])
    assert config.env_config == from_json(json.dumps(settings)).env_config
    kept = config.flat()
    for setting, value in settings.items():
        if setting in kept and setting not in ("tau", "algo", "out"):
            assert kept[setting] == (tuple(value) if isinstance(value, list) else value), setting
    if name not in NEUTRAL:
        tau = settings["tau"]
        assert config.algorithm.tau == (tuple(map(float, tau)) if isinstance(tau, list) else float(tau))
    assert (policy.risk is None) == (name in NEUTRAL)


def test_neutral_risk_of_exact_rqe_was_an_infinite_tau():
    settings = json.loads((DATA / "format1" / "advantage-rqe" / "config.json").read_text())
    assert from_json(json.dumps(settings | {"risk": "neutral"})).algorithm.tau == math.inf


@pytest.mark.slow
def test_policy_is_evaluated(name, run, capsys):
    cli.evaluate([str(run), "--episodes", "1" if name == "signals" else "4"])
    assert "mean return" in capsys.readouterr().out
    judged = "critic" in json.loads((run / "eval.json").read_text())
    assert judged == (name not in (*NEUTRAL, "mean-variance", "advantage-rqe"))


def test_policy_is_exported(name, tmp_path):
    policy, file = Policy.load(DATA / "format1" / name), tmp_path / "policy.onnx"
    export.export(policy, file, inputs=200)
    known = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(known["timesteps"]) == policy.timesteps


def test_policy_survives_a_pretrained_folder(name, tmp_path):
    policy = Policy.load(DATA / "format1" / name)
    policy.save_pretrained(tmp_path / "policy")
    again = Policy.from_pretrained(tmp_path / "policy")
    check(again, name)
    assert (again.risk, again.timesteps, again.agents) == (policy.risk, policy.timesteps, policy.agents)


def test_settings_newer_than_a_run_change_nothing_whatever_the_recipe_says():
    default = default_config("sumo")
    assert default.algorithm.eps_start == 10
    content = json.loads(to_json(default))
    del content["algorithm"]["eps_start"]
    assert from_json(json.dumps(content)) == default.replace(eps_start=1.0)


@pytest.mark.slow
def test_run_goes_on_where_it_was(name, run, monkeypatch):
    """The scalars of the updates that follow, in SUMO those of the new episodes that a resumed run begins."""
    rows = []
    monkeypatch.setattr(logs.RunLog, "row", lambda log, step, values: rows.append({"step": step} | values))
    total, known = 2 * json.loads((run / "config.json").read_text())["total_timesteps"], expected(name)["resumed"]
    cli.train(["--resume", str(run), "--total-timesteps", str(total), "--eval-episodes", "0"])
    assert checkpoint.load_policy_file(run)["timesteps"] >= total
    assert Policy.load(run).timesteps >= total
    assert len(rows) == len(known)
    for found, recorded in zip(rows, known, strict=True):
        gone = set(recorded) - set(found)
        assert all(scalar.startswith("risk/") for scalar in gone) and (not gone or name in NEUTRAL), gone
        for scalar in set(recorded) & set(found) - logs.TIMED:
            assert same(found[scalar], recorded[scalar], AFTER_UPDATES), scalar


def test_pretrained_folder_of_the_format_before_is_what_it_was(tmp_path):
    policy = Policy.from_pretrained(DATA / "format1_pretrained")
    check(policy, "cartpole")
    kept = Policy.load(DATA / "format1" / "cartpole")
    for module, weights in kept.modules.items():
        for name, value in weights.state_dict().items():
            assert torch.equal(policy.modules[module].state_dict()[name], value), name
    assert (policy.risk, policy.timesteps, policy.agents) == (kept.risk, kept.timesteps, kept.agents)
    assert from_json(policy.config_json) == from_json(kept.config_json).replace(out=None)
    shutil.copytree(DATA / "format1_pretrained", tmp_path / "policy")
    policy.save_pretrained(tmp_path / "policy")  # replaces what an earlier version wrote
    check(Policy.from_pretrained(tmp_path / "policy"), "cartpole")
