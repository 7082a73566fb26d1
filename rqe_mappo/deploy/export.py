"""Policies for who does not want this package: an ONNX file, or a program of torch.export, made by `rqe-export`.

The actor alone is exported. Inputs: `obs` float32 `[batch, D]`, `agent` int64 `[batch]`, the agent of each row, and of
an actor with memory `memory` float32 `[batch, H]`, zeros where an episode begins. Outputs: of choices `logits` and
`probabilities`, float32 `[batch, actions]`; the trained policy draws its actions from the latter. Of continuous actions
`mean` and `std`, float32 `[batch, U]`, of the normal numbers that it draws, and `action`, which the mean becomes in the
environment's units. Of value methods `utilities`, float32 `[batch, actions]`, the greatest of which says what to do. Of
an actor with memory also `next_memory`. What is known of the run travels along, see `facts`.

How ONNX files are made says `onnx_graph`; how files are compared with PyTorch, `exported`.
"""

import copy
import io
import json
import math
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

from rqe_mappo import described_spaces
from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.command_line import main, parse
from rqe_mappo.config import trust
from rqe_mappo.deploy.exported import (
    TOLERANCE,
    Outputs,
    Run,
    actor_of,
    computed,
    largest_difference,
    outputs_of,
    random_inputs,
    random_memory,
)
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.deploy.onnx_graph import Graph
from rqe_mappo.deploy.onnx_policies import policy_nodes
from rqe_mappo.deploy.onnx_utilities import utility_nodes
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.functional.risk import CVaR
from rqe_mappo.nets import LevelUtilities, PolicyActor, Utilities
from rqe_mappo.nets.distributional_utilities import DistributionalUtilities
from rqe_mappo.nets.level_utilities import LevelSpec

__all__ = [
    "FORMATS",
    "TOLERANCE",
    "ExportConfig",
    "command",
    "export",
    "facts",
    "largest_difference",
    "outputs_of",
    "random_inputs",
    "random_memory",
    "run_onnx",
    "run_pt2",
    "to_onnx",
    "to_pt2",
]

METADATA_FILE = "metadata.json"


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
    the unit of tau; timesteps; package. Of a value method risk is what ranks actions, tau in the unit of its settings,
    and utility_tau that in units of utilities, where distributions are ranked.
    Of actions: action_kind (discrete, multi-discrete, box), action_sizes (of each
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
        "risk": _risk(policy), "tau": algorithm.get("tau", "inf"), "eps": algorithm.get("eps", 0.0),
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
    if isinstance(policy.actor, DistributionalUtilities):
        known["utility_tau"] = float(policy.actor.tau)
    if config["env"] == "sumo":
        from rqe_mappo.envs.sumo_intersection.dynamics import ACTIONS_MPS2

        known["actions_mps2"] = ACTIONS_MPS2.tolist()
    elif config["env"] == "cartpole":
        known["actions"] = ["push left", "push right"]
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


def _risk(policy: Policy) -> str:
    """The measure by which the policy was trained, or ranks actions, as `--risk` spells it."""
    match policy.actor:
        case LevelUtilities(spec=LevelSpec(level=level)):
            return "cvar" if level is None else CVaR(level).name  # else by its networks
        case DistributionalUtilities(measure=measure):
            return measure.name
    return policy.measure.name


def to_onnx(policy: Policy) -> bytes:
    """The policy as an ONNX file. Raises ImportError with the fix if `onnx` is not installed."""
    graph, actor = Graph(_installed("onnx")), actor_of(policy)
    if isinstance(actor, Utilities):
        utility_nodes(graph, actor)
    else:
        policy_nodes(graph, actor)
    return graph.file(policy.spec.obs_dim, actor.memory_size, outputs_of(policy), facts(policy))


def run_onnx(content: bytes) -> Run:
    """What onnxruntime makes of an ONNX file."""
    runtime = _installed("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: tuple(session.run(None, dict(zip(names, inputs, strict=True))))


class Program(torch.nn.Module):
    """An actor as `torch.export` can trace it, with the outputs of the file."""

    def __init__(self, actor: PolicyActor | Utilities):
        super().__init__()
        self.actor = copy.deepcopy(actor)
        if isinstance(self.actor, DistributionalUtilities):
            self.actor.fix_measure()

    def forward(
        self,
        obs: Float[Tensor, "batch obs"],
        agent: Int[Tensor, " batch"],
        memory: Float[Tensor, "batch H"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Outputs as in `outputs_of`."""
        return computed(self.actor, obs, agent, memory)


def to_pt2(policy: Policy) -> bytes:
    """The policy as a file of torch.export; `facts` are in its extra file metadata.json, as one JSON object."""
    program = Program(actor_of(policy)).eval()
    example = {"obs": torch.zeros(2, policy.spec.obs_dim), "agent": torch.zeros(2, dtype=torch.int64)}
    if policy.actor.memory_size:
        example["memory"] = torch.zeros(2, policy.actor.memory_size)
    batch = torch.export.Dim("batch")
    program(*example.values())  # what it computes once and keeps must not be what tracing stands for it with
    traced = torch.export.export(
        program, tuple(example.values()), dynamic_shapes={name: {0: batch} for name in example}, strict=False
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


def _installed(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise ImportError(f"{name} is not installed: pip install 'rqe-mappo[export]'") from None
