"""What policies think at a decision: probabilities of actions, laws of the return, risk values; as plain values."""

import math
from typing import Any

import numpy as np

from rqe_mappo.config import TrainConfig
from rqe_mappo.deploy.policy import ActingPolicy, Policy
from rqe_mappo.envs.contract import Observed
from rqe_mappo.functional.risk import Entropic

DIGITS = 4  # of probabilities that are shown


def describe(policy: Policy, config: TrainConfig, name: str) -> dict[str, Any]:
    """What the page says about a policy: its name, attitude, and the atoms of its critic (None without a law)."""
    taus = dict.fromkeys(getattr(measure, "tau", None) for measure in policy.measures)
    known = [_spelled(tau) for tau in taus if tau is not None]
    has_law = policy.predicts_distribution
    return {
        "name": name,
        "attitude": f"τ = {', '.join(known)}" if known else policy.measure.name,
        "risk": policy.measure.name,
        "gamma": config.gamma,
        "atoms": policy.returns.atoms.double().round(decimals=3).tolist() if has_law else None,
    }


def _spelled(tau: float) -> str:
    return "∞" if math.isinf(tau) else f"{tau:g}"


def own_tau(policy: Policy) -> float:
    """The tau of its training, of the first agent's where they differ; infinite for a measure without one."""
    return getattr(policy.measure, "tau", math.inf)


def thoughts(
    policies: tuple[Policy, ...], decider: ActingPolicy, seen: Observed, actions: np.ndarray, tau: float | None
) -> list[dict[str, Any]]:
    """What each agent of copy 0 saw itself do, and why.

    tau: the value is the exact entropic one of the law, tau in units of the return scale; unlike the value of training,
        bounded by `risk_clip`, it never rises as tau falls. None: each policy's own value, as in training.
    """
    agents = np.arange(seen.active.shape[1])
    mixture = decider.probabilities(seen.obs[0], agents).round(DIGITS).tolist()
    each = [_of_policy(policy, seen, agents, tau) for policy in policies]
    return [
        {
            "active": bool(seen.active[0, agent]),
            "action": int(actions[0, agent]),
            "mixture": mixture[agent],
            "policies": [{name: value[agent] for name, value in known.items()} for known in each],
        }
        for agent in agents.tolist()
    ]


def _of_policy(policy: Policy, seen: Observed, agents: np.ndarray, tau: float | None) -> dict[str, list]:
    """Probabilities `[A, actions]`, law `[A, N]` and value `[A]`, the latter two None where the critic has none."""
    nothing: list = [None] * len(agents)
    probs = policy.probabilities(seen.obs[0], agents).round(DIGITS).tolist()
    if policy.returns is None:
        return {"probs": probs, "law": nothing, "value": nothing}
    view = policy.view_of(seen.obs[0], seen.state[0])
    if not policy.predicts_distribution:
        return {"probs": probs, "law": nothing, "value": _plain(policy.value(view, agents).numpy())}
    law = policy.distribution(view, agents)
    measure = None if tau is None else Entropic(tau).scaled(policy.return_scale or 1.0)
    value = policy.value(view, agents) if measure is None else law.value(measure)
    return {"probs": probs, "law": law.probs.numpy().round(DIGITS + 1).tolist(), "value": _plain(value.numpy())}


def _plain(values: np.ndarray) -> list[float]:
    return values.astype(float).round(3).tolist()
