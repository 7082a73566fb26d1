"""Policies for who does not want this package: an ONNX file, or a program of torch.export, made by `rqe-export`.

The actor alone is exported. Inputs: `obs` float32 `[batch, D]`, `agent` int64 `[batch]`, the agent of each row, and of
an actor with memory `memory` float32 `[batch, H]`, zeros where an episode begins. Outputs: of choices `logits` and
`probabilities`, float32 `[batch, actions]`; the trained policy draws its actions from the latter. Of continuous actions
`mean` and `std`, float32 `[batch, U]`, of the normal numbers that it draws, and `action`, which the mean becomes in the
environment's units. Of an actor with memory also `next_memory`. What is known of the run travels along, see `facts`.

The ONNX graph is built node by node: actors are multilayer perceptrons, with a GRU at most, so this is shorter than
what PyTorch's own exporter needs, takes milliseconds instead of seconds, depends on `onnx` alone, and leaves no traces
of the machine in the file. Where agents have a network each, every row passes through all of them and the agent's own
result is picked: the same numbers as in training, where each network is called for its own rows only, but one graph
without branches.
"""

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from rqe_mappo import described_spaces
from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.command_line import main, parse
from rqe_mappo.config import trust
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets import PolicyActor
from rqe_mappo.nets.distributions import ActionDistribution, Categorical, Gaussian
from rqe_mappo.nets.mlp import RecurrentNet
from rqe_mappo.nets.normaliser import LARGEST

TOLERANCE = 1e-5
OPSET, IR_VERSION = 17, 8  # of 2022: nothing newer is needed, and older runtimes read them too
METADATA_FILE = "metadata.json"
Outputs = tuple[np.ndarray, ...]
Run = Callable[..., Outputs]
"""The outputs by the order of `outputs_of`, for observations `[B, D]`, agents `[B]`, and the memory `[B, H]` if any."""


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
    trust: bool = False
    """The run is your own: import the algorithm of a module that its settings name."""

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
        if asked.trust:
            trust(Path(asked.run))
        print(export(load_run(asked.run), asked.file, asked.inputs, asked.seed))

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
    the unit of tau; timesteps; package. Of actions: action_kind (discrete, multi-discrete, box), action_sizes (of each
    choice; of a box, how many numbers); action_start, where the first action is not 0; action_counts, where agents lack
    actions; squash, action_low and action_high of a box. spaces, what agents observe and do, of environments by name.
    memory, the width H of an actor with memory. And what the actions mean, where that is known: actions_mps2
    (accelerations) of `sumo`, actions (words) of `cartpole`.
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
    actions = policy.spec.actions
    known |= {"action_kind": actions.kind, "action_sizes": list(actions.sizes)}
    if actions.kind == "box":
        low, high = ([value if math.isfinite(value) else str(value) for value in side]
                     for side in (actions.low, actions.high))  # fmt: skip
        known |= {"squash": actions.squash, "action_low": low, "action_high": high}
    if actions.start:
        known["action_start"] = list(actions.start)
    if actions.counts:
        known["action_counts"] = list(actions.counts)
    known |= described_spaces.described(policy.spaces)
    if policy.actor.memory_size:
        known["memory"] = policy.actor.memory_size
    if config["env"] == "sumo":
        from rqe_mappo.envs.sumo_intersection.dynamics import ACTIONS_MPS2

        known["actions_mps2"] = ACTIONS_MPS2.tolist()
    elif config["env"] == "cartpole":
        known["actions"] = ["push left", "push right"]
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


def outputs_of(policy: Policy) -> dict[str, int]:
    """What the file gives, in order, and how wide each output is."""
    actions = policy.spec.actions
    names = ("mean", "std", "action") if actions.kind == "box" else ("logits", "probabilities")
    known = dict.fromkeys(names, actions.outputs)
    return known | {"next_memory": policy.actor.memory_size} if policy.actor.memory_size else known


