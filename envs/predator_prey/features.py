"""What predators see, and what their critic does."""

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.envs.predator_prey.config import PredatorPreyConfig
from rqe_mappo.envs.predator_prey.dynamics import PREDATOR, PREY, WALL, PredatorPreyDynamics


class Features:
    """Observations and states of predators; rows of those that left are zero. Layouts are in `PredatorPreyEnv`."""

    def __init__(self, config: PredatorPreyConfig, dynamics: PredatorPreyDynamics):
        self.config, self.dynamics = config, dynamics
        reach = np.arange(-config.sight, config.sight + 1)
        self.window = (reach[:, None] * dynamics.width + reach).ravel()
        cells = len(dynamics.cells)
        self.place = np.zeros(dynamics.width**2, np.int64)  # a cell's number without the border
        self.place[dynamics.cells] = np.arange(cells)
        self.observation_space = Box(0, 1, (3 * len(self.window) + config.observe_time,), np.float32)
        self.state_space = Box(0, 1, (3 * cells + config.observe_time,), np.float32)

    def obs(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """float32 `[E, A, D]` of the copies `which`."""
        world, copies = self.dynamics, self.dynamics.copies[which]
        seen = world.grid[copies[:, None, None], world.predators[which][..., None] + self.window]
        return self._finished(np.concatenate([seen == kind for kind in (PREDATOR, PREY, WALL)], axis=-1), which)

    def state(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """float32 `[E, A, S]` of the copies `which`."""
        world, cells = self.dynamics, len(self.dynamics.cells)
        inner, places = world.grid[which][:, world.cells], self.place[world.predators[which]]
        rows = np.empty((*places.shape, 3, cells), bool)
        rows[:, :, 0], rows[:, :, 1] = (inner == PREDATOR)[:, None], (inner == PREY)[:, None]
        rows[:, :, 2] = places[..., None] == np.arange(cells)
        return self._finished(rows.reshape(*places.shape, 3 * cells), which)

    def _finished(self, rows: np.ndarray, which: np.ndarray | slice) -> np.ndarray:
        """Rows as numbers, the time left behind them where it is observed; zeros for those that left."""
        hunting, width = self.dynamics.hunting[which][..., None], rows.shape[2]
        finished = np.zeros((*rows.shape[:2], width + self.config.observe_time), np.float32)
        finished[..., :width] = rows & hunting
        if self.config.observe_time:
            left = 1 - self.dynamics.t[which] / self.config.horizon
            finished[..., width:] = left[:, None, None] * hunting
        return finished
