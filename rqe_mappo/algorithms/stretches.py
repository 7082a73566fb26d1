"""Of equal stretches of the actors' learning the one whose episodes brought most, and the mean weights of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rqe_mappo import schema
from rqe_mappo.algorithms.averages import MeanWeights, Moments
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.functional.risk import RiskMeasure

ROUNDING = 1e-9  # of shares
MOST = 20_000  # latest returns of an agent in a stretch: more would make checkpoints large, and tell little


class StretchState(TypedDict):
    """What a `Stretch` keeps."""

    number: int
    ripe: bool
    weights: dict[str, Any]
    returns: list[Tensor]


class StretchesState(TypedDict):
    """What `Stretches` keep."""

    brought: Tensor
    going: Tensor
    kept: list[StretchState]
    chosen: int | None


@dataclass
class Stretch:
    """One of them.

    number: 0 is the last of the learning, -1 the one before.
    ripe: whether all the aversion that was asked for acted from its beginning.
    returns: of each agent's episodes that ended in it, undiscounted.
    """

    number: int
    ripe: bool
    weights: MeanWeights = field(default_factory=MeanWeights)
    returns: list[Tensor] = field(default_factory=list)


class Stretches:
    """The stretches that a run may end with; see `--average-of best`.

    A policy that turns bad late in its learning, as may happen where returns hang on rare events, shows it in the
    episodes that it is trained on. They choose, and no evaluation does: the stretch is the one in which the agents' own
    risk of an episode's return was best, on average over agents.

    length: of each, as a share of the learning.
    measures: each agent's, with tau in stds of the return.
    chosen: the number of the one that was best, once it is chosen.
    """

    def __init__(self, length: float, measures: Sequence[RiskMeasure], copies: int):
        self.length, self.measures = length, list(measures)
        self.brought = torch.zeros(copies, len(self.measures))
        self.going = torch.zeros(copies, len(self.measures), dtype=torch.bool)
        self.kept: list[Stretch] = []
        self.chosen: int | None = None

    def look(self, net: nn.Module, chunk: Trajectory, share: float, ripe: bool) -> None:
        """Look at the weights of `net` after an update, and at the episodes that ended in what it learned from.

        share: of the learning, before that. ripe: see `Stretch`.
        """
        number = min(0, 1 - math.ceil((1 - share) / self.length - ROUNDING))
        self.chosen = None
        if self.kept and number < self.kept[-1].number:  # of a run that was lengthened
            self.kept = []
        if not self.kept or number > self.kept[-1].number:
            self.kept = [stretch for stretch in self.kept if stretch.ripe]
            self.kept.append(Stretch(number, ripe, returns=[torch.zeros(0) for _ in self.measures]))
        now = self.kept[-1]
        now.weights.add(net)
        for agent, found in enumerate(self._ended(chunk)):
            now.returns[agent] = torch.cat((now.returns[agent], found))[-MOST:].clone()  # a view would be saved whole

    def _ended(self, chunk: Trajectory) -> list[Float[Tensor, " episodes"]]:
        """Each agent's undiscounted returns of the episodes that ended, of those that were seen from their beginning.

        An episode of a copy has one of each agent, which may begin later, rest for some steps, and end earlier.
        """
        active, begins, lost, reward = (each.cpu() for each in (chunk.active, chunk.begins, chunk.lost, chunk.reward))
        ended = (chunk.terminated | chunk.truncated).cpu() & active
        found, whole = torch.zeros_like(reward), torch.zeros_like(ended)
        for step in range(len(reward)):
            fresh = begins[step][:, None]
            self.going = self.going | fresh
            self.brought = torch.where(fresh, 0.0, self.brought) + reward[step] * active[step]
            found[step], whole[step] = self.brought, self.going & ended[step] & ~lost[step]
            over = ended[step] | lost[step]
            self.going, self.brought = self.going & ~lost[step], torch.where(over, 0.0, self.brought)
        return [found[..., agent][whole[..., agent]] for agent in range(found.shape[-1])]

    def scores(self) -> list[float]:
        """What the episodes of each stretch brought, by the agents' own risk; -inf where nobody's ended."""
        units = [self._unit(agent) for agent in range(len(self.measures))]
        return [
            _mean(
                [
                    _worth(measure.scaled(unit), found)
                    for measure, unit, found in zip(self.measures, units, stretch.returns, strict=True)
                    if len(found)
                ]
            )
            for stretch in self.kept
        ]

    def _unit(self, agent: int) -> float:
        """The std of an agent's returns within stretches, in which its tau is counted; 1 where all are the same."""
        within = Moments()
        for stretch in self.kept:
            found = stretch.returns[agent].double()
            if len(found):
                within.add(Moments(len(found), 0.0, float(((found - found.mean()) ** 2).sum())))
        return within.std or 1.0

    @property
    def best(self) -> Stretch | None:
        """The best of them, and of equal ones the latest; None where there is none."""
        scored = list(zip(self.scores(), self.kept, strict=True))
        return max(reversed(scored), key=lambda pair: pair[0])[1] if scored else None

    def give(self, net: nn.Module) -> None:
        """Set the weights of `net` to the mean of the best stretch, and forget all."""
        best = self.best
        if best is not None:
            best.weights.give(net)
            self.chosen = best.number
        self.kept = []
        self.going[:] = False  # what is played meanwhile is not looked at

    def state_dict(self) -> dict[str, Any]:
        kept = [
            {**vars(stretch), "weights": stretch.weights.state_dict(), "returns": list(stretch.returns)}
            for stretch in self.kept
        ]
        return {"brought": self.brought, "going": self.going, "kept": kept, "chosen": self.chosen}

    def load_state_dict(self, state: dict[str, Any], net: nn.Module) -> None:
        """Go on as `state_dict` says; ValueError if that is of another network, or of other copies or agents."""
        known = schema.read(StretchesState, state, "stretches")
        if known["brought"].shape != self.brought.shape or known["going"].shape != self.going.shape:
            raise ValueError("the stretches are of other copies or agents")
        self.brought, self.going = known["brought"], known["going"].bool()
        self.kept, self.chosen = [], known["chosen"]
        for saved in known["kept"]:
            if len(saved["returns"]) != len(self.measures):
                raise ValueError("the stretches are of other agents")
            stretch = Stretch(saved["number"], saved["ripe"], returns=[found.float() for found in saved["returns"]])
            stretch.weights.load_state_dict(saved["weights"], net)
            self.kept.append(stretch)


def _worth(measure: RiskMeasure, found: Float[Tensor, " episodes"]) -> float:
    """The risk of equally likely returns; entropic risk with the clip that the learner has."""
    atoms, counts = found.double().unique(return_counts=True)
    return float(measure.zero_utility_value(atoms[None], (counts / counts.sum()).log()[None]))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("-inf")
