"""Finds a risk-averse quantal response equilibrium: Newton from a start, or a branch followed from boundless eps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import root

from rqe_mappo.equilibrium.adversary import Penalty
from rqe_mappo.equilibrium.game import Form, RiskGame, Strategies, solve_linear
from rqe_mappo.equilibrium.response import Regulariser, respond, respond_slope, values_for

TOLERANCE = 1e-8
SEARCHES = 12
BRANCH_STEPS = 4000
TURN = 0.9  # the least cosine between neighbouring tangents: a sharper turn may be another branch


@dataclass(frozen=True)
class Equilibrium:
    """A strategy profile and how near it is to an equilibrium.

    strategies, log_strategies: `[A_i]` for each player. utilities: `[n]`, risk-adjusted, without the regulariser.
    means: `[n]`, mean payoffs. residual: max_i ||pi_i - BR_i(pi_-i)||_inf. exploitability: `[n]`, what a best response
    gains. converged: residual at most the tolerance asked for. iterations: Newton steps. method: `newton` (from the
    start given), `branch` (followed from eps = inf, where all play uniformly) or `search` (Newton from random starts).
    """

    strategies: tuple[np.ndarray, ...]
    log_strategies: tuple[np.ndarray, ...]
    utilities: np.ndarray
    means: np.ndarray
    residual: float
    exploitability: np.ndarray
    converged: bool
    iterations: int
    method: str


def solve(
    game: Any, tau: float | Sequence[float], eps: float | Sequence[float], *, form: Form = "action",
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
    system = System(problem)
    tries = [("branch", system.branch)]
    if start is not None:
        inner = [np.maximum(log_pi, np.log(1e-12)) for log_pi in start]
        x = np.concatenate([values_for(log_pi, problem.regulariser) for log_pi in inner])
        tries.insert(0, ("newton", lambda: system.newton(x)))
    rng = np.random.default_rng(seed)
    tries += [("search", lambda: system.anywhere(rng))] * SEARCHES
    best: Equilibrium | None = None
    for method, attempt in tries:
        found = assess(problem, system.split(attempt()), tolerance, system.steps, method)
        if best is None or found.residual < best.residual:
            best = found
        if found.converged:
            break
    assert best is not None
    return best


def assess(problem: RiskGame, logs: Strategies, tolerance: float, steps: int, method: str) -> Equilibrium:
    """Measures a profile of log-probabilities against exact best responses."""
    residual, exploitability = problem.distance(logs)
    strategies = tuple(np.exp(log_pi) for log_pi in logs)
    utilities = np.array([problem.utility(i, x, problem.opponents(logs, i)) for i, x in enumerate(logs)])
    good = bool(residual <= tolerance)  # nan is not
    return Equilibrium(
        strategies, tuple(logs), utilities, problem.means(strategies), residual, exploitability, good, steps, method
    )


class System:
    """The equations x_i = s g_i(x) / eps_i for all players at once: at s = 1 their roots are the equilibria.

    x_i are values in units of eps, pi_i = respond(x_i) and g_i = dU_i/dpi_i less its mean.
    """

    def __init__(self, problem: RiskGame):
        self.problem = problem
        sizes = problem.payoffs.shape[1:]
        self.cuts = np.cumsum(sizes)[:-1]
        self.size = sum(sizes)
        self.scale = float(max(np.max(problem.spread / problem.eps), 1e-12))  # so that x moves about as fast as s
        self.steps = 0

    def split(self, x: np.ndarray) -> list[np.ndarray]:
        """log-probabilities of each player."""
        return [respond(part, self.problem.regulariser) for part in np.split(x, self.cuts)]

    def drive(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """g / eps, `[sum A]`, and its derivative in x, `[sum A, sum A]`."""
        self.steps += 1
        game = self.problem
        logs = self.split(x)
        soften = [respond_slope(log_pi, game.regulariser) for log_pi in logs]
        values, rows = [], []
        for i, log_pi in enumerate(logs):
            value, worst = game.face(i, log_pi, game.opponents(logs, i))
            others = [j for j in range(len(logs)) if j != i]
            slope = game.others_slope(i, worst).reshape(len(value), *(len(logs[j]) for j in others))
            row = []
            for j, log_j in enumerate(logs):
                if j == i:
                    row.append((game.own_slope(i, worst) * np.exp(log_j)) @ soften[j])
                else:
                    axes = tuple(1 + k for k, other in enumerate(others) if other != j)
                    row.append(slope.sum(axis=axes) @ soften[j])
            block = np.hstack(row)
            values.append((value - value.mean()) / game.eps[i])
            rows.append((block - block.mean(0)) / game.eps[i])
        return np.concatenate(values), np.vstack(rows)

    def newton(self, x: np.ndarray, limit: int = 100) -> np.ndarray:
        """Damped Newton on x = g(x) / eps; gives its last point, a root or not."""
        value, slope = self.drive(x)
        for _ in range(limit):
            error = x - value
            step = solve_linear(np.eye(len(x)) - slope, -error)
            if not np.isfinite(step).all() or np.abs(step).max() <= 1e-14 * (1 + np.abs(x).max()):
                break
            size = 1.0
            while size > 1e-8:
                trial = x + size * step
                new_value, new_slope = self.drive(trial)
                if np.linalg.norm(trial - new_value) < (1 - 1e-4 * size) * np.linalg.norm(error):
                    break
                size /= 2
            else:
                break
            x, value, slope = trial, new_value, new_slope
        return x

    def anywhere(self, rng: np.random.Generator) -> np.ndarray:
        """Newton, or where it stalls Powell's hybrid method, from a random start."""
        sizes = self.problem.payoffs.shape[1:]
        logs = [np.log(np.maximum(rng.dirichlet(np.full(size, 0.5)), 1e-9)) for size in sizes]
        x = self.newton(np.concatenate([values_for(log_pi, self.problem.regulariser) for log_pi in logs]))
        if np.abs(x - self.drive(x)[0]).max() <= 1e-9 * (1 + np.abs(x).max()):
            return x

        def equations(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            value, slope = self.drive(point)
            return point - value, np.eye(len(point)) - slope

        return self.newton(root(equations, x, jac=True, method="hybr").x)

    def branch(self) -> np.ndarray:
        """Follows the curve H(x, l) = x - l g(x) / (eps L) = 0 from x = 0, l = 0 to l = L, by pseudo-arclength.

        Euler steps along the tangent, Newton back to the curve at right angles to it; passes turning points. Gives the
        last point, polished by Newton: a root or not.
        """
        x, level, goal = np.zeros(self.size), 0.0, self.scale
        value, slope = self.drive(x)
        tangent = np.append(value / goal, 1.0)
        tangent /= np.linalg.norm(tangent)
        stride = 0.1
        for _ in range(BRANCH_STEPS):
            ahead = tangent[-1] * stride
            last = level + ahead >= goal
            if last:
                stride = (goal - level) / tangent[-1]
            found = self._correct(np.append(x, level) + stride * tangent, tangent, pin=last)
            if found is not None:
                point, slope, value, count = found
                new = self._tangent(slope, value, point[-1], tangent)
                if new @ tangent > TURN:
                    x, level, tangent = point[:-1], point[-1], new
                    if last:
                        return self.newton(x, limit=10)
                    stride *= 2.0 if count <= 3 else 1.0 if count <= 5 else 0.5
                    continue
            stride /= 4
            if stride < 1e-11:
                break
        return self.newton(x)

    def _correct(self, guess, tangent, pin: bool):
        """Newton back to the curve in the plane at right angles to the tangent (`pin`: in the plane l = goal)."""
        normal = np.append(np.zeros(len(guess) - 1), 1.0) if pin else tangent
        point = guess
        for count in range(1, 9):
            value, slope = self.drive(point[:-1])
            error = np.append(point[:-1] - point[-1] / self.scale * value, normal @ (point - guess))
            step = solve_linear(self._bordered(slope, value, point[-1], normal), -error)
            point = point + step
            if not np.isfinite(point).all():
                return None
            if np.abs(step).max() <= 1e-7 * (1 + np.abs(point[:-1]).max()):
                value, slope = self.drive(point[:-1])
                return point, slope, value, count
        return None

    def _bordered(self, slope, value, level, normal):
        share = level / self.scale
        top = np.column_stack([np.eye(len(value)) - share * slope, -value / self.scale])
        return np.vstack([top, normal])

    def _tangent(self, slope, value, level, before):
        target = np.append(np.zeros(len(value)), 1.0)
        tangent = solve_linear(self._bordered(slope, value, level, before), target)
        norm = np.linalg.norm(tangent)
        return tangent / norm if np.isfinite(norm) and norm > 0 else np.zeros_like(tangent)

