"""Exported actors with memory, of continuous actions, and with running statistics say what PyTorch says."""

import json
import math

import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rqe_mappo import config, nets
from rqe_mappo.checkpoint import to_plain
from rqe_mappo.deploy import export
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.contract import PaddedBox, PaddedDiscrete
from rqe_mappo.nets import ActionSpec, ActorSpec, PolicyActor
from tests.small_tasks import small_config

BOX = Box(np.float32([-2, 0]), np.float32([2, 500]))
PADDED = PaddedBox([Box(-1, 1, (1,), np.float32), Box(-2, 2, (2,), np.float32), Box(0, 1, (2,), np.float32)])
ACTORS = {
    "choice": (Discrete(4, start=2), {}),
    "choice, an actor each, groups, fewer": (PaddedDiscrete((4, 2, 3)), {"shared": False}),
    "several choices": (MultiDiscrete([2, 3]), {"groups": (0, 1, 0)}),
    "tanh": (BOX, {}),
    "tanh, an actor each": (BOX, {"shared": False}),
    "clip, fewer numbers, groups": (PADDED, {"groups": (0, 1, 0), "squash": "clip"}),
    "none": (Box(-np.inf, np.inf, (2,), np.float32), {"squash": "none"}),
}


def invented(kind: str, memory: int = 0, normalise: bool = False, hidden: tuple[int, ...] = (8, 8)) -> Policy:
    """A policy with random weights, means, stds and statistics."""
    space, settings = ACTORS[kind]
    settings = dict(settings)
    actions = ActionSpec.of(space, settings.pop("squash", "tanh"))
    torch.manual_seed(1)
    actor = PolicyActor(
        ActorSpec(obs_dim=5, n_agents=3, actions=actions, hidden=hidden, memory=memory, normalise=normalise, **settings)
    )
    with torch.no_grad():
        for net in actor.nets:
            last = net.output[-1] if memory else net[-1]
            last.weight.mul_(100)
            last.bias.normal_()
        if actor.log_std is not None:
            actor.log_std.uniform_(-2, 1)
    if normalise:
        actor.normaliser.update(torch.randn(100, 5) * torch.tensor([1.0, 10.0, 0.01, 3.0, 1.0]) + 50)
    return Policy({
        "agents": ["a", "b", "c"], "config": config.to_json(config.default_config("cartpole")), "timesteps": 7,
        "networks": to_plain({"actor": nets.describe(actor)}), "returns": None, "risk": None,
        "modules": {"actor": actor.state_dict()},
    })  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("memory", [0, 6])
@pytest.mark.parametrize("kind", list(ACTORS))
def test_file_agrees_with_pytorch_on_ten_thousand_inputs(kind, memory, suffix):
    if suffix == ".pt2" and kind not in ("choice, an actor each, groups, fewer", "clip, fewer numbers, groups"):
        pytest.skip("tracing takes seconds")
    policy = invented(kind, memory, normalise="groups" in kind)
    write, read = export.FORMATS[suffix]
    run = read(write(policy))
    assert export.largest_difference(policy, run, 10_000, seed=1) <= export.TOLERANCE
    widths = list(export.outputs_of(policy).values())
    for rows in (1, 3):
        obs, agent = export.random_inputs(5, 3, rows, seed=2)
        given = (obs, agent, np.zeros((rows, memory), np.float32)) if memory else (obs, agent)
        found = run(*given)
        assert [output.shape for output in found] == [(rows, width) for width in widths]
        assert all(output.dtype == np.float32 for output in found)


@pytest.mark.parametrize("kind", ["choice", "tanh", "clip, fewer numbers, groups"])
def test_file_plays_on_as_the_policy_does(kind):
    """Fed its own memory, which is zero at the start, it gives the most probable actions of `act`, step by step."""
    policy = invented(kind, memory=6, normalise=True, hidden=())
    names = list(export.outputs_of(policy))
    run, memory = export.run_onnx(export.to_onnx(policy)), np.zeros((3, 6), np.float32)
    rng, agents = np.random.default_rng(0), np.arange(3)
    for _ in range(20):
        obs = 50 + rng.standard_normal((3, 5), np.float32)
        found = dict(zip(names, run(obs, agents, memory), strict=True))
        memory = found["next_memory"]
        actions = policy.act(obs, agents, deterministic=True)
        if kind == "choice":
            assert np.array_equal(2 + found["logits"].argmax(-1), actions)
        else:
            np.testing.assert_allclose(found["action"], actions, atol=1e-4)
        np.testing.assert_allclose(memory, policy.memory.actor.numpy(), atol=1e-5)


