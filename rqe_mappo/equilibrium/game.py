"""A game whose players are risk averse and boundedly rational: utilities, best responses, distance from equilibrium."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rqe_mappo.equilibrium.adversary import PENALTIES, Adversary, Penalty, adversary
from rqe_mappo.equilibrium.best_response import best_response
from rqe_mappo.equilibrium.response import REGULARISERS, Regulariser, cost

Form = Literal["action", "aggregate"]
FORMS: tuple[Form, ...] = ("action", "aggregate")
Strategies = Sequence[np.ndarray]
PerPlayer = float | Sequence[float] | np.ndarray
"""One number for all players, or one for each."""


class HasPayoffs(Protocol):
    """A game with payoffs `[n, A_1, ..., A_n]`."""

    @property
    def payoffs(self) -> np.ndarray: ...


Game = ArrayLike | HasPayoffs
EXTREME = 1e75  # of tau and eps, and 1 over it: products of four of them are still numbers
SMALLEST = 1e-12  # the least eps as a share of the payoffs' range: float64 resolves payoffs no finer


def per_player(name: str, value: PerPlayer, n: int) -> np.ndarray:
    """`value` as `[n]` numbers above 0, one for all players or one for each; only tau may be infinite."""
    numbers = np.asarray(value, dtype=float).ravel()
    tau = name.endswith("tau")
    if len(numbers) not in {1, n}:
        raise ValueError(f"{name} takes 1 number or {n}, one a player (got {len(numbers)})")
    for number in numbers:
        if not number > 0 or (np.isinf(number) and not tau):
            fix = "use inf for risk-neutral" if tau else "a small one such as 0.01 comes near perfect rationality"
            raise ValueError(f"{name} must be > 0{'' if tau else ' and finite'} (got {number:g}); {fix}")
        if not (1 / EXTREME <= number <= EXTREME or np.isinf(number)):
            inf = ", or be inf" if tau else ""
            raise ValueError(f"{name} must lie within {1 / EXTREME:g} and {EXTREME:g}{inf} (got {number:g})")
    return np.broadcast_to(numbers, n).copy()


@dataclass(frozen=True)
class RiskGame:
    """An n-player game in normal form, `payoffs[i, a_1, ..., a_n]` to maximise, with tau and eps of each player.

    Risk-adjusted utility of player i, for mixed strategies pi and the product q = pi_-i of the opponents' strategies:

        action      U_i = sum_a pi_i(a) inf_p { R_i(a, .) p + tau_i D(p, q) }      one adversary an action
        aggregate   U_i = inf_p { pi_i' R_i p + tau_i D(p, q) }                    one adversary, blind to the action

    with D = KL(p||q) (`kl`, the entropic risk) or KL(q||p) (`reverse-kl`). The objective is U_i - eps_i nu(pi_i), nu
    the negative entropy or the log barrier. By Jensen the aggregate utility is at least the action-dependent one.
    tau is a tolerance in units of payoff: inf is the mean (QRE), tau -> 0 security, eps -> 0 perfect rationality.
    The literature writes 1/tau for it. Mazumdar, Panaganti & Shi, arXiv 2406.14156, Equations 3 and 4, Definition 5.
    """

    payoffs: np.ndarray
    tau: np.ndarray
    eps: np.ndarray
    form: Form = "action"
    penalty: Penalty = "kl"
    regulariser: Regulariser = "entropy"

    @classmethod
    def of(
        cls, game: Game, tau: PerPlayer, eps: PerPlayer, form: Form = "action",
        penalty: Penalty = "kl", regulariser: Regulariser = "entropy",
    ) -> "RiskGame":  # fmt: skip
        """Checks its arguments; `game` is an array of payoffs or anything that has one as `.payoffs`."""
        payoffs = np.asarray(getattr(game, "payoffs", game), dtype=float)
        n = len(payoffs) if payoffs.ndim else 0
        if n < 1 or payoffs.ndim != n + 1 or payoffs.size == 0:
            raise ValueError(f"payoffs must be [n, A_1, ..., A_n] for n players (got shape {payoffs.shape})")
        if not np.isfinite(payoffs).all():
            raise ValueError("payoffs must be finite numbers")
        for name, value, known in (
            ("form", form, FORMS), ("penalty", penalty, PENALTIES), ("regulariser", regulariser, REGULARISERS)
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)} (got {value})")
        game = cls(payoffs, per_player("tau", tau, n), per_player("eps", eps, n), form, penalty, regulariser)
        if np.any(game.eps < SMALLEST * game.payoff_range):
            least, got = SMALLEST * game.payoff_range.max(), game.eps.min()
            raise ValueError(f"eps must be at least {least:.1g} for these payoffs, or rounding decides (got {got:g})")
        return game

    @property
    def n_players(self) -> int:
        return len(self.payoffs)

    @property
    def payoff_range(self) -> np.ndarray:
        """Largest less least payoff of each player, `[n]`."""
        return np.ptp(self.payoffs.reshape(len(self.payoffs), -1), axis=1)

    @cached_property
    def tables(self) -> tuple[np.ndarray, ...]:
        """`[A_i, M_i]` for each player: own action by the opponents' joint action."""
        return tuple(np.moveaxis(r, i, 0).reshape(r.shape[i], -1) for i, r in enumerate(self.payoffs))

    def logs(self, strategies: Strategies) -> list[np.ndarray]:
        """Log-probabilities of mixed strategies, checked against the game's sizes."""
        probs = [np.asarray(pi, dtype=float) for pi in strategies]
        sizes = self.payoffs.shape[1:]
        if [pi.shape for pi in probs] != [(size,) for size in sizes]:
            raise ValueError(f"strategies must have {sizes} actions (got {tuple(pi.shape for pi in probs)})")
        if not all(np.all(pi >= 0) and abs(pi.sum() - 1) < 1e-6 for pi in probs):
            raise ValueError("strategies must be probabilities that add to 1")
        with np.errstate(divide="ignore"):
            return [np.log(pi / pi.sum()) for pi in probs]

    def opponents(self, logs: Strategies, i: int) -> np.ndarray:
        """log-probabilities of the others' joint actions, `[M_i]`."""
        joint = np.zeros(1)
        for j, log_pi in enumerate(logs):
            if j != i:
                joint = np.add.outer(joint, log_pi).ravel()
        return joint

    def part(self, i: int, j: int) -> np.ndarray:
        """`[M_i, A_j]`, 1 where player i's opponents' joint action has player j choose the action."""
        return self._parts[i][j]

    @cached_property
    def _parts(self) -> list[list[np.ndarray]]:
        sizes = self.payoffs.shape[1:]
        choices = [np.indices(sizes[:i] + sizes[i + 1 :]).reshape(len(sizes) - 1, -1) for i in range(len(sizes))]
        return [
            [np.eye(sizes[j])[choices[i][j - (j > i)]] if j != i else np.zeros((0, 0)) for j in range(len(sizes))]
            for i in range(len(sizes))
        ]

    def marginal_values(self, i: int, log_pi: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, Adversary]:
        """Marginal values dU_i/dpi_i, `[..., A_i]`, and the adversary; log_pi `[..., A_i]`, log_q `[..., M]`."""
        table, tau = self.tables[i], self.tau[i]
        if self.form == "action":
            worst = adversary(table, log_q[..., None, :], tau, self.penalty)
            return worst.value, worst
        worst = adversary(np.exp(log_pi) @ table, log_q, tau, self.penalty)
        return worst.probs @ table.T, worst

    def utility(self, i: int, log_pi: np.ndarray, log_q: np.ndarray, regularised: bool = False) -> float:
        values, worst = self.marginal_values(i, log_pi, log_q)
        risk_adjusted = np.exp(log_pi) @ values if self.form == "action" else worst.value
        return float(risk_adjusted - self.eps[i] * cost(log_pi, self.regulariser) * regularised)

    def utilities(self, strategies: Strategies) -> np.ndarray:
        """Risk-adjusted utilities U_i, `[n]`, without the regulariser."""
        logs = self.logs(strategies)
        return np.array([self.utility(i, logs[i], self.opponents(logs, i)) for i in range(self.n_players)])

    def means(self, strategies: Strategies) -> np.ndarray:
        """Mean payoffs, `[n]`."""
        return self.means_at(self.logs(strategies))

    def means_at(self, logs: Strategies) -> np.ndarray:
        """`means` at log-probabilities."""
        return np.array([np.exp(x) @ self.tables[i] @ np.exp(self.opponents(logs, i)) for i, x in enumerate(logs)])

    def own_jacobian(self, i: int, worst: Adversary) -> np.ndarray:
        """d values / d pi_i, `[A_i, A_i]`: negative semidefinite, 0 in the action form."""
        table = self.tables[i]
        if self.form == "action":
            return np.zeros((len(table), len(table)))
        # relative to the heaviest column: the curvature may be huge where the weight is almost a point
        offset = table - table[:, [int(worst.weight.argmax())]]
        centre = offset @ worst.weight
        return -worst.curvature * ((offset * worst.weight) @ offset.T - np.outer(centre, centre))

    def opponents_jacobian(self, i: int, worst: Adversary) -> np.ndarray:
        """d values / d log q, `[A_i, M_i]`."""
        if self.form == "action":
            return worst.gradient
        table = self.tables[i]
        offset = table - table[:, [int(worst.weight.argmax())]]
        return (offset - (offset @ worst.weight)[:, None]) * worst.probs

    def respond_to(self, i: int, log_q: np.ndarray) -> np.ndarray:
        """log of player i's best response to opponents' log-probabilities, `[M_i]` -> `[A_i]`; see `best_response`."""
        return best_response(self, i, log_q)

    def best_response(self, strategies: Strategies, i: int) -> np.ndarray:
        """Player i's only maximiser of U_i - eps_i nu against the others' strategies, `[A_i]`."""
        return np.exp(self.respond_to(i, self.opponents(self.logs(strategies), i)))

    def distance(self, logs: Strategies) -> tuple[float, np.ndarray]:
        """Residual and exploitability at log-probabilities; nan where a best response is."""
        off, gains = np.zeros(self.n_players), np.zeros(self.n_players)
        for i, log_pi in enumerate(logs):
            log_q = self.opponents(logs, i)
            best = self.respond_to(i, log_q)
            off[i] = np.abs(np.exp(best) - np.exp(log_pi)).max()
            gains[i] = self.utility(i, best, log_q, True) - self.utility(i, log_pi, log_q, True)
        return float(off.max()), np.maximum(gains, 0.0)  # rounding alone can make a gain negative

    def residual(self, strategies: Strategies) -> float:
        """max_i ||pi_i - BR_i(pi_-i)||_inf: 0 at an equilibrium and nowhere else."""
        return self.distance(self.logs(strategies))[0]

    def exploitability(self, strategies: Strategies) -> np.ndarray:
        """What each player's best response would gain, in the regularised objective, `[n]`."""
        return self.distance(self.logs(strategies))[1]
