"""The cliff walk as a PettingZoo parallel environment."""

from typing import Any

from rqe_mappo.envs.cliff_walk.config import CliffConfig
from rqe_mappo.envs.cliff_walk.model import Places, cliff_game
from rqe_mappo.envs.tabular.dynamics import Moved
from rqe_mappo.envs.tabular.env import TabularParallelEnv


class CliffEnv(TabularParallelEnv):
    """Two agents walk past a cliff to their goals; when they come close to each other both are unsteady.

    After the cliff walk of Mazumdar, Panaganti & Shi, arXiv 2406.14156.

        6x6  a....b   4x3  1.a     `#` cliff
             ......        #..     `a` start of agent_0, `0` its goal
             ......        #..     `b` start of agent_1, `1` its goal
             ......        0.b
             ##..##
             ##01##

    **Action**: Discrete(5): up, down, left, right, stay; without `stay` the first four.

    **Moves**: with `move_probability`, or `near_probability` while the agents are within one cell of each other
    (diagonals included), both move as intended, and against the edge not at all. Otherwise both slip, each to one of
    the up to four neighbouring cells, drawn uniformly, whatever they intended. Cells can be shared. An agent that
    reaches the cliff or its own goal stays there and still counts as near. The other's goal is a cell like any other.

    **Observation** and **state**: float32 `[2 C + 1]` for C cells counted along the rows: own cell one-hot, the other's
    cell one-hot, time left / horizon, 1 to 0.

    **Reward**, each agent its own. `pay="once"`: `cliff_reward` or `goal_reward` on arrival, `step_reward` for any
    other step, nothing after an arrival. `pay="every-step"`: the worth of the cell where the step begins, to the end.

    **End**: terminated when both have arrived (`pay="once"` only), truncated after `horizon` steps. The time left is
    observed, so that the limit may be learned as an end.

    **Info** of each agent: `cost`, 1.0 on the step that falls and else 0.0.
    """

    metadata = {"name": "cliff_v0", "render_modes": []}  # noqa: RUF012  (as PettingZoo declares it)

    def __init__(self, config: CliffConfig | None = None):
        self.config = config or CliffConfig()
        self.places = Places(self.config.world)
        super().__init__(cliff_game(self.config), observe_time=True)

    def infos(self, moved: Moved) -> list[dict[str, Any]]:
        return [{"cost": float(fell)} for fell in self.places.falls(moved)[0]]
