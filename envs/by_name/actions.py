"""The action spaces of an environment's agents as the one space that the contract asks for; random actions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from rqe_mappo.envs.contract import ActionSpace, Array, PaddedBox, PaddedDiscrete


def common_space(spaces: Sequence[Space], name: str) -> ActionSpace:
    """One space for agents with action spaces of their own.

    Where agents start to count at different numbers, it counts from 0. `MultiBinary` becomes a `MultiDiscrete` of twos,
    and arrays become flat. Raises ValueError, beginning with `name`, where there is no common space.
    """
    discrete = [space for space in spaces if isinstance(space, Discrete)]
    boxes = [space for space in spaces if isinstance(space, Box)]
    several = [
        MultiDiscrete(np.full(space.shape, 2)) if isinstance(space, MultiBinary) else space
        for space in spaces
        if isinstance(space, (MultiDiscrete, MultiBinary))
    ]
    if len(discrete) == len(spaces):
        counts, starts = [int(space.n) for space in discrete], {int(space.start) for space in discrete}
        start = starts.pop() if len(starts) == 1 else 0
        return Discrete(counts[0], start=start) if len(set(counts)) == 1 else PaddedDiscrete(counts, start)
    if len(boxes) == len(spaces):
        same = all(space == boxes[0] for space in boxes)
        with np.errstate(over="ignore"):  # bounds beyond single precision are none
            low, high = (bound.ravel().astype(np.float32) for bound in (boxes[0].low, boxes[0].high))
            return Box(low, high, dtype=np.float32) if same else PaddedBox(boxes)
    if len(several) == len(spaces) and all(np.array_equal(space.nvec, several[0].nvec) for space in several):
        same = all(np.array_equal(space.start, several[0].start) for space in several)
        return MultiDiscrete(several[0].nvec.ravel(), start=several[0].start.ravel() if same else None)
    found = " and ".join(dict.fromkeys(str(space) for space in spaces))
    raise ValueError(
        f"{name}: agents must all have Discrete actions, all Box, or all the same MultiDiscrete (got {found}): "
        "wrap the environment so that they have"
    )


def random_action(space: Space, rng: np.random.Generator, mask: Array | None) -> Any:
    """A uniform action in an agent's own space, among those that `mask` allows."""
    if isinstance(space, Discrete):
        chosen = rng.integers(int(space.n)) if mask is None else rng.choice(np.flatnonzero(mask))
        return int(space.start + chosen)
    space.seed(int(rng.integers(2**31)))
    return space.sample()
