"""The advantage estimators, from a rollout's targets and the critic's laws: `[T, E, A]` each (docs/risk.md)."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rqe_mappo.config import TrainConfig
from rqe_mappo.functional import categorical, returns
from rqe_mappo.functional.risk import RiskMeasure

IN_CACHE = 2**16  # numbers of a temporary


@dataclass(frozen=True)
class Evidence:
    """What the estimators look at; axes are time, copy, agent.

    log_probs, next_probs: the critic's law at each step, and at the step after it (the final state, if truncated).
    target: the law of the lambda-return.
    past, discount: return of the episode so far, and the weight of the next reward in it.
    start: the critic's log-probabilities at the episode's first state. These three only where the run needs them.
    """

    atoms: Float[Tensor, " N"]
    reward: Float[Tensor, "T E A"]
    terminated: Bool[Tensor, "T E A"]
    ended: Bool[Tensor, "T E A"]
    log_probs: Float[Tensor, "T E A N"]
    next_probs: Float[Tensor, "T E A N"]
    target: Float[Tensor, "T E A N"]
    past: Float[Tensor, "T E A"] | None = None
    discount: Float[Tensor, "T E A"] | None = None
    start: Float[Tensor, "T E A N"] | None = None

    def of(self, agents: list[int]) -> "Evidence":
        """The part that concerns `agents`."""
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "atoms"}
        return replace(self, **{name: part[:, :, agents] for name, part in parts.items() if part is not None})


Estimator = Callable[[Evidence, RiskMeasure, TrainConfig], Float[Tensor, "T E A"]]


def influence(seen: Evidence, measure: RiskMeasure, config: TrainConfig) -> Float[Tensor, "T E A"]:
    """`<psi(. ; p_t), q_t - p_t>`: every state optimises the risk of the return from there on."""
    if config.discount_tau:
        return _influence_by_age(seen, measure)
    parts = zip(_in_parts(seen.log_probs), _in_parts(seen.target), strict=True)
    return torch.cat([returns.influence_advantage(measure.influence(seen.atoms, lp), q, lp.exp()) for lp, q in parts])


def _in_parts(laws: Float[Tensor, "T E A N"]) -> tuple[Tensor, ...]:
    """A few steps at a time: a whole rollout's temporaries would not fit the cache (three times slower)."""
    return laws.split(max(1, IN_CACHE // laws[0].numel()))


def _influence_by_age(seen: Evidence, measure: RiskMeasure) -> Float[Tensor, "T E A"]:
    """As `influence`, with the tolerance tau / gamma^t at the episode's step t."""
    advantage = torch.empty_like(seen.reward)
    for discount in seen.discount.unique():
        rows = seen.discount == discount
        log_probs = seen.log_probs[rows]
        psi = measure.scaled(1 / max(float(discount), 1e-6)).influence(seen.atoms, log_probs)
        advantage[rows] = returns.influence_advantage(psi, seen.target[rows], log_probs.exp())
    return advantage


def static(seen: Evidence, measure: RiskMeasure, config: TrainConfig) -> Float[Tensor, "T E A"]:
    """GAE of `H_t = E psi_0(C_t + gamma^t Z(s_t))`, psi_0 the influence at the episode's first state.

    H is what the episode's total return, so far C_t, is expected to do for its risk; it changes by nothing but news, so
    the trace carries no gamma.
    """
    psi = torch.stack([measure.influence(seen.atoms, log_probs) for log_probs in seen.start])

    def outlook(probs: Tensor, past: Tensor, discount: Tensor) -> Tensor:
        return (categorical.project(seen.atoms, probs, past, discount) * psi).sum(-1)

    past = seen.past + seen.discount * seen.reward
    onward = config.gamma * seen.discount * ~seen.terminated
    value = outlook(seen.log_probs.exp(), seen.past, seen.discount)
    next_value = outlook(seen.next_probs, past, onward)
    none = torch.zeros_like(seen.terminated)
    return returns.gae(torch.zeros_like(value), value, next_value, none, seen.ended, 1.0, config.gae_lambda)


def nested(seen: Evidence, measure: RiskMeasure, config: TrainConfig) -> Float[Tensor, "T E A"]:
    """GAE of V_tau, each temporal difference through the measure's utility: the risk of each step, step by step."""
    return _gae(seen, measure, config, utility=measure.utility)


def value(seen: Evidence, measure: RiskMeasure, config: TrainConfig) -> Float[Tensor, "T E A"]:
    """GAE of V_tau: blind to what is drawn within a step, and at lambda = 1 to all risk."""
    return _gae(seen, measure, config, utility=returns.identity)


def _gae(
    seen: Evidence, measure: RiskMeasure, config: TrainConfig, utility: Callable[[Tensor], Tensor]
) -> Float[Tensor, "T E A"]:
    here, following = (
        torch.cat([measure.zero_utility_value(seen.atoms, part) for part in _in_parts(log_probs)])
        for log_probs in (seen.log_probs, seen.next_probs.clamp_min(1e-38).log())
    )
    return returns.gae(
        seen.reward, here, following, seen.terminated, seen.ended, config.gamma, config.gae_lambda, utility
    )


ESTIMATORS: dict[str, Estimator] = {"influence": influence, "static": static, "nested": nested, "value": value}
