"""Games in normal form: from experiments, textbooks and the literature on cooperation, or from a payoff table."""

from typing import Any

from rqe_mappo.envs.matrix_games.batched_matrix import BatchedMatrix
from rqe_mappo.envs.matrix_games.config import SCENARIOS, MatrixConfig
from rqe_mappo.envs.matrix_games.env import MatrixEnv
from rqe_mappo.envs.matrix_games.model import matrix_game
from rqe_mappo.envs.matrix_games.payoffs import GAMES, RANDOM_GAMES, MatrixGame, RandomGame
from rqe_mappo.envs.matrix_games.table import PayoffTable
from rqe_mappo.envs.tabular.env import configure

__all__ = [
    "GAMES",
    "RANDOM_GAMES",
    "SCENARIOS",
    "BatchedMatrix",
    "MatrixConfig",
    "MatrixEnv",
    "MatrixGame",
    "PayoffTable",
    "RandomGame",
    "matrix_game",
    "parallel_env",
]


def parallel_env(scenario: str = "default", **overrides: Any) -> MatrixEnv:
    """The PettingZoo environment of a named game."""
    return MatrixEnv(configure(SCENARIOS, scenario, overrides))
