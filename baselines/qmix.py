"""QMIX: the team's value is a monotonic function of its agents' utilities, by the state, `--algo qmix`.

Rashid et al., 'QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement Learning' (2018, arXiv
1803.11485).

Kept: two mixing layers, `--mixer-embed` wide, with ELU between them; their weights come from two-layer networks of the
state, made non-negative by their absolute value; a bias of the state at the end.

Different, as in the released code: absolute values allow weights of 0, with which the greatest value is no longer
taken at one joint action alone; the networks that give the weights have a hidden layer (`--hyper-hidden`), which that
code's first version did not.
What differs in replay, targets and observations is said in `vdn`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rqe_mappo.algorithms.monotonic import MonotonicConfig
from rqe_mappo.algorithms.off_policy import OffPolicy, squared, utility, value_scalars
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.replay import Episodes
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets.utilities import Utilities


@dataclass(frozen=True, kw_only=True)
class QmixConfig(MonotonicConfig):
    """QMIX's settings."""


class Qmix(OffPolicy):
    """QMIX at work."""

    Config = QmixConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        actor, self.mixer = Utilities(run.algorithm.utilities(env)), run.algorithm.mixer(env)
        super().__init__(run, env, generator, {"actor": actor, "mixer": self.mixer}, self.mixer.start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error of the mixed value."""
        agents = utility(self, batch)
        total = self.mixer(agents.chosen, batch.state[:-1])
        with torch.no_grad():
            target = self.targets(batch, self.target["mixer"](agents.following, batch.state[1:]))
        return squared(total, target, batch.filled), value_scalars(self, total, target, batch.filled)
