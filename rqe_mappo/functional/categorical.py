"""Categorical distributions on an evenly spaced support: `atoms` `[N]`, ascending, and probabilities `[..., N]`."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-6  # relative; cumulative float32 sums of some hundred atoms are wrong by less


def support(low: float, high: float, atoms: int) -> Float[Tensor, " atoms"]:
    """`atoms` evenly spaced points from `low` to `high`."""
    _check_interval(low, high)
    if atoms < 2:
        raise ValueError(f"a support needs at least 2 atoms (got {atoms})")
    return torch.linspace(low, high, atoms)


def aligned_support(low: float, high: float, step: float, max_atoms: int) -> Float[Tensor, " atoms"]:
    """The finest support of at most `max_atoms` atoms on multiples of `step` that covers `[low, high]` and holds 0.

    The spacing is a multiple of `step`. If it is `step` itself, adding a reward on that grid moves every atom onto
    another: undiscounted targets are then projected without error.
    """
    _check_interval(low, high)
    if not step > 0:
        raise ValueError(f"the grid of an aligned support needs step > 0 (got {step:g})")
    if max_atoms < 3:
        raise ValueError(f"an aligned support needs max_atoms >= 3, for 0 and a point on either side (got {max_atoms})")
    low, high = min(low, 0.0), max(high, 0.0)
    multiple = max(1, math.floor((high - low) / (step * (max_atoms - 1))))
    while True:
        spacing = multiple * step
        first, last = math.floor(low / spacing + ROUNDING), math.ceil(high / spacing - ROUNDING)
        if last - first + 1 <= max_atoms:
            return spacing * torch.arange(first, last + 1, dtype=torch.get_default_dtype())
        multiple += 1


def project(
    atoms: Float[Tensor, " atoms"],
    probs: Float[Tensor, "*batch atoms"],
    reward: Float[Tensor, "*batch"],
    discount: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch atoms"]:
    """The law of `reward + discount * X`, X on `atoms` with `probs`, projected onto `atoms`.

    Each atom's image shares its probability between its two neighbours, the nearer getting more. This keeps the mean
    and, where the image falls on an atom, the law; images outside the support move to its edge. Discount 0 gives the
    Dirac at the reward. Bellemare et al., 'A Distributional Perspective on Reinforcement Learning' (2017), eq. 7.
    """
    low, high, last = atoms[0], atoms[-1], atoms.shape[0] - 1
    image = (reward[..., None] + discount[..., None] * atoms).clamp(low, high)
    position = (image - low) * (last / (high - low))
    lower = position.floor().clamp(max=last - 1)
    upper_mass = probs * (position - lower)
    index = lower.long()
    return torch.zeros_like(probs).scatter_add_(-1, index, probs - upper_mass).scatter_add_(-1, index + 1, upper_mass)


def dirac(atoms: Float[Tensor, " atoms"], value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch atoms"]:
    """The law of a known `value`: shared by its two neighbours so that the mean is `value`, clipped to the support."""
    spacing = (atoms[-1] - atoms[0]) / (atoms.shape[0] - 1)
    distance = (atoms - value.clamp(atoms[0], atoms[-1])[..., None]).abs() / spacing
    return (1 - distance).clamp(min=0)


def mean(atoms: Float[Tensor, " atoms"], probs: Float[Tensor, "*batch atoms"]) -> Float[Tensor, "*batch"]:
    """Expectation `sum_i p_i z_i`."""
    return probs @ atoms


def variance(atoms: Float[Tensor, " atoms"], probs: Float[Tensor, "*batch atoms"]) -> Float[Tensor, "*batch"]:
    """Variance `sum_i p_i (z_i - m)^2`, about the mean m so that it never comes out negative."""
    return (probs * (atoms - mean(atoms, probs)[..., None]) ** 2).sum(-1)


def cdf(probs: Float[Tensor, "*batch atoms"]) -> Float[Tensor, "*batch atoms"]:
    """Cumulative probabilities `F_i = sum_{j <= i} p_j`."""
    return probs.cumsum(-1)


def quantile(
    atoms: Float[Tensor, " atoms"], probs: Float[Tensor, "*batch atoms"], level: float
) -> Float[Tensor, "*batch"]:
    """The smallest atom with `F_i >= level`, up to rounding (a relative 1e-6); level in (0, 1]."""
    if not 0 < level <= 1:
        raise ValueError(f"a quantile's level must lie in (0, 1] (got {level:g})")
    cumulative = cdf(probs)
    below = cumulative < level * (1 - ROUNDING) * cumulative[..., -1:]
    return atoms[below.sum(-1)]


def cross_entropy(
    target_probs: Float[Tensor, "*batch atoms"], logits: Float[Tensor, "*batch atoms"]
) -> Float[Tensor, "*batch"]:
    """`-sum_i q_i log softmax(logits)_i` of each row; minimal, the entropy of q, where the softmax is q."""
    return -(target_probs * logits.log_softmax(-1)).sum(-1)


def edge_mass(probs: Float[Tensor, "*batch atoms"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Probabilities of the lowest and the highest atom, where returns beyond the support are lost."""
    return probs[..., 0], probs[..., -1]


def _check_interval(low: float, high: float) -> None:
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"a support needs finite low < high (got {low:g} and {high:g})")
