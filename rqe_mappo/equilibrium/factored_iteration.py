"""Fitted Q-iteration of a team whose joint value is a sum of utilities, and of one whose value is any table with IGM.

FMA-FQI and FQI-IGM of Wang et al., 'Towards Understanding Cooperative Multi-Agent Q-Learning with Value Factorization'
(arXiv 2006.00587), with tables and exact expectations: what they do without noise, networks and gradient descent.
docs/factorisation.md shows what follows. Tables over joint actions are `[S, A_1, ..., A_n]`, an axis an agent;
utilities and the data's marginals are one `[S, A_i]` an agent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

Table: TypeAlias = Float[np.ndarray, " states *actions"]
PerAgent: TypeAlias = Sequence[Float[np.ndarray, "states _"]]


@dataclass(frozen=True)
class MultiAgentMDP:
    """A Markov decision process in which n agents choose together and share the reward; it never ends.

    reward: `[S, A_1, ..., A_n]`. transition: `[S, A_1, ..., A_n, S]`, probabilities of next states. gamma: in [0, 1).
    An end is a state that pays 0 and is never left.
    """

    reward: np.ndarray
    transition: np.ndarray
    gamma: float

    def __post_init__(self) -> None:
        """Raises ValueError where shapes do not fit, transitions are no probabilities, or gamma is no discount."""
        n_states = len(self.reward)
        if self.transition.shape != (*self.reward.shape, n_states):
            raise ValueError(f"transition is {self.transition.shape}, for rewards {self.reward.shape}")
        if (self.transition < 0).any() or not np.allclose(self.transition.sum(-1), 1):
            raise ValueError("transition is no probabilities of next states: below 0, or their sum is not one")
        if not 0 <= self.gamma < 1:
            raise ValueError(f"gamma is {self.gamma}, not in [0, 1)")


def leaving_game(gamma: float) -> MultiAgentMDP:
    """Two agents, two actions, two states: the first pays 1 a step, for ever unless both take the second action.

    Then comes the other state, which pays 0 and is never left. The reward depends on the state alone, so it is as
    additive over agents as can be: what the sum of utilities cannot hold is who together leaves.
    """
    reward = np.zeros((2, 2, 2))
    reward[0] = 1
    transition = np.zeros((2, 2, 2, 2))
    transition[0, ..., 0] = 1
    transition[0, 1, 1] = transition[1] = [0, 1]
    return MultiAgentMDP(reward, transition, gamma)


def over_joint_actions(combine: np.ufunc, of_agents: PerAgent) -> Table:
    """`combine` of one number an agent, for every joint action: `np.add` gives Q_tot, `np.multiply` probabilities."""
    table = of_agents[0]
    for of_agent in of_agents[1:]:
        table = combine(table[..., None], np.expand_dims(of_agent, tuple(range(1, table.ndim))))
    return table


def best(table: Table) -> Float[np.ndarray, " states"]:
    """The greatest value of each state."""
    return table.reshape(len(table), -1).max(-1)


def targets(mdp: MultiAgentMDP, values: Float[np.ndarray, " states"]) -> Table:
    """`y(s, a) = r(s, a) + gamma E V(s')`."""
    return mdp.reward + mdp.gamma * mdp.transition @ values


def counterfactual_utilities(y: Table, marginals: PerAgent) -> list[np.ndarray]:
    """Utilities whose sum fits `y` best under product data: `Q_i = E[y | a_i] - (n - 1) / n E[y]` (Theorem 1).

    An agent's action is credited with the mean target over what the others do in the data, less a baseline. The
    theorem adds any w_i(s) with `sum_i w_i = 0`, which changes neither Q_tot nor greedy actions; here they are 0.
    """
    n = len(marginals)
    utilities = []
    for i in range(n):
        others = [np.ones_like(p) if j == i else p for j, p in enumerate(marginals)]
        given = (y * over_joint_actions(np.multiply, others)).sum(tuple(j + 1 for j in range(n) if j != i))
        utilities.append(given - (n - 1) / n * (given * marginals[i]).sum(-1, keepdims=True))
    return utilities


def least_squares_sum(y: Table, weights: Table) -> Table:
    """The sum of utilities with the least squared error to `y` under `weights`, which need be no product.

    Where a joint action has no weight its value is that of the solution of least norm.
    """
    sizes = y.shape[1:]
    columns = [np.eye(size)[index.ravel()] for size, index in zip(sizes, np.indices(sizes), strict=True)]
    design = np.concatenate(columns, axis=1)
    roots = np.sqrt(weights.reshape(len(y), -1))
    rows = zip(y.reshape(len(y), -1), roots, strict=True)
    solutions = [np.linalg.lstsq(root[:, None] * design, root * row, rcond=None)[0] for row, root in rows]
    return (np.array(solutions) @ design.T).reshape(y.shape)


def greedy(utilities: PerAgent) -> list[Int[np.ndarray, " states"]]:
    """Each agent's own best action, the first of equals: together the best joint action of any value with IGM."""
    return [utility.argmax(-1) for utility in utilities]


