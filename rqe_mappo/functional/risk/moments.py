"""Measures made of the first two moments."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk.measure import (
    Atoms,
    Form,
    OneNumber,
    RiskMeasure,
    Rows,
    RowsOfAtoms,
    annealed_tau,
    centred,
    check_tau,
)

LEAST_STD = 0.01  # of the support's width: about one spacing, and a projected law's own std means little below that


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

    def annealed(self, fraction: float) -> "Neutral":
        return self


@dataclass(frozen=True)
class MeanVariance(RiskMeasure):
    """Mean less variance, `rho = m - b Var` with `b = 1 / (2 tau)`: the small-risk expansion of the entropic measure.

    `psi(x) = (x - m) - b ((x - m)^2 - Var)` falls beyond x = m + tau: surprising success is punished too.
    """

    tau: float
    name: ClassVar[str] = "mean-variance"

    def __post_init__(self):
        check_tau(self.tau)

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        probs = log_probs.exp()
        return categorical.mean(atoms, probs) - categorical.variance(atoms, probs) / (2 * self.tau)

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        x = atoms - categorical.mean(atoms, log_probs.exp())[..., None]
        return centred(x - x**2 / (2 * self.tau), log_probs)

    def scaled(self, unit: float) -> "MeanVariance":
        return MeanVariance(self.tau * unit)

    def annealed(self, fraction: float) -> "MeanVariance":
        return MeanVariance(annealed_tau(self.tau, fraction))


@dataclass(frozen=True)
class MeanStd(OneNumber):
    """Mean less standard deviation, `rho = m - kappa s`; kappa > 0 is averse, 0 neutral, < 0 seeks risk.

    `psi(x) = (x - m) - kappa ((x - m)^2 - s^2) / (2 s)` falls beyond x = m + s / kappa (kappa > 0), so that surprising
    success is punished too; for kappa < 0 it falls below m + s / kappa, and failure is rewarded.

    At a Dirac the slope of s is infinite, so psi divides by no less than `LEAST_STD` times the support's width; `value`
    has the exact s.
    """

    kappa: float
    form: ClassVar[Form] = Form("mean-std", "KAPPA", -math.inf, math.inf, "()", neutral=0, example=0.5)

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        probs = log_probs.exp()
        variance = categorical.variance(atoms, probs)
        # The root of 0 has no slope: autograd would make it nan.
        std = variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
        return categorical.mean(atoms, probs) - self.kappa * std

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        probs = log_probs.exp()
        x = atoms - categorical.mean(atoms, probs)[..., None]
        std = categorical.variance(atoms, probs).sqrt()[..., None].maximum(LEAST_STD * (atoms[-1] - atoms[0]))
        return centred(x - self.kappa * x**2 / (2 * std), log_probs)
