"""Greedy actions and targets of Q-learning; time is the first axis `[T, ...]`, every other axis is a batch."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.functional.policy_gradient import LEAST, NO_ACTION


def masked(
    values: Float[Tensor, "*batch actions"], avail: Bool[Tensor, "*batch actions"] | None
) -> Float[Tensor, "*batch actions"]:
    """Values of actions, `NO_ACTION` for those that are not there, above which all others are kept."""
    return values if avail is None else values.clamp(min=LEAST).masked_fill(~avail, NO_ACTION)


def of_actions(values: Float[Tensor, "*batch actions"], action: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The values of the actions that were chosen."""
    return values.gather(-1, action[..., None]).squeeze(-1)


def lambda_returns(
    reward: Float[Tensor, " time *batch"],
    next_value: Float[Tensor, " time *batch"],
    terminated: Bool[Tensor, " time *batch"],
    ended: Bool[Tensor, " time *batch"],
    gamma: float,
    lam: float,
) -> Float[Tensor, " time *batch"]:
    """TD(lambda) targets `y_t = r_t + gamma ((1 - lam) V_{t+1} + lam y_{t+1})`.

    Where the return is `terminated`, `y_t = r_t`; where the episode `ended` otherwise, and at the last step,
    `y_t = r_t + gamma V_{t+1}`. With `V_{t+1}` the greatest value of the next step these are Peng's Q(lambda) (Peng and
    Williams, 'Incremental multi-step Q-learning', 1996): what was explored on the way is not corrected for, so that
    lam > 0 learns the value of a mixture of the greedy policy and of the one that explored.
    """
    discount = gamma * (~terminated).to(reward.dtype)
    trace = lam * (~ended).to(reward.dtype)
    targets = list(reward.unbind())
    following = next_value[-1]
    for t in reversed(range(len(targets))):
        following = torch.lerp(next_value[t], following, trace[t]) if t + 1 < len(targets) else next_value[t]
        targets[t] = following = reward[t] + discount[t] * following
    return torch.stack(targets)


def explored(
    greedy: Int[Tensor, "*rows"],
    uniform: Float[Tensor, "*rows 2"],
    avail: Bool[Tensor, "*rows actions"],
    share: float,
) -> Int[Tensor, "*rows"]:
    """Epsilon-greedy: with probability `share` one of the actions that are there, each as often; else `greedy`.

    uniform: the first number says whether to explore, the second which action is taken.
    """
    place = (uniform[..., 1] * avail.sum(-1)).floor()
    random = (avail.cumsum(-1) <= place[..., None]).sum(-1)
    return torch.where(uniform[..., 0] < share, random, greedy)
