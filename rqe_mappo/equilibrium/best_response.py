"""The best response of a risk-averse, boundedly rational player, exactly."""

from typing import TYPE_CHECKING

import numpy as np

from rqe_mappo.equilibrium.adversary import TINY
from rqe_mappo.equilibrium.curve import STEP_LIMITS, solve_linear
from rqe_mappo.equilibrium.response import cost, respond, respond_jacobian
from rqe_mappo.equilibrium.systems import AdversarySystem

if TYPE_CHECKING:
    from rqe_mappo.equilibrium.game import RiskGame

NEWTON_STEPS = 100
RESOLVED = 1e-10  # a Newton step of the probabilities below this may be rounding's


def best_response(game: "RiskGame", i: int, log_q: np.ndarray) -> np.ndarray:
    """log of player i's exact best response to the opponents' log-probabilities, `[M_i]` -> `[A_i]`.

    In closed form where there is one, else by Newton; nan where rounding stops Newton before the maximum, which may
    happen where tau is tiny.
    """
    best = _newton(game, i, log_q)
    if np.isnan(best).any() and game.penalty == "reverse-kl":
        system = AdversarySystem(game, i, log_q)
        point = system.find(STEP_LIMITS[0])
        best = system.logs(point)[0]
        if not _is_saddle(game, i, best, point, log_q):
            best = np.full(len(best), np.nan)
    return best


def _is_saddle(game: "RiskGame", i: int, log_pi: np.ndarray, p: np.ndarray, log_q: np.ndarray) -> bool:
    """Whether pi = respond(R_i p / eps_i) is best: its objective meets the bound that p sets on all."""
    q, p = np.exp(log_q), np.maximum(p, TINY)
    p = p / p.sum()
    shift = game.tau[i] * (q * np.where(q > 0, log_q - np.log(p), 0.0)).sum()
    bound = np.exp(log_pi) @ game.tables[i] @ p - game.eps[i] * cost(log_pi, game.regulariser) + shift
    value = game.utility(i, log_pi, log_q, regularised=True)
    return bool(bound - value <= 1e-12 * (1 + abs(value) + game.payoff_range[i]))


def _newton(game: "RiskGame", i: int, log_q: np.ndarray) -> np.ndarray:
    """Newton in the values x = (dU/dpi) / eps with a line search on the objective, which is strictly concave.

    d_pi: dpi/dx."""
    eps, kind = game.eps[i], game.regulariser
    n_actions = len(game.tables[i])
    log_pi = np.full(n_actions, -np.log(n_actions))
    x = game.marginal_values(i, log_pi, log_q)[0] / eps
    if game.form == "action" or np.isinf(game.tau[i]):
        return respond(x, kind)
    log_pi = respond(x, kind)
    objective, move = game.utility(i, log_pi, log_q, regularised=True), np.inf
    for _ in range(NEWTON_STEPS):
        values, worst = game.marginal_values(i, log_pi, log_q)
        gap = centred(values / eps - x)
        d_pi = np.exp(log_pi)[:, None] * respond_jacobian(log_pi, kind)
        step = solve_linear(np.eye(n_actions) - game.own_jacobian(i, worst) @ d_pi / eps, gap)
        before, move = move, float(np.abs(d_pi @ step).max())
        length = np.abs(step).max() / (1 + np.abs(x).max())
        # a small move alone may be a wrong corner's: there the step is long
        if length <= 1e-14 or (length < 1e-8 and 0.5 * before <= move < RESOLVED):
            return log_pi
        slope, size = eps * gap @ d_pi @ step, 1.0
        while size > 1e-12:
            trial = respond(x + size * step, kind)
            new = game.utility(i, trial, log_q, regularised=True)
            error = np.abs(d_pi @ centred(game.marginal_values(i, trial, log_q)[0] / eps - x - size * step)).max()
            rounding = 1e-14 * (1 + abs(objective))
            close = new >= objective - rounding and error < 0.5 * np.abs(d_pi @ gap).max()
            if close or new >= objective + 1e-4 * size * slope:
                break
            size /= 2
        else:
            break
        x, log_pi, objective = x + size * step, trial, new
    return np.full(n_actions, np.nan)


def centred(values: np.ndarray) -> np.ndarray:
    """Values less their mean: what a constant adds to all of them changes no choice."""
    return values - values.mean()
