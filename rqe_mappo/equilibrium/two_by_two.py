"""Every equilibrium of a 2x2 game, by scanning one player's strategy."""

import numpy as np
from scipy.optimize.elementwise import find_root

from rqe_mappo.equilibrium.adversary import Penalty
from rqe_mappo.equilibrium.game import Form, Game, PerPlayer, RiskGame
from rqe_mappo.equilibrium.response import Regulariser, respond, values_for
from rqe_mappo.equilibrium.solver import TOLERANCE, Equilibrium, assess
from rqe_mappo.equilibrium.systems import ValueSystem

POINTS = 2001
ZOOM = 33
ZOOMS = 3


def all_equilibria_2x2(
    game: Game, tau: PerPlayer, eps: PerPlayer, *, form: Form = "action",
    penalty: Penalty = "kl", regulariser: Regulariser = "entropy", points: int = POINTS,
) -> list[Equilibrium]:  # fmt: skip
    """All equilibria of a 2x2 game, by player 1's probability of its first action.

    Scans h(pi_1) = [value of action 1 - value of action 2] - [the difference to which pi_1 responds] for changes of
    sign, where player 2 responds to pi_1 exactly. The grid is even in pi_1 (`points`), and in values beyond its ends.
    Where |h| has a minimum without a change of sign the cell is divided by 16 three times over. Two roots are told
    apart, and not missed, if they lie further apart than 1 / (points * 16^3), about 1e-7, or if h is smooth across a
    cell. A root that only touches 0 is found where |h| < 1e-12 of the payoffs' range. Equilibria within 1e-9 of each
    other count as one.
    """
    problem = RiskGame.of(game, tau, eps, form, penalty, regulariser)
    if problem.payoffs.shape != (2, 2, 2):
        raise ValueError(f"a 2x2 game has payoffs [2, 2, 2] (got shape {problem.payoffs.shape})")
    gap = ResponseGap(problem)
    grid = gap.grid(points)
    brackets, touches = _roots(gap, grid)
    roots = list(touches)
    if len(brackets):
        low, high = brackets.T
        inside = find_root(gap, (low, high), tolerances={"xatol": 0.0, "xrtol": 1e-15}).x
        nearer = np.where(np.abs(gap(low)) <= np.abs(gap(high)), low, high)  # rounding can hide a root at an end
        roots += list(np.where(np.isnan(inside), nearer, inside))
    system, found = ValueSystem(problem), []
    for delta in sorted(roots):
        log_first = gap.first(np.array([delta]))[0]
        log_second = gap.second(log_first[None])[0]
        rough = assess(problem, [log_first, log_second], TOLERANCE, 0, "scan")
        polished = system.newton(system.place([log_first, log_second]))
        fine = assess(problem, system.logs(polished), TOLERANCE, system.steps, "scan")
        near = max(np.abs(a - b).max() for a, b in zip(rough.strategies, fine.strategies, strict=True)) < 1e-6
        better = fine if near and fine.residual < rough.residual else rough
        if not any(_same(better, other) for other in found):
            found.append(better)
    return sorted(found, key=lambda e: e.strategies[0][0])


class ResponseGap:
    """h as a function of delta, the difference of player 1's two values: pi_1 = respond(delta / eps_1)."""

    def __init__(self, problem: RiskGame):
        self.problem = problem
        gaps = [table[0] - table[1] for table in problem.tables]
        margin = [1e-9 * (1 + np.abs(gap).max()) for gap in gaps]
        self.range = [(gap.min() - m, gap.max() + m) for gap, m in zip(gaps, margin, strict=True)]

    def first(self, delta: np.ndarray) -> np.ndarray:
        """log pi_1 `[B, 2]` at value differences `[B]`."""
        return self._choice(0, delta)

    def _choice(self, i: int, delta: np.ndarray) -> np.ndarray:
        values = np.stack([delta, np.zeros_like(delta)], -1)
        return respond(values / self.problem.eps[i], self.problem.regulariser)

    def second(self, log_first: np.ndarray) -> np.ndarray:
        """log of player 2's best response, `[B, 2]` to `[B, 2]`: the root of an increasing function of its delta."""

        def excess(delta: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            values, _ = self.problem.marginal_values(1, self._choice(1, delta), np.stack([a, b], -1))
            return delta - (values[..., 0] - values[..., 1])

        low, high = (np.full(len(log_first), end) for end in self.range[1])
        if self.problem.form == "action":
            return self._choice(1, -excess(np.zeros_like(low), log_first[:, 0], log_first[:, 1]))
        found = find_root(excess, (low, high), args=(log_first[:, 0], log_first[:, 1]))
        return self._choice(1, found.x)

    def __call__(self, delta: np.ndarray) -> np.ndarray:
        log_first = self.first(delta)
        values, _ = self.problem.marginal_values(0, log_first, self.second(log_first))
        return values[..., 0] - values[..., 1] - delta

    def grid(self, points: int) -> np.ndarray:
        """Value differences that cover the range, even in pi_1 inside and even in delta outside."""
        low, high = self.range[0]
        share = (np.arange(points) + 0.5) / points
        log_pi = np.log(np.stack([share, 1 - share], -1))
        values = values_for(log_pi, self.problem.regulariser)
        inner = self.problem.eps[0] * (values[:, 0] - values[:, 1])
        outer = np.linspace(low, high, points // 4)
        return np.unique(np.clip(np.concatenate([[low, high], inner, outer]), low, high))


def _roots(gap: ResponseGap, grid: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Cells where h changes sign, `[K, 2]`, and points where it touches 0 without one."""
    brackets, touches = [], []
    width = gap.range[0][1] - gap.range[0][0]
    cells = [(grid, 0)]
    while cells:
        at, depth = cells.pop()
        h = gap(at)
        if depth == 0:
            h[0], h[-1] = np.abs(h[0]), -np.abs(h[-1])  # h points inwards at both ends of the range
        h = np.where(h == 0, np.finfo(float).tiny, h)
        cross = np.flatnonzero(np.sign(h[:-1]) != np.sign(h[1:]))
        if depth == 0 or len(cross):
            brackets += [(at[k], at[k + 1]) for k in cross]
        if depth and len(cross):
            continue
        size = np.abs(h)
        dip = np.flatnonzero((size[1:-1] <= size[:-2]) & (size[1:-1] <= size[2:])) + 1
        same = [k for k in dip if np.sign(h[k - 1]) == np.sign(h[k]) == np.sign(h[k + 1])]
        for k in same:
            if depth < ZOOMS:
                cells.append((np.linspace(at[k - 1], at[k + 1], ZOOM), depth + 1))
            elif size[k] < 1e-12 * width:
                touches.append(float(at[k]))
    return np.array(brackets).reshape(-1, 2), touches


def _same(one: Equilibrium, other: Equilibrium) -> bool:
    return all(np.abs(a - b).max() < 1e-9 for a, b in zip(one.strategies, other.strategies, strict=True))
