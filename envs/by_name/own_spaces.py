"""Gymnasium's spaces of single agents as the plain ones that networks are fed from."""

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from rqe_mappo.envs.contract import ActionSpace
from rqe_mappo.spaces import (
    MASK,
    AgentSpaces,
    Choices,
    ChosenAction,
    ContinuousAction,
    Numbers,
    Observation,
    Parts,
)


def spaces_of(seen: Space, does: Space, common: ActionSpace) -> AgentSpaces:
    """Of an agent that observes `seen` and acts in `does`, which is a part of the `common` action space.

    ValueError, which begins with 'observations', where the observation has no fixed length.
    """
    if isinstance(seen, Dict) and MASK in seen.spaces:  # what may be done is no part of what is observed
        seen = Dict({key: part for key, part in seen.spaces.items() if key != MASK})
    return AgentSpaces(_observation(seen), _action(does, common))


def _observation(space: Space) -> Observation:
    match space:
        case Box() | MultiBinary():
            return Numbers(tuple(space.shape))
        case Discrete():
            return Choices((int(space.n),), (int(space.start),), ())
        case MultiDiscrete():
            return Choices(_whole(space.nvec), _whole(space.start), tuple(space.shape))
        case Tuple() if len(space.spaces):
            return Parts(tuple(_observation(part) for part in space.spaces))
        case Dict() if len(space.spaces):
            parts = {key: _observation(part) for key, part in space.spaces.items()}
            return Parts(tuple(parts.values()), tuple(parts))
    raise ValueError(f"observations of {space} have no fixed length: wrap the environment so that they are a Box")


def _action(own: Space, common: ActionSpace) -> ChosenAction | ContinuousAction:
    match own, common:
        case Discrete(), Discrete():
            return ChosenAction((int(own.n),), (int(own.start - common.start),), ())
        case MultiDiscrete(), MultiDiscrete():
            shift = _whole(own.start.ravel() - common.start)
            return ChosenAction(_whole(own.nvec), shift, tuple(own.shape))
        case MultiBinary(), MultiDiscrete():
            size = int(np.prod(own.shape))
            return ChosenAction((2,) * size, (0,) * size, tuple(own.shape))
        case Box(), Box():
            low, high = (tuple(float(bound) for bound in side.ravel()) for side in (own.low, own.high))
            return ContinuousAction(low, high, tuple(own.shape), np.dtype(own.dtype).name)
    raise ValueError(f"{own} is no part of the action space {common}")


def _whole(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values.ravel())
