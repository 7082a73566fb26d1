"""What a learner is to the rest: the loop knows `learn`, everything that acts knows `Actor`, the rest asks for returns.

Axes are always in this order: T time, E copies of the environment, A agents, then features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn

from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets.contract import Actor, ReturnModel

if TYPE_CHECKING:
    from rqe_mappo.algorithms.risk_schedule import RiskSchedule
    from rqe_mappo.config import TrainConfig


@dataclass(frozen=True)
class Progress:
    """Where a run is: `step` of `total` decisions of single agents are made."""

    step: int
    total: int

    @property
    def share(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        return min(1.0, self.step / self.total)


class Algorithm(Protocol):
    """One algorithm at work; see docs/adding-an-algorithm.md.

    actor: what acts, in training and later.
    modules: networks by the names under which a checkpoint keeps them, one of them "actor". Those that a policy file
        describes carry a `spec` (`rqe_mappo.nets`).
    returns: which of them predicts returns; None: there is nothing to calibrate, and no value to show.
    risk: the risk measures in force; None: the algorithm is risk-neutral.
    explore: how often actors act at random in the next trajectory, for those that do not draw from a policy; else 0.
    """

    actor: Actor
    modules: dict[str, nn.Module]
    returns: ReturnModel | None
    risk: "RiskSchedule | None"
    explore: float

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Improve on what was collected; gives scalars to log, by the names of docs/run-folder.md."""
        ...

    def warnings(self) -> list[str]:
        """What a user must know at the end of a run, a line each; none if all is well."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the networks' weights: tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """What an algorithm adds that keeps files of its own in the run folder: what grows, such as a replay buffer."""

    def write_files(self, folder: Path) -> None:
        """Called before a checkpoint is written; what an earlier one needs stays."""
        ...

    def drop_files(self, folder: Path) -> None:
        """Called afterwards: what the newest checkpoint does not need may go."""
        ...

    def read_files(self, folder: Path) -> list[str]:
        """Called after `load_state_dict`; gives what the log shall say. ValueError for what is missing."""
        ...


@runtime_checkable
class PlaysOtherwise(Protocol):
    """What an algorithm adds whose trajectories are not played by its actor alone.

    rollout: what acts while trajectories are collected; evaluation and saved policies use the actor.
    """

    rollout: Actor


@runtime_checkable
class Remarks(Protocol):
    """What an algorithm adds that has found out something which a user should know before the run.

    notes: a line each.
    """

    notes: list[str]


class AlgorithmClass(Protocol):
    """What the registry names: builds an `Algorithm`.

    Config: its settings, an `AlgorithmConfig`.
    """

    Config: type[Any]

    def __call__(self, run: "TrainConfig", env: BatchedEnv, generator: torch.Generator) -> Algorithm:
        """For a run's settings (its own are `run.algorithm`) and an environment, of which the attributes are read.

        generator: on the CPU, for whatever is drawn while learning; a checkpoint keeps its state.
        """
        ...
