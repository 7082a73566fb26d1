"""MAPPO on shaped rewards: `--algo reward-shaped --cost-weight 30` learns from `r - c cost`.

The usual way to safety without a risk measure: a fixed price c for every unit of cost (a collision, a fall;
each environment says what its cost is), found by trying several. No paper of its own; the learner is MAPPO's
(`baselines.mappo`), and with c = 0 it is MAPPO, number for number.

Returns in logs and evaluations are the environment's, unshaped, and its cost stands beside them. What the critic
foretells, and so `Policy.value`, is the mean of the shaped return. There is no potential-based variant: it leaves the
optimum where it was, and so is no answer to risk.
"""

import math
from dataclasses import dataclass, replace

from rqe_mappo.baselines.mappo import MappoLearner, MappoOptions
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data.collector import Rollout
from rqe_mappo.functional.risk import RiskMeasure


@dataclass(frozen=True)
class ShapedOptions(MappoOptions):
    """MAPPO's settings, and the price of cost."""

    cost_weight: float = 30.0
    """Reward that a unit of cost takes away while training; sweep it. 30 doubles SUMO's price of a collision."""

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        if not 0 <= self.cost_weight < math.inf:
            raise ConfigError(f"--cost-weight must be in [0, inf) (got {self.cost_weight:g})")


class ShapedLearner(MappoLearner):
    """A `MappoLearner` that pays for cost."""

    def update(self, rollout: Rollout, measures: list[RiskMeasure], progress: float) -> dict[str, float]:
        """Improve actors and critic on `rollout` with shaped rewards; see `Learner.update`."""
        shaped = replace(rollout, reward=rollout.reward - self.options.cost_weight * rollout.cost)
        return super().update(shaped, measures, progress)
