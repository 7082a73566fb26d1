"""The best plan of players who act as one, where states can be counted."""

from dataclasses import dataclass

import numpy as np

LONGEST_PLAN = 1000  # steps: a number is kept for each of them and each state


@dataclass(frozen=True, eq=False)
class Table:
    """A game of S states, J joint actions and K outcomes, for one reward to be made large.

    next_state: int `[S, J, K]`; S itself stands for a new start.
    prob: `[K]`, the outcomes' probabilities, everywhere the same.
    reward: `[S, J, K]`.
    start: `[S]`, the probabilities of starts.
    """

    next_state: np.ndarray
    prob: np.ndarray
    reward: np.ndarray
    start: np.ndarray


def best_plan(table: Table, horizon: int, allowed: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """The best mean return of `horizon` steps, and the joint actions that reach it by steps left and state, `[H, S]`.

    Backward induction, `V_h(s) = max_j sum_k p_k (r(s, j, k) + V_{h-1}(s'))`; exact. Row 0 is the last step.

    allowed: bool `[J]`, which joint actions there are, if not all.
    ValueError for a horizon beyond `LONGEST_PLAN`.
    """
    if horizon > LONGEST_PLAN:
        raise ValueError(f"--horizon must be at most {LONGEST_PLAN} for a plan (got {horizon})")
    states, joint, _ = table.next_state.shape
    barred = np.zeros(joint) if allowed is None else np.where(allowed, 0, -np.inf)
    paid = table.reward @ table.prob + barred
    value, actions = np.zeros(states + 1), np.zeros((horizon, states), np.int16)
    for left in range(horizon):
        worth = paid + value[table.next_state] @ table.prob
        actions[left] = worth.argmax(1)
        value[:states] = worth.max(1)
        value[states] = table.start @ value[:states]
    return float(value[states]), actions
