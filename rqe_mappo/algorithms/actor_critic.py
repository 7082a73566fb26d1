"""What learners with an actor and a critic share: settings, phases, step sizes, passes over a trajectory."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

from rqe_mappo.algorithms.averages import Means
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import (
    AlgorithmConfig,
    PerAgent,
    TrainConfig,
    each_agent,
    require,
    require_at_least_one,
    require_positive,
    require_range,
    spelled,
)

LR_FLOOR = 0.05  # annealed step sizes end here
WIDEST = 100_000  # layer, and number of atoms: what is wider was a slip, and would end for want of memory


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(AlgorithmConfig):
    """Step sizes, networks and phases."""

    eps: PerAgent = 0.01
    """Bounded rationality: fixed weight of the entropy bonus (no clip range, no exploration rate); or one an agent."""
    regulariser: Literal["entropy", "log-barrier"] = "entropy"
    """What --eps weighs: the policy's entropy, or the sum of log-probabilities."""
    learning_rate: float = 1e-3
    """Adam step size of the actors."""
    critic_learning_rate: float = 2e-3
    """Adam step size of the critic."""
    anneal_lr: bool = True
    """Lower both step sizes linearly to 5 % over the run."""
    update_epochs: int = 4
    """Passes over a rollout for the actors."""
    critic_epochs: int = 4
    """Passes over a rollout for the critic."""
    max_grad_norm: float = 0.5
    """Largest gradient norm of the actors; of the critic twice as much."""
    shared_actor: bool = True
    """One actor for all agents (else one each)."""
    actor_hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of an actor (tanh)."""
    critic_hidden: tuple[int, ...] = (128, 64)
    """Hidden layers of the critic (ReLU)."""
    critic_first: float = 0.0
    """Share of the run (before --settle), at its start, in which only the critic learns."""
    settle: float = 0.0
    """Share of all steps, at their end, for the critic alone to learn the final policy's returns."""

    @property
    def label(self) -> str:
        return f"__eps{spelled(self.eps)}"

    def check(self, run: TrainConfig) -> None:
        require(self, all(0 <= eps < math.inf for eps in each_agent(self.eps)), "eps", "be in [0, inf)")
        require_range(self, critic_first=(0, 0.5), settle=(0, 0.49))
        require_positive(self, "learning_rate", "critic_learning_rate", "max_grad_norm")
        require_at_least_one(self, "update_epochs", "critic_epochs")
        for name in ("actor_hidden", "critic_hidden"):
            fits = all(1 <= width <= WIDEST for width in getattr(self, name))
            require(self, fits, name, f"hold widths from 1 to {WIDEST}")


@dataclass(frozen=True)
class Moment:
    """Where a run is, as an actor-critic sees it.

    phase: `critic-first`, then `learn`, in which the actors learn too, then `settle`.
    share: of everything before `settle`; in it 1.
    settled: the share of `settle`.
    """

    phase: Literal["critic-first", "learn", "settle"]
    share: float
    settled: float = 0.0

    @property
    def acting(self) -> bool:
        """Whether the actors learn."""
        return self.phase == "learn"


def moment(config: ActorCriticConfig, progress: Progress) -> Moment:
    """The phase of a run, by its settings."""
    share = progress.step / (progress.total * (1 - config.settle))
    if share >= 1 and config.settle:
        return Moment("settle", 1.0, (share - 1) * (1 - config.settle) / config.settle)
    return Moment("critic-first" if share < config.critic_first else "learn", min(share, 1.0))


def annealed(done: float) -> float:
    """The share of the first step size that is left when the share `done` is."""
    return max(LR_FLOOR, 1 - done)


def step_sizes(config: ActorCriticConfig, now: Moment) -> tuple[float, float]:
    """Adam's step sizes for the actors, which rest outside the phase `learn`, and for the critic."""

    def rate(done: float) -> float:
        return annealed(done) if config.anneal_lr else 1.0

    first = config.critic_first
    main = 1.0 if now.phase == "critic-first" else rate((now.share - first) / (1 - first))
    # once the policy has come to rest, large steps once more, to forget earlier ones
    critic = rate(now.settled) if now.phase == "settle" else main
    return config.learning_rate * main, config.critic_learning_rate * critic


Part = TypeVar("Part")
Step = Callable[[Part], dict[str, Tensor]]
"""Learns from a part of a batch; gives scalars to log."""


def passes(
    config: ActorCriticConfig,
    minibatches: Callable[[], list[Part]],
    critic_step: Step[Part] | None,
    actor_step: Step[Part] | None,
) -> dict[str, float]:
    """The epochs of an update: critic and actors, minibatch by minibatch; gives the means of what they logged.

    minibatches: shuffles the batch anew, and gives its parts.
    critic_step, actor_step: None where there is nothing to learn, as while the actors rest.
    """
    means = Means()
    for epoch in range(max(config.update_epochs, config.critic_epochs)):
        for part in minibatches():
            if epoch < config.critic_epochs and critic_step is not None:
                means.add(critic_step(part))
            if epoch < config.update_epochs and actor_step is not None:
                means.add(actor_step(part))
    return means.read()
