"""Finds a risk-averse quantal response equilibrium: Newton from a start, or a branch followed from infinite eps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import root

from rqe_mappo.equilibrium.adversary import Penalty
from rqe_mappo.equilibrium.curve import STEP_LIMITS
from rqe_mappo.equilibrium.game import Form, Game, PerPlayer, RiskGame, Strategies
from rqe_mappo.equilibrium.response import Regulariser
from rqe_mappo.equilibrium.systems import AdversarySystem, ValueSystem

TOLERANCE = 1e-8
SEARCHES = 12
BUDGET = 6000  # evaluations after which no further search is begun


@dataclass(frozen=True)
class Equilibrium:
    """A strategy profile and how near it is to an equilibrium.

    strategies, log_strategies: `[A_i]` for each player. utilities: `[n]`, risk-adjusted, without the regulariser.
    means: `[n]`, mean payoffs. residual: max_i ||pi_i - BR_i(pi_-i)||_inf, of `log_strategies`, like all that follows.
    strategies_residual: the same of `strategies`, in which a probability below 1e-308 is 0 or has few digits. It is
    larger than `residual` where so rare an action decides what is best, as it can where tau is small against payoffs:
    the equilibrium is then that of `log_strategies` alone. exploitability: `[n]`, what a best response gains.
    converged: residual at most the tolerance asked for. iterations: Newton steps. method: `newton` (from the start
    given), `branch` (from eps = inf, where strategies are uniform) or `search` (Newton from random ones).
    """

    strategies: tuple[np.ndarray, ...]
    log_strategies: tuple[np.ndarray, ...]
    utilities: np.ndarray
    means: np.ndarray
    residual: float
    strategies_residual: float
    exploitability: np.ndarray
    converged: bool
    iterations: int
    method: str


def solve(
    game: Game, tau: PerPlayer, eps: PerPlayer, *, form: Form = "action",
    penalty: Penalty = "kl", regulariser: Regulariser = "entropy", start: Strategies | None = None, seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Equilibrium:  # fmt: skip
    """One equilibrium of the game, with the proof of its quality; see `RiskGame` for the arguments.

    Without a `start` the answer is the principal branch: the curve of equilibria of (tau, eps / s) followed from s = 0,
    where every player is uniform, to the first s = 1 (McKelvey & Palfrey's selection of the logit equilibrium, here
    for any tau). With a start it is what damped Newton finds from there. Where either fails, Newton runs from random
    starts drawn with `seed`; where that fails too, the best profile seen is returned with `converged` False.
    """
    problem = RiskGame.of(game, tau, eps, form, penalty, regulariser)
    return solve_game(problem, None if start is None else problem.logs(start), seed, tolerance)


def solve_game(
    problem: RiskGame, start: Sequence[np.ndarray] | None = None, seed: int = 0, tolerance: float = TOLERANCE
) -> Equilibrium:
    """`solve` for a checked game; `start` holds log-probabilities."""
    system, other = ValueSystem(problem), AdversarySystem(problem)
    rng = np.random.default_rng(seed)
    tries: list[tuple[str, Callable[[], list[np.ndarray]]]] = []
    if start is not None:
        tries.append(("newton", lambda: system.logs(system.newton(system.place(list(start))))))
    for limits in STEP_LIMITS:
        tries.append(("branch", lambda limits=limits: system.logs(system.follow(*limits))))
        if problem.form == "aggregate" and problem.penalty == "reverse-kl":
            tries.append(("branch", lambda limits=limits: other.logs(other.find(limits))))
    tries += [("search", lambda: system.logs(_anywhere(system, rng)))] * SEARCHES
    best: Equilibrium | None = None
    for method, attempt in tries:
        logs = attempt()
        steps = system.steps + other.steps
        found = assess(problem, logs, tolerance, steps, method)
        if best is None or not best.residual <= found.residual:
            best = found
        if found.converged or steps > BUDGET:
            break
    assert best is not None
    return best


def assess(problem: RiskGame, logs: Strategies, tolerance: float, steps: int, method: str) -> Equilibrium:
    """Measures a profile of log-probabilities against exact best responses."""
    residual, exploitability = problem.distance(logs)
    strategies = tuple(np.exp(log_pi) for log_pi in logs)
    utilities = np.array([problem.utility(i, x, problem.opponents(logs, i)) for i, x in enumerate(logs)])
    good = bool(residual <= tolerance)  # nan is not
    rounded = residual
    if min(pi.min() for pi in strategies) < np.finfo(float).tiny:
        with np.errstate(divide="ignore"):
            rounded = problem.distance([np.log(pi) for pi in strategies])[0]
    return Equilibrium(
        strategies=strategies,
        log_strategies=tuple(logs),
        utilities=utilities,
        means=problem.means_at(logs),
        residual=residual,
        strategies_residual=rounded,
        exploitability=exploitability,
        converged=good,
        iterations=steps,
        method=method,
    )


def _anywhere(system: ValueSystem, rng: np.random.Generator) -> np.ndarray:
    """Newton, or where it stalls Powell's hybrid method, from a random start."""
    sizes = system.problem.payoffs.shape[1:]
    logs = [np.log(np.maximum(rng.dirichlet(np.full(size, 0.5)), 1e-9)) for size in sizes]
    point = system.newton(system.place(logs))
    if np.abs(system.equations(point, system.goal)[0]).max() <= 1e-9 * (1 + np.abs(point).max()):
        return point
    return system.newton(root(lambda x: system.equations(x, system.goal)[:2], point, jac=True, method="hybr").x)
