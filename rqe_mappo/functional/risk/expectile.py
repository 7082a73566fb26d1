"""Expectiles."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk.measure import (
    Atoms,
    Form,
    LogProbs,
    OneNumber,
    Rows,
    RowsOfAtoms,
    centred,
    from_lowest,
    tails,
)


@dataclass(frozen=True)
class Expectile(OneNumber):
    """The expectile e at `level`, where `level E(Z - e)^+ = (1 - level) E(e - Z)^+`.

    A level below 1/2 is averse, 1/2 neutral, above it seeks risk; level -> 0 is the worst case, 1 the best.
    `psi(x) = (level (x - e)^+ - (1 - level) (e - x)^+) / (level P(Z > e) + (1 - level) P(Z < e))` has two slopes and is
    never flat. An atom at e, up to rounding, counts half on either side. rho is not differentiable there: moving
    probability to a lower return lowers it more than psi says, to a higher return raises it less. psi of a sure return
    is the utility. It is the shortfall measure of a piecewise linear utility, hence it has a nested form. Newey &
    Powell, 'Asymmetric least squares estimation and testing' (1987); Bellini et al., 'Generalized quantiles as risk
    measures' (2014).
    """

    level: float
    form: ClassVar[Form] = Form("expectile", "LEVEL", 0, 1, "()", neutral=0.5, example=0.1)

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        """The equation solved for e once per gap between atoms, as if e lay there; the least is e (level <= 1/2).

        Each candidate is a mean with weights `1 - level` up to an atom and `level` above it. The true split gives the
        lowest candidate for level <= 1/2, the highest otherwise.
        """
        probs = log_probs.exp()
        mean = categorical.mean(atoms, probs)
        if probs.shape[-1] == 1 or atoms.shape[-1] == 1:
            return mean
        below, above = tails(probs)
        deficit, excess = tails(probs * (atoms - mean[..., None]))
        weighted = self.level * excess + (1 - self.level) * deficit
        candidates = weighted / (self.level * above + (1 - self.level) * below)
        return mean + (candidates.amin(-1) if self.level <= 0.5 else candidates.amax(-1))

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        atoms = from_lowest(atoms)
        x = atoms - self.value(atoms, log_probs)[..., None]
        probs = log_probs.exp()
        side = x.sign().masked_fill(x.abs() <= categorical.ROUNDING * atoms.abs().amax(-1, keepdim=True), 0)
        weight = 0.5 + (self.level - 0.5) * side
        return centred(self._bent(x) / (probs * weight).sum(-1, keepdim=True), log_probs)

    def utility(self, delta: Rows) -> Rows:
        """`2 level delta` for gains, `2 (1 - level) delta` for losses; the identity at level 1/2.

        Mihatsch & Neuneier, 'Risk-sensitive reinforcement learning' (2002), with their kappa = 1 - 2 level.
        """
        return 2 * self._bent(delta)

    def _bent(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.level * x.clamp(min=0) + (1 - self.level) * x.clamp(max=0)
