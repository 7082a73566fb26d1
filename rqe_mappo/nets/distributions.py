"""What policies draw actions from: discrete choices, and Gaussians whose draws may be squashed into bounds."""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.functional import policy_gradient
from rqe_mappo.functional.policy_gradient import NO_ACTION

if TYPE_CHECKING:
    from gymnasium import Space

Squash = Literal["tanh", "clip", "none"]
NODES = 64  # of Gauss-Hermite quadrature: entropies of squashed Gaussians are right to 1e-3 for stds up to 3


@dataclass(frozen=True)
class ActionSpec:
    """An action space as plain values, which a policy file can hold.

    kind: one choice, several, or numbers in a box.
    sizes: how many actions each choice has; of a box how many numbers.
    start: the first action of each choice; of a box nothing.
    counts: how many of the actions each agent has; empty if all have all. Of a box, how many of the numbers.
    low, high: the bounds of a box, infinite if there are none.
    squash: how a Gaussian's draws come into the bounds: through tanh, by clipping, not at all.
    """

    kind: Literal["discrete", "multi-discrete", "box"]
    sizes: tuple[int, ...]
    start: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    squash: Squash = "tanh"

    @classmethod
    def of(cls, space: "Space", squash: Squash = "tanh") -> "ActionSpec":
        """The spec of a Gymnasium space, padded or not; ValueError for a space that no policy here can act in."""
        from gymnasium import spaces  # what deploys a policy needs none

        counts = getattr(space, "counts", getattr(space, "widths", ()))  # PaddedDiscrete, PaddedBox
        counts = tuple(counts) if counts and min(counts) < max(counts) else ()
        match space:
            case spaces.Discrete():
                return cls("discrete", (int(space.n),), (int(space.start),) if space.start else (), counts)
            case spaces.MultiDiscrete() if space.nvec.ndim == 1:
                start = tuple(int(first) for first in space.start)
                return cls("multi-discrete", tuple(int(n) for n in space.nvec), start if any(start) else ())
            case spaces.Box() if len(space.shape) == 1:
                bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
                if squash != "none" and not bounded:
                    raise ValueError(f"--squash {squash} needs actions with bounds, and {space} has none: use none")
                if squash != "none" and not bool((space.low < space.high).all()):
                    raise ValueError(
                        f"--squash {squash} needs upper bounds above their lower ones (got {space}): use none"
                    )
                low, high = (tuple(float(bound) for bound in side) for side in (space.low, space.high))
                return cls("box", space.shape, (), counts, low, high, squash)
        raise ValueError(f"no policy here acts in {space}: use Discrete, MultiDiscrete, or a Box with one axis")

    @property
    def outputs(self) -> int:
        """How many numbers a network must give."""
        return sum(self.sizes) if self.kind != "box" else self.sizes[0]

    @property
    def draws(self) -> int:
        """How many uniform numbers an action takes."""
        return self.sizes[0] if self.kind == "box" else len(self.sizes)


class ActionDistribution(Protocol):
    """A distribution of actions for each of some rows."""

    def sample(self, uniform: Float[Tensor, "*rows draws"]) -> Tensor:
        """What is drawn, by inversion: equal on every device for equal numbers. `act` makes it an action."""
        ...

    def mode(self) -> Tensor:
        """The most probable draw."""
        ...

    def action(self, drawn: Tensor) -> Tensor:
        """The element of the action space that was drawn."""
        ...

    def log_prob(self, drawn: Tensor) -> Float[Tensor, "*rows"]:
        """Log-probability, or density, of the action that was drawn."""
        ...

    def entropy(self) -> Float[Tensor, "*rows"]:
        """Entropy of the action, in nats."""
        ...

    def log_barrier(self) -> Float[Tensor, "*rows"]:
        """The sum of the log-probabilities of all actions."""
        ...

    def kl(self, other: Self) -> Float[Tensor, "*rows"]:
        """KL(this || other), in nats, of two distributions of the same actions."""
        ...


@dataclass(frozen=True)
class Categorical:
    """Independent choices by the softmax of `logits`, one choice after the other; `masked` if some are `NO_ACTION`."""

    spec: ActionSpec
    logits: Float[Tensor, "*rows outputs"]
    masked: bool = False

    @property
    def probs(self) -> Float[Tensor, "*rows outputs"]:
        """Probabilities, those of each choice summing to 1."""
        return torch.cat([part.softmax(-1) for part in self._parts()], -1)

    def _parts(self) -> tuple[Float[Tensor, "*rows actions"], ...]:
        return self.logits.split(self.spec.sizes, -1) if len(self.spec.sizes) > 1 else (self.logits,)

    def sample(self, uniform: Float[Tensor, "*rows draws"]) -> Int[Tensor, "*rows choices"]:
        parts = zip(self._parts(), uniform.unbind(-1), strict=True)
        return torch.stack([_inverted(logits, u, self.masked) for logits, u in parts], -1)

    def mode(self) -> Int[Tensor, "*rows choices"]:
        return torch.stack([part.argmax(-1) for part in self._parts()], -1)

    def action(self, drawn: Int[Tensor, "*rows choices"]) -> Int[Tensor, "*rows"] | Int[Tensor, "*rows choices"]:
        if self.spec.start:
            parts = zip(drawn.unbind(-1), self.spec.start, strict=True)
            drawn = torch.stack([part + start for part, start in parts], -1)
        return drawn[..., 0] if self.spec.kind == "discrete" else drawn

    def log_prob(self, drawn: Int[Tensor, "*rows choices"]) -> Float[Tensor, "*rows"]:
        parts = zip(self._parts(), drawn.split(1, -1), strict=True)
        return _total([logits.log_softmax(-1).gather(-1, index).squeeze(-1) for logits, index in parts])

    def entropy(self) -> Float[Tensor, "*rows"]:
        return _total([policy_gradient.entropy(part) for part in self._parts()])

    def log_barrier(self) -> Float[Tensor, "*rows"]:
        return _total([policy_gradient.log_barrier(part) for part in self._parts()])

    def kl(self, other: Self) -> Float[Tensor, "*rows"]:
        parts = zip(self._parts(), other._parts(), strict=True)
        return _total([policy_gradient.kl(mine, theirs) for mine, theirs in parts])


