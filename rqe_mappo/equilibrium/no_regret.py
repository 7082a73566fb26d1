"""The algorithm of the theory: n players and their n adversaries, each of them learning without regret."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from rqe_mappo.equilibrium.adversary import Penalty, adversary
from rqe_mappo.equilibrium.game import Game, PerPlayer, RiskGame
from rqe_mappo.equilibrium.response import Regulariser, cost, respond


@dataclass(frozen=True)
class NoRegretPlay:
    """average, last: strategies `[A_i]` of each player. regret: `[2, n]` a round, players above adversaries."""

    average: tuple[np.ndarray, ...]
    last: tuple[np.ndarray, ...]
    regret: np.ndarray


def no_regret_play(
    game: Game, tau: PerPlayer, eps: PerPlayer, *, penalty: Penalty = "reverse-kl",
    regulariser: Regulariser = "entropy", rounds: int = 10_000, step: float | None = None,
) -> NoRegretPlay:  # fmt: skip
    """Simultaneous mirror descent of the 2n-player game of the aggregate form, from uniform strategies.

    Player i gains pi_i' R_i p_i - eps_i nu(pi_i); its adversary pays pi_i' R_i p_i + tau_i D(p_i, pi_-i). Each moves
    its running mean of what it saw by a share of what it sees now and answers that mean in closed form. The share is
    1 / t by default (mirror descent with steps 1 / (eps t), which is follow the leader): losses curve strongly, so
    average regret falls like log t / t, and the *time averages* approach an equilibrium where `conditions.condition`
    reports `tractable` (arXiv 2406.14156, Theorem 3). With a constant `step` it is gradient play, whose *last*
    strategies converge where the game is monotone and the step small (`unique`); regret may then not vanish.
    """
    problem = RiskGame.of(game, tau, eps, "aggregate", penalty, regulariser)
    if np.isinf(problem.tau).any():
        raise ValueError("tau must be finite: a risk-neutral player has no adversary")
    n, sizes = problem.n_players, problem.payoffs.shape[1:]
    players = [Learner(problem, i) for i in range(n)]
    logs = [np.full(size, -np.log(size)) for size in sizes]
    average = [np.zeros(size) for size in sizes]
    for t in range(1, rounds + 1):
        faced = [problem.opponents(logs, i) for i in range(n)]
        for i, learner in enumerate(players):
            learner.observe(logs[i], faced[i], 1 / t if step is None else step, t)
            average[i] += (np.exp(logs[i]) - average[i]) / t
        logs = [learner.answer() for learner in players]
    regret = np.array([learner.regret() for learner in players]).T
    return NoRegretPlay(tuple(average), tuple(np.exp(log_pi) for log_pi in logs), regret)


class Learner:
    """A player with its adversary: running means of what each faced, and of what each received."""

    def __init__(self, problem: RiskGame, i: int):
        self.game, self.i = problem, i
        actions, joint = problem.tables[i].shape
        self.log_p = np.full(joint, -np.log(joint))
        # one row a kind of mean: weighted by the step, and plain (for regret)
        self.values, self.payoffs = np.zeros((2, actions)), np.zeros((2, joint))
        self.q, self.log_q, self.q_log_q = np.zeros((2, joint)), np.zeros((2, joint)), np.zeros(2)
        self.received = np.zeros(2)

    def observe(self, log_pi: np.ndarray, log_q: np.ndarray, share: float, t: int) -> None:
        game, i = self.game, self.i
        pi, p, q = np.exp(log_pi), np.exp(self.log_p), np.exp(log_q)
        values, payoffs = game.tables[i] @ p, pi @ game.tables[i]
        shares = np.array([share if t > 1 else 1.0, 1 / t])
        seen = ((self.values, values), (self.payoffs, payoffs), (self.q, q), (self.log_q, log_q))
        for mean, now in seen:
            np.add(mean, shares[:, None] * (now - mean), out=mean)
        self.q_log_q += shares * (q @ log_q - self.q_log_q)
        gain = pi @ values - game.eps[i] * cost(log_pi, game.regulariser)
        price = p @ (self.log_p - log_q) if game.penalty == "kl" else q @ (log_q - self.log_p)
        loss = p @ payoffs + game.tau[i] * price
        self.received += (np.array([gain, loss]) - self.received) / t

    def answer(self) -> np.ndarray:
        """The player's next log-strategy; moves the adversary too."""
        self.log_p = self._leader(0)
        return respond(self.values[0] / self.game.eps[self.i], self.game.regulariser)

    def _leader(self, kind: int) -> np.ndarray:
        """log of the probabilities that minimise the mean loss <p, payoffs> + tau D."""
        tau = self.game.tau[self.i]
        if self.game.penalty == "kl":
            return log_softmax(self.log_q[kind] - self.payoffs[kind] / tau)
        return np.log(adversary(self.payoffs[kind], np.log(self.q[kind]), tau, "reverse-kl").probs)

    def regret(self) -> tuple[float, float]:
        """What the best fixed strategy would have added to each round's mean, for the player and the adversary."""
        game, i = self.game, self.i
        best = respond(self.values[1] / game.eps[i], game.regulariser)
        gain = np.exp(best) @ self.values[1] - game.eps[i] * cost(best, game.regulariser)
        log_p = self._leader(1)
        p = np.exp(log_p)
        price = p @ (log_p - self.log_q[1]) if game.penalty == "kl" else self.q_log_q[1] - self.q[1] @ log_p
        return float(gain - self.received[0]), float(self.received[1] - p @ self.payoffs[1] - game.tau[i] * price)
