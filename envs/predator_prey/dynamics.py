"""E grids with predators and prey, stepped as one; every form of the environment steps this one class."""

from dataclasses import dataclass

import numpy as np

from rqe_mappo.envs.contract import put_back
from rqe_mappo.envs.predator_prey.config import PredatorPreyConfig

FREE, WALL, PREDATOR, PREY = range(4)
STAY, UP, DOWN, LEFT, RIGHT, CATCH = range(6)
ACTIONS = 6
ALL = np.arange(ACTIONS)
CAPTURE_REWARD = 10.0


@dataclass(frozen=True, slots=True)
class Moved:
    """What one step did in every copy.

    acted: bool `[E, A]`, the predators that were on the grid.
    captured: bool `[E, Q]`, the prey that were caught.
    lone: bool `[E, A]`, who tried to catch and took part in no capture.
    reward: float64 `[E]`, the team's.
    terminated, truncated: bool `[E, A]`, never both.
    ended: bool `[E]`, the copies whose episode is over.
    """

    acted: np.ndarray
    captured: np.ndarray
    lone: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ended: np.ndarray


class PredatorPreyDynamics:
    """E copies with A predators and Q prey each. The grid has a border of walls, so that no index leaves it.

    grid: int8 `[E, W * W]`, what stands in each cell; W is the side with its border, and cells are counted along rows.
    predators, prey: int64 `[E, A]` and `[E, Q]`, their cells; of those that left, the last ones.
    hunting, alive: bool `[E, A]` and `[E, Q]`, who is on the grid.
    t: int64 `[E]`, decisions made in the episode.

    Randomness comes from the generator passed in, so its owner seeds and saves it.
    """

    def __init__(self, config: PredatorPreyConfig, num_envs: int):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1 (got {num_envs})")
        self.config, self.num_envs = config, num_envs
        self.border = config.sight
        self.width = config.size + 2 * self.border
        inside = np.arange(config.size) + self.border
        self.cells = (inside[:, None] * self.width + inside).ravel()  # of the grid without its border
        self.moves = np.array([0, -self.width, self.width, -1, 1, 0])  # by action
        self.beside = self.moves[UP : RIGHT + 1]
        self.grid = np.full((num_envs, self.width**2), WALL, np.int8)
        self.predators = np.zeros((num_envs, config.n_predators), np.int64)
        self.prey = np.zeros((num_envs, config.n_prey), np.int64)
        self.hunting, self.alive = np.zeros(self.predators.shape, bool), np.zeros(self.prey.shape, bool)
        self.t = np.zeros(num_envs, np.int64)
        self.copies = np.arange(num_envs)

    def reset(self, rng: np.random.Generator, which: np.ndarray | None = None) -> None:
        """Start new episodes of the copies `which` (default: all), everyone in a cell of its own."""
        which = self.copies if which is None else which
        places = self.cells[rng.random((len(which), len(self.cells))).argsort(axis=1)]
        a, q = self.config.n_predators, self.config.n_prey
        self.predators[which], self.prey[which] = places[:, :a], places[:, a : a + q]
        self.hunting[which], self.alive[which], self.t[which] = True, True, 0
        self.grid[which[:, None], self.cells] = FREE
        self.grid[which[:, None], self.predators[which]] = PREDATOR
        self.grid[which[:, None], self.prey[which]] = PREY

    def available(self) -> np.ndarray:
        """Which actions have an effect, bool `[E, A, 6]`: moves to free cells, catching beside prey, and staying.

        True throughout for predators that left.
        """
        around = self.grid[self.copies[:, None, None], self.predators[..., None] + self.beside]
        avail = np.ones((*self.predators.shape, ACTIONS), bool)
        avail[..., UP : RIGHT + 1] = around == FREE
        avail[..., CATCH] = (around == PREY).any(-1)
        return avail | ~self.hunting[..., None]

    def step(self, actions: np.ndarray, rng: np.random.Generator) -> Moved:
        """One decision of all predators, `actions` int `[E, A]`; what is not available is `stay`.

        Predators move one after the other in an order that is drawn, then catches count, then prey move.
        ValueError for an action that does not exist.
        """
        if actions.shape != self.predators.shape or not np.isin(actions[self.hunting], ALL).all():
            raise ValueError(f"actions must be {list(self.predators.shape)} numbers from 0 to {ACTIONS - 1}")
        acted = self.hunting.copy()
        chosen = np.where(acted, actions, STAY)
        effective = np.take_along_axis(self.available(), chosen[..., None], axis=-1)[..., 0]
        chosen = np.where(effective, chosen, STAY)
        self._move_predators(chosen, rng)
        captured, lone, gone = self._catch(acted & (chosen == CATCH))
        self._move_prey(rng)
        self.t += 1
        over = np.logical_not(self.hunting.any(1) & self.alive.any(1))
        late = ~over & (self.t >= self.config.horizon)
        reward = CAPTURE_REWARD * captured.sum(1) - self.config.punishment * lone.sum(1)
        terminated, truncated = gone | (acted & over[:, None]), self.hunting & late[:, None]
        return Moved(acted, captured, lone, reward, terminated, truncated, over | late)

    def _move_predators(self, chosen: np.ndarray, rng: np.random.Generator) -> None:
        order = rng.random(chosen.shape).argsort(axis=1)
        for who in order.T:  # the copies' first to move, their second, ...
            here = self.predators[self.copies, who]
            there = here + self.moves[chosen[self.copies, who]]
            free = np.flatnonzero((self.grid[self.copies, there] == FREE) & self.hunting[self.copies, who])
            self.grid[free, here[free]], self.grid[free, there[free]] = FREE, PREDATOR
            self.predators[free, who[free]] = there[free]

    def _catch(self, catching: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Remove prey beside which two or more catch, and all of those; each predator counts for one prey only.

        Gives who was caught `[E, Q]`, who tried alone and who left `[E, A]`, all bool.
        """
        apart = np.abs(self.prey[:, :, None] - self.predators[:, None, :])
        beside = ((apart == 1) | (apart == self.width)) & self.alive[:, :, None]
        left, captured = catching.copy(), np.zeros_like(self.alive)
        for prey in range(self.prey.shape[1]):
            pack = left & beside[:, prey]
            captured[:, prey] = pack.sum(1) >= 2
            left &= ~(pack & captured[:, prey, None])
        gone = catching & ~left
        for cells, removed in ((self.predators, gone), (self.prey, captured)):
            copy, index = np.nonzero(removed)
            self.grid[copy, cells[copy, index]] = FREE
        self.hunting &= ~gone
        self.alive &= ~captured
        return captured, left, gone

    def _move_prey(self, rng: np.random.Generator) -> None:
        """Each prey in turn goes to a free neighbouring cell, all alike; it stays where there is none."""
        uniform = rng.random(self.prey.shape)
        for prey in range(self.prey.shape[1]):
            here = self.prey[:, prey]
            free = self.grid[self.copies[:, None], here[:, None] + self.beside] == FREE
            number = free.cumsum(1)
            way = (number > (uniform[:, prey] * number[:, -1])[:, None].astype(int)).argmax(1)
            copy = np.flatnonzero(self.alive[:, prey] & (number[:, -1] > 0))
            there = here[copy] + self.beside[way[copy]]
            self.grid[copy, here[copy]], self.grid[copy, there] = FREE, PREY
            self.prey[copy, prey] = there

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that changes, by name."""
        names = ("grid", "predators", "prey", "hunting", "alive", "t")
        return {name: getattr(self, name) for name in names}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Go on from a copy of `arrays`."""
        put_back(self.arrays, kept)
