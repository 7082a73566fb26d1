"""Quantile distributions: N equally likely values `[*batch, N]`, the i-th at the level `(2 i - 1) / (2 N)`.

`values` are in units of return. A network's values may cross; `sort` them where a docstring says ascending. For risk
measures, `as_atoms` gives what they take.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from rqe_mappo.functional import categorical
from rqe_mappo.functional.categorical import ROUNDING

Values = Float[Tensor, "*batch quantiles"]
Rows = Float[Tensor, "*batch"]


def midpoint_levels(
    count: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Float[Tensor, " quantiles"]:
    """The levels `(2 i - 1) / (2 N)`, i = 1 .. N, in the middle of N equal shares; ValueError unless N >= 1.

    The quantiles at these levels are the N equally likely values that are closest to a distribution in Wasserstein-1
    distance. Dabney et al., 'Distributional Reinforcement Learning with Quantile Regression' (2018), lemma 2.
    """
    if count < 1:
        raise ValueError(f"a quantile distribution needs at least 1 quantile (got {count})")
    return (torch.arange(count, dtype=dtype or torch.get_default_dtype(), device=device) + 0.5) / count


def ascending(values: Values) -> Values:
    """The values sorted, differentiable.

    On a CPU by NumPy, which needs a tenth of PyTorch's time for as few quantiles as one has.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return values.sort(-1).values
    if torch.is_grad_enabled() and values.requires_grad:
        return values.gather(-1, torch.from_numpy(values.detach().numpy().argsort(-1)))
    return torch.from_numpy(np.sort(values.detach().numpy(), -1))


def as_atoms(values: Values) -> tuple[Values, Float[Tensor, " quantiles"]]:
    """Atoms `[*batch, N]` in ascending order and log-probabilities `-log N` `[N]`: what a risk measure takes.

    `measure.value(*as_atoms(values))` is differentiable in `values`.
    """
    count = values.shape[-1]
    return ascending(values), values.new_full((count,), -math.log(count))


def mean(values: Values) -> Rows:
    """Expectation `sum_i x_i / N`, the action value of QR-DQN (Dabney et al., 2018, algorithm 1)."""
    return values.mean(-1)


def variance(values: Values) -> Rows:
    """Variance `sum_i (x_i - m)^2 / N` about the mean m; it leaves out what lies between the levels."""
    return values.var(-1, correction=0)


def spread(values: Values) -> Rows:
    """The highest minus the lowest value, in units of return; 0 where all quantiles have collapsed to one number."""
    return values.amax(-1) - values.amin(-1)


def quantile(values: Values, level: float) -> Rows:
    """The smallest value with `F >= level`, that is value number `ceil(level N)`, of ascending `values`.

    `level` lies in (0, 1], up to a relative rounding of 1e-6, else ValueError. It equals `categorical.quantile` with
    probabilities 1 / N: no interpolation, so that it is one of the values.
    """
    if not 0 < level <= 1:
        raise ValueError(f"a quantile's level must lie in (0, 1] (got {level:g})")
    return values[..., max(math.ceil(level * (1 - ROUNDING) * values.shape[-1]), 1) - 1]


def cdf(values: Values, x: Rows) -> Rows:
    """`P(Z <= x)`, the share of values that are at most `x`, a number per row; `values` in any order."""
    return (values <= x[..., None]).to(values.dtype).mean(-1)


