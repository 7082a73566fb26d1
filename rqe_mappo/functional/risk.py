"""Risk measures of a categorical return: the value `rho(Z)` and the influence function `psi(x; Z)`.

Higher is better. `tau` is a tolerance in units of return: large is neutral, small is averse.

The influence function is the slope of the value when a little probability moves to x,
`psi(x; mu) = d/de rho((1 - e) mu + e delta_x)` at e = 0. It has mean zero under mu, and `<psi, q>` is, for a target
law q, an estimate of what the action did for `rho`, linear in q and hence unbiased (see docs/risk.md).
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rqe_mappo.functional import categorical

SHIFTED_UPTO = 10  # widths in tau up to which the entropic value is taken about the mean; see _entropic

Atoms = Float[Tensor, " atoms"]
Rows = Float[Tensor, "*batch"]
RowsOfAtoms = Float[Tensor, "*batch atoms"]


@runtime_checkable
class RiskMeasure(Protocol):
    """What a risk measure offers; `atoms` `[N]` ascending, `log_probs` `[..., N]` from a log_softmax."""

    @property
    def name(self) -> str:
        """The measure as `--risk` spells it."""
        ...

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        """`rho(Z)`, in units of return; differentiable in `log_probs`."""
        ...

    def reference(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        """The value that training uses: `rho` itself, unless the measure bounds how much rare outcomes may count."""
        return self.value(atoms, log_probs)

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        """`psi(z_i; Z)` at every atom, mean zero under Z."""
        ...

    def utility(self, delta: Rows) -> Rows:
        """The utility of a temporal-difference error whose zero mean makes the nested value; ValueError if none."""
        ...

    def scaled(self, unit: float) -> "RiskMeasure":
        """The same measure with tau, until now in multiples of `unit`, in units of return."""
        ...

    def annealed(self, fraction: float) -> "RiskMeasure":
        """The measure with its aversion times `fraction`: 0 is risk-neutral, 1 the measure itself."""
        ...


@dataclass(frozen=True)
class Neutral(RiskMeasure):
    """The mean, `rho = m`, `psi(x) = x - m`."""

    name: ClassVar[str] = "neutral"

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        return categorical.mean(atoms, log_probs.exp())

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        return atoms - self.value(atoms, log_probs)[..., None]

    def utility(self, delta: Rows) -> Rows:
        return delta

    def scaled(self, unit: float) -> "Neutral":
        return self

    def annealed(self, fraction: float) -> "Neutral":
        return self


@dataclass(frozen=True)
class Entropic(RiskMeasure):
    """The entropic certainty equivalent, `rho = -tau log E exp(-Z / tau)`, `psi(x) = tau (1 - exp(-(x - rho) / tau))`.

    tau -> inf is the mean, tau -> 0 the lowest atom with probability; for small risks `rho = m - Var / (2 tau)`.

    clip: the largest exponent c of influence and utility. Below x = rho - c tau they go on as a straight line of
        slope e^c, so that worse stays worse (a flat bound would make all crashes equal). `reference`, the rho within
        psi, is then that of `max(Z, m - c tau)`: else the little that a softmax leaves on the lowest atoms decides it
        once the support is wider than some ten tau. `value` is never clipped. Keep c * tau above one standard
        deviation of the return, or ordinary losses lie on the line too. None: as large as the dtype can carry.
    """

    tau: float
    clip: float | None = 3.0
    name: ClassVar[str] = "entropic"

    def __post_init__(self):
        _check_tau(self.tau)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"--risk-clip must be > 0 (got {self.clip:g})")

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        return _entropic(atoms, log_probs, self.tau)

    def reference(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        if self.clip is None:
            return self.value(atoms, log_probs)
        lowest = categorical.mean(atoms, log_probs.exp()) - self.clip * self.tau
        return _entropic(torch.maximum(atoms, lowest[..., None]), log_probs, self.tau)

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        return _centred(self.utility(atoms - self.reference(atoms, log_probs)[..., None]), log_probs)

    def utility(self, delta: Rows) -> Rows:
        """`tau (1 - exp(-delta / tau))`, clipped as above; the identity at tau = inf."""
        if math.isinf(self.tau):
            return delta
        clip = self.clip if self.clip is not None else math.log(torch.finfo(delta.dtype).max) / 2
        x = delta / self.tau
        curved = x.clamp(min=-clip)
        return self.tau * (math.exp(clip) * (x - curved) - torch.expm1(-curved))

    def scaled(self, unit: float) -> "Entropic":
        return replace(self, tau=self.tau * unit)

    def annealed(self, fraction: float) -> "Entropic":
        return replace(self, tau=_annealed_tau(self.tau, fraction))


@dataclass(frozen=True)
class CVaR(RiskMeasure):
    """The mean of the worst `level` share, `rho = nu - E(nu - Z)^+ / level`, `nu` the quantile at `level`.

    `psi(x) = nu - (nu - x)^+ / level - rho`: flat above nu, so what succeeds beyond the tail teaches nothing; that is
    why the level is annealed from 1, the mean. It has no unit, hence no tau.
    """

    level: float

    def __post_init__(self):
        if not 0 < self.level <= 1:
            raise ValueError(f"the level of CVaR must lie in (0, 1] (got {self.level:g}); 1 is risk-neutral")

    @property
    def name(self) -> str:
        return f"cvar:{self.level:g}"

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        probs = log_probs.exp()
        upto = categorical.cdf(probs)
        weights = (upto.clamp(max=self.level) - (upto - probs).clamp(max=self.level)) / self.level
        return weights @ atoms

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        if self.level == 1:  # nu is above every atom, also those that the critic deems impossible
            return Neutral().influence(atoms, log_probs)
        nu = categorical.quantile(atoms, log_probs.exp(), self.level)[..., None]
        return _centred(-(nu - atoms).clamp(min=0) / self.level, log_probs)

    def utility(self, delta: Rows) -> Rows:
        raise _no_utility(self.name)

    def scaled(self, unit: float) -> "CVaR":
        return self

    def annealed(self, fraction: float) -> "CVaR":
        return CVaR((1 - fraction) + self.level * fraction)


@dataclass(frozen=True)
class MeanVariance(RiskMeasure):
    """Mean less variance, `rho = m - b Var` with `b = 1 / (2 tau)`: the small-risk expansion of the entropic measure.

    `psi(x) = (x - m) - b ((x - m)^2 - Var)` falls beyond x = m + tau: surprising success is punished too.
    """

    tau: float
    name: ClassVar[str] = "mean-variance"

    def __post_init__(self):
        _check_tau(self.tau)

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        probs = log_probs.exp()
        return categorical.mean(atoms, probs) - categorical.variance(atoms, probs) / (2 * self.tau)

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        x = atoms - categorical.mean(atoms, log_probs.exp())[..., None]
        return _centred(x - x**2 / (2 * self.tau), log_probs)

    def utility(self, delta: Rows) -> Rows:
        raise _no_utility(self.name)

    def scaled(self, unit: float) -> "MeanVariance":
        return MeanVariance(self.tau * unit)

    def annealed(self, fraction: float) -> "MeanVariance":
        return MeanVariance(_annealed_tau(self.tau, fraction))


def parse_risk(text: str, tau: float, clip: float | None = 3.0) -> RiskMeasure:
    """The measure that `--risk` names: `neutral`, `entropic`, `cvar:LEVEL` or `mean-variance`.

    `tau` counts for entropic and mean-variance, `clip` for entropic. Raises ValueError with one line for the user.
    """
    kind, colon, level = text.partition(":")
    if text == "neutral":
        return Neutral()
    if text == "entropic":
        return Entropic(tau, clip)
    if text == "mean-variance":
        return MeanVariance(tau)
    if kind == "cvar" and colon:
        try:
            return CVaR(float(level))
        except ValueError:
            pass
    known = "neutral, entropic, cvar:LEVEL (0 < LEVEL <= 1) or mean-variance"
    raise ValueError(f"--risk {text} is unknown: use {known}")


def _entropic(values: Float[Tensor, "*#batch atoms"], log_probs: RowsOfAtoms, tau: float) -> Rows:
    """`-tau log sum_i p_i exp(-x_i / tau)` in the form that float32 can bear.

    logsumexp is wrong by about tau * 1e-7, too much for large tau; the form taken about the mean is wrong by some
    1e-7 of the width, but overflows where the values are 88 tau apart. In between, from 1 to 30 widths, either will do.
    """
    if values.amax() - values.amin() > SHIFTED_UPTO * tau:
        return -tau * torch.logsumexp(log_probs - values / tau, -1)
    probs = log_probs.exp()
    mean = (probs * values).sum(-1)
    if math.isinf(tau):
        return mean
    return mean - tau * torch.log1p((probs * torch.expm1((mean[..., None] - values) / tau)).sum(-1))


def _centred(psi: RowsOfAtoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
    return psi - (log_probs.exp() * psi).sum(-1, keepdim=True)


def _annealed_tau(tau: float, fraction: float) -> float:
    return tau / fraction if fraction > 0 else math.inf


def _check_tau(tau: float) -> None:
    if not tau > 0:
        raise ValueError(f"--tau must be > 0 (got {tau:g}); use inf for risk-neutral")


def _no_utility(name: str) -> ValueError:
    return ValueError(
        f"--advantage nested has no utility for --risk {name}: use --risk neutral or entropic, or --advantage influence"
    )
