"""The equilibrium conditions as equations, in the players' values or in their adversaries' probabilities.

Both start at level 0, where eps is infinite and strategies are uniform, and reach the game's own eps at level `goal`.
"""

from typing import TYPE_CHECKING

import numpy as np

from rqe_mappo.equilibrium.adversary import adversary
from rqe_mappo.equilibrium.curve import Curve
from rqe_mappo.equilibrium.response import respond, respond_jacobian, values_for

if TYPE_CHECKING:
    from rqe_mappo.equilibrium.game import RiskGame

FLOOR = 1e-13  # below it the opponents' probabilities make turns that are too sharp to follow


class ValueSystem(Curve):
    """x_i = s g_i(x) / eps_i with s = level / goal: values x_i in units of eps, pi_i = respond(x_i), g_i = dU_i/dpi_i.

    Values are centred, since a constant changes no choice.
    """

    def __init__(self, problem: "RiskGame"):
        self.problem = problem
        sizes = problem.payoffs.shape[1:]
        self.cuts, self.size = np.cumsum(sizes)[:-1], sum(sizes)
        self.goal = _goal(problem)

    def origin(self) -> np.ndarray:
        return np.zeros(self.size)

    def place(self, logs: list[np.ndarray]) -> np.ndarray:
        """The point whose strategies are `logs`, or nearly so where a probability is tiny."""
        inner = [np.maximum(log_pi, np.log(1e-12)) for log_pi in logs]
        return np.concatenate([values_for(log_pi, self.problem.regulariser) for log_pi in inner])

    def logs(self, point: np.ndarray) -> list[np.ndarray]:
        """log-probabilities of each player."""
        return [respond(part, self.problem.regulariser) for part in np.split(point, self.cuts)]

    def equations(self, point: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.steps += 1
        game, share = self.problem, level / self.goal
        logs = self.logs(point)
        jacobians = [respond_jacobian(log_pi, game.regulariser) for log_pi in logs]
        values, rows = [], []
        for i, log_pi in enumerate(logs):
            value, worst = game.marginal_values(i, log_pi, game.opponents(logs, i))
            own, others = game.own_jacobian(i, worst) * np.exp(log_pi), game.opponents_jacobian(i, worst)
            slopes = [own if j == i else others @ game.part(i, j) for j in range(len(logs))]
            block = np.hstack([slope @ jacobian for slope, jacobian in zip(slopes, jacobians, strict=True)])
            values.append((value - value.mean()) / game.eps[i])
            rows.append((block - block.mean(0)) / game.eps[i])
        drive = np.concatenate(values)
        return point - share * drive, np.eye(self.size) - share * np.vstack(rows), -drive / self.goal


class AdversarySystem(Curve):
    """p_i (1 + (u_i - p_i u_i) / tau_i) = q_i for each reverse-KL adversary p_i of the aggregate form.

    u_i = R_i' pi_i, pi_i = respond(s R_i p_i / eps_i), q_i the opponents' probabilities, s = level / goal.
    Products where `ValueSystem` divides: u_i decides how p_i is shared among actions that the opponents hardly ever
    take, and it does so on the scale of their probability, far below rounding; here p_i is unknown itself.

    `log_q` asks for player `i`'s best response to these probabilities alone. floor: the least q_i taken (see FLOOR).
    """

    def __init__(self, problem: "RiskGame", i: int | None = None, log_q: np.ndarray | None = None):
        self.problem, self.log_q = problem, log_q
        self.players = list(range(problem.n_players)) if i is None else [i]
        self.cuts = np.cumsum([problem.tables[i].shape[1] for i in self.players])[:-1]
        self.goal = _goal(problem)
        self.floor = FLOOR

    def origin(self) -> np.ndarray:
        game, probs = self.problem, []
        uniform = [np.full(size, -np.log(size)) for size in game.payoffs.shape[1:]]
        for i in self.players:
            q = np.exp(game.opponents(uniform, i) if self.log_q is None else self.log_q)
            payoff = game.tables[i].mean(0)
            probs.append(adversary(payoff, np.log(np.maximum(q, self.floor)), game.tau[i], "reverse-kl").probs)
        return np.concatenate(probs)

    def logs(self, point: np.ndarray, level: float | None = None) -> list[np.ndarray]:
        """log-probabilities of each player."""
        share = 1.0 if level is None else level / self.goal
        pieces = zip(self.players, np.split(point, self.cuts), strict=True)
        game = self.problem
        return [respond(share / game.eps[i] * (game.tables[i] @ p), game.regulariser) for i, p in pieces]

    def find(self, limits: tuple[float, float]) -> np.ndarray:
        """The point at the end of the curve, where the floor is taken away."""
        self.floor = FLOOR
        point = self.follow(*limits)
        self.floor = 0.0
        return self.newton(point)

    def equations(self, point: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.steps += 1
        game, probs, logs = self.problem, np.split(point, self.cuts), self.logs(point, level)
        scale = [1 / (self.goal * game.eps[i]) for i in self.players]
        jacobians = [respond_jacobian(log_pi, game.regulariser) for log_pi in logs]
        by_probs = [level * c * (s @ game.tables[i]) for i, c, s in zip(self.players, scale, jacobians, strict=True)]
        by_level = [
            c * (s @ (game.tables[i] @ p)) for i, c, s, p in zip(self.players, scale, jacobians, probs, strict=True)
        ]
        errors, rows, pulls = [], [], []
        self.inside = bool((point > 0).all())
        for k, (i, p) in enumerate(zip(self.players, probs, strict=True)):
            tau, pi = game.tau[i], np.exp(logs[k])
            u = pi @ game.tables[i]
            log_q = game.opponents(logs, i) if self.log_q is None else self.log_q
            q = np.maximum(np.exp(log_q), self.floor)
            price = 1 + (u - p @ u) / tau
            self.inside &= bool((price > 0).all())
            shift = (np.diag(p) - np.outer(p, p)) / tau @ (game.tables[i].T * pi)
            row = [np.zeros((len(p), len(other))) for other in probs]
            row[k] = np.diag(price) - np.outer(p, u) / tau + shift @ by_probs[k]
            pull = shift @ by_level[k]
            if self.log_q is None:
                for j in self.players:
                    if j != i:
                        share = np.where(q > self.floor, q, 0.0)[:, None] * game.part(i, j)
                        row[j] = -share @ by_probs[j]
                        pull = pull - share @ by_level[j]
            errors.append(p * price - q)
            rows.append(np.hstack(row))
            pulls.append(pull)
        return np.concatenate(errors), np.vstack(rows), np.concatenate(pulls)


def _goal(problem: "RiskGame") -> float:
    """The largest range of values in units of eps, so that values move about as fast as the level."""
    return float(max(np.max(problem.payoff_range / problem.eps), 1e-12))
