"""The entropic certainty equivalent."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk.measure import Atoms, RiskMeasure, Rows, RowsOfAtoms, annealed_tau, centred, check_tau

SHIFTED_UPTO = 10  # widths in tau up to which the entropic value is taken about the mean; see _entropic
NEWTON_STEPS = 3  # the error is then below 0.0001 tau for atoms up to 1.3 tau apart


@dataclass(frozen=True)
class Entropic(RiskMeasure):
    """The entropic certainty equivalent, `rho = -tau log E exp(-Z / tau)`, `psi(x) = tau (1 - exp(-(x - rho) / tau))`.

    tau -> inf is the mean, tau -> 0 the lowest atom with probability; for small risks `rho = m - Var / (2 tau)`.

    clip: the largest exponent c of influence and utility. Below x = rho - c tau they go on as a straight line of
        slope e^c, so that worse stays worse (a flat bound would make all crashes equal). `reference`, the rho within
        psi, is then that of `max(Z, m - c tau)`: else the little that a softmax leaves on the lowest atoms decides it
        once the support is wider than some ten tau. `zero_utility_value` is that of the clipped utility; docs/risk.md
        says why it is another. `value` is never clipped. Keep c * tau above one standard deviation of the return, or
        ordinary losses lie on the line too. None: as large as the dtype can carry.
    """

    tau: float
    clip: float | None = 3.0
    name: ClassVar[str] = "entropic"

    def __post_init__(self):
        check_tau(self.tau)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"--risk-clip must be > 0 (got {self.clip:g})")

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        return _entropic(atoms, log_probs, self.tau)

    def reference(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        if self.clip is None:
            return self.value(atoms, log_probs)
        lowest = categorical.mean(atoms, log_probs.exp()) - self.clip * self.tau
        return _entropic(torch.maximum(atoms, lowest[..., None]), log_probs, self.tau)

    def zero_utility_value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        if self.clip is None or math.isinf(self.tau):
            return self.value(atoms, log_probs)
        probs = log_probs.exp()
        # The mean utility falls with v and is concave: from the first atom at which it is negative, Newton's method
        # comes down to the root without passing it.
        utility, slope = (probs @ table for table in self._utility_and_slope(atoms[:, None] - atoms))
        first = (utility <= 0).int().argmax(-1, keepdim=True)
        root = (atoms[first] + utility.gather(-1, first) / slope.gather(-1, first)).squeeze(-1)
        for _ in range(NEWTON_STEPS):
            utility, slope = ((probs * each).sum(-1) for each in self._utility_and_slope(atoms - root[..., None]))
            root = root + utility / slope
        return root

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        return centred(self.utility(atoms - self.reference(atoms, log_probs)[..., None]), log_probs)

    def utility(self, delta: Rows) -> Rows:
        """`tau (1 - exp(-delta / tau))`, clipped as above; the identity at tau = inf."""
        return delta if math.isinf(self.tau) else self._utility_and_slope(delta)[0]

    def _utility_and_slope(self, delta: Rows) -> tuple[Rows, Rows]:
        bearable = math.log(torch.finfo(delta.dtype).max) / 2
        clip = bearable if self.clip is None else min(self.clip, bearable)
        x = delta / self.tau
        curved = x.clamp(min=-clip)
        grown = torch.expm1(-curved)
        return self.tau * (math.exp(clip) * (x - curved) - grown), 1 + grown

    def scaled(self, unit: float) -> "Entropic":
        return replace(self, tau=self.tau * unit)

    def annealed(self, fraction: float) -> "Entropic":
        return replace(self, tau=annealed_tau(self.tau, fraction))


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
