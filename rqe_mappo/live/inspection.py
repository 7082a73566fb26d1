"""What policies compute at a decision: action probabilities, return distributions, risk values; as plain values."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rqe_mappo.config import TrainConfig
from rqe_mappo.deploy.policy import ActingPolicy, Policy
from rqe_mappo.envs.contract import Observed
from rqe_mappo.functional.risk import Entropic
from rqe_mappo.nets import DistributionCritic

DIGITS = 4  # of probabilities that are shown


def describe_policy(policy: Policy, config: TrainConfig, name: str) -> dict[str, Any]:
    """What the page shows about a policy: name, risk profile, and its critic's atoms (None without a distribution)."""
    taus = dict.fromkeys(getattr(measure, "tau", None) for measure in policy.measures)
    known = [_tau_text(tau) for tau in taus if tau is not None]
    critic = policy.returns
    return {
        "name": name,
        "risk_profile": f"τ = {', '.join(known)}" if known else policy.measure.name,
        "risk": policy.measure.name,
        "gamma": config.gamma,
        "atoms": critic.atoms.double().round(decimals=3).tolist() if isinstance(critic, DistributionCritic) else None,
    }


def _tau_text(tau: float) -> str:
    return "∞" if math.isinf(tau) else f"{tau:g}"


def training_tau(policy: Policy) -> float:
    """The tau of its training, of the first agent's where they differ; infinite for a measure without one."""
    return getattr(policy.measure, "tau", math.inf)


def inspect_decision(
    policies: Sequence[Policy], actor: ActingPolicy, observed: Observed, actions: np.ndarray, tau: float | None
) -> list[dict[str, Any]]:
    """For each agent of copy 0: its action, and the probabilities, distributions and values behind it.

    Policies with memory must remember what they did before the decision.

    tau: the value is the exact entropic one of the distribution, tau in units of the return scale; unlike the value of
        training, bounded by `risk_clip`, it never rises as tau falls. None: each policy's own value, as in training.
    """
    agents = np.arange(observed.active.shape[1])
    mixture = actor.probabilities(observed.obs, agents[None], avail=observed.avail)[0].round(DIGITS).tolist()
    inspected = [_inspect_policy(policy, observed, agents, tau) for policy in policies]
    return [
        {
            "active": bool(observed.active[0, agent]),
            "action": int(actions[0, agent]),
            "mixture": mixture[agent],
            "policies": [{name: value[agent] for name, value in content.items()} for content in inspected],
        }
        for agent in agents.tolist()
    ]


def _inspect_policy(policy: Policy, observed: Observed, agents: np.ndarray, tau: float | None) -> dict[str, list]:
    """Probabilities `[A, actions]`, distribution `[A, N]` and value `[A]`; None where the critic has none."""
    nothing: list = [None] * len(agents)
    probs = policy.probabilities(observed.obs, agents[None], avail=observed.avail)[0].round(DIGITS).tolist()
    if policy.returns is None:
        return {"probs": probs, "distribution": nothing, "value": nothing}
    if not policy.predicts_distribution:
        value = policy.value(policy.view_of(observed.obs, observed.state), agents[None])[0]
        return {"probs": probs, "distribution": nothing, "value": _plain(value.numpy())}
    view = policy.view_of(observed.obs[0], observed.state[0])
    distribution = policy.distribution(view, agents)
    measure = None if tau is None else policy.in_reward(Entropic(tau))
    value = policy.value(view, agents) if measure is None else distribution.value(measure)
    shown = distribution.probs.numpy().round(DIGITS + 1).tolist()
    return {"probs": probs, "distribution": shown, "value": _plain(value.numpy())}


def _plain(values: np.ndarray) -> list[float]:
    return values.astype(float).round(3).tolist()
