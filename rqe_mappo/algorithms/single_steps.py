"""What learners from single steps share: their defaults, and prioritised replay."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor
from tyro.conf import Suppress

from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.distributional import Distributional, RiskyChoice
from rqe_mappo.config import TrainConfig, require, require_range
from rqe_mappo.data.priorities import Drawn, Priorities
from rqe_mappo.data.replay import Episodes
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import BatchedEnv


@dataclass(frozen=True, kw_only=True)
class SingleStepConfig(RiskyChoice):
    """Steps that are drawn alone, by default or by what was wrong about them."""

    family = ""  # what recipes have for teams, such as longer windows, is not for these
    defaults: ClassVar[dict[str, Any]] = RiskyChoice.defaults | {
        "window": 1,
        "td_lambda": 0.0,
        "batch_episodes": 128,
        "target_interval": 50,
    }  # fmt: skip  (the last two as in CleanRL's c51.py)

    priority: float = 0.0
    """Power of a window's last loss to which its chance to be drawn is proportional (alpha); 0: all have the same."""
    priority_correction: float = 0.4
    """How much what is drawn more often counts less, at first (beta); 1 in the end."""

    recurrent: Suppress[bool] = False
    gru_size: Suppress[int] = 64

    def notes(self, env: BatchedEnv) -> list[str]:
        agents = len(env.possible_agents)
        if agents == 1:
            return super().notes(env)
        alone = f"each of the {agents} agents learns by itself what the team earns: ddn and riskq are for teams"
        return [*super().notes(env), alone]

    def check(self, run: TrainConfig) -> None:
        require(self, not self.recurrent, "recurrent", "be left out with an --algo that learns from single steps")
        super().check(run)
        default = type(self).priority_correction
        unused = not self.priority and self.priority_correction != default
        require(self, not unused, "priority_correction", "go with --priority")
        require_range(self, priority=(0, 10), priority_correction=(0, 1), window=(1, 10**6))


class SingleSteps(Distributional):
    """One that learns from windows of single steps.

    drawn: the windows of the batch that is learned from, with `--priority`.
    """

    drawn: Drawn | None = None
    share = 0.0

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.priorities = Priorities(self.replay, self.config.priority) if self.config.priority else None

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        self.share = progress.share
        return super().learn(chunk, progress)

    def batch(self) -> Episodes:
        if self.priorities is None:
            return super().batch()
        correction = self.config.priority_correction + (1 - self.config.priority_correction) * self.share
        self.drawn = self.priorities.draw(self.config.batch_episodes, correction, self.generator)
        return self.for_mixers(self.replay.episodes(self.drawn.slot, self.device, self.drawn.first, self.config.window))

    def averaged(self, loss: Float[Tensor, "T B A"], counts: Bool[Tensor, "T B A"]) -> Float[Tensor, ""]:
        """The mean where it `counts`; with `--priority` by the weights of windows, whose priorities then change."""
        if self.priorities is None or self.drawn is None:
            return loss[counts].mean()
        of_window = (loss * counts).sum((0, 2)) / counts.sum((0, 2)).clamp(min=1)
        self.priorities.update(self.drawn, of_window)
        return (of_window * self.drawn.weight.to(of_window.device)).mean()

    def read_files(self, folder: Path) -> list[str]:
        said = super().read_files(folder)
        if self.priorities is not None:
            self.priorities.settle()
        return said

    def state_dict(self) -> dict[str, Any]:
        own = {} if self.priorities is None else {"priorities": self.priorities.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = dict(state)
        if self.priorities is not None:
            self.priorities.load_state_dict(own.pop("priorities", None))
        super().load_state_dict(own)
