"""What a learner sees of T decisions in E copies with A agents each."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass
class Past:
    """What the episodes under way had brought before each step; see `rqe_mappo.envs.history.History`."""

    past: Float[Tensor, "T E A"]
    discount: Float[Tensor, "T E"]
    start: Float[Tensor, "T E A S"]


@dataclass
class Trajectory:
    """T decisions of every copy; rows with `active` False hold nothing.

    obs, state: what actors and critics see before each decision, and, in the last entry, after all of them.
    action: elements of the action space, int64 `[T, E, A]` or `[T, E, A, U]`, or float32 `[T, E, A, U]`.
    memory: what the actors remembered before the first decision.
    begins: an episode of the copy begins with this decision.
    final_obs, final_state: what an agent sees after each truncation, in the order of `truncated.nonzero()`.
    lost: the simulation was lost after this step: the return goes on from what the next entry of `obs` and `state`
        holds, in which nobody is active.
    avail: which actions were there, where the environment says so.
    extras: what the actor gave beside actions, `[T, E, A, ...]` each.
    past: what each step's episode had brought so far, where the environment keeps it.
    who: whose network acts in each place, where that is not the agent's own number.

    The tensors may be overwritten when the next trajectory is collected: copy what must last.
    """

    obs: Float[Tensor, "T+1 E A D"]
    state: Float[Tensor, "T+1 E A S"]
    action: Tensor
    reward: Float[Tensor, "T E A"]
    cost: Float[Tensor, "T E A"]
    active: Bool[Tensor, "T E A"]
    terminated: Bool[Tensor, "T E A"]
    truncated: Bool[Tensor, "T E A"]
    lost: Bool[Tensor, "T E A"]
    begins: Bool[Tensor, "T E"]
    memory: Float[Tensor, "E A H"]
    final_obs: Float[Tensor, "M D"]
    final_state: Float[Tensor, "M S"]
    avail: Bool[Tensor, "T+1 E A actions"] | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    past: Past | None = None
    who: Int[Tensor, "E A"] | None = None

    @property
    def agent(self) -> Int[Tensor, "T+1 E A"]:
        """Which agent each entry of `obs` and `state` belongs to."""
        own = torch.arange(self.obs.shape[2], device=self.obs.device) if self.who is None else self.who
        return own.expand(self.obs.shape[:3])

    def part(self, places: Bool[Tensor, "E A"], memory: int) -> "Trajectory":
        """With rows in some places alone, whose actor has the first `memory` units of what is remembered."""
        return replace(self, active=self.active & places, memory=self.memory[..., :memory])

    def view(self, of: str) -> Float[Tensor, "T+1 E A V"]:
        """What a critic sees: of the "state", or of each agent's "obs"."""
        return self.obs if of == "obs" else self.state

    def final_view(self, of: str) -> Float[Tensor, "M V"]:
        """What it sees after each truncation."""
        return self.final_obs if of == "obs" else self.final_state

    def ends(self, time_limit: str) -> tuple[Bool[Tensor, "T E A"], Bool[Tensor, "T E A"]]:
        """Whose return ends at a step, and whose goes on from what follows a truncation.

        time_limit: "terminal" where the remaining time is observed, so that a return ends there too.
        """
        if time_limit == "terminal":
            return self.terminated | self.truncated, torch.zeros_like(self.truncated)
        return self.terminated, self.truncated


def flat(values: Tensor) -> Tensor:
    """`[T, E, A, ...]` as rows `[T * E * A, ...]`, for an index of rows in which agents acted."""
    return values.flatten(0, 2)
