"""What people played in 13 games, and the parameters that Mazumdar, Panaganti & Shi fitted to it."""

from dataclasses import dataclass

from rqe_mappo.equilibrium.adversary import Penalty
from rqe_mappo.equilibrium.response import Regulariser


@dataclass(frozen=True)
class Fit:
    """tau (a tolerance: the inverse of the source's), eps, and the exact aggregate RQE as (P(U), P(L))."""

    tau: tuple[float, float]
    eps: tuple[float, float]
    rqe: tuple[float, float]


@dataclass(frozen=True)
class HumanGame:
    """observed and nash: (P(U), P(L)). fits: by (penalty, regulariser)."""

    observed: tuple[float, float]
    nash: tuple[float, float]
    fits: dict[tuple[Penalty, Regulariser], Fit]


BARRIER: tuple[Penalty, Regulariser] = ("kl", "log-barrier")
ENTROPY: tuple[Penalty, Regulariser] = ("reverse-kl", "entropy")

# Per game: observed; Nash; then for each pair eps, tau of the source (an aversion, so ours is 1 / tau), exact RQE.
# Parameters: arXiv 2406.14156 and its authors' code. Frequencies: Goeree, Holt & Palfrey 2003; Selten & Chmura 2008.
# Four parameters fit two numbers, so a close fit shows what the model can express, not that it predicts.
_TABLE = {
    "ghp4": ((.470, .650), (.531, .469), (170, 110), (.001, .06), (.468, .654), (110, 355), (.001, .1), (.446, .597)),
    "sc1": ((.079, .690), (.091, .909), (.21, .555), (.1, 100), (.081, .692), (1.2, .9), (1.15, 1), (.097, .682)),
    "sc2": ((.217, .527), (.182, .727), (.68, 10), (.08, 2), (.214, .525), (.5, 15), (.9, 1), (.131, .526)),
    "sc3": ((.163, .793), (.273, .909), (.216, .837), (.1, 56), (.164, .794), (.85, 2.2), (.2, 2.8), (.188, .766)),
    "sc4": ((.286, .736), (.364, .818), (.35, 1.64), (.1, 30), (.288, .737), (.4, 2.9), (.4, 2.2), (.290, .731)),
    "sc5": ((.327, .664), (.364, .727), (.38, 2.7), (.1, 10), (.328, .665), (.3, 3.5), (.5, 2), (.325, .663)),
    "sc6": ((.445, .596), (.455, .636), (.92, 3.8), (.1, 6), (.460, .610), (.9, 6), (1, 2.2), (.445, .593)),
    "sc7": ((.141, .564), (.091, .909), (.49, 1.88), (.1, 11), (.142, .565), (1.15, 3.5), (.2, 2.8), (.132, .566)),
    "sc8": ((.250, .586), (.182, .727), (.36, 2.8), (.1, 10), (.250, .587), (.5, 6), (.2, 2.5), (.243, .574)),
    "sc9": ((.254, .827), (.273, .909), (.179, .65), (.1, 90), (.260, .828), (.75, 2), (.067, 10), (.266, .812)),
    "sc10": ((.366, .699), (.364, .818), (.1, 2.11), (.3, 20), (.366, .699), (.7, 4.1), (.35, 1), (.376, .676)),
    "sc11": ((.331, .652), (.364, .727), (.172, 2.97), (.1, 25), (.333, .653), (.88, 6.4), (.11, 1.7), (.353, .628)),
    "sc12": ((.439, .604), (.455, .636), (.23, 5.74), (.04, 19), (.434, .604), (.3, 12), (.1, 3), (.468, .590)),
}  # fmt: skip


def _fit(eps: tuple[float, float], aversion: tuple[float, float], rqe: tuple[float, float]) -> Fit:
    return Fit((1 / aversion[0], 1 / aversion[1]), eps, rqe)


HUMAN_GAMES = {
    name: HumanGame(row[0], row[1], {BARRIER: _fit(*row[2:5]), ENTROPY: _fit(*row[5:8])})
    for name, row in _TABLE.items()
}
