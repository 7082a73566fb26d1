"""Categorical distributions: `atoms` `[N]` in ascending order, and probabilities `[*batch, N]`.

`project`, `project_points` and `dirac` need evenly spaced atoms. `mean`, `variance` and `quantile` take any atoms, also
atoms `[*batch, N]` that differ by row; the batch axes of atoms and probabilities broadcast.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROUNDING = 1e-6  # relative; cumulative float32 sums of some hundred atoms are wrong by less

Atoms = Float[Tensor, "*#batch atoms"]
Probs = Float[Tensor, "*#batch atoms"]
Rows = Float[Tensor, "*batch"]


def support(low: float, high: float, atoms: int) -> Float[Tensor, " atoms"]:
    """`atoms` evenly spaced points from `low` to `high`."""
    _check_interval(low, high)
    if atoms < 2:
        raise ValueError(f"a support needs at least 2 atoms (got {atoms})")
    return torch.linspace(low, high, atoms)


def aligned_support(low: float, high: float, step: float, max_atoms: int) -> Float[Tensor, " atoms"]:
    """The finest support of at most `max_atoms` atoms on multiples of `step` that covers `[low, high]`.

    The spacing is a multiple of `step`. If it is `step` itself, adding a reward on that grid moves every atom onto
    another: undiscounted targets are then projected without error.
    """
    _check_interval(low, high)
    if not 0 < step < math.inf:
        raise ValueError(f"the grid of an aligned support needs a finite step > 0 (got {step:g})")
    if max_atoms < 3:
        raise ValueError(f"an aligned support needs max_atoms >= 3, for a point on either side (got {max_atoms})")
    multiple = max(1, math.floor((high - low) / (step * (max_atoms - 1))))
    while True:
        spacing = multiple * step
        first, last = math.floor(low / spacing + ROUNDING), math.ceil(high / spacing - ROUNDING)
        if last - first + 1 <= max_atoms:
            atoms = spacing * torch.arange(first, max(last, first + 1) + 1, dtype=torch.float64)
            return atoms.to(torch.get_default_dtype())
        multiple += 1


def project(
    atoms: Float[Tensor, " atoms"],
    probs: Float[Tensor, "*batch atoms"],
    reward: Float[Tensor, "*batch"],
    discount: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch atoms"]:
    """The distribution of `reward + discount * X`, X on `atoms` with `probs`, projected onto `atoms`.

    Discount 0 gives the Dirac at the reward. See `project_points` for what the projection keeps.
    Bellemare et al., 'A Distributional Perspective on Reinforcement Learning' (2017), eq. 7.
    """
    return project_points(atoms, reward[..., None] + discount[..., None] * atoms, probs)


def project_points(
    atoms: Float[Tensor, " atoms"], points: Float[Tensor, "*batch points"], probs: Float[Tensor, "*batch points"]
) -> Float[Tensor, "*batch atoms"]:
    """The distribution with probabilities `probs` at `points`, projected onto evenly spaced `atoms`.

    Each point shares its probability between the two atoms around it: `p (z_{j+1} - x) / dz` goes to `z_j` and
    `p (x - z_j) / dz` to `z_{j+1}`, dz the spacing. This keeps the mean and adds at most `dz^2 / 4` to
    the variance; a point on an atom stays as it is. Points outside the support move to its nearest edge.
    Bellemare et al., 'A Distributional Perspective on Reinforcement Learning' (2017), eq. 7.
    """
    low, high, last = atoms[0], atoms[-1], atoms.shape[0] - 1
    position = (points.clamp(low, high) - low) * (last / (high - low))
    lower = position.floor().clamp(max=last - 1)
    upper_mass = probs * (position - lower)
    index = lower.long()
    empty = probs.new_zeros(*probs.shape[:-1], last + 1)
    return empty.scatter_add_(-1, index, probs - upper_mass).scatter_add_(-1, index + 1, upper_mass)


def dirac(atoms: Float[Tensor, " atoms"], value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch atoms"]:
    """The distribution of a known `value`: its two neighbouring atoms share it so that the mean is `value`.

    A value outside the evenly spaced support counts as its nearest edge.
    """
    return project_points(atoms, value[..., None], torch.ones_like(value)[..., None])


def mean(atoms: Atoms, probs: Probs) -> Rows:
    """Expectation `sum_i p_i z_i`."""
    return weighted_sum(atoms, probs)


def weighted_sum(values: Atoms, weights: Probs) -> Rows:
    """`sum_i w_i x_i` of each row, for values `[N]` shared by all rows or `[*batch, N]`."""
    return weights @ values if values.dim() == 1 else (weights * values).sum(-1)


def variance(atoms: Atoms, probs: Probs) -> Rows:
    """Variance `sum_i p_i (z_i - m)^2`, taken about the mean m so that it is never negative."""
    return (probs * (atoms - mean(atoms, probs)[..., None]) ** 2).sum(-1)


def cdf(probs: Float[Tensor, "*batch atoms"]) -> Float[Tensor, "*batch atoms"]:
    """Cumulative probabilities `F_i = sum_{j <= i} p_j`."""
    return probs.cumsum(-1)


def quantile(atoms: Atoms, probs: Probs, level: float) -> Rows:
    """The smallest atom with `F_i >= level`, up to rounding (a relative 1e-6).

    `level` lies in (0, 1], else ValueError; 1 gives the highest atom with probability.
    """
    if not 0 < level <= 1:
        raise ValueError(f"a quantile's level must lie in (0, 1] (got {level:g})")
    cumulative = cdf(probs)
    below = cumulative < level * (1 - ROUNDING) * cumulative[..., -1:]
    return pick(atoms, below.sum(-1))


def pick(atoms: Atoms, index: Int[Tensor, "*#batch"]) -> Rows:
    """The atom at `index` of each row."""
    if atoms.dim() == 1:
        return atoms[index]
    batch = torch.broadcast_shapes(atoms.shape[:-1], index.shape)
    return atoms.expand(*batch, -1).gather(-1, index.expand(batch)[..., None]).squeeze(-1)


def cross_entropy(
    target_probs: Float[Tensor, "*batch atoms"], logits: Float[Tensor, "*batch atoms"]
) -> Float[Tensor, "*batch"]:
    """Cross-entropy `-sum_i q_i log softmax(logits)_i` of each row, in nats.

    Its minimum over the logits is the entropy of q, where the softmax equals q.
    """
    return -(target_probs * logits.log_softmax(-1)).sum(-1)


def edge_mass(probs: Float[Tensor, "*batch atoms"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Probabilities of the lowest and the highest atom, where returns beyond the support are lost."""
    return probs[..., 0], probs[..., -1]


def _check_interval(low: float, high: float) -> None:
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"a support needs finite low < high (got {low:g} and {high:g})")