def wasserstein_1(first: Float[Tensor, "*batch first"], second: Float[Tensor, "*batch second"]) -> Rows:
    """Distance `integral_0^1 |F^{-1}(u) - G^{-1}(u)| du`, in units of return; values in any order.

    With equal numbers of quantiles it is the mean absolute difference of the sorted values; otherwise both step
    functions are compared on their common refinement, with lcm(N, M) steps. Dabney et al. (2018), section 'The
    Wasserstein metric'.
    """
    count = math.lcm(first.shape[-1], second.shape[-1])
    steps = (ascending(x).repeat_interleave(count // x.shape[-1], -1) for x in (first, second))
    return torch.sub(*steps).abs().mean(-1)


def huber_quantile_loss(
    predicted: Values,
    target: Float[Tensor, "... targets"],
    levels: Float[Tensor, "... levels"],
    kappa: float,
) -> Rows:
    """Loss `sum_i mean_j |level_i - 1{u_ij < 0}| H(u_ij)`, `u_ij = target_j - predicted_i`, of each row.

    `H(u) = u^2 / (2 kappa)` for |u| <= kappa, else `|u| - kappa / 2`. kappa = 0 is the pinball loss, `H(u) = |u|`,
    whose minimum over `predicted` is at the quantiles of the target. A larger kappa smooths the loss about 0 and moves
    the minimum towards the mean. `kappa` and the loss are in units of return.

    Axes: i runs over `predicted` `[*batch, N]` and is summed, j over `target` `[*batch, M]` and is averaged, so that
    the loss does not grow with M. `levels` `[N]` or `[*batch, N]` belong to `predicted`. Any other shape is a
    ValueError: levels along the targets would drive all quantiles to one number. No gradient flows into `target`.

    Dabney et al., 'Distributional Reinforcement Learning with Quantile Regression' (2018), eq. 8 to 10 and, for the
    axes, algorithm 1. Divided by kappa as in 'Implicit Quantile Networks' (2018); at kappa = 1 both agree.
    """
    if not 0 <= kappa < math.inf:
        raise ValueError(f"a quantile loss needs a finite kappa >= 0 (got {kappa:g}); use 0 for the pinball loss")
    if predicted.shape[:-1] != target.shape[:-1]:
        raise ValueError(
            "a quantile loss needs predicted [*batch, N] and target [*batch, M] "
            f"(got {tuple(predicted.shape)} and {tuple(target.shape)})"
        )
    if levels.shape not in (predicted.shape, predicted.shape[-1:]):
        raise ValueError(
            f"the levels of a quantile loss belong to the predicted quantiles {tuple(predicted.shape)}: use the same "
            f"shape, or its last axis alone (got {tuple(levels.shape)})"
        )
    return _HuberQuantileLoss.apply(predicted, target.detach(), levels, kappa)


class _HuberQuantileLoss(torch.autograd.Function):
    """The loss and its gradient at once: the pairs `[*batch, N, M]` take most of the time, and are looked at once."""

    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor, levels: Tensor, kappa: float) -> Tensor:
        error = target[..., None, :] - predicted[..., :, None]
        weight = torch.where(error < 0, 1 - levels[..., :, None], levels[..., :, None])
        if kappa > torch.finfo(error.dtype).tiny / torch.finfo(error.dtype).eps:  # else nothing is left of it
            near = error.clamp(-kappa, kappa)
            weighed = weight.mul_(near).div_(kappa)  # minus the slope in what is predicted
            size = error.sub_(near.div_(2))
        else:
            weighed, size = weight.mul_(error.sign()), error
        ctx.save_for_backward(weighed.mean(-1))
        return size.mul_(weighed).mean(-1).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return -grads[0][..., None] * slope, None, None, None


def to_categorical(atoms: Float[Tensor, " atoms"], values: Values) -> Float[Tensor, "*batch atoms"]:
    """Probabilities on evenly spaced `atoms`: every value shares its `1 / N` between the two atoms around it.

    The mean is kept within the support; values outside move to its edge. See `categorical.project_points`.
    Bellemare et al., 'A Distributional Perspective on Reinforcement Learning' (2017), eq. 7.
    """
    return categorical.project_points(atoms, values, torch.full_like(values, 1 / values.shape[-1]))


def from_categorical(
    atoms: categorical.Atoms,
    probs: categorical.Probs,
    levels: Float[Tensor, "*#batch quantiles"],
) -> Values:
    """Quantiles of a categorical distribution at `levels` `[M]` or `[*batch, M]`.

    Each is the smallest atom with `F_i >= level`. Levels lie in (0, 1]; F is compared up to a relative rounding of
    1e-6. There is no interpolation, so every quantile is an atom, and at `midpoint_levels` the result is the closest in
    Wasserstein-1 distance (Dabney et al., 2018, lemma 2). `atoms` `[N]` or `[*batch, N]` in ascending order.
    """
    cumulative = categorical.cdf(probs)
    batch = torch.broadcast_shapes(atoms.shape[:-1], probs.shape[:-1], levels.shape[:-1])
    wanted = (levels * (1 - ROUNDING) * cumulative[..., -1:]).expand(*batch, -1)
    index = torch.searchsorted(cumulative.expand(*batch, -1).contiguous(), wanted.contiguous())
    return atoms.expand(*batch, -1).gather(-1, index.clamp(max=atoms.shape[-1] - 1))


def lambda_targets(
    reward: Float[Tensor, " time *batch"],
    next_values: Float[Tensor, " time *batch quantiles"],
    terminated: Bool[Tensor, " time *batch"],
    ended: Bool[Tensor, " time *batch"],
    gamma: float,
    lam: float,
) -> Float[Tensor, " time *batch quantiles"]:
    """Lambda-returns quantile by quantile, `q_t = r_t + gamma ((1 - lam) x_{t+1} + lam q_{t+1})`.

    Time is the first axis; `terminated` and `ended` are as in `returns`. At `ended` and at the last step q_{t+1} is
    `next_values` alone; where `terminated`, all quantiles are `r_t`. The mean is the scalar lambda-return.

    This averages the n-step quantile functions, as RiskQ does (arXiv 2311.01753), and not the n-step distributions, as
    `returns.lambda_targets` does for atoms: where these have different means, the mixture is wider. At lam 0 and 1 both
    agree.
    """
    discount = (gamma * (~terminated).to(reward.dtype))[..., None]
    trace = (lam * (~ended).to(reward.dtype))[..., None]
    targets = []
    following = next_values[-1]
    for t in reversed(range(reward.shape[0])):
        following = reward[t][..., None] + discount[t] * torch.lerp(next_values[t], following, trace[t])
        targets.append(following)
    return torch.stack(targets[::-1])


def mixed_targets(
    reward: Float[Tensor, " time *batch"],
    next_values: Float[Tensor, " time *batch quantiles"],
    terminated: Bool[Tensor, " time *batch"],
    ended: Bool[Tensor, " time *batch"],
    gamma: float,
    lam: float,
    uniform: Float[Tensor, " time *batch quantiles"],
) -> Float[Tensor, " time *batch quantiles"]:
    """Equally likely draws from the lambda-mixture of n-step distributions, `q_t = r_t + gamma x`.

    Each draw's x is `q_{t+1}` where its `uniform` number is below lam, and else of `next_values`; at `ended` and at the
    last step always the latter. `lambda_targets` averages both instead, which leaves `(1 - lam)^2 + lam^2` of the
    variance of independent ones, 0.52 at lam = 0.6: a risk measure would see about half of what there is. Other
    arguments as there.
    """
    discount = (gamma * (~terminated).to(reward.dtype))[..., None]
    goes_on = (uniform < lam) & ~ended[..., None]
    targets = []
    following = next_values[-1]
    for t in reversed(range(reward.shape[0])):
        following = reward[t][..., None] + discount[t] * torch.where(goes_on[t], following, next_values[t])
        targets.append(following)
    return torch.stack(targets[::-1])
