"""What a game of fixed length has to be: arrays that change, and rules that are given their random numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.envs.contract import ActionSpace

LONGEST = 1_000_000  # steps


@dataclass(frozen=True, slots=True)
class Played:
    """What one step did in every copy.

    reward, cost: `[E, A]`.
    counts: what the records of episodes add up over their steps, each `[E]`.
    """

    reward: np.ndarray
    cost: np.ndarray
    counts: dict[str, np.ndarray] = field(default_factory=dict)


class Game(Protocol):
    """E copies of a game for A players, none of whom leaves before the time limit.

    Rules draw nothing themselves: they are given uniform numbers in [0, 1), a row a copy. So copies do not depend on
    each other, and every outcome can be asked for.

    horizon: the time limit, in steps. observe_time: whether the time left is shown.
    start_draws, step_draws: how many numbers a copy needs for its start, and for a step.
    observation_space, state_space: of one agent, without the time left.
    arrays: all that changes, by name; written to in place.
    The other attributes are those of a `BatchedEnv`.
    """

    num_envs: int
    players: tuple[str, ...]
    horizon: int
    observe_time: bool
    start_draws: int
    step_draws: int
    return_bounds: tuple[float, float]
    reward_bounds: tuple[float, float]
    reward_step: float | None
    common_reward: bool

    @property
    def observation_space(self) -> Box: ...

    @property
    def state_space(self) -> Box: ...

    @property
    def action_space(self) -> ActionSpace: ...

    @property
    def arrays(self) -> Mapping[str, np.ndarray]: ...

    def begin(self, uniform: np.ndarray) -> None:
        """Start all copies; `uniform` `[E, start_draws]`."""
        ...

    def play(self, actions: np.ndarray, uniform: np.ndarray) -> Played:
        """One decision of all players; `uniform` `[E, step_draws]`."""
        ...

    def obs(self) -> np.ndarray:
        """What each player sees, `[E, A, D]`."""
        ...

    def state(self) -> np.ndarray:
        """What the critic sees for each player, `[E, A, S]`."""
        ...


def grid_of(*amounts: float) -> float | None:
    """The coarsest grid through 0 on which all `amounts` lie; None unless all are multiples of a hundredth."""
    hundredths = 100 * np.array(amounts)
    if not np.allclose(hundredths, np.round(hundredths), rtol=0, atol=1e-6):
        return None
    return int(np.gcd.reduce(np.round(hundredths).astype(int))) / 100 or None


def require_whole(config: object, name: str, low: int, high: int) -> None:
    """ValueError unless the setting is a whole number within these bounds."""
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"--{name.replace('_', '-')} must be a whole number from {low} to {high} (got {value})")


def require_within(config: object, low: float, high: float, *names: str) -> None:
    """ValueError unless these settings lie within these bounds."""
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            raise ValueError(f"--{name.replace('_', '-')} must be in [{low:g}, {high:g}] (got {value})")