class Graph:
    """An ONNX graph, node by node."""

    def __init__(self, onnx: ModuleType):
        self.onnx, self.nodes, self.constants = onnx, [], []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node with one output; gives the output's name."""
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: Tensor, name: str) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def layers(self, net: torch.nn.Module, value: str, name: str) -> str:
        """Linear layers and activations, one after the other."""
        for number, layer in enumerate(net if isinstance(net, torch.nn.Sequential) else ()):
            label = f"{name}.{number}"
            if isinstance(layer, torch.nn.Linear):
                weights = [self.constant(getattr(layer, part), f"{label}.{part}") for part in ("weight", "bias")]
                value = self.node("Gemm", [value, *weights], label, transB=1)
            else:
                value = self.node(type(layer).__name__, [value], label)  # torch and ONNX agree on the name of Tanh
        return value

    def gru(self, cell: torch.nn.GRUCell, seen: str, name: str) -> str:
        """The memory afterwards: gates `r` and `z`, candidate `n`, as PyTorch documents them."""
        parts = {}
        for part, value in (("ih", seen), ("hh", "memory")):
            weights = [
                self.constant(getattr(cell, f"{kind}_{part}"), f"{name}.{kind}_{part}") for kind in ("weight", "bias")
            ]
            every = self.node("Gemm", [value, *weights], f"{name}.{part}", transB=1)
            parts[part] = [f"{name}.{part}.{gate}" for gate in "rzn"]
            self.nodes.append(self.onnx.helper.make_node("Split", [every], parts[part], axis=1))
        (r_in, z_in, n_in), (r_kept, z_kept, n_kept) = parts["ih"], parts["hh"]
        r, z = (
            self.node("Sigmoid", [self.node("Add", pair, f"{name}.{gate}.sum")], f"{name}.{gate}")
            for gate, pair in (("r", [r_in, r_kept]), ("z", [z_in, z_kept]))
        )
        kept = self.node("Mul", [r, n_kept], f"{name}.kept")
        n = self.node("Tanh", [self.node("Add", [n_in, kept], f"{name}.n.sum")], f"{name}.n")
        change = self.node("Mul", [z, self.node("Sub", ["memory", n], f"{name}.gap")], f"{name}.change")
        return self.node("Add", [n, change], f"{name}.after")

    def chosen(self, every: Sequence[str], name: str) -> str:
        """Of a value of each agent's own network, that of the row's agent; of one alone, that."""
        if len(every) == 1:
            return every[0]
        after_batch = self.constant(torch.tensor([1]), f"{name}.after_batch")
        rows = [self.node("Unsqueeze", [value, after_batch], f"{value}.row") for value in every]
        table = self.node("Concat", rows, f"{name}.every", axis=1)
        which = self.node("Unsqueeze", ["agent", after_batch], f"{name}.which")
        return self.node("GatherND", [table, which], f"{name}.chosen", batch_dims=1)


def _actor(policy: Policy) -> PolicyActor:
    """The policy's actor; ValueError for one of another kind than files here can hold."""
    if not isinstance(policy.actor, PolicyActor):
        algo = json.loads(policy.config_json).get("algo")
        raise ValueError(f"policies of --algo {algo} cannot be exported: use Policy.load, which needs no environment")
    return policy.actor


def _numbers(policy: ActionDistribution) -> tuple[Tensor, ...]:
    """What the files give of a policy, less the memory: see `outputs_of`."""
    match policy:
        case Gaussian():
            return policy.mean, policy.log_std.exp(), policy.action(policy.mean)
        case Categorical():
            return policy.logits, policy.probs
    raise ValueError(f"a {type(policy).__name__} cannot be exported")


