"""The worst expectation of values over a set of distributions around nominal ones.

These are the inner problems `min over P in U of sum_i P_i v_i` of robust dynamic programming (Iyengar, 'Robust Dynamic
Programming', Mathematics of Operations Research, 2005). `values` `[*#batch, N]`, finite and in any unit, are those of
the N atoms among which nature may choose; `probs` `[*#batch, N]` are their nominal probabilities. Each function gives
the value and a distribution that has it, and is differentiable in `values`. Nature may move probability to every atom
given, those of probability 0 too, but in the KL sets, which never leave the support of `probs`.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rqe_mappo.functional.risk import Entropic

STEPS = 200  # a third of which halve the bracket; some ten suffice
PRECISION = 1e-14  # of the value, in spreads: it moves by 1 / tilt a nat
LARGEST_TILT = 1e300
UNDERFLOW = 800.0  # exp(-800) is 0

Values = Float[Tensor, "*#batch atoms"]
Column = Float[Tensor, "*#batch 1"]


class Worst(NamedTuple):
    """The worst case of values.

    value: `[*batch]`, in the unit of the values.
    probs: `[*batch, N]`, a distribution of the set at which it is reached.
    """

    value: Float[Tensor, "*batch"]
    probs: Float[Tensor, "*batch atoms"]


def contaminated(values: Values, probs: Values, delta: float) -> Worst:
    """With probability `delta` anything may happen: `(1 - delta) E v + delta min v`, the least of all atoms given.

    delta = 0 is the mean, 1 the least. ValueError for a delta outside [0, 1].
    """
    if not 0 <= delta <= 1:
        raise ValueError(f"delta must be in [0, 1] (got {delta:g})")
    values, probs = torch.broadcast_tensors(values, probs)
    lowest = torch.zeros_like(probs).scatter(-1, values.argmin(-1, keepdim=True), 1.0)
    return _at(values, torch.lerp(probs, lowest, delta))


def worst_of(values: Values, kernels: Float[Tensor, "kernels *#batch atoms"]) -> Worst:
    """The worst of finitely many distributions: `min_k E_k v`, of each row of values.

    In robust iteration they must leave alone what has no probability in the game, and not all that do not are refused.
    ValueError where there are none.
    """
    if kernels.ndim < 2 or not len(kernels):
        raise ValueError(f"kernels must be [kernels, ..., atoms], at least one (got {list(kernels.shape)})")
    shared = (1,) * (values.ndim - kernels.ndim + 1)  # axes that all rows have in common
    kernels = kernels.reshape(len(kernels), *shared, *kernels.shape[1:])
    values, kernels = torch.broadcast_tensors(values, kernels)
    worst = _at(values, kernels).value.argmin(0)[None, ..., None]
    return _at(values[0], kernels.take_along_dim(worst, 0)[0])


def l1_ball(values: Values, probs: Values, radius: float) -> Worst:
    """The worst q with `sum_i |q_i - p_i| <= radius`: up to radius / 2 of mass goes from the best atoms to the worst.

    radius = 0 is the mean, 2 and more the least of all atoms given. ValueError for a radius below 0.
    """
    _check_radius(radius)
    values, probs = torch.broadcast_tensors(values, probs)
    lowest = values.argmin(-1, keepdim=True)
    order = values.argsort(-1, descending=True)
    mass = probs.gather(-1, order)
    moved = (1 - probs.gather(-1, lowest)).clamp(0, min(radius / 2, 1.0))
    taken = torch.minimum((moved - (mass.cumsum(-1) - mass)).clamp(min=0), mass)
    left = probs - torch.zeros_like(probs).scatter(-1, order, taken)
    return _at(values, left.scatter_add(-1, lowest, taken.sum(-1, keepdim=True)))


def kl_ball(values: Values, probs: Values, radius: float) -> Worst:
    """The worst q with `KL(q || p) <= radius` (nats): `max over lam > 0 of -lam log E exp(-v / lam) - lam radius`.

    That is the greatest of the entropic values at tau = lam, less tau radius. q is `p exp(-v / lam)`, normalised, with
    the lam at which `KL(q || p)` is the radius, found by bisection in float64. From radius = -log p(v is least) on it
    is the least value that has a probability; radius = 0 is the mean. ValueError for a radius below 0.
    """
    _check_radius(radius)
    values, probs = torch.broadcast_tensors(values, probs)
    values = _supported(values, probs)
    return _at(values, _kl_worst(values.detach().double(), probs.detach().double(), radius).to(probs.dtype))


def kl_penalty(values: Values, probs: Values, tau: float) -> Worst:
    """`min over q of E_q v + tau KL(q || p)`, the entropic value `-tau log E exp(-v / tau)`; the value holds the price.

    tau, in the unit of the values, is a tolerance: inf is the mean, 0 in the limit the least value that has a
    probability. ValueError for a tau that is not above 0.
    """
    if not tau > 0:
        raise ValueError(f"tau must be > 0 for a KL penalty (got {tau:g})")
    values, probs = torch.broadcast_tensors(values, probs)
    atoms, log_probs = _supported(values, probs), probs.log()
    above = atoms - atoms.detach().amin(-1, keepdim=True)  # small beside tau where it counts: no digits are lost
    return Worst(Entropic(tau).value(atoms, log_probs), torch.softmax(log_probs - above / tau, -1))


@torch.no_grad()
def _kl_worst(values: Values, probs: Values, radius: float) -> Values:
    """The worst distribution of `kl_ball`: `probs` tilted as far as the radius allows, or its least atoms alone."""
    if radius == 0:
        return probs
    probs, above = probs / probs.sum(-1, keepdim=True), values - values.amin(-1, keepdim=True)
    spread = above.amax(-1, keepdim=True)
    above = above / torch.where(spread > 0, spread, 1.0)
    lowest = torch.where(above == 0, probs, 0.0)
    beyond = radius >= -lowest.sum(-1, keepdim=True).log()  # the radius of the least atoms
    # KL grows with the tilt. It is at most tilt^2 / 8 (Hoeffding), and above `high` all but the least underflow.
    high = (UNDERFLOW / torch.where(above > 0, above, 1.0).amin(-1, keepdim=True)).clamp(max=LARGEST_TILT)
    tilt = low = torch.full_like(high, min(math.sqrt(8 * radius), UNDERFLOW))
    for step in range(STEPS):
        found, slope = _kl_of_tilt(above, probs, tilt)
        done = beyond | ((found - radius).abs() <= PRECISION * tilt.clamp(max=1))
        if bool(done.all()):
            break
        low, high = torch.where(found <= radius, tilt, low), torch.where(found <= radius, high, tilt)
        newton = tilt * (radius / found) ** (1 / slope)  # in logarithms
        good = (newton > low) & (newton < high) & (step % 3 < 2)
        tilt = torch.where(done, tilt, torch.where(good, newton, low.sqrt() * high.sqrt()))
    worst = torch.where(beyond, lowest, probs * torch.exp(-tilt * above))
    return worst / worst.sum(-1, keepdim=True)


def _kl_of_tilt(above: Values, probs: Values, tilt: Column) -> tuple[Column, Column]:
    """`KL(q || p)` of q proportional to `p exp(-tilt above)`, and its slope, both as logarithms."""
    small = (probs * torch.expm1(-tilt * above)).sum(-1, keepdim=True)
    weights = probs * torch.exp(-tilt * above)
    total = weights.sum(-1, keepdim=True)
    mean = (weights * above).sum(-1, keepdim=True) / total
    spread = (weights * (above - mean) ** 2).sum(-1, keepdim=True) / total
    log_total = torch.where(tilt < 1, torch.log1p(small.clamp(min=-0.9)), total.log())
    found = -log_total - tilt * mean
    return found, tilt**2 * spread / found


def _at(values: Values, probs: Values) -> Worst:
    """The expectation of values, reckoned from the likeliest of them."""
    likeliest = values.gather(-1, probs.argmax(-1, keepdim=True))
    return Worst(likeliest.squeeze(-1) + (probs * (values - likeliest)).sum(-1), probs)


def _supported(values: Values, probs: Values) -> Values:
    """Values, the greatest one that has a probability where there is none."""
    return torch.where(probs > 0, values, values.masked_fill(probs == 0, -torch.inf).amax(-1, keepdim=True))


def _check_radius(radius: float) -> None:
    if not radius >= 0:
        raise ValueError(f"radius must be >= 0 (got {radius:g})")
