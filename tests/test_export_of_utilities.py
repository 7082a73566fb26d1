"""Exported utilities of value methods say what PyTorch says, and their greatest is what the policy does."""

import json
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch

import rqe_mappo
from rqe_mappo import checkpoint, config, nets
from rqe_mappo.checkpoint import to_plain
from rqe_mappo.deploy import export
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets import (
    ActionSpec,
    CategoricalUtilities,
    DistributionalSpec,
    ImplicitUtilities,
    JointUtilities,
    LatentUtilities,
    LatentUtilitySpec,
    LevelledSpec,
    LevelledUtilities,
    LevelSpec,
    LevelUtilities,
    QuantileUtilities,
    Utilities,
    UtilitySpec,
)
from rqe_mappo.training.loop import train
from tests.test_bad_input import complaint
from tests.test_off_policy import RIVALS, replaying

AGENTS, ACTIONS, OBS, LATENTS = 3, 4, 5, 3
QUANTILES = {"size": 7}
KINDS: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "utilities": ("qmix", Utilities, UtilitySpec, {}),
    "joint": ("central-q", JointUtilities, UtilitySpec, {}),
    "latent": ("maven", LatentUtilities, LatentUtilitySpec, {"latents": LATENTS, "state_dim": 4, "latent_hidden": 4}),
    "levelled": ("drima", LevelledUtilities, LevelledSpec, {"agent_level": 0.9, "env_level": 0.2}),
    "quantiles": ("ddn", QuantileUtilities, DistributionalSpec, QUANTILES | {"risk": "wang:0.75"}),
    "implicit": ("riskq", ImplicitUtilities, DistributionalSpec, QUANTILES | {"risk": "cvar:0.3"}),
    "level chosen": ("rmix", LevelUtilities, LevelSpec, QUANTILES | {"level": None}),
    "level fixed": ("rmix", LevelUtilities, LevelSpec, QUANTILES | {"level": 0.3}),
    "atoms": ("c51", CategoricalUtilities, DistributionalSpec, {"size": 9}),
    "atoms, worst share": ("c51", CategoricalUtilities, DistributionalSpec, {"size": 9, "risk": "cvar:0.3"}),
}
OF_PROGRAMS = {
    "quantiles, entropic": ("dmix", QuantileUtilities, DistributionalSpec, QUANTILES | {"risk": "entropic"}),
    "implicit, expectile": ("ddn", ImplicitUtilities, DistributionalSpec, QUANTILES | {"risk": "expectile:0.2"}),
    "atoms, entropic": ("c51", CategoricalUtilities, DistributionalSpec, {"size": 9, "risk": "entropic"}),
    "atoms, wang": ("c51", CategoricalUtilities, DistributionalSpec, {"size": 9, "risk": "wang:0.75"}),
}
ALL, EACH, MEMORY, EACH_WITH_MEMORY = "one for all", "one each", "with memory", "one each, with memory"
FORMS: dict[str, dict[str, Any]] = {
    ALL: {},
    EACH: {"shared": False, "normalise": True, "counts": (4, 2, 3)},
    MEMORY: {"memory": 6, "hidden": ()},
    EACH_WITH_MEMORY: {"shared": False, "memory": 6, "normalise": True, "counts": (4, 2, 3)},
}
OTHERS = ("level fixed", "atoms, worst share", *OF_PROGRAMS)  # differ from kinds above in what ranks actions alone
TRACED = [(kind, form) for kind in KINDS if kind not in OTHERS for form in (EACH, MEMORY)]  # which takes half a second
TRACED += [("latent", EACH_WITH_MEMORY), ("implicit", EACH_WITH_MEMORY), *((kind, ALL) for kind in OTHERS)]


def invented(kind: str, form: str = ALL, reach: float = 1.0) -> Policy:
    """A policy with random weights, biases, levels, atoms and statistics, so that it has decided preferences.

    reach: how many times wider than usual atoms lie.
    """
    algo, network, spec, own = (KINDS | OF_PROGRAMS)[kind]
    settings = {"hidden": (8,)} | FORMS[form]
    actions = ActionSpec("discrete", (ACTIONS,), (), settings.pop("counts", ()))
    torch.manual_seed(0)
    actor = network(spec(obs_dim=OBS, n_agents=AGENTS, actions=actions, **settings, **own))
    with torch.no_grad():
        for weights in actor.parameters():
            weights.normal_(std=2 / weights.shape[-1] ** 0.5 if weights.ndim > 1 else 0.5)
        known = {
            "tau": torch.tensor(0.5),
            "atoms": reach * torch.linspace(-5, 3, 9),
            "drawn": torch.tensor([0.2, 0.1, 0.7]),
        }
        for name in known.keys() & dict(actor.named_buffers()).keys():
            getattr(actor, name).copy_(known[name])
    if actor.normaliser is not None:
        actor.normaliser.update(torch.randn(100, OBS) * torch.tensor([1.0, 10.0, 0.01, 3.0, 1.0]) + 50)
    chosen = {"risk": own["risk"]} if "risk" in own else {"level": own["level"]} if "level" in own else {}
    return Policy({
        "agents": ["a", "b", "c"], "timesteps": 7, "returns": None, "risk": None,
        "config": config.to_json(rqe_mappo.default_config("step-games", algo=algo).replace(**chosen)),
        "networks": to_plain({"actor": nets.describe(actor)}), "modules": {"actor": actor.state_dict()},
    })  # fmt: skip