def to_onnx(policy: Policy) -> bytes:
    """The policy as an ONNX file. Raises ImportError with the fix if `onnx` is not installed."""
    onnx = _installed("onnx")
    actor, spec = _actor(policy), policy.spec
    graph = Graph(onnx)
    node, constant = graph.node, graph.constant

    seen = "obs"
    if actor.normaliser is not None:
        mean, std = (
            constant(value, f"obs.{name}")
            for name, value in zip(("mean", "std"), actor.normaliser.moments, strict=True)
        )
        scaled = node("Div", [node("Sub", [seen, mean], "obs.centred"), std], "obs.scaled")
        bounds = [constant(torch.tensor(bound), f"obs.bound{bound:g}") for bound in (-LARGEST, LARGEST)]
        seen = node("Clip", [scaled, *bounds], "obs.normalised")
    if actor.groups is not None:
        group = node("Gather", [constant(actor.groups, "groups"), "agent"], "group")
        seen = node("Concat", [seen, group], "seen", axis=-1)
    every, after = [], []
    for index, net in enumerate(actor.nets):
        name = f"nets.{index}"
        if isinstance(net, RecurrentNet):
            after.append(graph.gru(net.cell, graph.layers(net.encoder, seen, f"{name}.encoder"), f"{name}.cell"))
            every.append(graph.layers(net.output, after[-1], f"{name}.output"))
        else:
            every.append(graph.layers(net, seen, name))
    found = graph.chosen(every, "outputs")
    own = None if actor.own is None else node("Gather", [constant(actor.own, "own_actions"), "agent"], "own")
    if spec.actions.kind == "box":
        _gaussian(graph, actor, found, own)
    else:
        _choices(graph, policy, found, own)
    if after:
        node("Identity", [graph.chosen(after, "memories")], "next_memory")

    def described(name: str, kind: int, *shape: str | int) -> Any:
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    numbers, integers = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    inputs = [described("obs", numbers, "batch", spec.obs_dim), described("agent", integers, "batch")]
    if after:
        inputs.append(described("memory", numbers, "batch", actor.memory_size))
    outputs = [described(name, numbers, "batch", width) for name, width in outputs_of(policy).items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "policy", inputs, outputs, graph.constants),
        producer_name="rqe-mappo",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.helper.set_model_props(model, facts(policy))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _choices(graph: Graph, policy: Policy, found: str, own: str | None) -> None:
    """`logits` and `probabilities`, those of each choice summing to 1."""
    node, sizes = graph.node, policy.spec.actions.sizes
    if own is not None:
        found = node("Where", [own, found, graph.constant(torch.tensor(NO_ACTION), "no_action")], "allowed")
    node("Identity", [found], "logits")
    if len(sizes) == 1:
        node("Softmax", [found], "probabilities", axis=-1)
        return
    parts = [f"choice.{index}" for index in range(len(sizes))]
    widths = graph.constant(torch.tensor(sizes), "sizes")
    graph.nodes.append(graph.onnx.helper.make_node("Split", [found, widths], parts, axis=1))
    node("Concat", [node("Softmax", [part], f"{part}.probs", axis=-1) for part in parts], "probabilities", axis=-1)


def _gaussian(graph: Graph, actor: PolicyActor, found: str, own: str | None) -> None:
    """`mean`, `std` and `action`."""
    node, constant, actions = graph.node, graph.constant, actor.spec.actions
    node("Identity", [found], "mean")
    table = actor.stds.expand(actor.spec.n_agents, -1).contiguous()
    node("Gather", [constant(table, "stds"), "agent"], "std")
    value = found
    if actions.squash != "none":
        low, high = (torch.tensor(side, dtype=torch.float32) for side in (actions.low, actions.high))
        if actions.squash == "tanh":
            value = node("Tanh", [value], "within")
        else:
            bounds = [constant(torch.tensor(bound), f"bound{bound:g}") for bound in (-1.0, 1.0)]
            value = node("Clip", [value, *bounds], "within")
        scaled = node("Mul", [value, constant((high - low) / 2, "half")], "scaled")
        value = node("Add", [scaled, constant((low + high) / 2, "centre")], "moved")
        value = node("Max", [value, constant(low, "low")], "above")
        value = node("Min", [value, constant(high, "high")], "inside")
    if own is not None:
        value = node("Where", [own, value, constant(torch.tensor(0.0), "nothing")], "had")
    node("Identity", [value], "action")


