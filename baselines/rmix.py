"""RMIX: QMIX of the CVaR of each agent's quantiles, at a level that agents choose, `--algo rmix`.

Qiu et al., 'RMIX: Learning Risk-Sensitive Policies for Cooperative Reinforcement Learning Agents' (2021, arXiv
2102.08159).

Kept: agents act by `C_i = CVaR` of their own quantiles; QMIX makes `C_tot` of these; the level is one of ten, by the
agent's own network (`--level` fixes it); the team's quantiles are a weighed sum of its agents' by the state.

Mended, as the released code learns neither distribution nor level. Its quantile loss has levels on the targets' axis
and the opposite sign, and all quantiles become one number; here they belong to predicted quantiles, at every step.
Its level never gets a gradient; here it gets that of the softmax. It divides k + 1 atoms by k; here the boundary
quantile counts in part. Its quantiles learn from `C_i + gamma Z_i'`, the CVaR in place of a reward, which draws all of
them to C_i at the end of episodes; here the team's quantiles learn from the team's reward. `C_tot` there learns
`r + gamma C_tot'`, which is blind to chance in the reward; here the CVaR of the team's target distribution, each draw x
of it as `v - max(v - x, 0) / level` with v the team's quantile at that level (Rockafellar and Uryasev, 2000).

`--official-bugs` learns as the released code does in these respects, to be compared with; levels stay mended. The
team's level is the mean of those of the agents who act. The second GRU, over what was seen before, is left to
`--recurrent`. What differs in replay and observations is said in `vdn`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tyro.conf import Suppress

from rqe_mappo.algorithms.distributional import QuantileConfig, TeamQuantiles, of_actions
from rqe_mappo.algorithms.monotonic import MonotonicConfig
from rqe_mappo.algorithms.off_policy import squared
from rqe_mappo.config import TrainConfig, require
from rqe_mappo.data.replay import Episodes, team_state_size
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import q_learning, quantile
from rqe_mappo.nets.level_utilities import LevelSpec, LevelUtilities
from rqe_mappo.nets.mixers import QuantileMixer

ROUNDING = 1e-4  # of levels that are means over agents


@dataclass(frozen=True, kw_only=True)
class RmixConfig(QuantileConfig, MonotonicConfig):
    """RMIX's settings."""

    risk: Suppress[str] = "neutral"
    tau: Suppress[float] = float("inf")
    return_scale: Suppress[float | None] = None
    levels: Suppress[Literal["fixed", "sampled"]] = "fixed"
    level: float | None = None
    """Level of the CVaR by which actions are chosen; chosen by the agents' networks unless given here."""
    regression_weight: float = 1.0
    """Weight of the quantile loss."""
    official_bugs: bool = False
    """Learn quantiles as the released code does, which makes one number of them."""

    @property
    def label(self) -> str:
        return "" if self.level is None else f"__level{self.level:g}"

    @property
    def against_collapse(self) -> str:
        return "leave --official-bugs out, which do this" if self.official_bugs else super().against_collapse

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        least = 1 / self.quantiles  # below, the CVaR of agents is their lowest quantile, whatever the level
        require(
            self, self.level is None or least <= self.level <= 1, "level", f"be in [1 / --quantiles = {least:g}, 1]"
        )
        require(self, self.quantiles > 1 or self.level == 1, "quantiles", "be at least 2, unless --level is 1")
        require(self, 0 < self.regression_weight < float("inf"), "regression_weight", "be in (0, inf)")


