"""Which windows of replayed episodes are drawn more often: those of which the last error was large."""

import math
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.data.replay import EpisodeReplay

LEAST = 1e-6  # added to every error, so that no window is never drawn again
MOST = 1e30  # counted of an error; in float64 its tenth power is still a number


@dataclass(frozen=True)
class Drawn:
    """Windows by slot of the episode and first step; `weight`: how much each has to count, 1 for the rarest drawn."""

    slot: Int[Tensor, " B"]
    first: Int[Tensor, " B"]
    weight: Float[Tensor, " B"]


class PriorityState(TypedDict):
    """Of the whole episodes in order, the oldest first, `[episodes, horizon]`; the largest so far."""

    priority: Tensor
    greatest: float


class Priorities:
    """A priority `(|error| + 1e-6)^alpha` for every step of the whole episodes of a replay, zero behind their ends.

    What was never drawn has the greatest so far. Schaul et al., 'Prioritized Experience Replay' (2016), proportional.
    """

    def __init__(self, replay: EpisodeReplay, alpha: float):
        self.replay, self.alpha, self.greatest = replay, alpha, 1.0
        slots = len(replay.length)
        self.priority = torch.zeros(slots, replay.horizon, dtype=torch.float64)  # tenth powers of errors fit in
        self.of_episode = torch.zeros(slots, dtype=torch.float64)
        self.known = 0  # episodes that have priorities
        self.restored: Tensor | None = None

    def draw(self, size: int, correction: float, generator: torch.Generator) -> Drawn:
        """Windows drawn with replacement in proportion to their priorities.

        correction: beta; weights are `(N P)^-beta`, relative to the greatest of them.
        """
        self._take_in()
        finished = self.replay.whole
        episodes = self.of_episode[finished]
        uniform = torch.rand(2, size, generator=generator, dtype=torch.float64)
        slot = finished[_places(episodes.cumsum(0).expand(size, -1), uniform[0])]
        steps = self.priority[slot]
        first = _places(steps.cumsum(-1), uniform[1])
        chance = steps.gather(-1, first[:, None]).squeeze(-1) / episodes.sum()
        weight = (self.replay.steps * chance) ** -correction
        return Drawn(slot, first, (weight / weight.max()).float())

    def update(self, drawn: Drawn, error: Float[Tensor, " B"]) -> None:
        """The errors of windows that were drawn."""
        priority = (error.detach().cpu().double().abs().clamp(max=MOST) + LEAST) ** self.alpha
        self.greatest = max(self.greatest, float(priority.max()))
        self.priority[drawn.slot, drawn.first] = priority
        self.of_episode[drawn.slot] = self.priority[drawn.slot].sum(-1)

    def _take_in(self) -> None:
        """Give the greatest priority to episodes that have ended since."""
        finished = self.replay.whole
        new = finished[-(self.replay.count - self.known) :] if self.replay.count > self.known else finished[:0]
        self._put(new, torch.full((len(new), self.replay.horizon), self.greatest, dtype=torch.float64))
        self.known = self.replay.count

    def settle(self) -> None:
        """Give the episodes that are back what was restored; without them all that will come is new."""
        finished = self.replay.whole
        if self.restored is not None and len(finished):
            if len(finished) != len(self.restored):
                raise ValueError(f"priorities.priority must be of {len(finished)} episodes")
            self._put(finished, self.restored)
        self.restored, self.known = None, self.replay.count

    def _put(self, slot: Int[Tensor, " F"], priority: Float[Tensor, "F horizon"]) -> None:
        there = torch.arange(self.replay.horizon) < self.replay.length[slot][:, None]
        self.priority[slot] = priority * there
        self.of_episode[slot] = self.priority[slot].sum(-1)

    def state_dict(self) -> PriorityState:
        self._take_in()
        return {
            "priority": self.priority[self.replay.whole],
            "greatest": self.greatest,
        }

    def load_state_dict(self, state: PriorityState) -> None:
        """Before the replay's episodes are back, after which `settle` gives them what was kept."""
        found = schema.read(PriorityState, state, "priorities")
        if found["priority"].shape[1:] != (self.replay.horizon,) or not bool((found["priority"] >= 0).all()):
            raise ValueError(f"priorities.priority must be at least 0, of {self.replay.horizon} steps an episode")
        if not 0 <= found["greatest"] < math.inf:
            raise ValueError(f"priorities.greatest must be at least 0 (got {found['greatest']:g})")
        self.restored, self.greatest = found["priority"].double(), found["greatest"]


def _places(cumulative: Float[Tensor, "B N"], uniform: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Where `uniform` of the last entry lies, never at an entry that adds nothing."""
    wanted = (uniform * cumulative[:, -1])[:, None]
    return (
        torch.searchsorted(cumulative.contiguous(), wanted, right=True).squeeze(-1).clamp(max=cumulative.shape[1] - 1)
    )