def _total(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _inverted(
    logits: Float[Tensor, "*rows actions"], uniform: Float[Tensor, "*rows"], masked: bool
) -> Int[Tensor, "*rows"]:
    """Draws by inversion of the cumulative probabilities; never an action that is masked, however a sum is rounded."""
    passed, last = logits.softmax(-1).cumsum(-1) <= uniform[..., None], logits.shape[-1] - 1
    if not masked:
        return passed.sum(-1).clamp(max=last)
    there = ~(logits <= NO_ACTION)  # nan, of a diverged run, counts as there
    before = torch.minimum((passed & there).sum(-1), there.sum(-1) - 1)  # available actions before the drawn one
    return (there.cumsum(-1) <= before[..., None]).sum(-1).clamp(max=last)


@dataclass(frozen=True)
class Gaussian:
    """Independent normal numbers, brought into the bounds of the box by `spec.squash`.

    What is drawn is the number before it is squashed: going back from the action would lose digits near the bounds.
    Densities and entropies are those of the action where it is squashed by tanh (with its Jacobian; Haarnoja et al.,
    'Soft Actor-Critic Algorithms and Applications', 2018, appendix C), else those of the normal number in the action's
    units, as is usual where the environment clips.

    own: which of the numbers the agent has; the others are 0 and count for nothing.
    """

    spec: ActionSpec
    mean: Float[Tensor, "*rows U"]
    log_std: Float[Tensor, "*rows U"]
    own: Bool[Tensor, "*rows U"] | None = None

    def sample(self, uniform: Float[Tensor, "*rows U"]) -> Float[Tensor, "*rows U"]:
        u = uniform.clamp(2.0**-25, 1 - 2.0**-24)  # an uniform number may be 0
        return self.mean + self.log_std.exp() * torch.special.ndtri(u)

    def mode(self) -> Float[Tensor, "*rows U"]:
        return self.mean

    def action(self, drawn: Float[Tensor, "*rows U"]) -> Float[Tensor, "*rows U"]:
        if self.spec.squash != "none":
            low, high, centre, half = _box(self.spec, drawn.dtype, drawn.device)
            drawn = centre + half * (drawn.tanh() if self.spec.squash == "tanh" else drawn.clamp(-1, 1))
            drawn = drawn.clamp(low, high)  # which rounding may miss
        return drawn if self.own is None else drawn * self.own

    def log_prob(self, drawn: Float[Tensor, "*rows U"]) -> Float[Tensor, "*rows"]:
        z = (drawn - self.mean) * (-self.log_std).exp()
        density = -0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        return self._sum(density - self._log_slope(drawn))

    def entropy(self) -> Float[Tensor, "*rows"]:
        inner = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        if self.spec.squash == "tanh":  # E log slope, the only part without a closed form
            nodes, weights = _hermite(self.mean.dtype, self.mean.device)
            at = self.mean[..., None] + self.log_std.exp()[..., None] * nodes
            slope = (_log_tanh_slope(at) * weights).sum(-1)
            return self._sum(inner + slope + self._half(self.mean).log())
        return self._sum(inner + self._log_slope(self.mean))

    def log_barrier(self) -> Float[Tensor, "*rows"]:
        raise ValueError("--regulariser log-barrier sums over actions that can be listed: use entropy")

    def kl(self, other: Self) -> Float[Tensor, "*rows"]:
        """Of the normal numbers: of actions the same where tanh squashes them, no less where they are clipped."""
        apart = (self.mean - other.mean) ** 2 + (2 * self.log_std).exp()
        return self._sum(other.log_std - self.log_std + 0.5 * apart * (-2 * other.log_std).exp() - 0.5)

    def _log_slope(self, drawn: Tensor) -> Tensor | float:
        """Log of the derivative of action by draw, of the part of the draw's range that is not clipped."""
        if self.spec.squash == "none":
            return 0.0
        scale = self._half(drawn).log()
        return scale + _log_tanh_slope(drawn) if self.spec.squash == "tanh" else scale

    def _half(self, like: Tensor) -> Float[Tensor, " U"]:
        """Half the width of the box."""
        return _box(self.spec, like.dtype, like.device)[-1]

    def _sum(self, each: Tensor) -> Float[Tensor, "*rows"]:
        if self.own is not None:
            each = torch.where(self.own, each, torch.zeros_like(each))
        return each.sum(-1)


def _log_tanh_slope(x: Tensor) -> Tensor:
    """`log(1 - tanh(x)^2)`, without cancellation."""
    return 2 * (math.log(2) - x - torch.nn.functional.softplus(-2 * x))


@functools.cache
def _box(spec: ActionSpec, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower and upper bounds of the box, its centre and half its width."""
    low, high = (torch.tensor(side, dtype=dtype, device=device) for side in (spec.low, spec.high))
    return low, high, (low + high) / 2, (high - low) / 2


@functools.cache
def _hermite(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of an expectation over a standard normal number."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    places, shares = (torch.from_numpy(part).to(device, dtype) for part in (nodes, weights / weights.sum()))
    return places, shares
