"""Targets and advantages along trajectories: time is the first axis `[T, ...]`, every other axis is a batch.

`terminated` stops bootstrapping: the return ends with that reward. `ended` (terminated or truncated) cuts the trace:
what follows belongs to another episode. `next_*[t]` belongs to the observation after step t, before any reset.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rqe_mappo.functional import categorical


def gae(
    reward: Float[Tensor, " time *batch"],
    value: Float[Tensor, " time *batch"],
    next_value: Float[Tensor, " time *batch"],
    terminated: Bool[Tensor, " time *batch"],
    ended: Bool[Tensor, " time *batch"],
    gamma: float,
    lam: float,
) -> Float[Tensor, " time *batch"]:
    """Generalised advantage: the `traced` `delta_t = r_t + gamma V_{t+1} - V_t`.

    Schulman et al., 'High-Dimensional Continuous Control Using GAE' (2016), eq. 16.
    """
    return traced(reward + gamma * next_value * ~terminated - value, ended, gamma * lam)


def traced(
    surplus: Float[Tensor, " time *batch"], ended: Bool[Tensor, " time *batch"], decay: float
) -> Float[Tensor, " time *batch"]:
    """`A_t = surplus_t + decay A_{t+1}`, within episodes."""
    weight = (decay * (~ended).to(surplus.dtype)).unbind()
    rows = list(surplus.unbind())
    for t in reversed(range(len(rows) - 1)):
        rows[t] = torch.addcmul(rows[t], weight[t], rows[t + 1])
    return torch.stack(rows)


def lambda_targets(
    atoms: Float[Tensor, " atoms"],
    reward: Float[Tensor, " time *batch"],
    next_probs: Float[Tensor, " time *batch atoms"],
    terminated: Bool[Tensor, " time *batch"],
    ended: Bool[Tensor, " time *batch"],
    gamma: float,
    lam: float,
    finer: int = 1,
) -> Float[Tensor, " time *batch atoms"]:
    """Distributions of the lambda-return, `q_t = Pi[r_t + gamma ((1 - lam) p_{t+1} + lam q_{t+1})]`, Pi the projection.

    A mixture of the n-step target distributions with weights `(1 - lam) lam^(n-1)`; its mean is the scalar
    lambda-return within the support, but for a fiftieth of the spacing where all lies on an outermost atom and rewards
    are off the grid. At `ended` and at the last step the mixture is `next_probs` alone; where
    `terminated`, the target is the Dirac at `r_t`.

    Each projection off the grid widens the distribution: it adds up to a quarter of the squared spacing to the
    variance, a sixth on average; on an aligned support it adds nothing. Without discount each distribution is projected
    twice, however long the trace (see `_carried_targets`). With discount the mixture may be carried on a grid `finer`
    times as fine: what the steps of the trace add is then `finer^2` times smaller than what the one projection onto
    `atoms` adds.
    """
    spacing = (atoms[-1] - atoms[0]) / (atoms.shape[0] - 1)
    shift = reward / spacing
    if gamma == 1 and not torch.allclose(shift, shift.round(), atol=1e-4):
        return _carried_targets(atoms, spacing, reward, next_probs, terminated, ended, lam)
    finer = 1 if gamma == 1 else finer
    grid = atoms
    if finer > 1:
        grid = torch.linspace(float(atoms[0]), float(atoms[-1]), (len(atoms) - 1) * finer + 1).to(atoms)
    discount = gamma * (~terminated).to(reward.dtype)
    trace = (lam * (~ended).to(reward.dtype))[..., None].unbind()
    targets = []
    carried = None
    for t in reversed(range(len(trace))):
        mixture = _refined(next_probs[t], finer)
        if carried is not None:
            mixture = torch.lerp(mixture, carried, trace[t])
        carried = categorical.project(grid, mixture, reward[t], discount[t])
        targets.append(_coarsened(carried, finer))
    return torch.stack(targets[::-1])


def _refined(probs: Float[Tensor, "*batch atoms"], finer: int) -> Float[Tensor, "*batch fine"]:
    """The same distribution on a grid that has `finer - 1` more atoms between any two."""
    if finer == 1:
        return probs
    fine = probs.new_zeros(*probs.shape[:-1], (probs.shape[-1] - 1) * finer + 1)
    fine[..., ::finer] = probs
    return fine


def _coarsened(fine: Float[Tensor, "*batch fine"], finer: int) -> Float[Tensor, "*batch atoms"]:
    """The distribution on every `finer`-th atom; those between share their probability by distance."""
    if finer == 1:
        return fine
    share = torch.arange(finer, dtype=fine.dtype, device=fine.device) / finer
    cells = fine[..., :-1].unflatten(-1, (-1, finer))
    lower, upper = cells @ (1 - share), cells @ share
    pad = torch.nn.functional.pad
    return pad(lower, (0, 1)) + pad(upper, (1, 0)) + pad(fine[..., -1:], (lower.shape[-1], 0))


def _carried_targets(
    atoms: Float[Tensor, " atoms"],
    spacing: Float[Tensor, ""],
    reward: Float[Tensor, " time *batch"],
    next_probs: Float[Tensor, " time *batch atoms"],
    terminated: Bool[Tensor, " time *batch"],
    ended: Bool[Tensor, " time *batch"],
    lam: float,
) -> Float[Tensor, " time *batch atoms"]:
    """`lambda_targets` for gamma = 1 and rewards off the grid.

    The mixture is carried on the grid `wide + offset`, on which adding a reward is exact: it moves the distribution by
    whole atoms and changes the offset. A distribution is projected when it enters the mixture and when it is read.
    wide: the atoms and one below them, without which what lies on the lowest would enter at `offset` more.
    """
    wide = torch.cat((atoms[:1] - spacing, atoms))
    trace = lam * (~ended).to(reward.dtype)
    carried, offset = wide, torch.zeros_like(reward[0])  # of nothing yet
    targets = []
    for t in reversed(range(reward.shape[0])):
        offset = torch.where(trace[t] > 0, offset, 0.0)
        mixture = categorical.project_points(wide, atoms - offset[..., None], next_probs[t])
        if targets:
            mixture = torch.lerp(mixture, carried, trace[t][..., None])
        moved = offset + reward[t]
        whole = (moved / spacing).floor() * spacing
        # after an end the return is the reward alone, which the offset puts onto an atom
        place = ((reward[t] - atoms[0]) / spacing).floor() * spacing + atoms[0]
        ends = terminated[t][..., None]
        target, shifted = (
            categorical.project_points(grid, wide + by[..., None], mixture)
            for grid, by in ((atoms, moved), (wide, whole))
        )
        targets.append(torch.where(ends, categorical.dirac(atoms, reward[t]), target))
        carried = torch.where(ends, categorical.dirac(wide, place), shifted)
        offset = torch.where(terminated[t], reward[t] - place, moved - whole)
    return torch.stack(targets[::-1])


def influence_advantage(
    influence: Float[Tensor, "*batch atoms"],
    target_probs: Float[Tensor, "*batch atoms"],
    probs: Float[Tensor, "*batch atoms"],
) -> Float[Tensor, "*batch"]:
    """`sum_i psi_i (q_i - p_i)`: how much better the target distribution q is than the critic's p, by a measure.

    With the risk-neutral psi and lambda-targets it equals `gae` of the critic's means.
    """
    return (influence * (target_probs - probs)).sum(-1)
