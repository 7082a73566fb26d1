"""Exported files say what PyTorch says, and drive SUMO without this package as the environment drives."""

import ast
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rqe_mappo import checkpoint, config, nets
from rqe_mappo.deploy import export
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.sumo_intersection import SCENARIOS, IntersectionEnv
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets import ActionSpec, ActorSpec, DistributionCritic, DistributionCriticSpec, PolicyActor
from tests.test_bad_input import complaint

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ACTORS = {
    "one for all": {},
    "one each": {"shared": False},
    "told its group": {"groups": (0, 1, 0)},
    "lacking actions": {"counts": (4, 2, 3)},
    "one each, lacking actions": {"shared": False, "groups": (0, 1, 0), "counts": (4, 2, 3)},
    "without hidden layers": {"hidden": ()},
}


def invented(seed: int = 0, env: str = "sumo", gain: float = 1.0, counts=(), **spec) -> Policy:
    """A policy with random weights, its last layer times 100 `gain`, so that it has decided preferences."""
    known = {"obs_dim": 33, "n_agents": 3, "actions": ActionSpec("discrete", (4,), (), counts), "hidden": (16, 16)}
    torch.manual_seed(seed)
    actor = PolicyActor(ActorSpec(**known | spec))
    with torch.no_grad():
        for net in actor.nets:
            net[-1].weight.mul_(100 * gain)
            net[-1].bias.normal_().mul_(gain)
    n_agents = actor.spec.n_agents
    sees = DistributionCriticSpec(view_dim=7, n_agents=n_agents, hidden=(8,), n_atoms=5)
    modules = {"actor": actor, "critic": DistributionCritic(sees, torch.linspace(-1, 1, 5))}
    return Policy({
        "agents": [f"veh_{i}" for i in range(n_agents)], "config": config.to_json(config.default_config(env)),
        "timesteps": 7, "networks": {name: nets.describe(module) for name, module in modules.items()},
        "returns": "critic", "risk": {"name": "entropic", "tau": [float("inf")], "clip": 3.0, "return_scale": 2.5},
        "modules": {name: module.state_dict() for name, module in modules.items()},
    })  # fmt: skip


def saved(policy: Policy, folder: Path) -> Path:
    """The policy as a file of rqe-train."""
    path = folder / "step_7.policy.pt"
    torch.save({"format": checkpoint.POLICY_FORMAT, **policy.content}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("kind", list(ACTORS))
def test_file_agrees_with_pytorch_on_ten_thousand_inputs(kind, suffix):
    policy = invented(**ACTORS[kind])
    write, read = export.FORMATS[suffix]
    run = read(write(policy))
    assert export.largest_difference(policy, run, 10_000, seed=1) <= export.TOLERANCE
    for rows in (0, 1, 3):
        obs, agent = export.random_inputs(33, 3, rows + 1, seed=2)
        logits, probabilities = run(obs[:rows], agent[:rows])
        assert logits.shape == probabilities.shape == (rows, 4)
        assert logits.dtype == probabilities.dtype == np.float32
    if "counts" in ACTORS[kind]:
        obs, _ = export.random_inputs(33, 3, 50, seed=3)
        logits, probabilities = run(obs, np.full(50, 1))
        assert (probabilities[:, 2:] == 0).all() and (logits[:, 2:] == NO_ACTION).all()


def test_check_sees_another_agents_network_and_a_changed_weight():
    """What is compared must be able to differ."""
    policy = invented(shared=False)
    run = export.run_onnx(export.to_onnx(policy))
    shifted = lambda obs, agent: run(obs, (agent + 1) % 3)  # noqa: E731
    assert export.largest_difference(policy, shifted, 100, seed=0) > 0.1
    with torch.no_grad():
        policy.actor.nets[2][0].weight[0, 0] += 0.01
    assert export.largest_difference(policy, run, 1000, seed=0) > export.TOLERANCE


def test_inputs_hold_zeros_extremes_and_every_agent():
    obs, agent = export.random_inputs(5, 3, 1000, seed=0)
    assert obs.dtype == np.float32 and (obs[0] == 0).all() and obs.max() == 10 and obs.min() == -10
    assert set(agent) == {0, 1, 2}
    assert np.array_equal(obs, export.random_inputs(5, 3, 1000, seed=0)[0])


def test_onnx_file_says_what_it_is():
    policy = invented(counts=(4, 2, 3))
    session = onnxruntime.InferenceSession(export.to_onnx(policy))
    shown = {value.name: (value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())}
    assert shown == {
        "obs": ("tensor(float)", ["batch", 33]), "agent": ("tensor(int64)", ["batch"]),
        "logits": ("tensor(float)", ["batch", 4]), "probabilities": ("tensor(float)", ["batch", 4]),
    }  # fmt: skip
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["agents"]) == ["veh_0", "veh_1", "veh_2"]
    assert (known["environment"], known["scenario"], known["tau"], known["eps"]) == ("sumo", "default", "1.0", "0.003")
    assert json.loads(known["timesteps"]) == 7 and json.loads(known["return_scale"]) == 2.5
    assert json.loads(known["actions_mps2"]) == [-6.0, -2.0, 0.0, 2.5]
    assert json.loads(known["action_counts"]) == [4, 2, 3]
    assert json.loads(known["settings"])["max_speed_mps"] == 11.0
    assert known["package"].startswith("rqe-mappo ")


