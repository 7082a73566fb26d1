"""The step games as finite games of two agents with two actions each."""

import numpy as np

from rqe_mappo.envs.step_games.config import MStepConfig, TwoStepConfig
from rqe_mappo.envs.tabular.model import FiniteGame

DARE = ((0.0, 1.0), (1.0, 8.0))  # the other branch of the two-step game, rows for agent_0
BRANCHES = 4  # joint actions, in the order 00, 01, 10, 11
BONUS, BONUS_BRANCH, BONUS_ACTION = 4.0, 0, 3  # paid for 11 in the last step of branch 00


def step_game(config: TwoStepConfig | MStepConfig) -> FiniteGame:
    """The game of `config`; both agents and the critic see the same."""
    return _two_step(config) if isinstance(config, TwoStepConfig) else _m_step(config)


def _two_step(config: TwoStepConfig) -> FiniteGame:
    """States `choice`, `sure`, `dare` and `over`; what is seen is the one-hot state."""
    names = ("choice", "sure", "dare", "over")
    sure, dare, over = 1, 2, 3
    following = np.array([[sure, sure, dare, dare], *[[over] * 4] * 3])  # agent_0's action is the first of the pair
    reward = np.array([[0.0] * 4, [config.sure] * 4, np.ravel(DARE), [0.0] * 4])
    return _game(names, following, reward, np.eye(4, 3, dtype=np.float32), horizon=2)


def _m_step(config: MStepConfig) -> FiniteGame:
    """States `start`, `branch 00, step 1` and so on, and `over`; what is seen is the step and the branch, one-hot."""
    m, over = config.steps, 1 + BRANCHES * (config.steps - 1)
    good = np.arange(BRANCHES) if config.good_branches == BRANCHES else np.array([0, BRANCHES - 1])
    pays = np.zeros(BRANCHES)
    pays[good] = 1.0
    following, reward = np.full((over + 1, BRANCHES), over), np.zeros((over + 1, BRANCHES))
    seen = np.zeros((over + 1, m + BRANCHES), np.float32)
    names = ["start"]

    def state(branch: int | np.ndarray, step: int) -> int | np.ndarray:
        return 1 + (step - 1) * BRANCHES + branch

    seen[0, 0] = 1.0
    reward[0], following[0, good] = pays, state(good, 1)
    for step in range(1, m):
        for branch in range(BRANCHES):
            now = state(branch, step)
            names.append(f"branch {branch:02b}, step {step}")
            seen[now, [step, m + branch]] = 1.0
            reward[now, branch] = pays[branch]
            if step < m - 1 and pays[branch]:
                following[now, branch] = state(branch, step + 1)
    last = state(BONUS_BRANCH, m - 1)
    reward[last], reward[last, BONUS_ACTION] = 1.0, BONUS
    return _game((*names, "over"), following, reward, seen, horizon=m)


def _game(
    names: tuple[str, ...], following: np.ndarray, reward: np.ndarray, seen: np.ndarray, horizon: int
) -> FiniteGame:
    """The game in which nothing is drawn, that starts in its first state and is over in its last.

    following, reward: `[S, 4]`, by joint action. seen: `[S, D]`.
    """
    states = np.arange(len(names))
    both = np.repeat(seen[:, None], 2, axis=1)
    return FiniteGame(
        players=("agent_0", "agent_1"),
        n_actions=(2, 2),
        next_state=following[..., None],
        prob=np.ones((*following.shape, 1)),
        reward=np.stack([reward, reward])[..., None],
        terminal=states == len(names) - 1,
        start=(states == 0).astype(float),
        horizon=horizon,
        obs=both,
        state=both,
        state_names=names,
    )
