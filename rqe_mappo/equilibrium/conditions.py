"""When theory promises that an equilibrium can be computed, and that there is only one."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rqe_mappo.equilibrium.adversary import Penalty
from rqe_mappo.equilibrium.game import Form, PerPlayer, per_player
from rqe_mappo.equilibrium.response import Regulariser

UNCOVERED = ("kl", "entropy")


def xi_star(tau: float, penalty: Penalty, regulariser: Regulariser) -> float:
    """The least xi for which tau D(p, .) - xi nu is concave for every p (Mazumdar et al., arXiv 2406.14156, Theorem 3).

    tau for kl with log-barrier and for reverse-kl with entropy; at most tau for reverse-kl with log-barrier, whose
    regulariser curves more than entropy does. Infinite for kl with entropy: tau p / pi^2 <= xi / pi fails as pi -> 0.
    """
    return np.inf if (penalty, regulariser) == UNCOVERED else float(tau)


def tractability_margin(tau: PerPlayer, eps: PerPlayer) -> float:
    """min over pairs of players of 16 eps_i eps_j / (tau_i tau_j); 0 where a tau is inf.

    Above 1, a two-player game of a covered pair is monotone (Zhang & Mazumdar, arXiv 2602.12386, Theorem 3.1); at 16
    the older condition eps_1 eps_2 >= tau_1 tau_2 begins. A diagnostic for other pairs and for more players.
    """
    n = max(np.size(tau), np.size(eps), 2)
    taus, weights = per_player("tau", tau, n), per_player("eps", eps, n)
    return float(min(16 * weights[i] * weights[j] / (taus[i] * taus[j]) for i, j in combinations(range(n), 2)))


def monotonicity_margin(tau: PerPlayer, eps: PerPlayer) -> float:
    """1 / (spectral radius of M)^2, M_ji = (n - 1) tau_i / (4 eps_j), i != j; above 1 the 2n-player game is monotone.

    For the covered pairs of the aggregate form. The same 16 eps_1 eps_2 / (tau_1 tau_2) for two players. For more, one
    adversary's curvature has to pay for n - 1 opponents, and each player faces n - 1 adversaries; weights of the
    players that make up for both exist iff the radius is below 1.
    """
    n = max(np.size(tau), np.size(eps), 2)
    taus, weights = per_player("tau", tau, n), per_player("eps", eps, n)
    if np.isinf(taus).any():
        return 0.0
    matrix = (n - 1) * taus[None, :] / (4 * weights[:, None]) * (1 - np.eye(n))
    return float(1 / np.abs(np.linalg.eigvals(matrix)).max() ** 2)


@dataclass(frozen=True)
class Condition:
    """What theory says about a game's risk and rationality, whatever its payoffs.

    covered: the theorems speak of this penalty, regulariser and form. unique: `monotonicity_margin` above 1, so there
    is one equilibrium. tractable: two players with eps_1 eps_2 >= tau_1 tau_2, so no-regret play finds it.
    margin: `tractability_margin`. words: the same as a sentence.
    """

    covered: bool
    tractable: bool
    unique: bool
    margin: float
    words: str


def condition(
    tau: PerPlayer, eps: PerPlayer, form: Form = "aggregate", penalty: Penalty = "kl",
    regulariser: Regulariser = "log-barrier",
) -> Condition:  # fmt: skip
    """Checks the conditions of tractability and of uniqueness."""
    n = max(np.size(tau), np.size(eps), 2)
    margin = tractability_margin(tau, eps)
    pair = f"{penalty} with {regulariser}"
    if (penalty, regulariser) == UNCOVERED:
        why = f"{pair} is not covered: xi* is infinite, so no eps, however large, meets the theorem's condition"
    elif form == "action":
        why = f"{pair} is covered in the aggregate form alone"
    else:
        why = ""
    if why:
        return Condition(False, False, False, margin, f"{why} (for information, {_label(n)} = {margin:.3g})")
    together = monotonicity_margin(tau, eps)
    unique, tractable = together > 1, n == 2 and margin >= 16
    if tractable:
        verdict = "at least 16: there is one equilibrium and no-regret play finds it"
    elif unique:
        verdict = "above 1: there is one equilibrium and gradient play finds it"
    else:
        verdict = "not above 1: nothing is guaranteed"
    known = f"{_label(n)} = {margin:.3g}"
    if n > 2:
        known += f", which decides nothing for {n} players; for all together it is {together:.3g}"
    return Condition(True, tractable, unique, margin, f"{pair} is covered; {known}, {verdict}")


def _label(n: int) -> str:
    return "16 eps_1 eps_2 / (tau_1 tau_2)" if n == 2 else "min 16 eps_i eps_j / (tau_i tau_j)"
