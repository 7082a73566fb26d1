"""MAPPO on shaped rewards: `--algo reward-shaped --cost-weight 30` learns from `r - c cost`.

The usual way to safety without a risk measure: a fixed price c for every unit of cost (a collision, a fall;
each environment says what its cost is), found by trying several. No paper of its own; the learner is MAPPO's
(`baselines.mappo`), and with c = 0 it is MAPPO, number for number.

Returns in logs and evaluations are the environment's, unshaped, and its cost stands beside them. What the critic
predicts, and so `Policy.value`, is the mean of the shaped return. There is no potential-based variant: it leaves the
optimum where it was, and so is no answer to risk.
"""

import math
from dataclasses import dataclass, replace

from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.baselines.mappo import Mappo, MappoConfig
from rqe_mappo.config import TrainConfig, require
from rqe_mappo.data.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class RewardShapedConfig(MappoConfig):
    """MAPPO's settings, and the price of cost."""

    cost_weight: float = 30.0
    """Reward that a unit of cost takes away while training; sweep it. 30 doubles SUMO's price of a collision."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require(self, 0 <= self.cost_weight < math.inf, "cost_weight", "be in [0, inf)")


class RewardShapedMappo(Mappo):
    """MAPPO that pays for cost."""

    Config = RewardShapedConfig

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """As MAPPO, of shaped rewards."""
        return super().learn(replace(chunk, reward=chunk.reward - self.config.cost_weight * chunk.cost), progress)
