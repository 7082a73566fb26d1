"""The entropic certainty equivalent."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk.measure import (
    Atoms,
    LogProbs,
    Probs,
    RiskMeasure,
    Rows,
    RowsOfAtoms,
    annealed_tau,
    centred,
    check_tau,
    from_lowest,
)

SHIFTED_UPTO = 10  # widths in tau up to which the entropic value is taken about the mean; see _entropic
NEWTON_STEPS = 3  # the error is then below 0.0001 tau for atoms up to 1.3 tau apart
BISECTIONS = 25  # the error is then below 0.0001 tau for rows up to a million tau wide, whatever their gaps


@dataclass(frozen=True)
class Entropic(RiskMeasure):
    """The entropic certainty equivalent, `rho = -tau log E exp(-Z / tau)`, `psi(x) = tau (1 - exp(-(x - rho) / tau))`.

    `tau` > 0 is in units of return. tau -> inf is the mean, tau -> 0 the lowest atom with probability; for small risks
    `rho = m - Var / (2 tau)`. Föllmer & Schied, 'Convex measures of risk' (2002).

    clip: the largest exponent c > 0 of influence and utility. Below x = rho - c tau they continue as a straight line of
        slope e^c, so that a worse return still counts for more (a flat bound would make all crashes equal).
        `reference`, the rho inside psi, is then that of `max(Z, m - c tau)`: otherwise the small probability that a
        softmax leaves on the lowest atoms decides it once the support is wider than about 10 tau. `zero_utility_value`
        is that of the clipped utility; docs/risk.md says why the two differ. `value` is never clipped. Keep c * tau
        above one standard deviation of the return: below it, ordinary losses lie on the line too. None: the largest
        exponent that the dtype can hold.
    """

    tau: float
    clip: float | None = 3.0
    name: ClassVar[str] = "entropic"

    def __post_init__(self):
        check_tau(self.tau)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"--risk-clip must be > 0 (got {self.clip:g})")

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        shared = atoms.dim() == 1 and not torch.compiler.is_compiling()  # a graph that is traced reads no atoms
        return (_entropic if shared else _entropic_by_row)(atoms, log_probs, self.tau)

    def reference(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        if self.clip is None:
            return self.value(atoms, log_probs)
        lowest = categorical.mean(atoms, log_probs.exp()) - self.clip * self.tau
        bounded = torch.maximum(atoms, lowest[..., None])
        return (_entropic if atoms.dim() == 1 else _entropic_by_row)(bounded, log_probs, self.tau)

    def zero_utility_value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        if self.clip is None or math.isinf(self.tau):
            return self.value(atoms, log_probs)
        return (self._root if atoms.dim() == 1 else self._root_by_row)(atoms, log_probs.exp())

    # The mean utility of Z - v falls with v and is concave: from a v at which it is not positive, Newton's method comes
    # down to the root without passing it.

    def _root(self, atoms: Float[Tensor, " atoms"], probs: RowsOfAtoms) -> Rows:
        """The v with `E utility(Z - v) = 0`, from the first atom at which it is not positive, found by trying all."""
        utility, slope = (probs @ table for table in self._utility_and_slope(atoms[:, None] - atoms))
        first = (utility <= 0).int().argmax(-1, keepdim=True)
        root = (atoms[first] + utility.gather(-1, first) / slope.gather(-1, first)).squeeze(-1)
        for _ in range(NEWTON_STEPS):
            utility, slope = self._mean_utility_and_slope(atoms, probs, root)
            root = root + utility / slope
        return root

    def _root_by_row(self, atoms: Atoms, probs: Probs) -> Rows:
        """The same by bisection of each row's range, with a Newton step from above after every halving."""
        atoms = atoms.expand(torch.broadcast_shapes(atoms.shape, probs.shape))
        low, high = atoms[..., 0], atoms[..., -1]
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            positive = self._mean_utility_and_slope(atoms, probs, middle)[0] > 0
            low, high = torch.where(positive, middle, low), torch.where(positive, high, middle)
            utility, slope = self._mean_utility_and_slope(atoms, probs, high)
            high = (high + utility / slope).maximum(low)
        return high

    def _mean_utility_and_slope(self, atoms: Atoms, probs: Probs, value: Rows) -> tuple[Rows, Rows]:
        utility, slope = self._utility_and_slope(atoms - value[..., None])
        return (probs * utility).sum(-1), (probs * slope).sum(-1)

    def _largest_exponent(self, dtype: torch.dtype) -> float:
        """The largest exponent: `clip`, or what `dtype` can hold."""
        bearable = math.log(torch.finfo(dtype).max) / 2
        return bearable if self.clip is None else min(self.clip, bearable)

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        atoms = from_lowest(atoms)
        return centred(self.utility(atoms - self.reference(atoms, log_probs)[..., None]), log_probs)

    def utility(self, delta: Rows) -> Rows:
        """`tau (1 - exp(-delta / tau))`, clipped as above; the identity at tau = inf."""
        return delta if math.isinf(self.tau) else self._utility_and_slope(delta)[0]

    def _utility_and_slope(self, delta: Rows) -> tuple[Rows, Rows]:
        clip = self._largest_exponent(delta.dtype)
        x = delta / self.tau
        curved = x.clamp(min=-clip)
        grown = torch.expm1(-curved)
        return self.tau * (math.exp(clip) * (x - curved) - grown), 1 + grown

    def scaled(self, unit: float) -> "Entropic":
        return replace(self, tau=self.tau * unit)

    def annealed(self, fraction: float) -> "Entropic":
        return replace(self, tau=annealed_tau(self.tau, fraction))


def _entropic(values: Atoms, log_probs: LogProbs, tau: float) -> Rows:
    """`-tau log sum_i p_i exp(-x_i / tau)`, in the form that is exact in float32.

    The error of logsumexp is about 1e-7 tau, too much for large tau. The error of the form taken about the mean is some
    1e-7 of the width, but it overflows where the values are 88 tau apart. Between widths of 1 and 30 tau both are good.
    """
    if values.numel() and values.amax() - values.amin() > SHIFTED_UPTO * tau:
        return -tau * torch.logsumexp(log_probs - values / tau, -1)
    probs = log_probs.exp()
    mean = (probs * values).sum(-1)
    if math.isinf(tau):
        return mean
    return mean - tau * torch.log1p((probs * torch.expm1((mean[..., None] - values) / tau)).sum(-1))


def _entropic_by_row(values: Atoms, log_probs: LogProbs, tau: float) -> Rows:
    """`_entropic` with the form chosen for each row by the width of that row."""
    probs = log_probs.exp()
    mean = (probs * values).sum(-1)
    if math.isinf(tau):
        return mean
    wide = values.amax(-1) - values.amin(-1) > SHIFTED_UPTO * tau
    # The gradient of the form not taken must be finite too, so a wide row counts as a point there.
    below_mean = torch.where(wide[..., None], 0.0, mean[..., None] - values)
    near = mean - tau * torch.log1p((probs * torch.expm1(below_mean / tau)).sum(-1))
    return torch.where(wide, -tau * torch.logsumexp(log_probs - values / tau, -1), near)
