"""Bounded rationality: regularisers of a mixed strategy and the choices they lead to."""

from typing import Literal

import numpy as np
from scipy.special import log_softmax

from rqe_mappo.equilibrium.adversary import adversary

Regulariser = Literal["entropy", "log-barrier"]
REGULARISERS: tuple[Regulariser, ...] = ("entropy", "log-barrier")


def cost(log_pi: np.ndarray, regulariser: Regulariser) -> np.ndarray:
    """nu(pi): `entropy` is sum pi log pi, `log-barrier` is -sum log pi. log_pi: `[..., A]` -> `[...]`."""
    if regulariser == "log-barrier":
        return -log_pi.sum(-1)
    return (np.exp(log_pi) * np.where(np.isneginf(log_pi), 0.0, log_pi)).sum(-1)


def respond(x: np.ndarray, regulariser: Regulariser) -> np.ndarray:
    """log of argmax_pi pi.x - nu(pi), for values x in units of eps. x: `[..., A]` -> `[..., A]`.

    `entropy`: softmax. `log-barrier`: pi = 1 / (max x - x + c), the probabilities of the reverse-KL adversary of -x
    against uniform ones at tau = A.
    """
    if regulariser == "entropy":
        return log_softmax(x, axis=-1)
    n_actions = x.shape[-1]
    return np.log(adversary(-x, np.full(n_actions, -np.log(n_actions)), n_actions, "reverse-kl").probs)


def respond_jacobian(log_pi: np.ndarray, regulariser: Regulariser) -> np.ndarray:
    """d log pi / d x of `respond`. log_pi: `[A]` -> `[A, A]`."""
    pi = np.exp(log_pi)
    if regulariser == "entropy":
        return np.eye(len(pi)) - pi
    return pi[:, None] * (np.eye(len(pi)) - pi**2 / (pi**2).sum())


def values_for(log_pi: np.ndarray, regulariser: Regulariser) -> np.ndarray:
    """Values x, in units of eps, to which `respond` answers pi: the gradient of nu. `[..., A]` -> `[..., A]`."""
    return log_pi if regulariser == "entropy" else -np.exp(-log_pi)
