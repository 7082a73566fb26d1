"""The adversary of a convex risk measure: it shifts the opponents' action probabilities, at a price."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Penalty = Literal["kl", "reverse-kl"]
PENALTIES: tuple[Penalty, ...] = ("kl", "reverse-kl")
NARROW = 1.0  # below this range of u / tau the shifted form is the accurate one, above it logsumexp
TINY = 1e-290  # stands for a probability of 0 where the adversary may still put mass


@dataclass(frozen=True)
class Adversary:
    """The solution of `inf_p p.u + tau D(p, q)` over probabilities p, and its derivatives.

    value: `[...]`, the infimum.
    probs: `[..., M]`, the minimiser p.
    weight, curvature: `[..., M]`, `[...]`; dp/du = -curvature (diag w - w w'), dp/dlog q = diag p - w p', w = weight.
    gradient: `[..., M]`, dvalue/dlog q along changes after which q still adds to 1.
    """

    value: np.ndarray
    probs: np.ndarray
    weight: np.ndarray
    curvature: np.ndarray
    gradient: np.ndarray


def adversary(payoff: np.ndarray, log_q: np.ndarray, tau: float, penalty: Penalty) -> Adversary:
    """The worst probabilities p for the payoffs u, at the price tau D(p, q) of leaving q.

    `kl`: D = KL(p||q), value -tau log E_q exp(-u / tau) (the entropic risk). `reverse-kl`: D = KL(q||p).
    payoff: `[..., M]`; log_q: `[..., M]`, broadcast against it. tau -> inf is the mean, tau -> 0 the least payoff (for
    `kl` the least one that q can give).
    """
    payoff, log_q = np.broadcast_arrays(payoff, log_q)
    if np.isinf(tau):
        q = np.exp(log_q)
        zero = np.zeros(payoff.shape[:-1])
        return Adversary((q * payoff).sum(-1), q, q, zero, q * payoff)
    return _entropic(payoff, log_q, tau) if penalty == "kl" else _reverse(payoff, log_q, tau)


def _entropic(payoff: np.ndarray, log_q: np.ndarray, tau: float) -> Adversary:
    """p = q exp(-u / tau) / total."""
    q = np.exp(log_q)
    tilt = log_q - payoff / tau
    top = tilt.max(-1, keepdims=True)
    p = np.exp(tilt - top)
    total = p.sum(-1, keepdims=True)
    p = p / total
    mean = (q * payoff).sum(-1, keepdims=True)
    shift = -(payoff - mean) / tau
    narrow = np.abs(shift).max(-1, keepdims=True) < NARROW
    shift = np.where(narrow, shift, 0.0)
    log_total = np.log1p((q * np.expm1(shift)).sum(-1, keepdims=True))
    value = np.where(narrow, mean - tau * log_total, -tau * (top + np.log(total)))[..., 0]
    gradient = np.where(narrow, -tau * q * np.expm1(shift - log_total), tau * (q - p))
    return Adversary(value, p, p, np.full(value.shape, 1 / tau), gradient)


def _reverse(payoff: np.ndarray, log_q: np.ndarray, tau: float) -> Adversary:
    """p = tau q / (u - min u + c), where c > 0 makes p add to 1."""
    q = np.maximum(np.exp(log_q), TINY)
    least = payoff.min(-1, keepdims=True)
    above = payoff - least
    total = q.sum(-1, keepdims=True)
    mean = (q * above).sum(-1, keepdims=True) / total
    at_least = np.where(above == 0, q, 0.0).sum(-1, keepdims=True)
    c = np.maximum(tau * at_least, tau - mean)  # never above the root (Jensen), so Newton on 1 / sum(p) rises to it
    for _ in range(100):
        p = tau * q / (above + c)
        mass = p.sum(-1, keepdims=True)
        step = (mass - total) * mass / (p / (above + c)).sum(-1, keepdims=True) / total
        c = c + np.maximum(step, 0.0)
        if np.all(step <= 1e-15 * c):
            break
    p = tau * q / (above + c)
    p = p / p.sum(-1, keepdims=True)
    weight = p / (above + c)
    curvature = weight.sum(-1, keepdims=True)
    drop = tau - c
    # the value is stationary in c, so an error of c enters squared
    log_ratio = np.where(c < tau / 2, np.log((above + c) / tau), np.log1p(np.maximum((above - drop) / tau, -0.75)))
    value = (least + drop)[..., 0] + tau * (q * log_ratio).sum(-1)
    return Adversary(value, p, weight / curvature, curvature[..., 0], tau * q * log_ratio)
