"""DDN: the team's quantiles are sums of its agents', `--algo ddn`. DMIX without its mixer.

Sun et al., 'DFAC Framework: Factorizing the Value Function via Quantile Mixture for Multi-Agent Distributional
Q-Learning' (2021, arXiv 2102.07936).

Kept: `F^-1_tot(w) = sum_i F^-1_i(w)` at quantile levels w that agents share, so that agents count as if they did well
and badly together (comonotonic); quantile regression towards the team's return.

Different: actions are ranked by any `--risk`, there by the mean alone. The agents' best actions are the team's best
for the mean, VaR and all distortions (RIGM), as these are linear in sorted quantiles; for entropic, expectile and
mean-variance they need not be, and a note says so. Levels are fixed by default, and with `--levels sampled` one is
drawn in each of N shares, shared by a batch (there each sample has its own; 1 for DDN in learning, 32 for acting).
Targets of several steps are mixed as distributions. What differs in replay and observations is said in `vdn`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rqe_mappo.algorithms.distributional import QuantileConfig, TeamQuantiles
from rqe_mappo.config import TrainConfig
from rqe_mappo.envs.contract import BatchedEnv


@dataclass(frozen=True, kw_only=True)
class DdnConfig(QuantileConfig):
    """DDN's settings."""

    def notes(self, env: BatchedEnv) -> list[str]:
        return super().notes(env) + self.apart_note(env, "sum")


class Ddn(TeamQuantiles):
    """DDN at work."""

    Config = DdnConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        agents, actor = len(env.possible_agents), run.algorithm.quantile_utilities(env)
        super().__init__(run, env, generator, {"actor": actor}, lambda mean: actor.start(mean / agents))

    def mixed(
        self,
        nets: nn.ModuleDict,
        quantiles: Float[Tensor, "*rows A N"],
        state: Float[Tensor, "*rows S"],
        obs: Float[Tensor, "*rows A D"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows N"]:
        """The sum."""
        return quantiles.sum(-2)
