"""The advantage estimators, from the critic's distributions and its targets: `[T, E, A]` each (docs/risk.md)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.data.trajectory import flat
from rqe_mappo.functional import categorical, returns
from rqe_mappo.functional.risk import RiskMeasure
from rqe_mappo.functional.rows import rows_of_each

IN_CACHE = 2**16  # numbers of a temporary


@dataclass(frozen=True)
class SoFar:
    """What each step's episode has brought before it.

    gained, discount: its return so far, and the weight of the next reward in it.
    start: the critic's log-probabilities at its first state.
    """

    gained: Float[Tensor, "T E A"]
    discount: Float[Tensor, "T E A"]
    start: Float[Tensor, "T E A N"]


@dataclass(frozen=True)
class OneStep:
    """The nested value and what each step made of it, in units of the return.

    values: the K numbers that the measure needs, rho first (`RiskMeasure.elicited`), before each step.
    outcome: `r + gamma V(s')`.
    """

    values: Float[Tensor, "T E A K"]
    outcome: Float[Tensor, "T E A"]


@dataclass(frozen=True)
class AdvantageInputs:
    """What the estimators look at; axes are time, copy, agent.

    log_probs, next_probs: the critic's distribution at each step, and at the step after it (or the final state).
    target: the distribution of the lambda-return.
    so_far: where the environment keeps it.
    one_step: where the nested value is learned.
    """

    atoms: Float[Tensor, " N"]
    reward: Float[Tensor, "T E A"]
    terminated: Bool[Tensor, "T E A"]
    ended: Bool[Tensor, "T E A"]
    log_probs: Float[Tensor, "T E A N"]
    next_probs: Float[Tensor, "T E A N"]
    target: Float[Tensor, "T E A N"]
    gamma: float
    lam: float
    so_far: SoFar | None = None
    one_step: OneStep | None = None

    @property
    def episode(self) -> SoFar:
        """What the episodes have brought; ValueError where that is not kept."""
        if self.so_far is None:
            raise ValueError("this advantage looks at episodes from their start: wrap the environment in its History")
        return self.so_far

    def of(self, agents: Int[Tensor, " G"]) -> "AdvantageInputs":
        """The part that concerns `agents`."""
        parts = {name: getattr(self, name) for name in ("so_far", "one_step")}
        parts = {name: part and replace(part, **_of(part, agents)) for name, part in parts.items()}
        return replace(self, **_of(self, agents), **parts)


def _of(parts: Any, agents: Int[Tensor, " G"]) -> dict[str, Tensor]:
    """The tensors `[T, E, A, ...]` among the fields of `parts`, of some agents."""
    return {
        name: value[:, :, agents] for name, value in vars(parts).items() if isinstance(value, Tensor) and value.ndim > 1
    }


Estimator = Callable[[AdvantageInputs, RiskMeasure], Float[Tensor, "T E A"]]


def influence(inputs: AdvantageInputs, measure: RiskMeasure) -> Float[Tensor, "T E A"]:
    """`<psi(. ; p_t), q_t - p_t>`: every state optimises the risk of the return from there on."""
    parts = zip(_in_parts(inputs.log_probs), _in_parts(inputs.target), strict=True)
    return torch.cat([returns.influence_advantage(measure.influence(inputs.atoms, lp), q, lp.exp()) for lp, q in parts])


def _in_parts(distributions: Float[Tensor, "T E A N"]) -> tuple[Tensor, ...]:
    """A few steps at a time: a whole rollout's temporaries would not fit the cache (three times slower)."""
    return distributions.split(max(1, IN_CACHE // distributions[0].numel()))


def influence_by_age(inputs: AdvantageInputs, measure: RiskMeasure) -> Float[Tensor, "T E A"]:
    """As `influence`, with the tolerance tau / gamma^t at the episode's step t."""
    discounts, age = inputs.episode.discount.unique(return_inverse=True)
    advantage, log_probs, target = (
        torch.empty_like(inputs.reward).flatten(),
        flat(inputs.log_probs),
        flat(inputs.target),
    )
    for discount, rows in zip(discounts.tolist(), rows_of_each(age.flatten(), len(discounts)), strict=True):
        psi = measure.scaled(1 / max(discount, 1e-6)).influence(inputs.atoms, log_probs[rows])
        advantage[rows] = returns.influence_advantage(psi, target[rows], log_probs[rows].exp())
    return advantage.view_as(inputs.reward)


def static(inputs: AdvantageInputs, measure: RiskMeasure) -> Float[Tensor, "T E A"]:
    """GAE of `H_t = E psi_0(C_t + gamma^t Z(s_t))`, psi_0 the influence at the episode's first state.

    H is what the episode's total return, so far C_t, is expected to do for its risk; it changes by nothing but news, so
    the trace carries no gamma.
    """
    episode = inputs.episode
    psi = torch.stack([measure.influence(inputs.atoms, log_probs) for log_probs in episode.start])

    def outlook(probs: Tensor, past: Tensor, discount: Tensor) -> Tensor:
        return (categorical.project(inputs.atoms, probs, past, discount) * psi).sum(-1)

    past = episode.gained + episode.discount * inputs.reward
    onward = inputs.gamma * episode.discount * ~inputs.terminated
    value = outlook(inputs.log_probs.exp(), episode.gained, episode.discount)
    next_value = outlook(inputs.next_probs, past, onward)
    none = torch.zeros_like(inputs.terminated)
    return returns.gae(torch.zeros_like(value), value, next_value, none, inputs.ended, 1.0, inputs.lam)


def nested(inputs: AdvantageInputs, measure: RiskMeasure) -> Float[Tensor, "T E A"]:
    """GAE with each temporal difference through the measure's utility: the risk of each step, step by step.

    Where the nested value is known, what later steps add has mean zero whatever was done, for every lambda. Without a
    nested value that is learned there is no risk, and it is plain GAE.
    """
    if inputs.one_step is None:
        return value(inputs, measure)
    surplus = measure.identification(inputs.one_step.outcome, inputs.one_step.values)[..., 0]
    return returns.traced(surplus, inputs.ended, inputs.gamma * inputs.lam)


def value(inputs: AdvantageInputs, measure: RiskMeasure) -> Float[Tensor, "T E A"]:
    """GAE of V_tau: blind to what is drawn within a step, and at lambda = 1 to all risk."""
    here, following = (
        torch.cat([measure.zero_utility_value(inputs.atoms, part) for part in _in_parts(log_probs)])
        for log_probs in (inputs.log_probs, inputs.next_probs.clamp_min(1e-38).log())
    )
    return returns.gae(inputs.reward, here, following, inputs.terminated, inputs.ended, inputs.gamma, inputs.lam)


ESTIMATORS: dict[str, Estimator] = {"influence": influence, "static": static, "nested": nested, "value": value}
