"""Policies for who does not want this package: an ONNX file, or a program of torch.export, made by `rqe-export`.

The actor alone is exported. Inputs: `obs` float32 `[batch, D]`, and `agent` int64 `[batch]`, the agent of each row.
Outputs: `logits` and `probabilities`, float32 `[batch, actions]`; the trained policy draws its actions from the latter.
What is known of the run travels along, see `facts`.

The ONNX graph is built node by node: actors are multilayer perceptrons, so this is shorter than what PyTorch's own
exporter needs, takes milliseconds instead of seconds, depends on `onnx` alone, and leaves no traces of the machine in
the file. Where agents have a network each, every row passes through all of them and the agent's own result is picked:
the same numbers as in training, where each network is called for its own rows only, but one graph without branches.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.command_line import main, parse
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets import PolicyActor

TOLERANCE = 1e-5
OPSET, IR_VERSION = 17, 8  # of 2022: nothing newer is needed, and older runtimes read them too
METADATA_FILE = "metadata.json"
Outputs = tuple[np.ndarray, np.ndarray]
Run = Callable[[np.ndarray, np.ndarray], Outputs]
"""Logits and probabilities `[B, actions]` for observations `[B, D]` and agents `[B]`."""


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained policy into one file that needs no rqe_mappo, once it has been found equal to PyTorch."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder, or a step_N.policy.pt file."""
    file: Annotated[Path, tyro.conf.Positional]
    """What to write: .onnx, or .pt2 for torch.export."""
    inputs: int = 10_000
    """Random inputs on which the file is compared with PyTorch."""
    seed: int = 0
    """Seed of these inputs."""

    def __post_init__(self):
        if self.inputs < 1:
            raise ValueError(f"--inputs must be at least 1 (got {self.inputs})")
        if self.seed < 0:
            raise ValueError(f"--seed must be >= 0 (got {self.seed})")
        if self.file.suffix not in FORMATS:
            raise ValueError(f"FILE must end in {' or '.join(FORMATS)} (got {self.file})")


def command(args: Sequence[str] | None = None) -> None:
    """rqe-export: a trained policy as one file that needs no rqe_mappo."""

    def run(args: list[str]) -> None:
        asked = parse(ExportConfig, "rqe-export", args)
        print(export(Policy.load(asked.run), asked.file, asked.inputs, asked.seed))

    main(run, "rqe-export", args)


def export(policy: Policy, path: Path, inputs: int = 10_000, seed: int = 0) -> str:
    """Write `policy`, which lives on the CPU, to `path`, whose suffix says how; gives a line to print.

    What shall be written is compared with PyTorch first: if it differs by more than `TOLERANCE`, a RuntimeError says so
    and `path` stays as it was.
    """
    write, read = FORMATS[path.suffix]
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: give a file in a folder that exists")
    content = write(policy)
    difference = largest_difference(policy, read(content), inputs, seed)
    said = f"largest difference from PyTorch on {inputs} random inputs: {difference:.1e}"
    if not difference <= TOLERANCE:  # nan, of a diverged run, is no agreement
        raise RuntimeError(f"{path} was not written: {said}, more than {TOLERANCE:.0e}")
    write_atomically(path, content)
    return f"{path}: {said}"


def facts(policy: Policy) -> dict[str, str]:
    """What is known of the run, for the file's metadata; structured values as JSON.

    agents (names, in the order of `agent`); environment, scenario, settings; algorithm, risk, tau, eps; return_scale,
    the unit of tau; timesteps; action_counts, where agents lack actions; package; and what the actions mean, where that
    is known: actions_mps2 (accelerations) of `sumo`, actions (words) of `cartpole`.
    """
    config = json.loads(policy.config_json)
    algorithm = config["algorithm"]
    known = {
        "agents": list(policy.agents), "environment": config["env"], "scenario": config["scenario"],
        "settings": config["env_config"], "algorithm": config["algo"], "algorithm_settings": config["algorithm"],
        "risk": policy.measure.name, "tau": algorithm.get("tau", "inf"), "eps": algorithm.get("eps", 0.0),
        "return_scale": policy.return_scale,
        "timesteps": policy.timesteps, "package": f"rqe-mappo {version('rqe-mappo')}",
    }  # fmt: skip
    if policy.spec.actions.counts:
        known["action_counts"] = policy.spec.actions.counts
    if config["env"] == "sumo":
        from rqe_mappo.envs.sumo_intersection.dynamics import ACTIONS_MPS2

        known["actions_mps2"] = ACTIONS_MPS2.tolist()
    elif config["env"] == "cartpole":
        known["actions"] = ["push left", "push right"]
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


