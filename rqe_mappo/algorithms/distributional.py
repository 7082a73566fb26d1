"""What off-policy learners of return distributions share: settings, quantiles along episodes, loss and targets."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tyro.conf import Suppress, arg

from rqe_mappo import schema
from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.off_policy import OffPolicy, OffPolicyConfig, row_scalars, trace_ends
from rqe_mappo.config import ConfigError, TrainConfig, require, require_range
from rqe_mappo.data.replay import Episodes
from rqe_mappo.envs.contract import LARGEST, BatchedEnv
from rqe_mappo.functional import quantile
from rqe_mappo.functional.risk import GRAMMAR, CVaR, OneNumber, VaR, parse_risk
from rqe_mappo.nets.distributional_utilities import (
    DistributionalSpec,
    DistributionalUtilities,
    ImplicitUtilities,
    QuantileUtilities,
)

RECENT = 0.99  # memory of how far quantiles lie apart, per learning step
COLLAPSED = 0.1  # of the targets' distance from the predicted mean; a normal return's 32 quantiles span 5.4 of it
KAPPAS = (1e-6, 1e6)  # in which float32 can tell the loss near 0 from that further away
LEAST_TAU = 1e-6  # below, what is lowest decides alone
UNSCALED = ("entropic", "mean-variance")  # measures of which a multiple of the return is not a multiple
CERTAIN = 1e-3  # stds of the returns; targets that lie closer are not random


@dataclass(frozen=True, kw_only=True)
class RiskyChoice(OffPolicyConfig):
    """By which risk measure actions are chosen."""

    risk: Annotated[str, arg(help=f"Risk measure by which actions are chosen: {GRAMMAR}.")] = "entropic"
    tau: float = float("inf")
    """Risk tolerance of entropic and mean-variance, in --return-scale, else in the unit of values (--value-unit); inf:
    neutral."""
    return_scale: float | None = None
    """Unit of tau; given here it is not measured."""
    contamination: Suppress[float] = 0.0

    @property
    def measure(self) -> str:
        """The measure, neutral where tau makes it so."""
        return "neutral" if self.risk in ("entropic", "mean-variance") and self.tau == float("inf") else self.risk

    @property
    def label(self) -> str:
        tau = f"__tau{self.tau:g}" if self.measure in ("entropic", "mean-variance") else ""
        return f"__{self.measure.replace(':', '')}{tau}"

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        scale = self.return_scale
        require(self, scale is None or 0 < scale < float("inf"), "return_scale", "be > 0 and finite")
        require(self, self.contamination == 0, "contamination", "be 0 with an --algo of return distributions")
        require(self, self.tau > 0, "tau", "be > 0")
        try:
            parse_risk(self.risk, self.tau, clip=None)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def chosen_by(self) -> dict[str, Any]:
        """Fields of a `DistributionalSpec`."""
        tau = min(max(self.tau, LEAST_TAU), LARGEST) if self.tau < float("inf") else 1.0
        return {"risk": self.measure, "tau": tau}

    def apart_note(self, env: BatchedEnv, learned: Literal["sum", "weighed sum", "mixture"]) -> list[str]:
        """What to know of measures for which the agents' own best actions need not be the team's (RIGM).

        learned: what the team's return is of the agents'. One agent's is its own as a sum alone: weighed it keeps its
        best action by measures that scale with the return, and as a mixture, whose mean is another, by none for sure.
        """
        measure = parse_risk(self.measure, 1.0, clip=None)
        neutral = (
            measure.number == measure.form.neutral if isinstance(measure, OneNumber) else measure.name == "neutral"
        )
        alone = len(env.possible_agents) == 1
        kept = measure.comonotonic or (alone and (learned == "sum" or not measure.name.startswith(UNSCALED)))
        if neutral or (kept and learned != "mixture"):
            return []
        distortions = "cvar, var, wang and the other distortions have no such gap"
        fix = "use ddn or riskq" if measure.comonotonic else f"with ddn and riskq {distortions}"
        apart = "the agent's own best action" if alone else "the agents' own best actions"
        of = "by the return that is learned" if alone else "the team's"
        return [f"with --risk {self.risk} {apart} need not be {of}: {fix}"]


@dataclass(frozen=True, kw_only=True)
class QuantileConfig(RiskyChoice):
    """Quantiles, and how they are learned."""

    quantiles: int = 32
    """Quantiles of each action's return."""
    levels: Literal["fixed", "sampled"] = "fixed"
    """Their levels: the middles of equal shares, or drawn anew in each share at every learning step."""
    kappa: float = 0.05
    """Where the quantile loss is quadratic about 0, in the unit of values (--value-unit); 0: nowhere."""

    @property
    def against_collapse(self) -> str:
        """What to do where quantiles have become one number."""
        return "train longer, or with a smaller --kappa"

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, quantiles=(1, WIDEST))
        low, high = KAPPAS
        require(self, self.kappa == 0 or low <= self.kappa <= high, "kappa", f"be 0, or in [{low:g}, {high:g}]")
        blind = self.quantiles == 1 and self.measure != "neutral"
        require(self, not blind, "quantiles", f"be at least 2 with --risk {self.risk}: one quantile shows no risk")

    def notes(self, env: BatchedEnv) -> list[str]:
        measure, least = parse_risk(self.measure, 1.0, clip=None), 1 / self.quantiles
        if not isinstance(measure, CVaR | VaR) or measure.level >= least:
            return super().notes(env)
        lowest = f"--risk {self.risk} is the lowest of --quantiles {self.quantiles}, as at any level below {least:g}"
        return [*super().notes(env), lowest]

    def quantile_utilities(self, env: BatchedEnv) -> QuantileUtilities:
        """The agents' networks."""
        spec = self.utilities(env, DistributionalSpec, size=self.quantiles, **self.chosen_by())
        return ImplicitUtilities(spec) if self.levels == "sampled" else QuantileUtilities(spec)