def test_program_file_carries_the_same_facts(tmp_path):
    policy = invented(env="cartpole")
    path = tmp_path / "policy.pt2"
    export.export(policy, path, inputs=100)
    extra = {export.METADATA_FILE: ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra[export.METADATA_FILE]) == export.facts(policy)
    assert json.loads(export.facts(policy)["actions"]) == ["push left", "push right"]


def test_command_writes_the_file_and_says_how_well_it_agrees(tmp_path, capsys):
    path = tmp_path / "policy.onnx"
    export.command([str(saved(invented(), tmp_path)), str(path), "--inputs", "500"])
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "500 random inputs" in said and str(path) in said
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["policy.onnx", "step_7.policy.pt"]


def test_file_that_disagrees_is_not_written(tmp_path, capsys, monkeypatch):
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"of yesterday")
    run = saved(invented(), tmp_path)
    monkeypatch.setitem(export.FORMATS, ".onnx", (lambda policy: export.to_onnx(invented(seed=5)), export.run_onnx))
    assert "was not written: largest difference" in complaint(capsys, export.command, str(run), str(path))
    assert path.read_bytes() == b"of yesterday" and len(list(tmp_path.iterdir())) == 2
    broken = invented()
    with torch.no_grad():
        broken.actor.nets[0][0].weight[0, 0] = float("nan")
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="nan"):
        export.export(broken, path, inputs=100)
    assert path.read_bytes() == b"of yesterday"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["RUN", "policy.torchscript"], [".onnx or .pt2", "policy.torchscript"]),
        (["RUN", "nowhere/policy.onnx"], ["nowhere/policy.onnx", "a folder that exists"]),
        (["missing", "policy.onnx"], ["missing", "does not exist"]),
        (["RUN", "policy.onnx", "--inputs", "0"], ["--inputs", "at least 1"]),
    ],
)
def test_bad_input_is_one_line(args, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = str(saved(invented(), tmp_path))
    line = complaint(capsys, export.command, *(run if arg == "RUN" else arg for arg in args))
    assert all(word in line for word in words), line


def test_missing_package_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    line = complaint(capsys, export.command, str(saved(invented(), tmp_path)), str(tmp_path / "policy.onnx"))
    assert "onnx is not installed: pip install 'rqe-mappo[export]'" in line


def example(name: str) -> ModuleType:
    """A file of examples/, imported."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_imports_nothing_of_ours():
    tree = ast.parse((EXAMPLES / "drive_with_onnx.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "sys", "dataclasses", "pathlib", "numpy", "onnxruntime", "traci", "sumolib"}


def driven_by_the_environment(policy: Policy, settings, seed: int) -> tuple[dict[str, np.ndarray], int]:
    """What each agent observed in the episode of `seed`, most probable actions, and how many crashed."""
    env = IntersectionEnv(settings)
    try:
        env.reset(seed)
        world = env.core.world
        # SUMO is told where vehicles start, and how fast, to two digits: here the environment sees the same
        stop_m = world.geometry.approach_m[world.movement]
        world.spawn_m[:] = stop_m - np.round(stop_m - world.spawn_m, 2)
        world.pos_m[:], world.speed_mps[:] = -world.spawn_m, np.round(world.speed_mps, 2)
        seen = dict(zip(env.agents, env.core.observed().obs[0], strict=True))
        shown = {agent: [] for agent in env.agents}
        while env.agents:
            for agent in env.agents:
                shown[agent].append(seen[agent].copy())
            actions = policy.act({agent: seen[agent] for agent in env.agents}, deterministic=True)
            seen, *_ = env.step(actions)
        return {agent: np.stack(rows) for agent, rows in shown.items()}, int(world.crashed.sum())
    finally:
        env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("n_agents", "n_background", "seeds"), [(5, 0, (0, 1, 2)), (4, 2, (1, 2, 4))])
def test_example_drives_and_observes_as_the_environment_does(n_agents, n_background, seeds, tmp_path, monkeypatch):
    """The same junction, departures and SUMO seed, no noise: two simulations, the same observations to the end.

    With lawful background drivers for seeds whose vehicles SUMO can all insert at once: the environment shows a vehicle
    that has to wait for a gap as if it were there already, TraCI does not.
    """
    files, drive = example("sumo_files"), example("drive_with_onnx")
    # so decided that drawing an action is taking the most probable one; its vehicles cross, stand, give up, and crash
    policy = invented(seed=4, gain=1e7, n_agents=n_agents)
    with torch.no_grad():
        policy.actor.nets[0][-1].bias[3] += 1e7
    path = tmp_path / "policy.onnx"
    path.write_bytes(export.to_onnx(policy))
    settings = replace(
        SCENARIOS["default"], n_agents=n_agents, n_background=n_background, p_aggressive=0, accel_noise_mps2=0,
        position_noise_m=0, speed_noise_mps=0, miss_probability=0, min_friction=1,
    )  # fmt: skip
    observe, observed, decisions, through, crashed = drive.observe, {}, 0, 0, 0

    def noted(me, *others):
        observed.setdefault(id(me), (me, []))[1].append(observe(me, *others))
        return observed[id(me)][1][-1]

    monkeypatch.setattr(drive, "observe", noted)
    for seed in seeds:
        expected, lost = driven_by_the_environment(policy, settings, seed)
        observed.clear()
        files.write(settings, tmp_path / "crossing", seed, waves=1)
        sumo_seed = int(np.random.default_rng(seed).integers(2**31 - 1))
        counts = drive.drive(str(path), str(tmp_path / "crossing"), sumo_seed)
        for (agent, rows), (_, had) in zip(expected.items(), observed.values(), strict=True):
            np.testing.assert_allclose(np.stack(had), rows, atol=1e-4, err_msg=f"{agent}, seed {seed}")
        assert counts["crashed"] == lost
        decisions, through, crashed = decisions + counts["decisions"], through + counts["through"], crashed + lost
    assert decisions >= 300 and through >= 5 and crashed >= 5
    assert through + crashed == len(seeds) * (n_agents + n_background)


def test_sumo_files_refuse_other_environments(tmp_path, capsys):
    files = example("sumo_files")
    run = saved(invented(env="cartpole"), tmp_path)
    line = complaint(capsys, lambda args: files.main(files.command, "sumo_files.py", args), str(run), str(tmp_path))
    assert "--env cartpole" in line
