"""Where tau is stored, scaled by its unit, and read: from risk-neutral to the full measure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from rqe_mappo import schema, upgrade
from rqe_mappo.algorithms.averages import Moments
from rqe_mappo.config import AlgorithmConfig, PerAgent, each_agent, require, require_range
from rqe_mappo.functional.risk import Neutral, RiskMeasure
from rqe_mappo.schema import Positive

ROUNDING = 1e-6  # relative; a std smaller than that of the mean is what float32 left


@dataclass(frozen=True, kw_only=True)
class RiskConfig(AlgorithmConfig):
    """How averse, in what unit, and from when on."""

    tau: PerAgent = 1.0
    """Risk tolerance in stds of the discounted return: inf neutral, 0.3 strongly averse; 0.3,1,inf for one each."""
    warmup_fraction: float = 0.05
    """Share of the run (before --settle) that is risk-neutral; its second half measures the unit of tau."""
    risk_anneal_fraction: float = 0.3
    """Share of the run (before --settle) over which 1/tau then grows from 0."""
    return_scale: float | None = None
    """Unit of tau; given here it is not measured. The warm-up stays risk-neutral all the same."""

    def check_risk(self) -> None:
        """Raise ConfigError for shares and units that cannot be."""
        require_range(self, warmup_fraction=(0, 1), risk_anneal_fraction=(0, 1))
        require(
            self, self.return_scale is None or 0 < self.return_scale < math.inf, "return_scale", "be > 0 and finite"
        )
        require(self, not any(map(math.isnan, each_agent(self.tau))), "tau", "be a number")


class RiskState(TypedDict):
    """What a `RiskSchedule` has found out."""

    return_scale: Positive | None
    started: float | None
    measured: tuple[Moments, ...]


class RiskSchedule:
    """Warm-up, then 1/tau grows linearly.

    The warm-up is risk-neutral and measures the unit of tau, which then stays frozen for the run: a running std shrinks
    as an averse policy succeeds and would make it ever more averse. The unit is the std of the discounted return from
    the start of episodes, which is what the critic predicts there (`EpisodeReturns`), about each agent's own mean,
    under the policies of the second half of the warm-up: before, the policy is still random.

    description: the measure as a policy file keeps it: name, tau of each agent in units of the return's std, clip.
    full: the measures of each group of agents at full strength, tau in units of the return's std.
    return_scale: that std; None while it is not known.
    """

    FEWEST_RETURNS = 100  # below, the std is too uncertain (about 7 % at 100) and the warm-up goes on

    def __init__(self, config: RiskConfig, full: Sequence[RiskMeasure], description: dict[str, Any]):
        self.config, self.full, self.description = config, list(full), description
        self.return_scale = config.return_scale
        self.started = None if config.return_scale is None else config.warmup_fraction
        self.measured: tuple[Moments, ...] = ()  # of each agent

    @property
    def neutral(self) -> bool:
        """Whether no agent is to become averse, so that the unit of tau does not matter."""
        return all(full.name == "neutral" or getattr(full, "tau", 0.0) == math.inf for full in self.full)

    @property
    def unit(self) -> float | None:
        """The unit of tau; None while it is not known, and where no measure has a tau."""
        return self.return_scale if any(getattr(full, "tau", math.inf) < math.inf for full in self.full) else None

    @property
    def shortfall(self) -> str:
        """What a user must know at the end of a run that did not become as averse as it should; empty if it did."""
        reached, fix = self.strength(1.0), "train longer, or give --return-scale"
        if self.neutral or reached > 0.99:
            return ""
        if reached == 0:
            return f"too few episodes ended to measure the unit of --tau, so this run stayed risk-neutral: {fix}"
        return (
            f"the unit of --tau was measured so late that this run ended at {reached:.0%} of the aversion asked for: "
            f"{fix}, or a smaller --risk-anneal-fraction"
        )

    def observe(self, ended: Sequence[Moments], share: float) -> None:
        """Take in each agent's discounted returns of episodes that ended when `share` of the learning was over.

        After the warm-up, once there are enough of them, their std within agents is frozen as the unit.
        """
        if self.return_scale is not None or share < self.config.warmup_fraction / 2:
            return
        self.measured = self.measured or tuple(Moments() for _ in ended)
        for measured, now in zip(self.measured, ended, strict=True):
            measured.add(now)
        count = sum(one.count for one in self.measured)
        if share >= self.config.warmup_fraction and count >= self.FEWEST_RETURNS:
            std = (sum(one.squares for one in self.measured) / count) ** 0.5
            varies = std > ROUNDING * max(abs(one.mean) for one in self.measured)
            self.return_scale = std if varies else 1.0
            self.started = share

    def measures(self, share: float) -> list[RiskMeasure]:
        """The measures, one a group, that act when `share` of the learning is over, in units of reward."""
        if self.return_scale is None or self.started is None:
            return [Neutral() for _ in self.full]
        fraction = self.strength(share)
        return [full.scaled(self.return_scale).annealed(fraction) for full in self.full]

    def ripe(self, share: float) -> bool:
        """Whether all the aversion that was asked for acts when `share` of the learning is over."""
        return self.neutral or self.strength(share) >= 1

    def strength(self, share: float) -> float:
        """How much of the aversion that was asked for acts when `share` of the learning is over."""
        if self.started is None:
            return 0.0
        span, done = self.config.risk_anneal_fraction, share - self.started
        if span == 0:
            return float(done >= 0)
        return min(1.0, max(0.0, done / span))

    def scalars(self, measures: Sequence[RiskMeasure], groups: Sequence[int], eps: Sequence[float]) -> dict[str, float]:
        """What the schedule is doing, for the log; of several groups the most averse.

        groups, eps: each agent's group, and the eps that acts for it under advantage scaling.

        risk/tractability_margin: the smallest `16 eps_i eps_j / (tau_i tau_j)` over pairs of agents. A diagnostic:
        above 1, and for covered pairs of risk and regulariser alone, the equilibrium is unique (docs/equilibrium.md);
        entropic risk with an entropy bonus is no such pair.
        """
        inverse = [1 / getattr(measure, "tau", math.inf) for measure in measures]
        unit = math.nan if self.return_scale is None else self.return_scale
        shown = {"risk/inverse_tau": max(inverse), "risk/return_scale": unit}
        if len(groups) > 1:
            acting = sorted(weight * inverse[group] for group, weight in zip(groups, eps, strict=True))
            shown["risk/tractability_margin"] = 16 * acting[0] * acting[1]
        return shown

    def state_dict(self) -> dict[str, Any]:
        return {
            "return_scale": self.return_scale,
            "started": self.started,
            "measured": [one.state_dict() for one in self.measured],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        known = schema.read(RiskState, upgrade.risk_state(state), "risk")
        self.return_scale, self.started = known["return_scale"], known["started"]
        self.measured = known["measured"]