def seen(policy: Policy, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random observations in units of the running statistics, and agents."""
    obs, agent = export.random_inputs(OBS, AGENTS, count, seed)
    if policy.actor.normaliser is None:
        return obs, agent
    mean, std = (part.numpy() for part in policy.actor.normaliser.moments)
    return mean + std * obs, agent


@pytest.mark.parametrize("kind", ["atoms", "atoms, worst share"])
def test_sums_over_atoms_that_lie_far_apart_are_compared_by_their_size(kind):
    policy = invented(kind, reach=1e4)
    run = export.run_onnx(export.to_onnx(policy))
    assert export.largest_difference(policy, run, 4000, seed=1) <= export.TOLERANCE
    with torch.no_grad():
        policy.actor.atoms[0] += 10
    assert export.largest_difference(policy, run, 4000, seed=1) > export.TOLERANCE


@pytest.mark.parametrize("kind", ["utilities", "quantiles", "atoms"])
def test_actions_that_are_not_there_are_not_taken_however_low_others_are(kind):
    policy = invented(kind, EACH)
    with torch.no_grad():
        for net in policy.actor.nets:
            [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)][-1].bias -= 1e12
        if kind == "atoms":
            policy.actor.atoms.copy_(torch.linspace(-2e12, -1e12, 9))
    obs, agent = seen(policy, 300, seed=3)
    counts = np.array(policy.spec.actions.counts)[agent]
    acted = policy.actor.act(*map(torch.from_numpy, (obs, agent)), torch.zeros(300, 0), uniform=None)
    assert (acted.extras["drawn"][..., 0].numpy() < counts).all()
    (utilities,) = export.run_onnx(export.to_onnx(policy))(obs, agent)
    assert (utilities.argmax(-1) < counts).all() and utilities.max() < -9e8


@pytest.mark.parametrize("kind, wrong", [("levelled", {"env_level": float("inf")}), ("atoms", {"risk": "cvar:oops"})])
def test_a_network_that_could_not_act_is_not_built(kind, wrong):
    known = nets.describe(invented(kind).actor)
    with pytest.raises(ValueError, match=r"levels must be|oops"):
        nets.build(known | wrong)


def test_a_policy_says_what_it_is_whatever_settings_its_file_holds():
    policy = invented("utilities")
    assert repr(policy) == "Policy(--algo qmix --env step-games, 3 agents, 7 decisions)"
    for strange in ("[]", "no JSON", "{}"):
        policy.config_json = strange
        assert repr(policy) == "Policy(--algo ? --env ?, 3 agents, 7 decisions)"
        with pytest.raises(ValueError, match=r"--algo \? has no critic"):
            policy.value(torch.zeros(1, OBS))


def agrees(kind: str, form: str, suffix: str) -> None:
    policy = invented(kind, form)
    write, read = export.FORMATS[suffix]
    run = read(write(policy))
    assert export.largest_difference(policy, run, 4000, seed=1) <= export.TOLERANCE
    widths = {"utilities": ACTIONS}
    if memory := policy.actor.memory_size:
        widths["next_memory"] = memory
    assert export.outputs_of(policy) == widths
    for rows in (0, 1, 3):
        obs, agent = seen(policy, rows + 1, seed=2)
        found = run(obs[:rows], agent[:rows], *[np.zeros((rows, memory), np.float32)] * bool(memory))
        assert [output.shape for output in found] == [(rows, width) for width in widths.values()]
        assert all(output.dtype == np.float32 for output in found)
    obs, agent = seen(policy, 1000, seed=3)
    utilities, *_ = run(obs, agent, *[np.zeros((1000, memory), np.float32)] * bool(memory))
    counts = np.array(policy.spec.actions.counts or [ACTIONS] * AGENTS)[agent]
    assert np.array_equal(utilities == NO_ACTION, np.arange(ACTIONS) >= counts[:, None])
    best = [set(utilities[agent == who].argmax(-1)) for who in range(AGENTS)]
    assert sorted(map(len, best))[1] > 1  # what is observed decides, with one agent at most who always does the same


@pytest.mark.slow
@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("kind", list(KINDS))
def test_onnx_file_agrees_with_pytorch_on_thousands_of_inputs(kind, form):
    agrees(kind, form, ".onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), TRACED)
def test_program_file_agrees_with_pytorch_on_thousands_of_inputs(kind, form, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks trace for two rows alone
    agrees(kind, form, ".pt2")


@pytest.mark.parametrize("form", [ALL, EACH_WITH_MEMORY])
@pytest.mark.parametrize("kind", list(KINDS))
def test_greatest_utility_is_what_the_policy_does(kind, form):
    """Step by step, fed its own memory, which is zero at the start."""
    policy = invented(kind, form)
    run, size = export.run_onnx(export.to_onnx(policy)), policy.actor.memory_size
    memory = np.zeros((500, size), np.float32)
    for step in range(4):
        obs, _ = seen(policy, 500, seed=step)
        agents = np.arange(500) % AGENTS
        found = run(obs, agents, *[memory] * bool(size))
        assert np.array_equal(found[0].argmax(-1), policy.act(obs, agents, deterministic=True))
        if size:
            memory = found[1]
            np.testing.assert_allclose(memory, policy.memory.actor.numpy(), atol=1e-5)


def test_check_sees_a_changed_weight_another_agent_forgotten_latents_and_an_action_that_is_lacked():
    """What is compared must be able to differ."""
    policy = invented("latent", EACH_WITH_MEMORY)
    run = export.run_onnx(export.to_onnx(policy))
    assert export.largest_difference(policy, run, 1000, seed=0) <= export.TOLERANCE

    def difference(change: Any) -> float:
        return export.largest_difference(policy, change, 1000, seed=0)

    def without_latent(obs: np.ndarray, agent: np.ndarray, memory: np.ndarray) -> tuple[np.ndarray, ...]:
        return run(obs, agent, memory * (np.arange(memory.shape[1]) < 6))

    def nearly_lacked(*given: np.ndarray) -> tuple[np.ndarray, ...]:
        utilities, memory = run(*given)
        return np.where(utilities == NO_ACTION, np.float32(NO_ACTION * (1 + 1e-7)), utilities), memory

    assert difference(lambda obs, agent, memory: run(obs, (agent + 1) % AGENTS, memory)) > 0.1
    assert difference(lambda obs, agent, memory: run(obs, agent, 0 * memory)) > 0.1
    assert difference(without_latent) > 0.1
    assert difference(nearly_lacked) > 10
    with torch.no_grad():
        policy.actor.nets[2].encoder[0].weight[0, 0] += 0.01
    assert difference(run) > export.TOLERANCE


def test_memory_to_compare_with_is_nothing_or_one_latent():
    memory = export.random_memory(6, 100, seed=0, latents=LATENTS)
    assert memory.dtype == np.float32 and memory.shape == (100, 9)
    assert (memory[::5] == 0).all()
    latent = np.delete(memory, np.s_[::5], axis=0)[:, 6:]
    assert {tuple(row) for row in latent} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    assert np.array_equal(memory[:, :6], export.random_memory(6, 100, seed=0))


def saved(policy: Policy, folder: Path) -> str:
    path = folder / "step_7.policy.pt"
    torch.save({"format": checkpoint.POLICY_FORMAT, **policy.content}, path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "measure"),
    [
        ("quantiles, entropic", "--risk entropic"),
        ("implicit, expectile", "--risk expectile:0.2"),
        ("atoms, entropic", "--risk entropic"),
        ("atoms, wang", "--risk wang:0.75"),
    ],
)
def test_what_onnx_does_not_say_simply_is_refused_with_the_fix(kind, measure, tmp_path, capsys):
    path = tmp_path / "policy.onnx"
    line = complaint(capsys, export.command, saved(invented(kind), tmp_path), str(path))
    assert measure in line and "ends in .pt2" in line and not path.exists()


def test_utilities_of_ones_own_are_refused_with_the_fix(tmp_path):
    class Halved(Utilities):
        def decoded(self, outputs, agent):
            return outputs / 2

    policy = invented("utilities")
    policy.actor.__class__ = Halved
    with pytest.raises(ValueError, match=r"Halved cannot be written as \.onnx: give a file that ends in \.pt2"):
        export.to_onnx(policy)


def test_file_says_what_ranks_actions():
    known = {}
    for kind in (*KINDS, *OF_PROGRAMS):
        facts = export.facts(invented(kind))
        known[kind] = facts["algorithm"], facts["risk"], facts["tau"], facts["eps"]
        assert json.loads(facts["return_scale"]) is None and facts["environment"] == "step-games"
    assert known["utilities"] == ("qmix", "neutral", "inf", "0.0")
    assert known["quantiles"] == ("ddn", "wang:0.75", "inf", "0.0")
    assert known["quantiles, entropic"][1] == "entropic" and known["atoms"][1] == "neutral"
    assert known["level fixed"][1] == "cvar:0.3" and known["level chosen"][1] == "cvar"
    session = onnxruntime.InferenceSession(export.to_onnx(invented("latent", MEMORY)))
    shown = {value.name: (value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())}
    assert shown == {
        "obs": ("tensor(float)", ["batch", OBS]), "agent": ("tensor(int64)", ["batch"]),
        "memory": ("tensor(float)", ["batch", 9]),
        "utilities": ("tensor(float)", ["batch", ACTIONS]), "next_memory": ("tensor(float)", ["batch", 9]),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("algo", RIVALS)
def test_command_exports_a_run_of_every_value_method(algo, tmp_path, capsys):
    folder = train(replaying(algo, tmp_path / "run", total_timesteps=128), quiet=True)
    export.command([str(folder), str(tmp_path / "policy.onnx"), "--inputs", "500"])
    assert "500 random inputs" in capsys.readouterr().out and (tmp_path / "policy.onnx").is_file()
