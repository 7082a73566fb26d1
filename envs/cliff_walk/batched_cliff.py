"""The cliff walk for the learner."""

import numpy as np

from rqe_mappo.envs.cliff_walk.config import CliffConfig
from rqe_mappo.envs.cliff_walk.model import Places, cliff_game
from rqe_mappo.envs.tabular.batched_tabular import BatchedTabular
from rqe_mappo.envs.tabular.dynamics import Moved


class BatchedCliff(BatchedTabular):
    """A `BatchedEnv` with `agent_0` and `agent_1`. Array contents as in `CliffEnv`.

    `cost` is 1 on the step that falls. Episode records add `fell` and `reached_goal`, bool `[F, 2]`.
    """

    def __init__(self, config: CliffConfig, num_envs: int):
        super().__init__(cliff_game(config), num_envs, observe_time=True)
        self.config, self.places = config, Places(config.world)
        self.totals |= {"fell": np.zeros(self.shape, bool), "reached_goal": np.zeros(self.shape, bool)}

    def watch(self, moved: Moved) -> np.ndarray:
        self.totals["fell"][:], self.totals["reached_goal"][:] = (
            table[moved.after] for table in (self.places.fallen, self.places.home)
        )
        return self.places.falls(moved).astype(float)
