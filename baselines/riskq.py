"""RiskQ: the team's quantiles are weighed sums of its agents', by state and attention, `--algo riskq`.

Shen et al., 'RiskQ: Risk-sensitive Multi-Agent Reinforcement Learning Value Factorization' (2023, arXiv 2311.01753).

Kept: `Z_tot(w) = sum_i k_i Z_i(w) + c(s)` with weights k >= 0, a softmax over agents times a factor of the state; so
that for the mean, VaR and every distortion the agents' own best actions are the team's (RIGM). Actions are chosen by
Wang's measure at 0.75, in learning too; 32 quantiles at fixed levels.

Different from the released code, whose quantiles collapse to one number (its levels lie on the targets' axis): levels
belong to predicted quantiles. Weights of a measure are `D(j / N) - D((j - 1) / N)`, which sum to 1; there densities at
the middles, cut off at 5, sum to .98 for Wang, .47 for CVaR at .1. Keys see what each agent observes and who it is;
there one number. Targets of several steps are mixed as distributions, there averaged quantile by quantile. A quantile
at a level below 1 / (2 N) is the lowest, there the second best. `--no-attention`: weights of the state alone.
For entropic, expectile and mean-variance the agents' best need not be the team's; a note says so.
What differs in replay and observations is said in `vdn`.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tyro.conf import arg

from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.distributional import QuantileConfig, TeamQuantiles
from rqe_mappo.config import TrainConfig, require_range
from rqe_mappo.data.replay import team_state_size
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional.risk import GRAMMAR
from rqe_mappo.nets.mixers import QuantileMixer


@dataclass(frozen=True, kw_only=True)
class RiskqConfig(QuantileConfig):
    """RiskQ's settings."""

    risk: Annotated[str, arg(help=f"Risk measure by which actions are chosen: {GRAMMAR}.")] = "wang:0.75"
    attention: bool = True
    """Share the state's weight between agents by attention; else the state gives each its own."""
    mixer_hidden: int = 32
    """Hidden units of the networks that weigh and shift."""
    key_size: int = 16
    """Features of a query and of a key."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, mixer_hidden=(1, WIDEST), key_size=(1, WIDEST))

    def notes(self, env: BatchedEnv) -> list[str]:
        return super().notes(env) + self.apart_note(env, "weighed sum")


class Riskq(TeamQuantiles):
    """RiskQ at work."""

    Config = RiskqConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, agents = run.algorithm, len(env.possible_agents)
        actor, obs_dim = config.quantile_utilities(env), env.observation_space.shape[0]
        self.mixer = QuantileMixer(
            team_state_size(env), obs_dim, agents, config.mixer_hidden, config.key_size, config.attention
        )
        super().__init__(run, env, generator, {"actor": actor, "mixer": self.mixer}, self.mixer.start)

    def mixed(
        self,
        nets: nn.ModuleDict,
        quantiles: Float[Tensor, "*rows A N"],
        state: Float[Tensor, "*rows S"],
        obs: Float[Tensor, "*rows A D"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows N"]:
        """The weighed sum."""
        return nets["mixer"](quantiles, state, obs, present)
