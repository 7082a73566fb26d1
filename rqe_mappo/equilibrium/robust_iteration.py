"""Robust value iteration: the best a team can be sure of when nature chooses the transitions from a set.

    V(s) = max_a min_{P in U(s, a)} sum_k P_k (r_k + gamma V(s_k))

The sets are rectangular: nature answers each state and joint action, after seeing it, whatever it answers elsewhere; so
the best policy is Markov and needs no dice (Iyengar, 'Robust Dynamic Programming', Mathematics of Operations Research,
2005). The inner problems are those of `rqe_mappo.functional.robust`. Players are one team: its reward is the common
one, else the sum over players. See docs/robust.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rqe_mappo.envs.tabular.exact import common_reward
from rqe_mappo.envs.tabular.model import FiniteGame
from rqe_mappo.functional.robust import Worst

WorstCase = Callable[[Tensor, Tensor], Worst]
"""Values `[S, J, N]` and nominal probabilities `[S, J, N]` to the worst case of each row, as in `functional.robust`."""
Over = Literal["outcomes", "states"]
MOST = 2**25  # numbers of a table over states, actions and next states
UNUSED = 1e-9  # probability of outcomes that are none


@dataclass(frozen=True)
class RobustSolution:
    """What a team can be sure of.

    values: `[H + 1, S]`, 0 at terminal states and at the horizon; `[S]` if discounted for ever.
    action_values: `[H, S, J]`, or `[S, J]`.
    policy: the best joint action, the first of equals, int `[H, S]`, or `[S]`.
    worst: `[S, J, N]`, nature's answers at the first decision, if discounted at every one.
    start_value: the mean over the game's first states.
    """

    values: np.ndarray
    action_values: np.ndarray
    policy: np.ndarray
    worst: np.ndarray
    start_value: float


def finite_horizon(
    game: FiniteGame, worst_case: WorstCase, gamma: float = 1.0, over: Over = "outcomes",
    policy: np.ndarray | None = None,
) -> RobustSolution:  # fmt: skip
    """Backward recursion over the game's horizon, `V_H = 0`; nature may answer otherwise at every decision.

    over: among what nature chooses. outcomes: those of the state and action that have a probability, each with its
        reward. states: all that follow any state; the reward is then the mean of the state and action.
    policy: joint actions int `[H, S]`, to be judged in the worst case instead of the best ones.
    """
    backup, (n_states, n_joint) = _backup(game, worst_case, gamma, over), game.prob.shape[:2]
    values = np.zeros((game.horizon + 1, n_states))
    table, chosen = np.zeros((game.horizon, n_states, n_joint)), np.zeros((game.horizon, n_states), int)
    answer = np.zeros(0)
    for t in reversed(range(game.horizon)):
        table[t], answer = backup(values[t + 1])
        chosen[t] = table[t].argmax(-1) if policy is None else policy[t]
        values[t] = table[t, np.arange(n_states), chosen[t]]
    return RobustSolution(values, table, chosen, answer, float(game.start @ values[0]))


def discounted(
    game: FiniteGame, worst_case: WorstCase, gamma: float, over: Over = "outcomes",
    policy: np.ndarray | None = None, tolerance: float = 1e-11,
) -> RobustSolution:  # fmt: skip
    """Value iteration without a horizon, until what is left is below `tolerance` of the greatest value.

    The operator contracts by gamma. ValueError for a gamma outside [0, 1). The rest is as in `finite_horizon`, `policy`
    int `[S]`.
    """
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be in [0, 1) without a horizon (got {gamma:g})")
    backup, rows = _backup(game, worst_case, gamma, over), np.arange(game.n_states)

    def best(table: np.ndarray) -> np.ndarray:
        return table.argmax(-1) if policy is None else policy

    values = np.zeros(game.n_states)
    for _ in range(math.ceil(math.log(tolerance * (1 - gamma)) / math.log(max(gamma, 1e-3))) + 1):
        before, table = values, backup(values)[0]
        values = table[rows, best(table)]
        if gamma * np.abs(values - before).max() <= tolerance * (1 - gamma) * np.abs(values).max():
            break
    table, answer = backup(values)
    chosen = best(table)
    values = table[rows, chosen]
    return RobustSolution(values, table, chosen, answer, float(game.start @ values))


def team_reward(game: FiniteGame) -> np.ndarray:
    """The team's reward, `[S, J, K]`: the one that all players get, or else the sum over players."""
    return game.reward[0] if common_reward(game) else game.reward.sum(0)


def next_states(game: FiniteGame) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of next states, `[S, J, S]`, and which states follow any that is not terminal, bool `[S]`."""
    n, j = game.n_states, game.n_joint
    if n * j * n > MOST:
        raise ValueError(f"{n} states and {j} joint actions are too many for sets over all states: use outcomes")
    probs = np.zeros((n, j, n))
    np.add.at(probs, (np.arange(n)[:, None, None], np.arange(j)[:, None], game.next_state), game.prob)
    return probs, (probs[~game.terminal] > 0).any((0, 1))


def _backup(
    game: FiniteGame, worst_case: WorstCase, gamma: float, over: Over
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """From values of states to those of actions, `[S, J]`, and nature's answers, `[S, J, N]`."""
    reward, probs, following, exists = team_reward(game), game.prob, game.next_state, game.prob > 0
    if over == "states":
        reward = (probs * reward).sum(-1, keepdims=True)
        probs, follows = next_states(game)
        following, exists = np.arange(game.n_states), np.broadcast_to(follows, probs.shape)
    nominal = torch.from_numpy(probs).double()

    def backup(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outcome = reward + gamma * values[following]
        best = np.where(exists, outcome, -np.inf).max(-1, keepdims=True)
        outcome = np.where(exists, outcome, best + 1 + np.abs(best))  # so that nature does not want what is none
        found = worst_case(torch.from_numpy(outcome), nominal)
        answer = found.probs.numpy()
        if answer[~exists & ~game.terminal[:, None, None]].max(initial=0.0) > UNUSED:
            raise ValueError("nature's distributions must leave alone what has no probability in the game")
        return np.where(game.terminal[:, None], 0.0, found.value.numpy()), answer

    return backup
