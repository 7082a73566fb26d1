"""E plays of a finite game, sampled in numpy; every form of these environments steps this one class."""

from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.envs.tabular.model import FiniteGame


@dataclass(frozen=True, slots=True)
class Moved:
    """What one step did in every copy.

    before, after: int `[E]`, the states.
    actions: int `[E, n]`.
    reward: float64 `[E, n]`.
    terminated, truncated: bool `[E]`, never both.
    """

    before: np.ndarray
    after: np.ndarray
    actions: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class TabularDynamics:
    """E copies of `game`, each in a state of its own.

    state: int64 `[E]`, where each copy is.
    t: int64 `[E]`, decisions made in its episode.
    observe_time: append the time left, 1 to 0, to what players and critic see.

    Randomness comes from the generator passed in, so its owner seeds and saves it.
    """

    def __init__(self, game: FiniteGame, num_envs: int, observe_time: bool = False):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1 (got {num_envs})")
        self.game, self.num_envs, self.observe_time = game, num_envs, observe_time
        self.state, self.t = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.start_cdf, self.cdf = _cumulative(game.start), _cumulative(game.prob)

    def space(self, table: np.ndarray) -> Box:
        """The box of one player's row of `table` (the game's `obs` or `state`), time left included."""
        low, high = min(float(table.min()), 0.0), max(float(table.max()), 1.0)
        return Box(low, high, (table.shape[-1] + self.observe_time,), np.float32)

    def reset(self, rng: np.random.Generator, which: np.ndarray | slice = slice(None)) -> None:
        """Start new episodes of the copies `which`."""
        count = self.state[which].size
        self.state[which] = np.searchsorted(self.start_cdf, rng.random(count), side="right")
        self.t[which] = 0

    def step(self, actions: np.ndarray, rng: np.random.Generator) -> Moved:
        """One decision of all players, `actions` int `[E, n]`; ValueError for an action that does not exist."""
        game, before, joint = self.game, self.state, self.game.joint(actions)
        uniform = rng.random(self.num_envs)
        outcome = (self.cdf[before, joint] <= uniform[:, None]).sum(-1)
        after = game.next_state[before, joint, outcome]
        self.state = after.copy()  # a reset overwrites it, and `after` is returned
        self.t += 1
        terminated = game.terminal[after]
        reward = game.reward[:, before, joint, outcome].T
        return Moved(before, after, actions, reward, terminated, (self.t >= game.horizon) & ~terminated)

    def seen(self, table: np.ndarray) -> np.ndarray:
        """Rows of `table` (the game's `obs` or `state`) that hold now, time left included: float32 `[E, n, D]`."""
        rows = table[self.state].astype(np.float32, copy=False)
        if not self.observe_time:
            return rows
        left = (1 - self.t / self.game.horizon).astype(np.float32)
        return np.concatenate((rows, np.broadcast_to(left[:, None, None], (*rows.shape[:2], 1))), axis=-1)


def _cumulative(probs: np.ndarray) -> np.ndarray:
    """Cumulative probabilities that end in exactly 1, so that no uniform number falls on padding."""
    total = probs.cumsum(-1)
    return total / total[..., -1:]
