"""What lights see, and what the critic sees. Blocks are padded, so that equal columns mean equal things."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rqe_mappo.envs.sumo_signals.simulation import Junctions, Light

LIMIT = 5.0  # of features that count minutes
SHARED = 3  # columns before the phases
MINUTE_S, OUTSIDE = 60.0, 20.0


@dataclass(frozen=True)
class Layout:
    """The widest light: its green phases and lanes."""

    phases: int
    lanes: int

    @classmethod
    def of(cls, lights: Sequence["Light"]) -> "Layout":
        return cls(max(len(light.served) for light in lights), max(len(light.lanes) for light in lights))

    @property
    def width(self) -> int:
        return SHARED + self.phases + 3 * self.lanes


def observe(world: "Junctions", layout: Layout, elapsed: float) -> np.ndarray:
    """float32 `[A, width]`; the columns are those of `SignalsEnv`'s table, zeros where a light has fewer."""
    seen = np.zeros((len(world.lights), layout.width), np.float32)
    lane = world.sumo.lane
    first = SHARED + layout.phases
    for row, light in zip(seen, world.lights, strict=True):
        signal = world.signals[light.name]
        since = signal.time_since_last_phase_change
        row[0] = elapsed
        row[1] = since >= signal.min_green + signal.yellow_time
        row[2] = min(since / MINUTE_S, LIMIT)
        row[SHARED + signal.green_phase] = 1
        n = len(light.lanes)
        halting = np.array([lane.getLastStepHaltingNumber(name) for name in light.lanes])
        waited = np.array([lane.getWaitingTime(name) for name in light.lanes])
        blocks = (
            np.minimum([lane.getLastStepVehicleNumber(name) for name in light.lanes] / light.room, 1),
            np.minimum(halting / light.room, 1),
            np.minimum(waited / np.maximum(halting, 1) / MINUTE_S, LIMIT),
        )
        for index, block in enumerate(blocks):
            start = first + index * layout.lanes
            row[start : start + n] = block
    return seen


def critic_view(world: "Junctions", seen: np.ndarray) -> np.ndarray:
    """float32 `[A, A * (width + 1)]`: what all lights see and how many vehicles stand outside, own light first."""
    outside = np.array([[min(world.outside(light) / OUTSIDE, LIMIT)] for light in world.lights], np.float32)
    known = np.concatenate((seen, outside), 1)
    return np.stack([np.roll(known, -index, axis=0).ravel() for index in range(len(known))])
