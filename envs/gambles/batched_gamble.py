"""The gambles for the learner."""

import numpy as np

from rqe_mappo.envs.gambles.config import GambleConfig, PathConfig
from rqe_mappo.envs.gambles.model import CHOICE, RISKY, gamble_game
from rqe_mappo.envs.tabular.batched_tabular import BatchedTabular
from rqe_mappo.envs.tabular.dynamics import Moved


class BatchedGamble(BatchedTabular):
    """A `BatchedEnv` with the single agent `player`. Array contents as in `GambleEnv`; `cost` is 0.

    Episode records add `gambled` `[F, 1]`, bool, whether the risky action was taken at the choice, and `banked`
    `[F, 1]`, the reward gained before the choice: the mean of `gambled` where `banked` is X is P(risky | X).
    """

    def __init__(self, config: GambleConfig | PathConfig, num_envs: int):
        super().__init__(gamble_game(config), num_envs)
        self.config = config
        self.is_choice = np.array([name.startswith(CHOICE) for name in self.game.state_names])
        self.totals |= {"gambled": np.zeros(self.shape, bool), "banked": np.zeros(self.shape)}

    def watch(self, moved: Moved) -> np.ndarray:
        choosing = self.is_choice[moved.before, None]
        self.totals["gambled"] |= choosing & (moved.actions == RISKY)
        self.totals["banked"] += choosing * self.totals["return"]
        return np.zeros(self.shape)
