"""How `--risk` spells the measures."""

import math
from collections.abc import Callable

from rqe_mappo.functional.risk.distortion import CPW, CVaR, DualPower, Gini, Power, Wang
from rqe_mappo.functional.risk.entropic import Entropic
from rqe_mappo.functional.risk.expectile import Expectile
from rqe_mappo.functional.risk.measure import OneNumber, RiskMeasure
from rqe_mappo.functional.risk.moments import MeanStd, MeanVariance, Neutral
from rqe_mappo.functional.risk.reported import VaR, WorstCase

PLAIN: dict[str, Callable[[float, float | None], RiskMeasure]] = {
    "neutral": lambda tau, clip: Neutral(),
    "entropic": Entropic,
    "mean-variance": lambda tau, clip: MeanVariance(tau),
    "worst-case": lambda tau, clip: WorstCase(),
}
NUMBERED: dict[str, type[OneNumber]] = {
    family.form.kind: family for family in (MeanStd, CVaR, VaR, Wang, CPW, DualPower, Power, Gini, Expectile)
}
GRAMMAR = " | ".join([*PLAIN, *(family.form.spelling for family in NUMBERED.values())])


def parse_risk(text: str, tau: float, clip: float | None = 3.0) -> RiskMeasure:
    """The measure that `--risk` names, by `GRAMMAR`.

    `tau` counts for entropic and mean-variance, `clip` for entropic. Raises ValueError with one line for the user.
    """
    if text in PLAIN:
        return PLAIN[text](tau, clip)
    kind, colon, digits = text.partition(":")
    if kind not in NUMBERED:
        raise ValueError(f"--risk {text} is unknown: use {GRAMMAR}, for example --risk cvar:0.1")
    family = NUMBERED[kind]
    if family.form.optional and not colon:
        return family()
    try:
        number = float(digits)
    except ValueError:
        number = math.nan
    if not family.form.takes(number):
        raise family.form.refusal(text)
    return family.of(number)
