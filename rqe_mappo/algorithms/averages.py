"""Averages over a run: of numbers, of weights, of what is logged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rqe_mappo import schema
from rqe_mappo.schema import Count


class RunningMeanState(TypedDict):
    """What a `RunningMean` keeps."""

    memory: float
    total: float
    weight: float


class RunningMean:
    """An exponential moving average, corrected for its start as in Adam."""

    def __init__(self, memory: float):
        self.memory, self.total, self.weight = memory, 0.0, 0.0

    def add(self, value: float) -> float:
        """Take `value` in; gives the average."""
        self.total = self.memory * self.total + (1 - self.memory) * value
        self.weight = self.memory * self.weight + (1 - self.memory)
        return self.total / self.weight

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(schema.read(RunningMeanState, state, "running mean"))


class MeanWeightsState(TypedDict):
    """What `MeanWeights` keeps."""

    total: dict[str, Tensor]
    count: Count


@dataclass
class Moments:
    """Count, mean and sum of squared distances from the mean, merged without cancelling digits.

    Source: Chan, Golub and LeVeque, 'Algorithms for Computing the Sample Variance' (1983).
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of_agents(
        cls, values: Sequence[Float[Tensor, "*rows A"]], counts: Bool[Tensor, "*rows A"]
    ) -> list[list["Moments"]]:
        """Of those entries of each of `values` that count, an agent at a time; brought from the device at once."""
        rows = tuple(range(counts.dim() - 1))
        number = counts.sum(rows).double()
        parts = []
        for entries in values:
            mean = (entries.double() * counts).sum(rows) / number.clamp(min=1)
            parts.append(torch.stack((number, mean, ((entries - mean) ** 2 * counts).sum(rows)), -1))
        return [[cls(*agent) for agent in part] for part in torch.stack(parts).tolist()]

    def add(self, other: "Moments", memory: float = 1.0) -> None:
        """Take `other` in; what was there before counts `memory` times."""
        self.count *= memory
        self.squares *= memory
        count = self.count + other.count
        if count == 0:
            return
        difference = other.mean - self.mean
        self.squares += other.squares + difference**2 * self.count * other.count / count
        self.mean += difference * other.count / count
        self.count = count

    @property
    def std(self) -> float:
        """The standard deviation, over `count`; 0 of nothing."""
        return (self.squares / self.count) ** 0.5 if self.count else 0.0

    def state_dict(self) -> dict[str, float]:
        return asdict(self)


class MeanWeights:
    """The mean of a network's weights over the moments at which it was looked at.

    Source: Polyak and Juditsky, 'Acceleration of Stochastic Approximation by Averaging' (1992). A policy near a cliff
    of its return swings about its best weights, and where it stops is chance.
    """

    def __init__(self) -> None:
        self.total: dict[str, Tensor] = {}
        self.count = 0

    def add(self, net: nn.Module) -> None:
        """Look at the weights of `net` now."""
        for name, weights in net.named_parameters():
            now = weights.detach()
            self.total[name] = self.total[name] + now if self.count else now.clone()
        self.count += 1

    @torch.no_grad()
    def give(self, net: nn.Module) -> None:
        """Set the weights of `net` to the mean, and begin anew."""
        for name, weights in net.named_parameters():
            weights.copy_(self.total[name] / self.count)
        self.total, self.count = {}, 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any], net: nn.Module) -> None:
        """Go on as `state_dict` says; ValueError if that is of another network than `net`."""
        known = schema.read(MeanWeightsState, state, "mean weights")
        own = dict(net.named_parameters())
        shapes = {name: weights.shape for name, weights in own.items()} if known["count"] else {}
        if shapes != {name: total.shape for name, total in known["total"].items()}:
            raise ValueError("the mean weights are those of another network")
        self.count = known["count"]
        self.total = {name: total.to(own[name].device) for name, total in known["total"].items()}


class Means:
    """Means of scalars, each over as often as it was added; nothing leaves the device before `read`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Take in one value of each of `scalars`."""
        for name, value in scalars.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means."""
        return {name: total / self.counts[name] for name, total in fetched(self.sums).items()}


def fetched(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Scalars as plain numbers, brought from the device at once."""
    return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True)) if scalars else {}
