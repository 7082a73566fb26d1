"""Payoff tables of the named games."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MatrixGame:
    """An n-player game in normal form.

    payoffs: `[n, A_1, ..., A_n]`, what each joint action pays to each player; higher is better.
    actions: the actions' names, one tuple a player.
    source: where the numbers come from.
    """

    name: str
    payoffs: np.ndarray
    actions: tuple[tuple[str, ...], ...]
    source: str

    @property
    def n_players(self) -> int:
        return len(self.payoffs)

    @property
    def outcomes(self) -> np.ndarray:
        """What may be paid, `[n, A_1, ..., A_n, 1]`: one outcome of each joint action."""
        return self.payoffs[..., None]

    @property
    def prob(self) -> np.ndarray:
        """The outcomes' probabilities, `[A_1, ..., A_n, 1]`."""
        return np.ones(self.outcomes.shape[1:])


@dataclass(frozen=True)
class RandomGame:
    """An n-player game in normal form of which the payoffs are drawn when all have acted.

    outcomes: `[n, A_1, ..., A_n, K]`, what each of K outcomes of a joint action pays to each player.
    prob: `[A_1, ..., A_n, K]`, the outcomes' probabilities.
    """

    name: str
    outcomes: np.ndarray
    prob: np.ndarray
    actions: tuple[tuple[str, ...], ...]
    source: str

    @property
    def n_players(self) -> int:
        return len(self.outcomes)

    @property
    def payoffs(self) -> np.ndarray:
        """Mean payoffs, `[n, A_1, ..., A_n]`."""
        return (self.outcomes * self.prob).sum(-1)


def _human(name: str, source: str, *cells: tuple[float, float]) -> MatrixGame:
    """A 2x2 game from its cells UL, UR, DL, DR, each (row player, column player)."""
    payoffs = np.array(cells, dtype=float).reshape(2, 2, 2).transpose(2, 0, 1)
    return MatrixGame(name, payoffs, (("U", "D"), ("L", "R")), source)


GHP = "Goeree, Holt & Palfrey, Risk averse behavior in generalized matching pennies games, 2003, game 4"
SC = "Selten & Chmura, Stationary concepts for experimental 2x2-games, AER 98(3), 2008, game"

# Payoff in points; 'constant sum' holds for sc1 to sc6 (18, 13, 14, 11, 9, 8).
HUMAN = (
    _human("ghp4", GHP, (200, 160), (160, 10), (370, 200), (10, 370)),
    _human("sc1", f"{SC} 1", (10, 8), (0, 18), (9, 9), (10, 8)),
    _human("sc2", f"{SC} 2", (9, 4), (0, 13), (6, 7), (8, 5)),
    _human("sc3", f"{SC} 3", (8, 6), (0, 14), (7, 7), (10, 4)),
    _human("sc4", f"{SC} 4", (7, 4), (0, 11), (5, 6), (9, 2)),
    _human("sc5", f"{SC} 5", (7, 2), (0, 9), (4, 5), (8, 1)),
    _human("sc6", f"{SC} 6", (7, 1), (1, 7), (3, 5), (8, 0)),
    _human("sc7", f"{SC} 7", (10, 12), (4, 22), (9, 9), (14, 8)),
    _human("sc8", f"{SC} 8", (9, 7), (3, 16), (6, 7), (11, 5)),
    _human("sc9", f"{SC} 9", (8, 9), (3, 17), (7, 7), (13, 4)),
    _human("sc10", f"{SC} 10", (7, 6), (2, 13), (5, 6), (11, 2)),
    _human("sc11", f"{SC} 11", (7, 4), (2, 11), (4, 5), (10, 1)),
    _human("sc12", f"{SC} 12", (7, 3), (3, 9), (3, 5), (10, 0)),
)

STAG_HUNT = MatrixGame(
    "stag-hunt",
    np.array([[[4.0, 0.0], [3.0, 2.0]], [[4.0, 3.0], [0.0, 2.0]]]),
    (("stag", "hare"), ("stag", "hare")),
    "the textbook coordination game: the stag pays more, the hare is safe",
)

FREE_RIDER = MatrixGame(
    "free-rider",
    np.array([[[0.6, 0.6], [1.0, 0.0]], [[0.6, 1.0], [0.6, 0.0]]]),
    (("contribute", "shirk"), ("contribute", "shirk")),
    "Qu, Zhang, Lanzetti & Mazumdar, arXiv 2602.21515, Example 4.2: both gain 1 if anyone contributes, which costs 0.4",
)


def _common(name: str, source: str, *rows: tuple[float, ...]) -> MatrixGame:
    """A game of two players who are paid the same, from the rows of their table."""
    names = tuple("abc"[: len(rows)])
    return MatrixGame(name, np.array([rows, rows], dtype=float), (names, names), source)


# Two players who are paid the same. Whoever explores the best joint action alone is fined, so that the mean over what
# the other does hides it: relative overgeneralisation.
PENALTY = (
    _common("penalty-2x2", "the 3x3 game without its last row and column", (8, -12), (-12, 0)),
    _common("penalty-3x3", "Son et al., QTRAN, arXiv 1905.05408", (8, -12, -12), (-12, 0, 0), (-12, 0, 0)),
    _common("penalty-3x3-hard", "the same with a second best of 6", (8, -12, -12), (-12, 6, 0), (-12, 0, 6)),
)

GAMES = {game.name: game for game in (*HUMAN, STAG_HUNT, FREE_RIDER, *PENALTY)}

_BOTH_RISKY, _MISSED, _BOTH_SAFE = (10.0, -20.0), (0.0, 0.0), (5.0, 5.0)
_RISKY_SAFE = np.array([[_BOTH_SAFE, _MISSED], [_MISSED, _BOTH_RISKY]])

RISKY_SAFE = RandomGame(
    "risky-safe",
    np.stack([_RISKY_SAFE, _RISKY_SAFE]),
    np.broadcast_to([0.9, 0.1], _RISKY_SAFE.shape),
    (("safe", "risky"), ("safe", "risky")),
    "ours: both safe pays 5, both risky 10 or -20 at 9 to 1, anything else 0",
)

RANDOM_GAMES = {RISKY_SAFE.name: RISKY_SAFE}
"""Games that rqe-solve does not take: it judges what the others do, not what is drawn."""