def test_check_sees_forgotten_memory_and_other_stds_and_statistics():
    """What is compared must be able to differ."""
    policy = invented("tanh", memory=6, normalise=True)
    run = export.run_onnx(export.to_onnx(policy))
    forgetful = lambda obs, agent, memory: run(obs, agent, 0 * memory)  # noqa: E731
    assert export.largest_difference(policy, forgetful, 100, seed=0) > 0.01
    for change in (policy.actor.log_std, policy.actor.normaliser.mean):
        with torch.no_grad():
            change.add_(0.01)
        assert export.largest_difference(policy, run, 100, seed=0) > 1e-3
        with torch.no_grad():
            change.sub_(0.01)
    assert export.largest_difference(policy, run, 100, seed=0) <= export.TOLERANCE


def test_file_says_how_to_use_it():
    known = {}
    for kind, memory in (("choice", 6), ("clip, fewer numbers, groups", 0), ("none", 0), ("several choices", 0)):
        session = onnxruntime.InferenceSession(export.to_onnx(invented(kind, memory)))
        shown = [value.name for value in session.get_inputs()], [value.name for value in session.get_outputs()]
        meta = session.get_modelmeta().custom_metadata_map
        words = {name: meta.get(name) for name in ("action_kind", "squash") if name in meta}
        numbers = ("action_sizes", "action_start", "action_counts", "action_low", "action_high", "memory")
        known[kind] = shown, words | {name: json.loads(meta[name]) for name in numbers if name in meta}
    assert known["choice"] == (
        (["obs", "agent", "memory"], ["logits", "probabilities", "next_memory"]),
        {"action_kind": "discrete", "action_sizes": [4], "action_start": [2], "memory": 6},
    )
    assert known["clip, fewer numbers, groups"] == (
        (["obs", "agent"], ["mean", "std", "action"]),
        {"action_kind": "box", "action_sizes": [2], "action_counts": [1, 2, 2], "squash": "clip",
         "action_low": [-2.0, -2.0], "action_high": [2.0, 2.0]},
    )  # fmt: skip
    assert known["none"][1] == {"action_kind": "box", "action_sizes": [2], "squash": "none",
                                "action_low": ["-inf", "-inf"], "action_high": ["inf", "inf"]}  # fmt: skip
    assert known["several choices"][1] == {"action_kind": "multi-discrete", "action_sizes": [2, 3]}


def test_draws_as_documented_follow_the_policy():
    """mean + std z, squashed into the bounds, has the density that the policy gives it."""
    policy = invented("tanh")
    run = export.run_onnx(export.to_onnx(policy))
    obs, agent = np.ones((4000, 5), np.float32), np.zeros(4000, np.int64)
    mean, std, action = run(obs, agent)
    low, high = np.float32(BOX.low), np.float32(BOX.high)
    drawn = mean + std * np.random.default_rng(0).standard_normal(mean.shape, np.float32)
    drawn = (low + high) / 2 + (high - low) / 2 * np.tanh(drawn)
    own = policy.act(obs, agent)
    gap = np.abs(np.sort(drawn, 0) - np.sort(own, 0)).mean(0) / (high - low)
    assert (gap < 0.02).all()
    np.testing.assert_allclose(action[0], policy.act(obs[0], 0, deterministic=True), rtol=1e-5)
    assert math.isfinite(float(drawn.sum()))


def test_command_exports_a_recurrent_run(tmp_path, capsys):
    from rqe_mappo.training.loop import train

    settings = small_config("TOY", "ippo", recurrent=True, total_timesteps=100, out=str(tmp_path / "run"))
    train(settings)
    export.command([str(tmp_path / "run"), str(tmp_path / "policy.onnx"), "--inputs", "500"])
    assert "500 random inputs" in capsys.readouterr().out and (tmp_path / "policy.onnx").is_file()