def epsilon_greedy(utilities: PerAgent, epsilon: float) -> list[np.ndarray]:
    """On-policy data: every agent by itself, with probability `epsilon` any of its actions, else its best."""
    sizes = [utility.shape[-1] for utility in utilities]
    chosen = zip(greedy(utilities), sizes, strict=True)
    return [(1 - epsilon) * np.eye(size)[action] + epsilon / size for action, size in chosen]


def fma_fqi(
    mdp: MultiAgentMDP, utilities: PerAgent, data: Callable[[PerAgent], PerAgent], iterations: int
) -> tuple[Float[np.ndarray, "iterations states"], PerAgent]:
    """FMA-FQI: in each iteration the sum of utilities is fitted to targets by its own greatest value.

    data: the marginals that the next fit weighs joint actions by, from the utilities; a constant is off-policy data.
    Returns `max_a Q_tot`, `[iterations + 1, S]`, from the first utilities on, and the last utilities.
    """
    values = [sum(utility.max(-1) for utility in utilities)]
    for _ in range(iterations):
        utilities = counterfactual_utilities(targets(mdp, values[-1]), data(utilities))
        values.append(sum(utility.max(-1) for utility in utilities))
    return np.array(values), utilities


def growth_matrix(
    mdp: MultiAgentMDP, actions: Sequence[Int[np.ndarray, " states"]], marginals: PerAgent
) -> Float[np.ndarray, "states states"]:
    """L of the affine map `V' = b + L V` that FMA-FQI is while `actions` are greedy and the data do not change.

        L = gamma sum_a c(s, a) P(s' | s, a),     c = sum_i [a_i = a*_i] prod_{j != i} p_j - (n - 1) prod_j p_j

    c are the weights with which the fit's value of the greedy actions `a*` averages the targets. They sum to one, but
    those of joint actions without a greedy part are negative; so L may stretch, by its spectral radius in the long run.
    """
    chosen = [np.eye(p.shape[-1])[action] for p, action in zip(marginals, actions, strict=True)]
    n = len(marginals)
    conditional = [[chosen[j] if j == i else p for j, p in enumerate(marginals)] for i in range(n)]
    weights = sum(over_joint_actions(np.multiply, factors) for factors in conditional)
    weights = weights - (n - 1) * over_joint_actions(np.multiply, marginals)
    n_states = len(mdp.reward)
    flat = mdp.transition.reshape(n_states, -1, n_states)
    return mdp.gamma * np.einsum("sa,sat->st", weights.reshape(n_states, -1), flat)


def growth_factor(mdp: MultiAgentMDP, actions: Sequence[Int[np.ndarray, " states"]], marginals: PerAgent) -> float:
    """By how much FMA-FQI's steps grow an iteration, in the long run: the spectral radius of `growth_matrix`.

    That is while `actions` stay greedy. Where growing values make others greedy they may end in a cycle instead.
    """
    return float(np.abs(np.linalg.eigvals(growth_matrix(mdp, actions, marginals))).max())


def igm_utilities(table: Table) -> list[np.ndarray]:
    """Utilities whose greedy actions are the table's best joint action, the first of equals, and sum to its value.

    They fall by 1 for each step that an action lies after the best one, cyclically. All of an agent's are different, so
    utilities say which joint action is meant and some `f(s, Q_1, ..., Q_n)` is any such table; with two values alone
    (best or not) f could not tell a third action from a second.
    """
    sizes = table.shape[1:]
    found = np.unravel_index(table.reshape(len(table), -1).argmax(-1), sizes)
    each = best(table)[:, None] / len(sizes)
    return [each - (np.arange(size) - star[:, None]) % size for size, star in zip(sizes, found, strict=True)]


def fqi_igm_step(mdp: MultiAgentMDP, table: Table) -> Table:
    """One iteration of FQI-IGM (Theorem 4): that of value iteration, which contracts by gamma in the maximum norm.

    For every table of targets is in the class (`igm_utilities`), so the fit is exact, however the data are distributed,
    if every joint action is among them.
    """
    return targets(mdp, best(table))


def optimal_table(mdp: MultiAgentMDP) -> Table:
    """The optimal joint values Q*, by policy iteration over joint actions."""
    n_states = len(mdp.reward)
    reward, transition = mdp.reward.reshape(n_states, -1), mdp.transition.reshape(n_states, -1, n_states)
    states, policy = np.arange(n_states), np.zeros(n_states, int)
    while True:
        values = np.linalg.solve(np.eye(n_states) - mdp.gamma * transition[states, policy], reward[states, policy])
        table = targets(mdp, values)
        flat = table.reshape(n_states, -1)
        better = flat.max(-1) > flat[states, policy] + 1e-12 * (1 + np.abs(flat).max())  # by more than rounding
        if not better.any():
            return table
        policy = np.where(better, flat.argmax(-1), policy)
