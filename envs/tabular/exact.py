"""What can be computed of a finite game without sampling: distributions of returns, bounds, grids."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from rqe_mappo.envs.tabular.model import FiniteGame

DIGITS = 9  # returns that agree to so many decimals are one outcome


def joint_policy(game: FiniteGame, policies: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities of joint actions `[..., S, J]` of players who draw independently.

    policies: one array a player, `[S, A_i]`, or `[H, S, A_i]` if it changes with time.
    """
    joint = np.ones((game.n_states, 1))
    for policy in policies:
        pairs = joint[..., :, None] * policy[..., None, :]
        joint = pairs.reshape(*pairs.shape[:-2], -1)
    return joint


def return_distribution(
    game: FiniteGame,
    policies: Sequence[np.ndarray],
    player: int = 0,
    gamma: float = 1.0,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of one player's `sum_t gamma^t r_t`: its values `[M]`, ascending, and their probabilities `[M]`.

    Every distinct pair of state and return so far is followed, so it is meant for games with few of them.

    policies: as in `joint_policy`.
    start: probabilities `[S]` of the first state, if not the game's own.
    """
    chosen = np.broadcast_to(joint_policy(game, policies), (game.horizon, game.n_states, game.n_joint))
    first = game.start if start is None else start
    state = np.flatnonzero(first)
    mass, total = first[state], np.zeros(len(state))
    ended = []
    for t in range(game.horizon):
        weight = mass[:, None, None] * chosen[t, state, :, None] * game.prob[state]
        row, j, k = np.nonzero(weight)
        source = state[row]
        total = total[row] + gamma**t * game.reward[player, source, j, k]
        state, mass = game.next_state[source, j, k], weight[row, j, k]
        over = game.terminal[state] | (t == game.horizon - 1)
        ended.append((total[over], mass[over]))
        (state, total), mass = _merged((state[~over], total[~over]), mass[~over])
        state = state.astype(int)
    values, probs = (np.concatenate(parts) for parts in zip(*ended, strict=True))
    (values,), probs = _merged((values,), probs)
    return values, probs


def nested_values(
    game: FiniteGame,
    policies: Sequence[np.ndarray],
    risk: Callable[[np.ndarray, np.ndarray], float],
    player: int = 0,
    gamma: float = 1.0,
) -> np.ndarray:
    """One player's nested value in every state with 0 to H decisions made, `[H + 1, S]`; 0 in terminal states and at H.

    Backward recursion `V_t(s) = risk(r + gamma V_{t+1}(s'))`: the risk of each step, step by step.

    policies: as in `joint_policy`.
    risk: of an outcome's values `[M]` and their probabilities `[M]`, which are positive.
    """
    chosen = np.broadcast_to(joint_policy(game, policies), (game.horizon, game.n_states, game.n_joint))
    value = np.zeros((game.horizon + 1, game.n_states))
    for t in reversed(range(game.horizon)):
        outcome = game.reward[player] + gamma * value[t + 1, game.next_state]
        weight = chosen[t, :, :, None] * game.prob
        for state in np.flatnonzero(~game.terminal):
            (values,), probs = _merged((outcome[state].ravel(),), weight[state].ravel())
            value[t, state] = risk(values[probs > 0], probs[probs > 0])
    return value


def _merged(keys: tuple[np.ndarray, ...], mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct columns of `keys`, in order, and the mass on each."""
    distinct, index = np.unique(np.round(np.stack(keys), DIGITS), axis=1, return_inverse=True)
    return distinct, np.bincount(index.ravel(), weights=mass, minlength=distinct.shape[1])


def _moves(game: FiniteGame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The possible moves between states, M of them, sorted by where they start.

    Gives origin and target, int `[M]`, and the lowest and highest reward of each move, `[n, M]`.
    """
    s, j, k = np.nonzero((game.prob > 0) & ~game.terminal[:, None, None])
    target, reward = game.next_state[s, j, k], game.reward[:, s, j, k]
    key = s * game.n_states + target
    order = np.argsort(key, kind="stable")
    key, first = np.unique(key[order], return_index=True)
    low, high = (extreme.reduceat(reward[:, order], first, axis=1) for extreme in (np.minimum, np.maximum))
    return key // game.n_states, key % game.n_states, low, high


def _reached(game: FiniteGame, origin: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where a game that is still on may be after 0 to H decisions: bool `[H + 1, S]`."""
    reached = np.zeros((game.horizon + 1, game.n_states), bool)
    reached[0] = game.start > 0
    for now, following in itertools.pairwise(reached):
        following[target[now[origin]]] = True
        following[game.terminal] = False
    return reached


def return_bounds(game: FiniteGame) -> np.ndarray:
    """The lowest and highest undiscounted return that each player can still be given, at the start or later: `[n, 2]`.

    Backward recursion `low_t(s) = min over possible moves of r + low_{t+1}(s')`, likewise for the highest, then the
    extremes over every t and every state that can be met at t.
    """
    origin, target, *rewards = _moves(game)
    live, first = np.unique(origin, return_index=True)
    reached = _reached(game, origin, target)
    bounds = np.zeros((len(game.players), 2))
    for side, (extreme, reward) in enumerate(zip((np.minimum, np.maximum), rewards, strict=True)):
        value = np.zeros((len(game.players), game.n_states))
        seen = []
        for now in reached[-2::-1]:
            value[:, live] = extreme.reduceat(reward + value[:, target], first, axis=1)
            if now.any():
                seen.append(extreme.reduce(value[:, now], axis=1))
        bounds[:, side] = extreme.reduce(seen)
    return bounds


def reward_bounds(game: FiniteGame) -> tuple[float, float]:
    """The lowest and highest reward of any player in one step."""
    *_, low, high = _moves(game)
    return float(low.min()), float(high.max())


def reward_step(game: FiniteGame) -> float | None:
    """The coarsest grid through 0 on which every reward lies; None unless all are multiples of a hundredth."""
    possible = (game.prob > 0) & ~game.terminal[:, None, None]
    hundredths = 100 * np.unique(game.reward[:, possible])
    if not np.allclose(hundredths, np.round(hundredths), rtol=0, atol=1e-6):
        return None
    step = int(np.gcd.reduce(np.round(hundredths).astype(int)))
    return step / 100 if step else None


def common_reward(game: FiniteGame) -> bool:
    """Whether every possible outcome pays the same to all players."""
    possible = (game.prob > 0) & ~game.terminal[:, None, None]
    reward = game.reward[:, possible]
    return bool((reward == reward[:1]).all())


def horizon_binds(game: FiniteGame) -> bool:
    """Whether some play is still on after `horizon` decisions; if not, the horizon is never met."""
    origin, target, *_ = _moves(game)
    return bool(_reached(game, origin, target)[-1].any())
