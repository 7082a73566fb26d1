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

GAMES = {game.name: game for game in (*HUMAN, STAG_HUNT, FREE_RIDER)}
