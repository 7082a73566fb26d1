"""QR-DQN: quantiles of the return of each action, `--algo qr-dqn`.

Dabney et al., 'Distributional Reinforcement Learning with Quantile Regression' (2018, arXiv 1710.10044).

Kept: N quantiles at the middles of N equal shares, learned by the Huber-quantile loss towards those of the best next
action; levels belong to predicted quantiles, whose losses are summed, and targets are averaged over.

Different: kappa is in stds of the first returns, and small (`--kappa`), so that quantiles are nearly quantiles; the
paper's is 1 of the reward. Actions are chosen by any `--risk`, there by the mean. Double Q-learning; steps are drawn
alone (`--window 1`), and `--window N --td-lambda 1` has targets of N steps, and of fewer in the rest of each window.
Replay fills up by whole episodes; `--priority 0.6` draws by the last loss (Schaul et al., 2016). `--levels sampled`
makes it an implicit quantile network (IQN, arXiv 1806.06923).
With several agents each learns alone from the team's reward, as `iql` does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rqe_mappo.algorithms.distributional import QuantileConfig, QuantileRegression, of_team
from rqe_mappo.algorithms.single_steps import SingleStepConfig, SingleSteps
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.replay import Episodes
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import quantile


@dataclass(frozen=True, kw_only=True)
class QrDqnConfig(SingleStepConfig, QuantileConfig):
    """QR-DQN's settings."""


class QrDqn(SingleSteps, QuantileRegression):
    """QR-DQN at work."""

    Config = QrDqnConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        actor = run.algorithm.quantile_utilities(env)
        super().__init__(run, env, generator, {"actor": actor}, actor.start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The quantile loss of each agent that acts."""
        agents = self.quantiles(batch)
        target = self.distribution_targets(batch, of_team(agents.following, batch.present[1:]))
        rows = quantile.huber_quantile_loss(agents.chosen, target, agents.levels, self.config.kappa)
        active = batch.active
        return self.averaged(rows, active), self.scalars(agents.chosen.detach()[active], target[active])