@dataclass(frozen=True)
class Quantiles:
    """Quantiles along B episodes, in units of the first returns' std; zero for who is not there.

    levels: of `chosen`. chosen: of the actions that were taken. following: of the best next actions, by the target
    networks.
    """

    levels: Float[Tensor, " N"]
    chosen: Float[Tensor, "T B A N"]
    following: Float[Tensor, "T B A N"]


class Distributional(OffPolicy):
    """An off-policy algorithm whose actor has distributions of what actions bring."""

    def measure(self) -> None:
        super().measure()
        if self.unit is not None and isinstance(self.actor, DistributionalUtilities):
            in_units = self.config.tau * (self.config.return_scale or self.unit) / self.unit
            actors: Any = (self.actor, self.target["actor"])
            for actor in actors:
                actor.tau.fill_(min(max(in_units, LEAST_TAU), LARGEST))

    def predicted(
        self, batch: Episodes, *levels: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "T B A N"], Float[Tensor, "T B A N"]]:
        """The distributions of the actions that were taken, and of the best next ones, by the target networks.

        The best are so by the learning networks with `--double-q`, else by the target networks.
        levels: of quantiles, for the ones and for the others, where networks take them.
        """
        present = torch.cat((batch.active, batch.present[-1:]))
        actor, target = as_distributional(self.actor), as_distributional(self.target["actor"])
        own, kept_own = levels or (None, None)
        double = self.config.double_q
        if not actor.spec.memory and (len(batch.reward) == 1 or not double):  # nothing is looked at twice
            live = actor.raw(batch.obs[:-1], present[:-1], own)
            with torch.no_grad():
                kept = target.raw(batch.obs[1:], present[1:], kept_own)
                ranking = actor.raw(batch.obs[1:], present[1:], own) if double else kept
        else:
            along = actor.raw(batch.obs, present, own)
            with torch.no_grad():
                kept = target.raw(batch.obs, present, kept_own)[1:]
            live, ranking = along[:-1], along[1:].detach() if double else kept
        with torch.no_grad():
            agent = torch.arange(batch.obs.shape[2], device=self.device).expand(ranking.shape[:3])
            avail = None if batch.avail is None else batch.avail[1:]
            best = actor.ranked(actor.shaped(ranking), agent, avail).argmax(-1)
            following = target.shaped(of_actions(kept, best))
        return actor.shaped(of_actions(live, batch.action)), following  # to shape those of all actions takes longer


