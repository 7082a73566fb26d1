"""The cliff walk as a finite game: a state is a pair of cells."""

from dataclasses import dataclass

import numpy as np

from rqe_mappo.envs.cliff_walk.config import CliffConfig
from rqe_mappo.envs.tabular.dynamics import Moved
from rqe_mappo.envs.tabular.model import FiniteGame

# '#' is the cliff, '0' and '1' the goals of agent_0 and agent_1, 'a' and 'b' where they start.
WORLDS = {
    "6x6": ("a....b", "......", "......", "......", "##..##", "##01##"),
    "4x3": ("1.a", "#..", "#..", "0.b"),
}
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])  # up, down, left, right, stay; rows count downwards
DIRECTIONS = 4


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells of a world, C of them, counted along its rows.

    row, column: int `[C]`.
    cliff: bool `[C]`.
    goal, start: int `[2]`, each agent's cell.
    """

    row: np.ndarray
    column: np.ndarray
    cliff: np.ndarray
    goal: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, world: str) -> "Grid":
        """The grid of a name in `WORLDS`."""
        letters = np.array([list(line) for line in WORLDS[world]])
        row, column = (axis.ravel() for axis in np.indices(letters.shape))
        goal, start = (np.array([np.flatnonzero(letters.ravel() == one)[0] for one in pair]) for pair in ("01", "ab"))
        return cls(row, column, letters.ravel() == "#", goal, start)

    @property
    def size(self) -> int:
        """C."""
        return len(self.row)

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each of `MOVES` leads from each cell, int `[C, 5]`, and whether that is within the grid, bool."""
        row, column = (axis[:, None] + step for axis, step in zip((self.row, self.column), MOVES.T, strict=True))
        last_row, last_column = self.row.max(), self.column.max()
        inside = (row >= 0) & (row <= last_row) & (column >= 0) & (column <= last_column)
        return np.where(inside, row * (last_column + 1) + column, np.arange(self.size)[:, None]), inside

    def near(self) -> np.ndarray:
        """Whether two cells are equal or touch, at corners too: bool `[C, C]`."""
        rows, columns = (np.abs(axis[:, None] - axis) for axis in (self.row, self.column))
        return np.maximum(rows, columns) <= 1

    def arrived(self, agent: int) -> np.ndarray:
        """Cells that the agent does not leave: the cliff and its goal, bool `[C]`."""
        return self.cliff | (np.arange(self.size) == self.goal[agent])


class Places:
    """Who stands where in each state: `fallen` and `home`, bool `[S, 2]`."""

    def __init__(self, world: str):
        grid = Grid.of(world)
        cells = np.indices((grid.size, grid.size)).reshape(2, -1).T
        self.fallen, self.home = grid.cliff[cells], cells == grid.goal

    def falls(self, moved: Moved) -> np.ndarray:
        """Who fell in the step: bool `[E, 2]`."""
        return self.fallen[moved.after] & ~self.fallen[moved.before]


def cliff_game(config: CliffConfig) -> FiniteGame:
    """The game of `config`: S = C * C states, `c_0 * C + c_1`; outcome 0 is the intended one, 1 to 16 are slips."""
    grid = Grid.of(config.world)
    c, n_actions = grid.size, DIRECTIONS + config.stay
    cells = np.indices((c, c)).reshape(2, -1)  # [2, S]
    actions = np.indices((n_actions, n_actions)).reshape(2, -1)  # [2, J]

    intended, slips, chances = zip(*(_moves(grid, agent, cells[agent]) for agent in range(2)), strict=True)
    p = np.where(grid.near().ravel(), config.near_probability, config.move_probability)
    shape = (c * c, n_actions**2, 1 + DIRECTIONS**2)
    prob = np.empty(shape)
    prob[..., 0] = p[:, None]
    slip = chances[0][:, :, None] * chances[1][:, None, :] * (1 - p)[:, None, None]
    prob[..., 1:] = slip.reshape(c * c, 1, -1)

    arrival = np.empty((2, *shape), int)
    for agent, axes in enumerate((np.s_[:, :, None], np.s_[:, None, :])):
        arrival[agent, ..., 0] = intended[agent][:, actions[agent]]
        pairs = np.broadcast_to(slips[agent][axes], (c * c, DIRECTIONS, DIRECTIONS))
        arrival[agent, ..., 1:] = pairs.reshape(c * c, 1, -1)

    over = np.logical_and(*(grid.arrived(agent)[cells[agent]] for agent in range(2)))
    seen = _views(cells, c)
    start = np.zeros(c * c)
    start[grid.start[0] * c + grid.start[1]] = 1.0
    return FiniteGame(
        players=("agent_0", "agent_1"),
        n_actions=(n_actions, n_actions),
        next_state=arrival[0] * c + arrival[1],
        prob=prob,
        reward=np.stack([_rewards(config, grid, agent, cells[agent], arrival[agent]) for agent in range(2)]),
        terminal=over if config.pay == "once" else np.zeros_like(over),
        start=start,
        horizon=config.horizon,
        obs=seen,
        state=seen,
    )


def _moves(grid: Grid, agent: int, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where an agent may move in each state, given its `cell` int `[S]`.

    Gives the cell each action is meant for `[S, 5]` (its own beyond the edge), the cells it may slip to `[S, 4]`, and
    their probabilities `[S, 4]`, uniform over the neighbours there are. An agent that has arrived does not move.
    """
    target, inside = grid.targets()
    target, inside = target.copy(), inside.astype(float)
    stuck = grid.arrived(agent)
    target[stuck] = np.flatnonzero(stuck)[:, None]
    chance = inside[:, :DIRECTIONS] / inside[:, :DIRECTIONS].sum(1, keepdims=True)
    return target[cell], target[cell, :DIRECTIONS], chance[cell]


def _rewards(config: CliffConfig, grid: Grid, agent: int, cell: np.ndarray, arrival: np.ndarray) -> np.ndarray:
    """One agent's reward `[S, J, K]`, given its `cell` `[S]` before and its `arrival` `[S, J, K]`."""
    worth = np.full(grid.size, config.step_reward)
    worth[grid.cliff], worth[grid.goal[agent]] = config.cliff_reward, config.goal_reward
    before = cell[:, None, None]
    if config.pay == "every-step":
        return np.broadcast_to(worth[before], arrival.shape)
    return np.where(grid.arrived(agent)[before], 0.0, worth[arrival])


def _views(cells: np.ndarray, c: int) -> np.ndarray:
    """Own cell and the other's, each one-hot: float32 `[S, 2, 2 C]`."""
    hot = np.eye(c, dtype=np.float32)[cells]
    return np.stack((np.concatenate((hot[0], hot[1]), -1), np.concatenate((hot[1], hot[0]), -1)), axis=1)
