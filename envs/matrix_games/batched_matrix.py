"""Matrix games for the learner."""

import numpy as np

from rqe_mappo.envs.matrix_games.config import MatrixConfig
from rqe_mappo.envs.matrix_games.model import matrix_game
from rqe_mappo.envs.tabular.batched_tabular import BatchedTabular
from rqe_mappo.envs.tabular.dynamics import Moved


class BatchedMatrix(BatchedTabular):
    """A `BatchedEnv` with the agents `player_0` to `player_{n-1}`; every step is an episode. `cost` is 0.

    Episode records add `action` `[F, n]`, what each player did.
    """

    def __init__(self, config: MatrixConfig, num_envs: int):
        super().__init__(matrix_game(config.matrix), num_envs)
        self.config = config
        self.totals["action"] = np.zeros(self.shape, np.int64)

    def watch(self, moved: Moved) -> np.ndarray:
        self.totals["action"][:] = moved.actions
        return np.zeros(self.shape)
