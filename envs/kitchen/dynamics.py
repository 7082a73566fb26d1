"""E kitchens stepped as one; every form of the environment steps this one class."""

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.fixed_length.game import Played, grid_of
from rqe_mappo.envs.kitchen.config import MOST_COOKS, KitchenConfig

SIZE = 5
CELLS = SIZE**2  # counted along rows
STAY, UP, DOWN, LEFT, RIGHT = range(5)
ACTIONS = 5
POT = 12  # the middle: row 2, column 2
STATIONS = np.array([19, 23])  # row 3, column 4 and row 4, column 3
STARTS = np.array([1, 5, 0, 6, 2, 10])[:MOST_COOKS]  # around the corner that is opposite to the stations
ROUND_TRIP = 5  # steps from one delivery of a cook to its next: two to a station, two back, and the delivery


def _targets() -> np.ndarray:
    """The cell that each action leads to from each cell, int64 `[25, 5]`; a wall leaves a cook where it is."""
    row, column = np.divmod(np.arange(CELLS), SIZE)
    shifts = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
    rows, columns = row[:, None] + shifts[:, 0], column[:, None] + shifts[:, 1]
    return rows.clip(0, SIZE - 1) * SIZE + columns.clip(0, SIZE - 1)


TARGETS = _targets()


class Kitchen:
    """E copies with A cooks, a `Game`.

    cells: int64 `[E, A]`, where the cooks are.
    carrying: bool `[E, A]`, who carries an onion.
    stocked: bool `[E, 2]`, which stations hold one.
    """

    def __init__(self, config: KitchenConfig, num_envs: int):
        self.config, self.num_envs = config, num_envs
        self.horizon, self.observe_time = config.horizon, config.observe_time
        a = config.n_agents
        self.players = tuple(f"cook_{i}" for i in range(a))
        self.start_draws, self.step_draws = a, a + len(STATIONS)
        self.observation_space = self.state_space = Box(0, 1, (3 * a + len(STATIONS),), np.float32)
        self.action_space = Discrete(ACTIONS)
        self.common_reward = a == 1
        dearest = config.move_cost + config.collision_cost * (a > 1)
        paid = config.pickup_reward + config.delivery_reward
        trips = -(-config.horizon // ROUND_TRIP)
        self.reward_bounds = -dearest, a * max(config.pickup_reward, config.delivery_reward)
        self.return_bounds = -dearest * config.horizon, a * paid * trips
        amounts = config.pickup_reward, config.delivery_reward, config.move_cost, config.collision_cost
        self.reward_step = grid_of(*amounts)
        self.cells, self.carrying = np.zeros((num_envs, a), np.int64), np.zeros((num_envs, a), bool)
        self.stocked = np.ones((num_envs, len(STATIONS)), bool)
        self.copies = np.arange(num_envs)
        self.order = np.array([[i, *(j for j in range(a) if j != i)] for i in range(a)])  # as each cook sees them

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that changes, by name."""
        return {name: getattr(self, name) for name in ("cells", "carrying", "stocked")}

    def begin(self, uniform: np.ndarray) -> None:
        """Cooks without onions in the first A starting cells, in an order that is drawn; both stations hold one."""
        self.cells[...] = STARTS[uniform.argsort(axis=1)]
        self.carrying[...], self.stocked[...] = False, True

    def play(self, actions: np.ndarray, uniform: np.ndarray) -> Played:
        """Cooks act one after the other in an order that is drawn, then onions come to empty stations."""
        config, a = self.config, self.config.n_agents
        taken, brought = np.zeros(self.cells.shape, bool), np.zeros(self.cells.shape, bool)
        bumped = np.zeros(self.cells.shape, bool)
        for who in uniform[:, :a].argsort(axis=1).T:  # the copies' first cook to act, their second, ...
            mine = self.copies, who
            here = self.cells[mine]
            there = TARGETS[here, actions[mine]]
            at_pot = there == POT
            blocked = (self.cells == there[:, None]).any(1) & (there != here)  # nobody is in the pot
            bumped[mine] = blocked
            brought[mine] = at_pot & self.carrying[mine]
            here = np.where(at_pot | blocked, here, there)
            self.cells[mine] = here
            found = (here[:, None] == STATIONS) & self.stocked & ~(self.carrying[mine] | at_pot | blocked)[:, None]
            taken[mine] = found.any(1)
            self.stocked &= ~found
            self.carrying[mine] = (self.carrying[mine] | taken[mine]) & ~brought[mine]
        self.stocked |= uniform[:, a:] < config.respawn_probability
        shared = config.pickup_reward * taken.sum(1) + config.delivery_reward * brought.sum(1)
        private = config.move_cost * (actions != STAY) + config.collision_cost * bumped
        counts = {"pickups": taken.sum(1), "deliveries": brought.sum(1), "collisions": bumped.sum(1)}
        own = {f"delivered_{i}": brought[:, i].astype(np.int64) for i in range(a)} if a > 1 else {}
        return Played(shared[:, None] - private, bumped, {**counts, **own})

    def obs(self) -> np.ndarray:
        """float32 `[E, A, 3 A + 2]`; see `KitchenEnv`."""
        cooks = np.stack([*np.divmod(self.cells, SIZE), (SIZE - 1) * self.carrying], axis=-1) / (SIZE - 1)
        seen = cooks[:, self.order].reshape(self.num_envs, self.config.n_agents, -1)
        stocked = np.broadcast_to(self.stocked[:, None], (*seen.shape[:2], len(STATIONS)))
        return np.concatenate([seen, stocked], axis=-1, dtype=np.float32)

    def state(self) -> np.ndarray:
        """The same as `obs`: everything is seen."""
        return self.obs()
