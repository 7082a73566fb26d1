"""VDN: the team's value is the sum of its agents' utilities, `--algo vdn`.

Sunehag et al., 'Value-Decomposition Networks For Cooperative Multi-Agent Learning' (2017, arXiv 1706.05296).

Kept: `Q_tot = sum_i Q_i`, learned by TD through the sum; utilities shared by agents, which see who they are.

Different, as in the released code of QMIX and its successors: replay of whole episodes, double Q-learning, TD(lambda),
a GRU only with `--recurrent`, no last action in the observation. Agents that left add nothing. Time limits are
bootstrapped where the environment's recipe says so.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rqe_mappo.algorithms.off_policy import OffPolicy, OffPolicyConfig, squared, utility, value_scalars
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.replay import Episodes
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets.utilities import Utilities


@dataclass(frozen=True, kw_only=True)
class VdnConfig(OffPolicyConfig):
    """VDN's settings."""


class Vdn(OffPolicy):
    """VDN at work."""

    Config = VdnConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        agents, actor = len(env.possible_agents), Utilities(run.algorithm.utilities(env))
        super().__init__(run, env, generator, {"actor": actor}, lambda mean: actor.start(mean / agents))

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error of the sum."""
        agents = utility(self, batch)
        total, target = agents.chosen.sum(-1), self.targets(batch, agents.following.sum(-1))
        return squared(total, target, batch.filled), value_scalars(self, total, target, batch.filled)
