"""Distortion measures: means after the cumulative probabilities F are replaced by D(F)."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk.measure import (
    Atoms,
    Elicited,
    Form,
    LogProbs,
    OneNumber,
    Rows,
    RowsOfAtoms,
    centred,
    tails,
)
from rqe_mappo.functional.risk.moments import Neutral

OUTERMOST = 1e-6  # share at either end over which D is straight; no critic knows so small a probability

Shares = Float[Tensor, "*shares"]


@dataclass(frozen=True)
class CVaR(OneNumber):
    """The mean of the worst `level` share, `rho = nu - E(nu - Z)^+ / level`, `nu` the quantile at `level`.

    `psi(x) = nu - (nu - x)^+ / level - rho` is flat above nu: differences between returns above the tail give no
    gradient, which is why the level is annealed from 1, the mean. level -> 0 is the lowest atom with probability.
    An atom that the level divides counts in part. Rockafellar & Uryasev, 'Optimization of conditional value-at-risk'
    (2000).
    """

    level: float
    form: ClassVar[Form] = Form("cvar", "LEVEL", 0, 1, "(]", neutral=1, example=0.1)

    @property
    def comonotonic(self) -> bool:
        return True

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        probs = log_probs.exp()
        upto = categorical.cdf(probs)
        weights = (upto.clamp(max=self.level) - (upto - probs).clamp(max=self.level)) / self.level
        return categorical.weighted_sum(atoms, weights)

    @property
    def elicited(self) -> int:
        return 2

    def identification(self, outcome: Rows, values: Elicited) -> Elicited:
        """Of rho and nu: `nu - (nu - x)^+ / level - rho`, and `level - 1{x < nu}`, whose root is the quantile."""
        rho, nu = values.unbind(-1)
        if self.level == 1:  # nu is above every outcome
            return torch.stack((outcome - rho, torch.zeros_like(nu)), -1)
        short = (nu - outcome).clamp(min=0)
        return torch.stack((nu - short / self.level - rho, self.level - (short > 0).to(nu.dtype)), -1)

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        if self.level == 1:  # nu is above every atom, also above those of probability 0
            return Neutral().influence(atoms, log_probs)
        nu = categorical.quantile(atoms, log_probs.exp(), self.level)[..., None]
        return centred(-(nu - atoms).clamp(min=0) / self.level, log_probs)


class Distortion(OneNumber):
    """A mean under distorted probabilities, `rho = sum_i z_i (D(F_i) - D(F_{i-1}))`, D increasing from 0 to 1.

    Concave D is averse, convex D seeks risk, `D(u) = u` is the mean. psi increases, with slope D'(F) between two atoms:
    `psi(z_{j+1}) - psi(z_j) = D'(F_j) (z_{j+1} - z_j)`.

    D' may be infinite at 0 and 1, so D is replaced by a straight line over the share `OUTERMOST` at either end: from
    (0, 0) to its value at that share, and likewise to (1, 1). Value and influence both use this D, which is concave if
    the original is. The error of the value is below D(OUTERMOST) times the width over which F is below that share, and
    likewise at the top.

    D acts on cumulative probabilities, as in RiskQ (arXiv 2311.01753). Implicit quantile networks (arXiv 1806.06923)
    distort the levels at which they sample, that is with the inverse of D: the signs there are the opposite.
    """

    @property
    def comonotonic(self) -> bool:
        return True

    def distort(self, below: Shares, above: Shares) -> Shares:
        """`D(u)` for u = `below` = 1 - `above`, both within (0, 1); the smaller of the two has the smaller error."""
        raise NotImplementedError

    def slope(self, below: Shares, above: Shares) -> Shares:
        """`D'(u)`, with the same arguments."""
        raise NotImplementedError

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        probs = log_probs.exp()
        below, above = tails(probs)
        first, last = self._outermost_slopes
        distorted = self.distort(*_inner(below, above))
        distorted = distorted - first * (OUTERMOST - below).clamp(min=0) + last * (OUTERMOST - above).clamp(min=0)
        # Summed by parts, so that a rounding error of D is multiplied by a gap and not by a whole return.
        return categorical.mean(atoms, probs) - categorical.weighted_sum(atoms.diff(), distorted - below)

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        below, above = tails(log_probs.exp())
        first, last = self._outermost_slopes
        slope = self.slope(*_inner(below, above))
        slope = slope.masked_fill(below < OUTERMOST, first).masked_fill(above < OUTERMOST, last)
        rise = (slope * atoms.diff()).cumsum(-1)
        return centred(torch.nn.functional.pad(rise, (1, 0)), log_probs)

    @cached_property  # of numbers alone, which a graph that is traced cannot read
    def _outermost_slopes(self) -> tuple[float, float]:
        ends = torch.tensor([OUTERMOST, 1 - OUTERMOST], dtype=torch.float64, device="cpu")
        first, last = self.distort(ends, ends.flip(0)).tolist()
        return first / OUTERMOST, (1 - last) / OUTERMOST


@dataclass(frozen=True)
class Wang(Distortion):
    """Wang's transform, `D(u) = Phi(Phi^-1(u) + eta)`; eta > 0 is averse, 0 neutral, < 0 seeks risk.

    `D'(u) = exp(-eta Phi^-1(u) - eta^2 / 2)`: a normal return of std s loses eta s. For eta > 0 the slope of psi
    grows towards the lowest atoms, to 31 at the outermost share for eta = 0.75. eta -> inf is the worst case, -inf the
    best. Wang, 'A class of distortion operators for pricing financial and insurance risks' (2000).
    """

    eta: float
    form: ClassVar[Form] = Form("wang", "ETA", -math.inf, math.inf, "()", neutral=0, example=0.75)

    def distort(self, below: Shares, above: Shares) -> Shares:
        return torch.special.ndtr(_normal_quantile(below, above) + self.eta)

    def slope(self, below: Shares, above: Shares) -> Shares:
        return torch.exp(-self.eta * (_normal_quantile(below, above) + self.eta / 2))


@dataclass(frozen=True)
class CPW(Distortion):
    """Probability weighting of cumulative prospect theory, `D(u) = u^eta / (u^eta + (1 - u)^eta)^(1 / eta)`.

    eta = 1 is neutral; below, both tails count for more than their probability, so the measure is neither averse nor
    seeking. D' is infinite at 0 and 1; at the outermost shares it is 55 and 77 for eta = 0.71. D falls in places for
    eta below 0.279. Tversky & Kahneman, 'Advances in prospect theory' (1992); 0.71 is the customary value in
    distributional reinforcement learning (arXiv 1806.06923, from Wu & Gonzalez 1996).
    """

    eta: float = 0.71
    form: ClassVar[Form] = Form("cpw", "ETA", 0.28, 1, "[]", neutral=1, example=0.71, optional=True)

    def distort(self, below: Shares, above: Shares) -> Shares:
        return below**self.eta / (below**self.eta + above**self.eta) ** (1 / self.eta)

    def slope(self, below: Shares, above: Shares) -> Shares:
        both = below**self.eta + above**self.eta
        change = self.eta * both * below ** (self.eta - 1)
        change = change - below**self.eta * (below ** (self.eta - 1) - above ** (self.eta - 1))
        return change * both ** (-1 / self.eta - 1)


@dataclass(frozen=True)
class DualPower(Distortion):
    """The dual power measure, `D(u) = 1 - (1 - u)^k`: for whole k the mean of the worst of k independent copies.

    k > 1 is averse, 1 neutral, < 1 seeks risk; k -> inf is the worst case, 0 the best. `D'(u) = k (1 - u)^(k - 1)`: the
    slope of psi is k at the lowest atoms and falls to 0 at the highest, where there is little gradient then (k > 1).
    Wirch & Hardy, 'A synthesis of risk measures for capital adequacy' (1999).
    """

    k: float
    form: ClassVar[Form] = Form("dual-power", "K", 0, math.inf, "()", neutral=1, example=2)

    def distort(self, below: Shares, above: Shares) -> Shares:
        return -torch.expm1(self.k * _log(above, below))

    def slope(self, below: Shares, above: Shares) -> Shares:
        return self.k * torch.exp((self.k - 1) * _log(above, below))


@dataclass(frozen=True)
class Power(Distortion):
    """The proportional hazards measure, `D(u) = u^(1 / k)`; k > 1 is averse, 1 neutral, < 1 seeks risk.

    `D'(u) = u^(1 / k - 1) / k` is infinite at 0 for k > 1: 1000 at the outermost share for k = 2, so that one crash may
    dominate an update; for 1 / k whole the value is the mean of the best of 1 / k copies. k -> inf is the worst case, 0
    the best. Wang, 'Insurance pricing and increased limits ratemaking by proportional hazards transforms' (1995).
    """

    k: float
    form: ClassVar[Form] = Form("power", "K", 0, math.inf, "()", neutral=1, example=1.5)

    def distort(self, below: Shares, above: Shares) -> Shares:
        return torch.exp(_log(below, above) / self.k)

    def slope(self, below: Shares, above: Shares) -> Shares:
        return torch.exp((1 / self.k - 1) * _log(below, above)) / self.k


@dataclass(frozen=True)
class Gini(Distortion):
    """Mean less Gini deviation, `rho = m - eta E|Z - Z'| / 2`, Z' an independent copy: `D(u) = u + eta u (1 - u)`.

    eta > 0 is averse, 0 neutral, < 0 seeks risk; 1 is the mean of the worse of two copies, -1 of the better.
    `D'(u) = 1 + eta (1 - 2 u)` lies within 1 - |eta| and 1 + |eta|: no slope of psi is steep, and none is flat while
    |eta| < 1. Yitzhaki, 'Stochastic dominance, mean variance, and Gini's mean difference' (1982).
    """

    eta: float
    form: ClassVar[Form] = Form("gini", "ETA", -1, 1, "[]", neutral=0, example=0.5)

    def distort(self, below: Shares, above: Shares) -> Shares:
        return below + self.eta * below * above

    def slope(self, below: Shares, above: Shares) -> Shares:
        return 1 + self.eta * (above - below)


def _inner(below: Shares, above: Shares) -> tuple[Shares, Shares]:
    return below.clamp(OUTERMOST, 1 - OUTERMOST), above.clamp(OUTERMOST, 1 - OUTERMOST)


def _log(share: Shares, rest: Shares) -> Shares:
    """`log(share)`, share = 1 - rest, exact also where share is nearly 1."""
    return torch.where(share < rest, share.log(), torch.log1p(-rest))


def _normal_quantile(below: Shares, above: Shares) -> Shares:
    lower = below < above
    quantile = torch.special.ndtri(torch.where(lower, below, above))
    return torch.where(lower, quantile, -quantile)
