"""IQL: every agent learns values of its own actions, as if it were alone, `--algo iql`. The control of the others.

Tan, 'Multi-agent reinforcement learning: Independent versus cooperative agents' (1993), with the networks of today:
each agent's utility is learned by TD towards the reward of the whole team and its own next utility. What the others do
is part of the environment, which therefore changes while they learn.

Replay, double Q-learning, TD(lambda), masks and time limits are those of `vdn`, so that only the mixing differs.
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
class IqlConfig(OffPolicyConfig):
    """IQL's settings."""


class Iql(OffPolicy):
    """IQL at work."""

    Config = IqlConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        actor = Utilities(run.algorithm.utilities(env))
        super().__init__(run, env, generator, {"actor": actor}, actor.start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error of each agent that acts."""
        agents, there = utility(self, batch), batch.present[1:]
        # Who has left goes on being paid with the team, whose return those who stay have values of.
        of_team = agents.following.sum(-1, keepdim=True) / there.sum(-1, keepdim=True).clamp(min=1)
        target = self.targets(batch, torch.where(there, agents.following, of_team))
        return squared(agents.chosen, target, batch.active), value_scalars(self, agents.chosen, target, batch.active)
