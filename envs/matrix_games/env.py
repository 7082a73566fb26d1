"""Matrix games as a PettingZoo parallel environment."""

from rqe_mappo.envs.matrix_games.config import MatrixConfig
from rqe_mappo.envs.matrix_games.model import matrix_game
from rqe_mappo.envs.tabular.env import TabularParallelEnv


class MatrixEnv(TabularParallelEnv):
    """Players choose at once, are paid, and the episode is over.

    **Action**: Discrete; what the actions are called is in `self.matrix.actions`.

    **Observation** and **state**: the constant 1.

    **Reward**: `self.matrix.payoffs[i, a_0, ..., a_{n-1}]` for player i, in the game's own points; in `risky-safe` one
    of `self.matrix.outcomes`, drawn, of which `payoffs` is the mean.

    **End**: terminated after one step.
    """

    metadata = {"name": "matrix_v0", "render_modes": []}  # noqa: RUF012  (as PettingZoo declares it)

    def __init__(self, config: MatrixConfig | None = None):
        self.config = config or MatrixConfig()
        self.matrix = self.config.matrix
        super().__init__(matrix_game(self.matrix))
