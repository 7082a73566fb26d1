"""Risk-averse quantal response equilibria of finite-horizon Markov games, by backward recursion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rqe_mappo.equilibrium.adversary import Penalty, adversary
from rqe_mappo.equilibrium.game import Form, PerPlayer, RiskGame, per_player
from rqe_mappo.equilibrium.response import Regulariser
from rqe_mappo.equilibrium.solver import TOLERANCE, Equilibrium, solve_game
from rqe_mappo.equilibrium.two_by_two import all_equilibria_2x2


class MarkovModel(Protocol):
    """A Markov game with n players, S states and J joint actions, in the order of `np.ravel_multi_index`.

    n_actions: of each player. next_state, prob: `[S, J, K]`, the K outcomes of a joint action and their probabilities.
    reward: `[n, S, J, K]`. terminal: `[S]`, where the game is over. start: `[S]`, the probabilities of the first state.
    """

    @property
    def n_actions(self) -> Sequence[int]: ...
    @property
    def next_state(self) -> np.ndarray: ...
    @property
    def prob(self) -> np.ndarray: ...
    @property
    def reward(self) -> np.ndarray: ...
    @property
    def terminal(self) -> np.ndarray: ...
    @property
    def start(self) -> np.ndarray: ...
    @property
    def horizon(self) -> int: ...


@dataclass(frozen=True)
class MarkovEquilibrium:
    """Markov policies that are an equilibrium of every stage game.

    policies: one `[H, S, A_i]` a player, uniform at terminal states. values: `[H + 1, n, S]`, risk-adjusted, without
    the regulariser; 0 at terminal states and at the horizon. start_values: `[n]`, the entropic value over the start.
    residual, residuals: the worst, and each `[H, S]`, of log-probabilities; policies_residual: the worst of `policies`
    (`Equilibrium.strategies_residual` says where they differ). converged: all stage games did. several: `[H, S]`, True
    where a second equilibrium was found (False is no proof that there is none, except in 2x2 stage games).
    """

    policies: tuple[np.ndarray, ...]
    values: np.ndarray
    start_values: np.ndarray
    residual: float
    residuals: np.ndarray
    policies_residual: float
    converged: bool
    several: np.ndarray


def solve_markov(
    model: MarkovModel, tau: PerPlayer, eps: PerPlayer, *, form: Form = "action",
    penalty: Penalty = "kl", regulariser: Regulariser = "entropy", warm_start: bool = False, look_for_several: int = 0,
    seed: int = 0, tolerance: float = TOLERANCE,
) -> MarkovEquilibrium:  # fmt: skip
    """Backward recursion with nested risk: V_H = 0 and, at h = H - 1 ... 0 in each state,

        Q_i(s, a) = -tau_i log sum_k P_k exp(-(r_ik + V_i,h+1(s_k)) / tau_i),     pi_h(s), V_h(s) = RQE of Q(s, .)

    so the environment's draw is judged by the entropic risk, whatever the penalty, and the opponents' by `form` and
    `penalty` (arXiv 2406.14156, Algorithm 1). V is the risk-adjusted utility without eps nu. tau has the unit of the
    return and the same for every h; tau = inf gives the quantal response equilibrium of the mean.

    Where a stage game has several equilibria the principal branch of `solve` is taken. `warm_start` takes, before the
    last step, what Newton finds from the next step's strategies instead: many times faster, the same where there is one
    equilibrium, continuous in time where there are more. `look_for_several` asks for that many further starts a stage
    game (2x2 games: for a full scan) and reports the finds in `several`.
    """
    sizes = tuple(model.n_actions)
    n, n_states, horizon = len(sizes), len(model.terminal), int(model.horizon)
    taus, weights = per_player("tau", tau, n), per_player("eps", eps, n)
    with np.errstate(divide="ignore"):
        log_prob, log_start = np.log(model.prob), np.log(model.start)
    policies = tuple(np.full((horizon, n_states, size), 1 / size) for size in sizes)
    values = np.zeros((horizon + 1, n, n_states))
    rounded = 0.0
    residuals, several = np.zeros((horizon, n_states)), np.zeros((horizon, n_states), bool)
    later: dict[int, Sequence[np.ndarray]] = {}
    for h in reversed(range(horizon)):
        ahead = np.where(model.terminal, 0.0, values[h + 1])[:, model.next_state]
        stage = np.stack([
            adversary(model.reward[i] + ahead[i], log_prob, taus[i], "kl").value for i in range(n)
        ])  # fmt: skip
        for s in np.flatnonzero(~np.asarray(model.terminal)):
            game = RiskGame.of(stage[:, s].reshape(n, *sizes), taus, weights, form, penalty, regulariser)
            found = solve_game(game, later.get(s) if warm_start else None, seed, tolerance)
            later[s] = found.log_strategies
            for policy, pi in zip(policies, found.strategies, strict=True):
                policy[h, s] = pi
            values[h, :, s], residuals[h, s] = found.utilities, found.residual
            rounded = float(np.maximum(rounded, found.strategies_residual))  # nan stays
            if look_for_several:
                several[h, s] = _has_another(game, found, look_for_several, seed)
    start_values = np.array([adversary(values[0, i], log_start, taus[i], "kl").value for i in range(n)])
    worst = float(residuals.max(initial=0.0))
    return MarkovEquilibrium(policies, values, start_values, worst, residuals, rounded, worst <= tolerance, several)


def _has_another(game: RiskGame, found: Equilibrium, starts: int, seed: int) -> bool:
    """Whether a second equilibrium turns up."""
    if game.payoffs.shape == (2, 2, 2):
        form, penalty, regulariser = game.form, game.penalty, game.regulariser
        all_found = all_equilibria_2x2(
            game.payoffs, game.tau, game.eps, form=form, penalty=penalty, regulariser=regulariser
        )
        return len(all_found) > 1
    rng = np.random.default_rng(seed)
    for _ in range(starts):
        start = [np.log(np.maximum(rng.dirichlet(np.full(size, 0.5)), 1e-9)) for size in game.payoffs.shape[1:]]
        other = solve_game(game, start)
        gap = max(np.abs(a - b).max() for a, b in zip(other.strategies, found.strategies, strict=True))
        if other.converged and gap > 1e-6:
            return True
    return False