def to_onnx(policy: Policy) -> bytes:
    """The policy as an ONNX file. Raises ImportError with the fix if `onnx` is not installed."""
    onnx = _installed("onnx")
    actor, spec = policy.actor, policy.spec
    nodes, constants = [], []

    def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(value: Tensor, name: str) -> str:
        constants.append(onnx.numpy_helper.from_array(value.detach().numpy(), name))
        return name

    seen = "obs"
    if actor.groups is not None:
        group = node("Gather", [constant(actor.groups, "groups"), "agent"], "group")
        seen = node("Concat", ["obs", group], "seen", axis=-1)
    every = []
    for index, net in enumerate(actor.nets):
        value = seen
        for number, layer in enumerate(net):
            name = f"nets.{index}.{number}"
            if isinstance(layer, torch.nn.Linear):
                weights = [constant(getattr(layer, part), f"{name}.{part}") for part in ("weight", "bias")]
                value = node("Gemm", [value, *weights], name, transB=1)
            else:
                value = node(type(layer).__name__, [value], name)  # torch and ONNX agree on the name of Tanh
        every.append(value)
    chosen = every[0]
    if len(every) > 1:
        after_batch = constant(torch.tensor([1]), "after_batch")
        rows = [node("Unsqueeze", [value, after_batch], f"{value}.row") for value in every]
        table = node("Concat", rows, "every", axis=1)
        which = node("Unsqueeze", ["agent", after_batch], "which")
        chosen = node("GatherND", [table, which], "chosen", batch_dims=1)
    if actor.own is not None:
        own = node("Gather", [constant(actor.own, "own_actions"), "agent"], "own")
        chosen = node("Where", [own, chosen, constant(torch.tensor(NO_ACTION), "no_action")], "allowed")
    node("Identity", [chosen], "logits")
    node("Softmax", [chosen], "probabilities", axis=-1)

    def described(name: str, kind: int, *shape: str | int) -> Any:
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    numbers, integers = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    graph = onnx.helper.make_graph(
        nodes, "policy",
        [described("obs", numbers, "batch", spec.obs_dim), described("agent", integers, "batch")],
        [described(name, numbers, "batch", spec.actions.outputs) for name in ("logits", "probabilities")],
        constants,
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, producer_name="rqe-mappo", ir_version=IR_VERSION, opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    onnx.helper.set_model_props(model, facts(policy))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run_onnx(content: bytes) -> Run:
    """What onnxruntime makes of an ONNX file."""
    runtime = _installed("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda obs, agent: tuple(session.run(["logits", "probabilities"], {"obs": obs, "agent": agent}))


class Program(torch.nn.Module):
    """An actor as `torch.export` can trace it, with the outputs of the file."""

    def __init__(self, actor: PolicyActor):
        super().__init__()
        self.actor = actor

    def forward(
        self, obs: Float[Tensor, "batch obs"], agent: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch actions"], Float[Tensor, "batch actions"]]:
        """Logits and probabilities, every row through the networks of all agents: a graph without branches."""
        actor = self.actor
        every = torch.stack([net(actor.inputs(obs, agent)) for net in actor.nets], 1)
        which = agent if len(actor.nets) > 1 else torch.zeros_like(agent)
        outputs = every.gather(1, which[:, None, None].expand(-1, 1, every.shape[-1])).squeeze(1)
        policy = actor.distribution(outputs, agent)
        return policy.logits, policy.probs


def to_pt2(policy: Policy) -> bytes:
    """The policy as a file of torch.export; `facts` are in its extra file metadata.json, as one JSON object."""
    program = Program(policy.actor).eval()
    batch = torch.export.Dim("batch")
    example = (torch.zeros(2, policy.spec.obs_dim), torch.zeros(2, dtype=torch.int64))
    traced = torch.export.export(program, example, dynamic_shapes={"obs": {0: batch}, "agent": {0: batch}})
    content = io.BytesIO()
    torch.export.save(traced, content, extra_files={METADATA_FILE: json.dumps(facts(policy))})
    return content.getvalue()


def run_pt2(content: bytes) -> Run:
    """What PyTorch makes of a file of torch.export."""
    module = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def run(obs: np.ndarray, agent: np.ndarray) -> Outputs:
        return tuple(output.numpy() for output in module(torch.from_numpy(obs), torch.from_numpy(agent)))

    return run


FORMATS: dict[str, tuple[Callable[[Policy], bytes], Callable[[bytes], Run]]] = {
    ".onnx": (to_onnx, run_onnx),
    ".pt2": (to_pt2, run_pt2),
}
"""How to write a file and how to run it, by suffix."""


def random_inputs(width: int, n_agents: int, count: int, seed: int) -> Outputs:
    """Observations `[count, width]` and agents `[count]`: zeros, single features at ±10, and normal and uniform ones.

    Most are standard normal, the scale for which environments here make their features; a quarter is uniform in ±5, the
    bound of those that have one.
    """
    rng = np.random.default_rng(seed)
    obs = rng.standard_normal((count, width), np.float32)
    obs[::4] = rng.uniform(-5, 5, obs[::4].shape)
    corners = np.concatenate((np.zeros((1, width)), 10 * np.eye(width), -10 * np.eye(width)))[:count]
    obs[: len(corners)] = corners
    return obs, rng.integers(0, n_agents, count)


@torch.no_grad()
def largest_difference(policy: Policy, run: Run, inputs: int, seed: int) -> float:
    """The largest difference between `run` and the policy, of any logit or probability on `inputs` random inputs."""
    obs, agent = random_inputs(policy.spec.obs_dim, policy.spec.n_agents, inputs, seed)
    choices = policy.choices(torch.from_numpy(obs), torch.from_numpy(agent))
    expected = choices.logits.numpy(), choices.probs.numpy()
    return max(float(np.abs(found - due).max()) for found, due in zip(run(obs, agent), expected, strict=True))


def _installed(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise ImportError(f"{name} is not installed: pip install 'rqe-mappo[export]'") from None
