"""Spaces of agents as plain values, which a policy file holds; and back, from a file of a stranger."""

import math
from collections.abc import Sequence
from typing import Any

from rqe_mappo.spaces import (
    AgentSpaces,
    Choices,
    ChosenAction,
    ContinuousAction,
    Numbers,
    Observation,
    Parts,
    short,
)

DEEPEST = 8  # spaces within spaces
MOST_AXES = 32
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def described(team: Sequence[AgentSpaces] | None) -> dict[str, list[dict[str, Any]]]:
    """The entry `spaces` of a policy file, agents in order, as JSON can hold it too; no entry for None."""
    return {} if team is None else {"spaces": [_described_agent(spaces) for spaces in team]}


def read(descriptions: Any, agents: int, features: int, actions: int) -> tuple[AgentSpaces, ...] | None:
    """The reverse of `described`, for networks of so many `agents` that see `features` numbers and give `actions`.

    ValueError for whatever `described` does not give, and for what does not fit these networks: nothing is built to
    find out.
    """
    if descriptions is None:
        return None
    if not isinstance(descriptions, list) or len(descriptions) != agents:
        raise ValueError(f"spaces must be a list of one description for each of {agents} agents")
    return tuple(_read_agent(description, features, actions) for description in descriptions)


def _described_agent(spaces: AgentSpaces) -> dict[str, Any]:
    action = spaces.action
    if isinstance(action, ChosenAction):
        does: dict[str, Any] = {"sizes": [*action.sizes], "shift": [*action.shift], "shape": [*action.shape]}
    else:
        # JSON has no infinity
        low, high = ([bound if math.isfinite(bound) else None for bound in side] for side in (action.low, action.high))
        does = {"low": low, "high": high, "shape": [*action.shape], "dtype": action.dtype}
    return {"observation": _described(spaces.observation), "action": does}


def _described(kind: Observation) -> dict[str, Any]:
    match kind:
        case Numbers():
            return {"shape": [*kind.shape]}
        case Choices():
            return {"sizes": [*kind.sizes], "start": [*kind.start], "shape": [*kind.shape]}
        case Parts():
            keys = None if kind.keys is None else [*kind.keys]
            return {"parts": [_described(part) for part in kind.parts], "keys": keys}
    raise TypeError(f"{type(kind).__name__} is no kind of observation that a policy file can hold")


def _read_agent(description: Any, features: int, actions: int) -> AgentSpaces:
    fields = _fields(description, "observation", "action")
    observation = _read_observation(fields["observation"], DEEPEST, features)
    action = _read_action(fields["action"])
    if action.count > actions:
        raise ValueError(f"actions are described by more numbers than networks give: {action.count} for {actions}")
    return AgentSpaces(observation, action)


def _read_observation(description: Any, depth: int, room: int) -> Observation:
    """What is described within so many levels and numbers: references let few bytes describe very many."""
    if depth == 0:
        raise ValueError(f"observations are described that lie more than {DEEPEST} deep")
    if not isinstance(description, dict):
        raise ValueError(f"a kind of observation must be described by a dict (got {short(description)})")
    found = _read_parts(description, depth, room) if "parts" in description else _read_leaf(description)
    if found.width > room:
        raise ValueError(f"observations are described by more numbers than networks see: {found.width} for {room}")
    return found


def _read_leaf(description: dict[str, Any]) -> Observation:
    if "sizes" in description:
        fields = _fields(description, "sizes", "start", "shape")
        sizes, start = _whole(fields["sizes"], 1), _whole(fields["start"])
        return Choices(sizes, start, _shape(fields["shape"], len(sizes), len(start)))
    return Numbers(_shape(_fields(description, "shape")["shape"]))


def _read_parts(description: dict[str, Any], depth: int, room: int) -> Parts:
    fields = _fields(description, "parts", "keys")
    parts, keys = fields["parts"], fields["keys"]
    if not isinstance(parts, list) or not 1 <= len(parts) <= room:
        raise ValueError("parts of an observation must be a list, of no more than networks see")
    if keys is not None and not (
        isinstance(keys, list)
        and all(isinstance(key, str | int) for key in keys)
        and len({*keys}) == len(keys) == len(parts)
    ):
        raise ValueError("keys of an observation must be as many names as it has parts")
    found: list[Observation] = []
    for part in parts:
        found.append(_read_observation(part, depth - 1, room))
        room -= max(1, found[-1].width)
    return Parts(tuple(found), None if keys is None else tuple(keys))


def _read_action(description: Any) -> ChosenAction | ContinuousAction:
    if isinstance(description, dict) and "sizes" in description:
        fields = _fields(description, "sizes", "shift", "shape")
        sizes, shift = _whole(fields["sizes"], 1), _whole(fields["shift"])
        return ChosenAction(sizes, shift, _shape(fields["shape"], len(sizes), len(shift)))
    fields = _fields(description, "low", "high", "shape", "dtype")
    low, high = _bounds(fields["low"], -math.inf), _bounds(fields["high"], math.inf)
    if fields["dtype"] not in DTYPES:
        raise ValueError(f"actions must be of one of {', '.join(DTYPES)} (got {short(fields['dtype'])})")
    return ContinuousAction(low, high, _shape(fields["shape"], len(low), len(high)), fields["dtype"])


def _fields(description: Any, *names: str) -> dict[str, Any]:
    if not isinstance(description, dict) or set(description) != set(names):
        raise ValueError(f"spaces must be described by {', '.join(names)} (got {short(description)})")
    return description


def _whole(values: Any, least: int | None = None) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and abs(value) < 2**62 for value in values):
        raise ValueError(f"spaces must be described by lists of whole numbers (got {short(values)})")
    if least is not None and any(value < least for value in values):
        raise ValueError(f"sizes of spaces must be at least {least} (got {short(values)})")
    return tuple(values)


def _shape(values: Any, *counts: int) -> tuple[int, ...]:
    """A shape with as many places as each of `counts`."""
    shape = _whole(values, 0)
    if len(shape) > MOST_AXES:
        raise ValueError(f"spaces have {MOST_AXES} axes at most (got {len(shape)})")
    if any(math.prod(shape) != count for count in counts):
        raise ValueError(f"a space of shape {shape} cannot be of {' and '.join(map(str, counts))} numbers")
    return shape


def _bounds(values: Any, infinite: float) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(value is None or type(value) is float for value in values):
        raise ValueError(f"bounds of actions must be a list of numbers (got {short(values)})")
    bounds = tuple(infinite if value is None else value for value in values)
    if any(math.isnan(bound) for bound in bounds):
        raise ValueError("bounds of actions must be numbers (got nan)")
    return bounds
