"""Measures made of the first two moments."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk.measure import (
    Atoms,
    Form,
    LogProbs,
    OneNumber,
    RiskMeasure,
    Rows,
    RowsOfAtoms,
    annealed_tau,
    centred,
    check_tau,
    from_lowest,
)

LEAST_STD = 0.01  # of the support's width: about one spacing; below that, projection decides a distribution's std


@dataclass(frozen=True)
class Neutral(RiskMeasure):
    """The mean, `rho = m`, `psi(x) = x - m`."""

    name: ClassVar[str] = "neutral"

    @property
    def comonotonic(self) -> bool:
        return True

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        return categorical.mean(atoms, log_probs.exp())

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        atoms = from_lowest(atoms)
        return atoms - self.value(atoms, log_probs)[..., None]

    def utility(self, delta: Rows) -> Rows:
        return delta

    def annealed(self, fraction: float) -> "Neutral":
        return self


@dataclass(frozen=True)
class MeanVariance(RiskMeasure):
    """Mean less variance, `rho = m - b Var` with `b = 1 / (2 tau)`: the small-risk expansion of the entropic measure.

    `psi(x) = (x - m) - b ((x - m)^2 - Var)` falls above x = m + tau: a surprisingly good return is punished too.
    tau -> inf is the mean. Markowitz, 'Portfolio selection' (1952).
    """

    tau: float
    name: ClassVar[str] = "mean-variance"

    def __post_init__(self):
        check_tau(self.tau)

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        probs = log_probs.exp()
        return categorical.mean(atoms, probs) - categorical.variance(atoms, probs) / (2 * self.tau)

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        atoms = from_lowest(atoms)
        x = atoms - categorical.mean(atoms, log_probs.exp())[..., None]
        return centred(x - x**2 / (2 * self.tau), log_probs)

    def scaled(self, unit: float) -> "MeanVariance":
        return MeanVariance(self.tau * unit)

    def annealed(self, fraction: float) -> "MeanVariance":
        return MeanVariance(annealed_tau(self.tau, fraction))


@dataclass(frozen=True)
class MeanStd(OneNumber):
    """Mean less standard deviation, `rho = m - kappa s`; kappa > 0 is averse, 0 neutral, < 0 seeks risk.

    `psi(x) = (x - m) - kappa ((x - m)^2 - s^2) / (2 s)` falls above x = m + s / kappa (kappa > 0), so that a
    surprisingly good return is punished too; for kappa < 0 it falls below m + s / kappa: a bad return is rewarded.

    At a Dirac the slope of s is infinite, so psi divides by at least `LEAST_STD` times the width of the support (of the
    row); `value` has the exact s.
    """

    kappa: float
    form: ClassVar[Form] = Form("mean-std", "KAPPA", -math.inf, math.inf, "()", neutral=0, example=0.5)

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        probs = log_probs.exp()
        variance = categorical.variance(atoms, probs)
        # The square root has no slope at 0: autograd would return nan.
        std = variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
        return categorical.mean(atoms, probs) - self.kappa * std

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        atoms, probs = from_lowest(atoms), log_probs.exp()
        x = atoms - categorical.mean(atoms, probs)[..., None]
        width = (atoms[..., -1:] - atoms[..., :1]).clamp(min=torch.finfo(atoms.dtype).tiny)  # a row may have none
        std = categorical.variance(atoms, probs).sqrt()[..., None].maximum(LEAST_STD * width)
        return centred(x - self.kappa * x**2 / (2 * std), log_probs)
