"""DMIX: quantiles about a mean that QMIX mixes, `--algo dmix`.

Sun et al., 'DFAC Framework: Factorizing the Value Function via Quantile Mixture for Multi-Agent Distributional
Q-Learning' (2021, arXiv 2102.07936).

Kept: `Z_tot(w) = sum_i (Z_i(w) - E Z_i) + QMIX(E Z_1, .., E Z_n; s)`: the mean is as QMIX says, and the shape about it
is that of the sum of agents who do well and badly together. Quantile regression towards the team's return.

Different: actions are ranked by any `--risk`, there by the mean alone. For any other measure the agents' own best
actions need not be the team's: over random utilities and mixers they were not in about half of all cases
(`tests/test_quantile_methods.py`); a note says so. Levels, targets and means are those of `ddn`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rqe_mappo.algorithms.distributional import QuantileConfig, TeamQuantiles
from rqe_mappo.algorithms.monotonic import MonotonicConfig
from rqe_mappo.config import TrainConfig
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import mixing


@dataclass(frozen=True, kw_only=True)
class DmixConfig(QuantileConfig, MonotonicConfig):
    """DMIX's settings."""

    def notes(self, env: BatchedEnv) -> list[str]:
        return super().notes(env) + self.apart_note(env, "mixture")


class Dmix(TeamQuantiles):
    """DMIX at work."""

    Config = DmixConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        actor, self.mixer = run.algorithm.quantile_utilities(env), run.algorithm.mixer(env)
        super().__init__(run, env, generator, {"actor": actor, "mixer": self.mixer}, self.mixer.start)

    def mixed(
        self,
        nets: nn.ModuleDict,
        quantiles: Float[Tensor, "*rows A N"],
        state: Float[Tensor, "*rows S"],
        obs: Float[Tensor, "*rows A D"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows N"]:
        """QMIX's mean, and the shape of the sum."""
        return mixing.shape_of_sum(quantiles, nets["mixer"](quantiles.mean(-1), state))
