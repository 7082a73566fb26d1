"""E stag hunts stepped as one; every form of the environment steps this one class."""

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.fixed_length.game import Played, grid_of
from rqe_mappo.envs.stag_hunt.config import StagHuntConfig

HUNTERS = 2
MAP = (
    ".S...S.",
    ".......",
    ".H.n.H.",
    "..n.n..",
    ".H.n.H.",
    ".......",
    ".S...S.",
)  # without the wall around it
SIZE = len(MAP)
CELLS = SIZE**2  # counted along rows
STAY, UP, DOWN, LEFT, RIGHT, MEET = range(6)
ACTIONS = 6
NOTHING, STAG, HARE = range(3)
# Steps from starts to a meeting. A hare is two away and a stag four; then one of both asks to meet. Who share a stag's
# cell one after the other need one more, and from two of them it is as far.
HARE_STEPS, ALONE_STEPS, STAG_STEPS = 3, 5, 6


def _cells(kind: str) -> np.ndarray:
    return np.flatnonzero(np.array([list(row) for row in MAP]) == kind)


def _targets() -> np.ndarray:
    """The cell that each action leads to from each cell, int64 `[49, 6]`; the wall leaves a hunter where it is."""
    row, column = np.divmod(np.arange(CELLS), SIZE)
    shifts = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]])
    rows, columns = row[:, None] + shifts[:, 0], column[:, None] + shifts[:, 1]
    return rows.clip(0, SIZE - 1) * SIZE + columns.clip(0, SIZE - 1)


STARTS, STAGS, HARES, TARGETS = _cells("n"), _cells("S"), _cells("H"), _targets()
GAME = np.zeros(CELLS, np.int64)  # what lies in each cell
GAME[STAGS], GAME[HARES] = STAG, HARE


class StagHunt:
    """E copies of two hunters, a `Game`.

    cells: int64 `[E, 2]`, where they are.
    carried: int64 `[E, 2]`, what they carry: nothing, a stag or a hare.
    """

    players = tuple(f"hunter_{i}" for i in range(HUNTERS))
    start_draws = step_draws = HUNTERS
    common_reward = False

    def __init__(self, config: StagHuntConfig, num_envs: int):
        self.config, self.num_envs = config, num_envs
        self.horizon, self.observe_time = config.horizon, config.observe_time
        self.observation_space = self.state_space = Box(0, 1, (8,), np.float32)
        self.action_space = Discrete(ACTIONS)
        every = [0.0, config.stag_reward, config.alone_reward, config.hare_reward]
        rates = [paid / steps for paid, steps in zip(every, (1, STAG_STEPS, ALONE_STEPS, HARE_STEPS), strict=True)]
        self.reward_bounds = min(every), max(every)
        more = config.horizon - 1  # after a first meeting, which can be in the next step
        self.return_bounds = min(every) + more * min(rates), max(every) + more * max(rates)
        self.reward_step = grid_of(*every)
        self.cells, self.carried = np.zeros((num_envs, HUNTERS), np.int64), np.zeros((num_envs, HUNTERS), np.int64)
        rewards = np.zeros((3, 3))  # of what oneself carries and the other does
        rewards[STAG, STAG], rewards[STAG, HARE], rewards[HARE] = every[1:]
        self.rewards = rewards

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that changes, by name."""
        return {name: getattr(self, name) for name in ("cells", "carried")}

    def begin(self, uniform: np.ndarray) -> None:
        """Hunters with nothing, in two of the four starting cells, drawn."""
        self.cells[...], self.carried[...] = _drawn(uniform), NOTHING

    def play(self, actions: np.ndarray, uniform: np.ndarray) -> Played:
        """Both move, take what lies in their cells, and may meet; who met begins anew elsewhere."""
        there = np.take_along_axis(TARGETS[self.cells], actions[..., None], axis=-1)[..., 0]
        same = there[:, :1] == there[:, 1:]
        cells = np.where(same, self.cells, there)
        carried = np.where(GAME[cells] != NOTHING, GAME[cells], self.carried)
        row, column = np.divmod(cells, SIZE)
        beside = np.abs(row[:, 0] - row[:, 1]) + np.abs(column[:, 0] - column[:, 1]) == 1
        met = (actions == MEET).any(1) & beside & (carried != NOTHING).all(1)
        reward = self.rewards[carried, carried[:, ::-1]] * met[:, None]
        alone = met[:, None] & (carried == STAG) & (carried[:, ::-1] == HARE)
        stags = (carried == STAG).sum(1)
        counts = {
            "meetings": met * 1,
            "both_stag": met & (stags == 2),
            "both_hare": met & (stags == 0),
            "one_stag": alone.any(1),
        }
        self.cells[...] = np.where(met[:, None], _drawn(uniform), cells)
        self.carried[...] = np.where(met[:, None], NOTHING, carried)
        return Played(reward, alone, {name: count.astype(np.int64) for name, count in counts.items()})

    def obs(self) -> np.ndarray:
        """float32 `[E, 2, 8]`; see `StagHuntEnv`."""
        place = np.stack(np.divmod(self.cells, SIZE), axis=-1) / (SIZE - 1)
        own = np.concatenate([place, self.carried[..., None] == [STAG, HARE]], axis=-1)
        return np.concatenate([own, own[:, ::-1]], axis=-1, dtype=np.float32)

    def state(self) -> np.ndarray:
        """The same as `obs`: everything is seen."""
        return self.obs()


def _drawn(uniform: np.ndarray) -> np.ndarray:
    """Two different starting cells `[E, 2]`, every pair alike."""
    first, step = (uniform * [len(STARTS), len(STARTS) - 1]).astype(np.int64).T
    return STARTS[np.stack([first, (first + 1 + step) % len(STARTS)], axis=1)]
