"""What networks are to the rest of the package: actors and return models."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk import RiskMeasure


@dataclass
class Acted:
    """What an actor did for rows of agents, `[E, A]` in the collector.

    action: an element of the action space: int64 `[*rows]`, int64 `[*rows, U]` for MultiDiscrete, float32 `[*rows, U]`
        for continuous actions.
    memory: what the actor remembers afterwards, `[*rows, H]`; H = 0 without memory.
    extras: what the learner wants back, `[*rows, ...]` each, such as `log_prob`.
    """

    action: Tensor
    memory: Float[Tensor, "*rows H"]
    extras: dict[str, Tensor] = field(default_factory=dict)


class Actor(Protocol):
    """All that collector, evaluation, `Policy`, mixtures, export and live page know of who acts.

    memory_size: H, 0 for a feed-forward actor, of which `begin` is not called.
    draws: how many uniform numbers a row needs to draw its action.
    spec: of what it sees and does, at least `obs_dim`, `n_agents` and `actions` (an `ActionSpec`).

    An actor that policy files shall hold also has a `kind`, known by `rqe_mappo.nets.register`. One that has a policy
    gives it as `forward(obs, agent, memory, avail)`, with the memory afterwards: then its probabilities can be shown,
    and mixed as logits.
    """

    memory_size: int
    draws: int
    spec: Any

    def begin(
        self,
        memory: Float[Tensor, "E A H"],
        copies: Bool[Tensor, " E"],
        state: Float[Tensor, "E A S"] | None,
        uniform: Float[Tensor, " E"] | None,
    ) -> Float[Tensor, "E A H"]:
        """The memory with which episodes start in `copies`, that of the others as it was.

        state: what the critic sees then, and uniform: one random number a copy, for actors that draw something for the
            whole team; None outside training, where they must do without.
        """
        ...

    def act(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"],
        *,
        uniform: Float[Tensor, "*rows draws"] | None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
        explore: float = 0.0,
    ) -> Acted:
        """Actions drawn by `uniform`, on the CPU or elsewhere the same; the most probable ones where that is None.

        agent: which agent each row belongs to.
        avail: which actions are there.
        explore: how often to act at random, for actors that do not draw their actions from a policy.
        """
        ...


@dataclass(frozen=True)
class ReturnDistribution:
    """Predicted distribution of the return: probabilities `[..., N]` on atoms `[N]` or `[*rows, N]`, in reward."""

    atoms: Float[Tensor, "*rows N"]
    log_probs: Float[Tensor, "*rows N"]

    @property
    def probs(self) -> Float[Tensor, "*rows N"]:
        return self.log_probs.exp()

    @property
    def mean(self) -> Float[Tensor, "*rows"]:
        return categorical.mean(self.atoms, self.probs)

    @property
    def std(self) -> Float[Tensor, "*rows"]:
        return categorical.variance(self.atoms, self.probs).sqrt()

    def quantile(self, level: float) -> Float[Tensor, "*rows"]:
        """The smallest atom at which the cumulative probability reaches `level`."""
        return categorical.quantile(self.atoms, self.probs, level)

    def value(self, measure: RiskMeasure) -> Float[Tensor, "*rows"]:
        """The risk value under `measure`, whose tau is in the unit of the reward."""
        return measure.value(self.atoms, self.log_probs)


class ReturnModel(Protocol):
    """What predicts returns: of the state, from each agent's side, or of what the agent observes.

    view: which of the two it sees.
    view_dim: how many features that has.
    predicts: the distribution of the return, or its mean alone.
    """

    view: Literal["state", "obs"]
    view_dim: int
    predicts: Literal["distribution", "mean"]

    def mean(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """The expected return."""
        ...

    def distribution(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> ReturnDistribution | None:
        """The distribution of the return; None where only its mean is predicted."""
        ...