class Rmix(TeamQuantiles):
    """RMIX at work."""

    Config = RmixConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, agents, state_dim = run.algorithm, len(env.possible_agents), team_state_size(env)
        actor = LevelUtilities(config.utilities(env, LevelSpec, size=config.quantiles, level=config.level))
        self.mixer = config.mixer(env)
        self.team = QuantileMixer(state_dim, actor.spec.obs_dim, agents, config.hyper_hidden, 1, attention=False)

        def start(mean: float) -> None:
            self.mixer.start(mean)
            self.team.start(mean)

        super().__init__(run, env, generator, {"actor": actor, "mixer": self.mixer, "team": self.team}, start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The quantile loss of the team, and the squared error of what QMIX makes of the agents' CVaR."""
        acting, there, filled = batch.active, batch.present[1:], batch.filled
        live, choice = self.read(self.nets, batch)
        with torch.no_grad():
            kept, kept_choice = self.read(self.target, batch)
            ranking = (live, choice) if self.config.double_q else (kept, kept_choice)
            best = self.best(*ranking, batch.avail)
            following = self.actor.shaped(of_actions(kept, best))[1:] * there[..., None]
            next_cvar = self.cvar(following, kept_choice[1:])
        chosen = self.actor.shaped(of_actions(live[:-1], batch.action)) * acting[..., None]
        cvar = self.cvar(chosen, choice[:-1])
        mixed, level = self.mixer(cvar, batch.state[:-1]), self.actor.level(choice)[:-1]
        if self.config.official_bugs:
            with torch.no_grad():
                aim = self.targets(batch, self.target["mixer"](next_cvar, batch.state[1:]))
                local = cvar[..., None] + self.run.gamma * following * ~batch.terminated[..., None, None]
            found = chosen[acting]
            regression = released_loss(found, local[acting], self.levels()).mean()
            scalars = self.scalars(found.detach(), aim[..., None, None].expand_as(chosen)[acting])
        else:
            obs = self.actor.seen(batch.obs)
            total = self.mixed(self.nets, chosen, batch.state[:-1], obs[:-1], acting)
            with torch.no_grad():
                team = self.mixed(self.target, following, batch.state[1:], obs[1:], there)
                drawn = self.distribution_targets(batch, team)
                aim = self.tail(total, drawn, (level * acting).sum(-1) / acting.sum(-1).clamp(min=1))
            regression, scalars = self.regression(total, drawn, self.levels(), filled)
        td = squared(mixed, aim, filled)
        scalars |= {"losses/td": td.detach(), "losses/regression": regression.detach()}
        scalars["risk/level"] = level[acting].mean()
        return td + self.config.regression_weight * regression, scalars

    def mixed(
        self,
        nets: nn.ModuleDict,
        quantiles: Float[Tensor, "*rows A N"],
        state: Float[Tensor, "*rows S"],
        obs: Float[Tensor, "*rows A D"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows N"]:
        """The weighed sum."""
        return nets["team"](quantiles, state, obs, present)

    def cvar(
        self, quantiles: Float[Tensor, "T B A N"], choice: Float[Tensor, "T B A choices"]
    ) -> Float[Tensor, "T B A"]:
        """The CVaR of one action each."""
        return self.actor.cvar(quantiles[..., None, :], choice).squeeze(-1)

    def best(
        self,
        raw: Float[Tensor, "T+1 B A actions N"],
        choice: Float[Tensor, "T+1 B A choices"],
        avail: Bool[Tensor, "T+1 B A actions"] | None,
    ) -> Int[Tensor, "T+1 B A"]:
        """The actions of greatest CVaR, of those that are there."""
        agent = torch.arange(raw.shape[2], device=self.device).expand(raw.shape[:3])
        worth = self.actor.cvar(self.actor.shaped(raw), choice)
        return q_learning.masked(worth, self.actor.there(agent, avail)).argmax(-1)

    def read(
        self, nets: nn.ModuleDict, batch: Episodes
    ) -> tuple[Float[Tensor, "T+1 B A actions N"], Float[Tensor, "T+1 B A choices"]]:
        """Quantiles along episodes, yet to be `shaped`, and the levels that are chosen."""
        actor, agents = nets["actor"], batch.obs.shape[2]
        if not isinstance(actor, LevelUtilities):
            raise TypeError("the actor must be of level utilities")
        present = torch.cat((batch.active, batch.present[-1:]))
        agent = torch.arange(agents, device=self.device).expand(batch.obs.shape[:3])
        return actor.read(actor.unrolled(batch.obs, agent, present))

    def tail(
        self, predicted: Float[Tensor, "T B N"], drawn: Float[Tensor, "T B N"], level: Float[Tensor, "T B"]
    ) -> Float[Tensor, "T B"]:
        """What the draws of a target say of the CVaR at `level`; its mean is that, where `predicted` is right.

        A level below that of one quantile counts as that, as it does for the agents.
        """
        count = predicted.shape[-1]
        level = level.clamp(min=1 / count)
        place = (level * count - ROUNDING).ceil().clamp(1, count).long() - 1
        boundary = quantile.ascending(predicted.detach()).gather(-1, place[..., None])
        short = (boundary - drawn).clamp(min=0).mean(-1)
        return torch.where(level < 1 - ROUNDING, boundary.squeeze(-1) - short / level, drawn.mean(-1))


def released_loss(
    predicted: Float[Tensor, "*batch N"], target: Float[Tensor, "*batch M"], levels: Float[Tensor, " M"]
) -> Float[Tensor, "*batch"]:
    """The released code's quantile loss: levels along the targets, error with the opposite sign; wrong, see above."""
    error = predicted[..., :, None] - target.detach()[..., None, :]
    weight = (levels - (error.detach() < 0).to(error.dtype)).abs()
    size = torch.where(error.abs() <= 1, error**2 / 2, error.abs() - 0.5)
    return (weight * size).mean(-1).sum(-1)
