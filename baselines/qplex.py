"""QPLEX: the team's value is the sum of utilities and of weighed advantages, by the joint action, `--algo qplex`.

Wang et al., 'QPLEX: Duplex Dueling Multi-Agent Q-Learning' (2021, arXiv 2008.01062).

Kept: utilities scaled (above 0) and shifted by the state; advantages `Q_i(a_i) - max Q_i`, each weighed by an
importance above 0 that sees state and joint action, a sum over attention heads. Any table can be written so in which
the agents' best actions together are the best joint action, and nothing else can.

As in the released code and not in the paper: the weight is `importance - 1` behind a stop-gradient, added to the plain
sum, so that utilities learn through that sum alone. Its published sizes: `--heads 4 --mixer-depth 1` (SMAC, the default
here), `--heads 10 --mixer-depth 3` (matrix games, with `--exploration 1`: uniform data).

Left out: the copy of the released code's best utilities from a second pass; `.cuda()` everywhere. What differs in
replay, targets and observations is said in `vdn`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.off_policy import OffPolicy, OffPolicyConfig, squared, utility, value_scalars
from rqe_mappo.config import TrainConfig, require_range
from rqe_mappo.data.replay import Episodes, team_state_size
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets.mixers import DuplexMixer
from rqe_mappo.nets.utilities import Utilities

MOST_HEADS, DEEPEST = 1000, 100


@dataclass(frozen=True, kw_only=True)
class QplexConfig(OffPolicyConfig):
    """QPLEX's settings."""

    mixer_hidden: int = 64
    """Hidden units of the networks that scale, shift and weigh utilities."""
    heads: int = 4
    """Attention heads of the importance."""
    mixer_depth: int = 1
    """Linear layers of each part of the importance."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, mixer_hidden=(1, WIDEST), heads=(1, MOST_HEADS), mixer_depth=(1, DEEPEST))


class Qplex(OffPolicy):
    """QPLEX at work."""

    Config = QplexConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, agents, actor = run.algorithm, len(env.possible_agents), Utilities(run.algorithm.utilities(env))
        self.mixer = DuplexMixer(
            team_state_size(env), agents, actor.spec.actions.outputs,
            config.mixer_hidden, config.heads, config.mixer_depth,
        )  # fmt: skip
        super().__init__(run, env, generator, {"actor": actor, "mixer": self.mixer}, self.mixer.start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error of the mixed value."""
        agents, mixer = utility(self, batch), self.target["mixer"]
        best = agents.live[:-1].detach().amax(-1) * batch.active
        state = batch.state[:-1]
        importance = self.mixer.importance(state, batch.action, batch.active)
        total = self.mixer.weighed(agents.chosen, best, state, importance, batch.active)
        with torch.no_grad():
            greatest = agents.target.amax(-1)[1:] * batch.present[1:]
            following: Any = mixer(agents.following, greatest, batch.state[1:], agents.best[1:], batch.present[1:])
            target = self.targets(batch, following)
        scalars = value_scalars(self, total, target, batch.filled)
        scalars["mixer/importance"] = importance.detach()[batch.active].mean()
        return squared(total, target, batch.filled), scalars
