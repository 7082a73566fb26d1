"""The clipped policy gradient, per sample: the caller averages, and leaves out agents that did not act."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NO_ACTION = -1e9
"""The logit of an action that an agent does not have: probability 0, and finite, so that 0 log 0 is 0."""
LEAST = 0.99 * NO_ACTION
"""What an action that an agent has counts at least where others are not there, so that these are never preferred."""


def clipped_surrogate(
    log_ratio: Float[Tensor, "*batch"], advantage: Float[Tensor, "*batch"], clip: float
) -> Float[Tensor, "*batch"]:
    """Loss `-min(r A, clip(r, 1 - clip, 1 + clip) A)`, `r = exp(log_ratio)` the ratio of new to old probability.

    Schulman et al., 'Proximal Policy Optimization Algorithms' (2017), eq. 7, to be minimised.
    """
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def entropy(logits: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
    """Entropy `-sum_a pi_a log pi_a` of the softmax of finite `logits`, in nats."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def kl(logits: Float[Tensor, "*batch actions"], others: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
    """`KL(p || q) = sum_a p_a (log p_a - log q_a)` in nats, p the softmax of finite `logits`, q of `others`.

    An action that neither has (`NO_ACTION`) counts for nothing.
    """
    log_probs, log_others = logits.log_softmax(-1), others.log_softmax(-1)
    return (log_probs.exp() * (log_probs - log_others)).sum(-1)


def log_barrier(logits: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
    """`sum_a log pi_a` of the softmax of finite `logits`: largest where uniform, minus infinity where an action
    has probability 0. The sum is over available actions, whose logits are above `NO_ACTION`.
    """
    return logits.log_softmax(-1).masked_fill(logits <= NO_ACTION, 0).sum(-1)


def approx_kl(log_ratio: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Estimate `(r - 1) - log r >= 0` of KL(old || new) from one sample of the old policy (Schulman's k3)."""
    return torch.expm1(log_ratio) - log_ratio


def normalise(x: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
    """`(x - mean(x)) / scale`, the mean over all entries; zeros where all entries are equal, whatever the scale."""
    return (x - x.mean()) / (scale + 1e-8)


def mixture(
    probs: Sequence[Float[Tensor, "*batch actions"]], weights: Sequence[float]
) -> Float[Tensor, "*batch actions"]:
    """The mixture `sum_k w_k pi_k`: before each action, draw the policy that acts.

    Weights must be non-negative, one per policy, and sum to 1, else ValueError.
    """
    if len(probs) != len(weights):
        raise ValueError(f"a mixture needs one weight per policy (got {len(weights)} for {len(probs)})")
    if min(weights, default=-1) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise ValueError(f"a mixture's weights must be non-negative and sum to 1 (got {list(weights)})")
    return torch.stack([weight * each for weight, each in zip(weights, probs, strict=True)]).sum(0)