class QuantileRegression(Distributional):
    """One of which the distributions are quantiles.

    spread: how far the outermost quantiles lie apart, and how far targets lie from the predicted mean, of late.
    """

    spread: tuple[float, float] | None = None

    @cached_property
    def middles(self) -> Float[Tensor, " N"]:
        """The middles of equal shares."""
        return quantile.midpoint_levels(self.config.quantiles, device=self.device)

    def levels(self) -> Float[Tensor, " N"]:
        """Levels of quantiles to learn now."""
        if self.config.levels == "fixed":
            return self.middles
        within = torch.rand(len(self.middles), generator=self.generator).to(self.device)
        return self.middles + (within - 0.5) / len(self.middles)

    def quantiles(self, batch: Episodes) -> Quantiles:
        """What the networks predict along episodes."""
        levels = self.levels()
        chosen, following = self.predicted(batch, levels, self.levels())
        return Quantiles(levels, chosen * batch.active[..., None], following * batch.present[1:, ..., None])

    def distribution_targets(
        self, batch: Episodes, following: Float[Tensor, "T B *own N"]
    ) -> Float[Tensor, "T B *own N"]:
        """N draws from each step's target distribution, a mixture of those of n steps."""
        given = (batch.reward / (self.unit or 1.0), batch.terminated, trace_ends(batch))
        more = (1,) * (following.ndim - 3)
        reward, terminated, ended = (part.reshape(*part.shape, *more).expand(following.shape[:-1]) for part in given)
        uniform = torch.rand(following.shape, generator=self.generator).to(following.device)
        return quantile.mixed_targets(
            reward, following, terminated, ended, self.run.gamma, self.config.td_lambda, uniform
        )

    def regression(
        self,
        predicted: Float[Tensor, "T B *own N"],
        target: Float[Tensor, "T B *own N"],
        levels: Float[Tensor, " N"],
        counts: Bool[Tensor, "T B *own"],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The quantile loss where it `counts`, and scalars to log."""
        found, wanted = predicted[counts], target[counts]
        loss = quantile.huber_quantile_loss(found, wanted, levels, self.config.kappa).mean()
        return loss, self.scalars(found.detach(), wanted)

    def scalars(self, found: Float[Tensor, "R N"], wanted: Float[Tensor, "R N"]) -> dict[str, Tensor]:
        """What is logged of quantiles that count and of their targets, in reward."""
        apart, mean = quantile.spread(found).mean(), found.mean(-1)
        away = (wanted - mean[:, None]).abs().mean()
        self.note(float(apart), float(away))
        return row_scalars(self, mean, wanted.mean(-1)) | {"critic/quantile_spread": apart * (self.unit or 1.0)}

    def note(self, apart: float, away: float) -> None:
        """Keep how far quantiles lie apart, and targets from their mean."""
        before = (apart, away) if self.spread is None else self.spread
        self.spread = (
            RECENT * before[0] + (1 - RECENT) * apart,
            RECENT * before[1] + (1 - RECENT) * away,
        )

    def warnings(self) -> list[str]:
        said = super().warnings()
        if self.spread is not None and self.config.quantiles > 1:
            apart, away = self.spread
            if away > CERTAIN and apart < COLLAPSED * away:
                unit = self.unit or 1.0
                said.append(
                    f"quantiles have collapsed: they lie {apart * unit:.2g} apart where targets lie {away * unit:.2g} "
                    f"from their mean, so that no risk is seen: {self.config.against_collapse}"
                )
        return said

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"spread": self.spread}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = dict(state)
        self.spread = schema.read(tuple[float, float] | None, own.pop("spread", None), "spread")
        super().load_state_dict(own)


class TeamQuantiles(QuantileRegression):
    """One whose agents' quantiles are mixed to those of the team."""

    def mixed(
        self,
        nets: nn.ModuleDict,
        quantiles: Float[Tensor, "*rows A N"],
        state: Float[Tensor, "*rows S"],
        obs: Float[Tensor, "*rows A D"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows N"]:
        """The team's quantiles, of those of its agents, by the learning networks or the target's."""
        raise NotImplementedError

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The quantile loss of what is `mixed`."""
        agents, present, obs = self.quantiles(batch), batch.present[1:], self.actor.seen(batch.obs)
        total = self.mixed(self.nets, agents.chosen, batch.state[:-1], obs[:-1], batch.active)
        with torch.no_grad():
            following = self.mixed(self.target, agents.following, batch.state[1:], obs[1:], present)
            target = self.distribution_targets(batch, following)
        return self.regression(total, target, agents.levels, batch.filled)


def of_team(following: Float[Tensor, "T B A N"], there: Bool[Tensor, "T B A"]) -> Float[Tensor, "T B A N"]:
    """What follows for each agent that learns alone; for who has left the mean of those who are still there.

    Who has left goes on being paid with the team.
    """
    if there.shape[2] == 1:  # nobody else is there
        return following
    mean = (following * there[..., None]).sum(2, keepdim=True) / there.sum(2).clamp(min=1)[..., None, None]
    own = there | ~there.any(2, keepdim=True)  # where nobody is left, nothing follows: probabilities still sum to 1
    return torch.where(own[..., None], following, mean)


def of_actions(predicted: Float[Tensor, "*rows actions N"], action: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows N"]:
    """The distributions of the actions that were chosen."""
    index = action[..., None, None].expand(*action.shape, 1, predicted.shape[-1])
    return predicted.gather(-2, index).squeeze(-2)


def as_distributional(actor: nn.Module) -> DistributionalUtilities:
    """The same network, for type checkers."""
    if not isinstance(actor, DistributionalUtilities):
        raise TypeError("the actor must have distributions")
    return actor
