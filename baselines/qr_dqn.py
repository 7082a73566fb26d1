"""QR-DQN: quantiles of the return of each action, `--algo qr-dqn`.

Dabney et al., 'Distributional Reinforcement Learning with Quantile Regression' (2018, arXiv 1710.10044).

Kept: N quantiles at the middles of N equal shares, learned by the Huber-quantile loss towards those of the best next
action; levels belong to predicted quantiles, whose losses are summed, and targets are averaged over.

Different: kappa is in stds of the first returns, and small (`--kappa`), so that quantiles are nearly quantiles; the
paper's is 1 of the reward. Actions are chosen by any `--risk`, there by the mean. Double Q-learning; steps are drawn
alone (`--window 1`), and `--window N --td-lambda 1` has targets of N steps. Replay fills up by whole episodes.
`--levels sampled` makes it an implicit quantile network (IQN, arXiv 1806.06923).
With several agents each learns alone from the team's reward, as `iql` does.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rqe_mappo.algorithms.distributional import QuantileConfig, QuantileRegression, of_team
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.replay import Episodes
from rqe_mappo.envs.contract import BatchedEnv

ALONE: dict[str, Any] = {"window": 1, "td_lambda": 0.0, "batch_episodes": 128, "target_interval": 50}
"""What learners of single steps change in the defaults, as in CleanRL's c51.py."""


@dataclass(frozen=True, kw_only=True)
class QrDqnConfig(QuantileConfig):
    """QR-DQN's settings."""

    defaults: ClassVar[dict[str, Any]] = QuantileConfig.defaults | ALONE


class QrDqn(QuantileRegression):
    """QR-DQN at work."""

    Config = QrDqnConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        actor = run.algorithm.quantile_utilities(env)
        super().__init__(run, env, generator, {"actor": actor}, actor.start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The quantile loss of each agent that acts."""
        agents = self.quantiles(batch)
        target = self.distribution_targets(batch, of_team(agents.following, batch.present[1:]))
        return self.regression(agents.chosen, target, agents.levels, batch.active)