def run_onnx(content: bytes) -> Run:
    """What onnxruntime makes of an ONNX file."""
    runtime = _installed("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: tuple(session.run(None, dict(zip(names, inputs, strict=True))))


class Program(torch.nn.Module):
    """An actor as `torch.export` can trace it, with the outputs of the file."""

    def __init__(self, actor: PolicyActor):
        super().__init__()
        self.actor = actor

    def forward(
        self,
        obs: Float[Tensor, "batch obs"],
        agent: Int[Tensor, " batch"],
        memory: Float[Tensor, "batch H"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Outputs as in `outputs_of`, every row through the networks of all agents: a graph without branches."""
        actor, after = self.actor, []
        seen, every = actor.inputs(obs, agent), []
        for net in actor.nets:
            if isinstance(net, RecurrentNet):
                output, remembered = net(seen, memory)
                after.append(remembered)
            else:
                output = net(seen)
            every.append(output)
        policy = actor.distribution(self._of(every, agent), agent)
        found = _numbers(policy)
        return found if memory is None else (*found, self._of(after, agent))

    @staticmethod
    def _of(every: list[Tensor], agent: Int[Tensor, " batch"]) -> Tensor:
        """What each row's agent has of its own."""
        if len(every) == 1:
            return every[0]
        return torch.stack(every, 1).gather(1, agent[:, None, None].expand(-1, 1, every[0].shape[-1])).squeeze(1)


def to_pt2(policy: Policy) -> bytes:
    """The policy as a file of torch.export; `facts` are in its extra file metadata.json, as one JSON object."""
    program = Program(_actor(policy)).eval()
    example = {"obs": torch.zeros(2, policy.spec.obs_dim), "agent": torch.zeros(2, dtype=torch.int64)}
    if policy.actor.memory_size:
        example["memory"] = torch.zeros(2, policy.actor.memory_size)
    batch = torch.export.Dim("batch")
    program(*example.values())  # what it computes once and keeps must not be what tracing stands for it with
    traced = torch.export.export(
        program, tuple(example.values()), dynamic_shapes={name: {0: batch} for name in example}
    )
    content = io.BytesIO()
    torch.export.save(traced, content, extra_files={METADATA_FILE: json.dumps(facts(policy))})
    return content.getvalue()


def run_pt2(content: bytes) -> Run:
    """What PyTorch makes of a file of torch.export."""
    module = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def run(*inputs: np.ndarray) -> Outputs:
        return tuple(output.numpy() for output in module(*map(torch.from_numpy, inputs)))

    return run


FORMATS: dict[str, tuple[Callable[[Policy], bytes], Callable[[bytes], Run]]] = {
    ".onnx": (to_onnx, run_onnx),
    ".pt2": (to_pt2, run_pt2),
}
"""How to write a file and how to run it, by suffix."""


def random_inputs(width: int, n_agents: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
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


def random_memory(width: int, count: int, seed: int) -> np.ndarray:
    """What a GRU may remember, `[count, width]`: numbers within ±1, and in a fifth of the rows nothing."""
    memory = np.random.default_rng([seed, 1]).uniform(-1, 1, (count, width)).astype(np.float32)
    memory[::5] = 0
    return memory


@torch.no_grad()
def largest_difference(policy: Policy, run: Run, inputs: int, seed: int) -> float:
    """The largest difference between `run` and the policy, of any output on `inputs` random inputs.

    Observations are in units of the running statistics of those that the policy was trained on, if it has some. Of
    continuous actions beyond ±1 the difference is relative.
    """
    actor, spec = _actor(policy), policy.spec
    obs, agent = random_inputs(spec.obs_dim, spec.n_agents, inputs, seed)
    if actor.normaliser is not None:
        mean, std = (part.numpy() for part in actor.normaliser.moments)
        obs = mean + std * obs
    given = [obs, agent]
    if actor.memory_size:
        given.append(random_memory(actor.memory_size, inputs, seed))
    found, memory = actor(*map(torch.from_numpy, given))
    due = [*_numbers(found), memory] if actor.memory_size else [*_numbers(found)]
    worst = 0.0
    for got, expected in zip(run(*given), (value.numpy() for value in due), strict=True):
        gap = np.abs(got - expected)
        worst = max(worst, float((gap / np.maximum(1, np.abs(expected)) if spec.actions.kind == "box" else gap).max()))
        if np.isnan(gap).any():
            return math.nan
    return worst


def _installed(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise ImportError(f"{name} is not installed: pip install 'rqe-mappo[export]'") from None
