"""A matrix game as a finite game of one step."""

import numpy as np

from rqe_mappo.envs.matrix_games.payoffs import MatrixGame
from rqe_mappo.envs.tabular.model import FiniteGame


def matrix_game(game: MatrixGame) -> FiniteGame:
    """States `play` and `over`; all that is seen is the constant 1. Players may have unequal numbers of actions."""
    n, n_actions = game.n_players, game.payoffs.shape[1:]
    joint = int(np.prod(n_actions))
    reward = np.zeros((n, 2, joint, 1))
    reward[:, 0, :, 0] = game.payoffs.reshape(n, joint)
    seen = np.ones((2, n, 1), np.float32)
    return FiniteGame(
        players=tuple(f"player_{i}" for i in range(n)),
        n_actions=n_actions,
        next_state=np.ones((2, joint, 1), int),
        prob=np.ones((2, joint, 1)),
        reward=reward,
        terminal=np.array([False, True]),
        start=np.array([1.0, 0.0]),
        horizon=1,
        obs=seen,
        state=seen,
        state_names=("play", "over"),
    )
