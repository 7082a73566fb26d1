"""A matrix game as a finite game of one step."""

import numpy as np

from rqe_mappo.envs.matrix_games.payoffs import MatrixGame, RandomGame
from rqe_mappo.envs.tabular.model import FiniteGame


def matrix_game(game: MatrixGame | RandomGame) -> FiniteGame:
    """States `play` and `over`; all that is seen is the constant 1. Players may have unequal numbers of actions."""
    n, n_actions = game.n_players, game.outcomes.shape[1:-1]
    joint, drawn = int(np.prod(n_actions)), game.outcomes.shape[-1]
    reward, prob = np.zeros((n, 2, joint, drawn)), np.zeros((2, joint, drawn))
    reward[:, 0] = game.outcomes.reshape(n, joint, drawn)
    prob[0], prob[1, :, 0] = game.prob.reshape(joint, drawn), 1.0
    seen = np.ones((2, n, 1), np.float32)
    return FiniteGame(
        players=tuple(f"player_{i}" for i in range(n)),
        n_actions=n_actions,
        next_state=np.ones((2, joint, drawn), int),
        prob=prob,
        reward=reward,
        terminal=np.array([False, True]),
        start=np.array([1.0, 0.0]),
        horizon=1,
        obs=seen,
        state=seen,
        state_names=("play", "over"),
    )
