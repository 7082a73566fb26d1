"""Measures that can be reported and not trained on."""

from dataclasses import dataclass
from typing import ClassVar

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk.measure import Atoms, Form, LogProbs, OneNumber, RiskMeasure, Rows, RowsOfAtoms

NEGLIGIBLE = 1e-4  # share that counts as impossible, because a softmax leaves some probability on every atom


class Reported(RiskMeasure):
    """A measure without a usable influence: `influence` and `annealed` raise ValueError."""

    @property
    def comonotonic(self) -> bool:
        return True

    @property
    def evaluation_only(self) -> str:
        raise NotImplementedError

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        raise ValueError(self.evaluation_only)

    def annealed(self, fraction: float) -> RiskMeasure:
        raise ValueError(self.evaluation_only)


@dataclass(frozen=True)
class VaR(Reported, OneNumber):
    """The quantile at `level`, the smallest atom z with P(Z <= z) >= level.

    `psi(x) = (level - 1{x <= rho}) / f(rho)` needs the density f, which atoms lack. Level -> 0 is the worst case, 1 the
    best; no level is the mean.
    """

    level: float
    form: ClassVar[Form] = Form("var", "LEVEL", 0, 1, "(]", neutral=None, example=0.1)

    @property
    def evaluation_only(self) -> str:
        fix = f"use --risk cvar{self.name.removeprefix('var')} (or rqe-eval to report it)"
        return f"--risk {self.name} cannot be trained on: its influence needs a density, which atoms lack; {fix}"

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        return categorical.quantile(atoms, log_probs.exp(), self.level)


@dataclass(frozen=True)
class WorstCase(Reported):
    """The lowest atom z with P(Z <= z) >= `NEGLIGIBLE`, the VaR at that level.

    The share is cumulative, so the value does not depend on how finely the support is divided. psi is minus infinity
    below it and 0 elsewhere. The limit of the entropic measure for tau -> 0, of CVaR for level -> 0.
    """

    name: ClassVar[str] = "worst-case"

    @property
    def evaluation_only(self) -> str:
        return (
            "--risk worst-case cannot be trained on: its influence is 0 or minus infinity; "
            "use --risk dual-power:10 or cvar:0.05 (or rqe-eval to report it)"
        )

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        return VaR(NEGLIGIBLE).value(atoms, log_probs)
