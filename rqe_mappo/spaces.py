"""What single agents observe and do: flat for networks on the way in, in its own form on the way out.

Environments by name train on these numbers. A policy file holds the same as plain values (`described_spaces`), so that
a policy takes what the environment gives and gives what it takes, without Gymnasium and without the environment.
"""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

SHORT = reprlib.Repr()
SHORT.maxlevel = 2  # whatever a file of a stranger holds
MASK = "action_mask"  # PettingZoo's name for the actions that are available, in an info or an observation


class Observation(Protocol):
    """A kind of observation.

    width: how many numbers it has when it is flat.
    """

    @property
    def width(self) -> int: ...

    def flat(self, value: Any) -> np.ndarray:
        """float32 `[width]` of one observation, as `gymnasium.spaces.flatten` gives.

        ValueError, the rest of a sentence, for a value of another kind.
        """
        ...


@dataclass(frozen=True)
class Numbers:
    """An array of `shape`: `Box` and `MultiBinary`."""

    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        return math.prod(self.shape)

    def flat(self, value: Any) -> np.ndarray:
        array = np.asarray(value)
        if not _alike(array.shape, self.shape) or array.dtype.kind not in "biuf":
            raise ValueError(f"must be an array of shape {self.shape} (got {short(value)})")
        return to_float32(array).reshape(-1)


@dataclass(frozen=True)
class Choices:
    """Whole numbers of `shape`, number i one of `sizes[i]` from `start[i]` on: `Discrete` and `MultiDiscrete`."""

    sizes: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        return sum(self.sizes)

    def flat(self, value: Any) -> np.ndarray:
        array = np.asarray(value)
        if not _alike(array.shape, self.shape) or array.dtype.kind not in "biu":
            raise ValueError(f"must be whole numbers of shape {self.shape} (got {short(value)})")
        chosen, sizes = array.reshape(-1).astype(np.int64) - self.start, np.array(self.sizes)
        if ((chosen < 0) | (chosen >= sizes)).any():
            raise ValueError(f"must be one of {self.sizes} choices from {self.start} on (got {short(value)})")
        one_hot = np.zeros(self.width, np.float32)
        one_hot[np.cumsum(sizes) - sizes + chosen] = 1
        return one_hot


@dataclass(frozen=True)
class Parts:
    """Several observations side by side: `Dict`, with `keys` in their order, and `Tuple`, whose `keys` is None."""

    parts: tuple[Observation, ...]
    keys: tuple[str | int, ...] | None = None

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    def flat(self, value: Any) -> np.ndarray:
        if self.keys is None:
            if not isinstance(value, tuple | list) or len(value) != len(self.parts):
                raise ValueError(f"must be a tuple of {len(self.parts)} (got {short(value)})")
            values: Sequence[Any] = value
        else:
            if not isinstance(value, dict) or not set(self.keys) <= set(value):
                raise ValueError(f"must be a dict of {', '.join(map(str, self.keys))} (got {short(value)})")
            values = [value[key] for key in self.keys]
        return np.concatenate([part.flat(one) for part, one in zip(self.parts, values, strict=True)])


@dataclass(frozen=True)
class ChosenAction:
    """Choices of an agent.

    sizes: how many actions each choice has.
    shift: what makes an element of the space that agents share the agent's own action.
    shape: of the action; `()` for a single choice, an int.
    """

    sizes: tuple[int, ...]
    shift: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many actions there are in all its choices."""
        return sum(self.sizes)

    def own(self, action: Any) -> Any:
        """The agent's own action."""
        if self.shape == ():
            return int(action) + self.shift[0]
        return (np.asarray(action, np.int64) + self.shift).reshape(self.shape)


@dataclass(frozen=True)
class ContinuousAction:
    """Numbers of an agent, the first of those that agents share, clipped to its bounds `low` to `high`.

    dtype: of the agent's numbers, one of `DTYPES`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def count(self) -> int:
        """How many numbers an action has."""
        return len(self.low)

    def own(self, action: Any) -> np.ndarray:
        """The agent's own action."""
        clipped = np.clip(np.asarray(action)[: len(self.low)], self.low, self.high)
        whole = np.issubdtype(self.dtype, np.integer)  # of which each is the nearest of as many numbers
        return (np.rint(clipped) if whole else clipped).astype(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class AgentSpaces:
    """What one agent observes, the `action_mask` of a dict apart, and what it does."""

    observation: Observation
    action: ChosenAction | ContinuousAction

    def mask(self, mask: Any) -> np.ndarray:
        """A mask as bool `[own actions]`; ValueError, the rest of a sentence, for one that does not fit."""
        if not isinstance(self.action, ChosenAction) or len(self.action.sizes) != 1:
            raise ValueError("needs Discrete actions")
        return to_mask(mask, self.action.count)


def to_float32(array: np.ndarray) -> np.ndarray:
    """The same in single precision; ValueError for a finite number that has no room in it."""
    if array.dtype.kind != "f" or array.dtype.itemsize <= 4:
        return array.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if np.isfinite(single).all():
        return single
    beyond = np.isinf(single) & np.isfinite(array)
    if beyond.any():
        found = array[beyond].flat[0]
        raise ValueError(f"must fit single precision, up to 3.4e38 (got {found:g}): scale it in a wrapper")
    return single


def to_mask(mask: Any, count: int) -> np.ndarray:
    """A mask as bool `[count]`; ValueError, the rest of a sentence, for one that is none, or that allows nothing."""
    array = np.asarray(mask)
    if array.shape != (count,) or not ((array == 0) | (array == 1)).all():
        raise ValueError(f"must be 0 or 1 for each of {count} actions (got {short(mask)})")
    if not array.any():
        raise ValueError("allows nothing: allow an action that does nothing")
    return array.astype(bool)


def mask_in(*parts: Any) -> Any:
    """The `action_mask` in the first of an agent's infos and observations that has one; None in none."""
    held = (part.get(MASK) for part in parts if isinstance(part, dict))
    return next((mask for mask in held if mask is not None), None)


def own_first(obs: np.ndarray) -> np.ndarray:
    """What the critic takes, `[..., A, A * D]`: for each agent the observations `[..., A, D]` of all, its own first."""
    return obs[..., _each_first(obs.shape[-2]), :].reshape(*obs.shape[:-1], -1)


@cache
def _each_first(agents: int) -> np.ndarray:
    """Numbers of agents `[A, A]`, each row's own first."""
    return np.array([[i, *(j for j in range(agents) if j != i)] for i in range(agents)])


def _alike(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether shapes are the same but for axes of length 1."""
    return found == wanted or [n for n in found if n != 1] == [n for n in wanted if n != 1]


def short(value: Any) -> str:
    """A value in an error: its kind, and no more of it than fits a line."""
    if isinstance(value, dict):
        text = f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    elif isinstance(value, np.ndarray) and value.size > 8:
        text = f"an array of shape {value.shape}"
    else:
        text = f"{type(value).__name__} {SHORT.repr(value)}"
    return " ".join(text[:80].split())
