"""Risk measures of a categorical return: the value `rho(Z)` and the influence function `psi(x; Z)`.

Higher is better. `tau` is a tolerance in units of return: large is neutral, small is averse. All other parameters are
free of units.

The influence function is the slope of the value when a little probability moves to x,
`psi(x; mu) = d/de rho((1 - e) mu + e delta_x)` at e = 0. It has mean zero under mu, and `<psi, q>` is, for a target
law q, an estimate of what the action did for `rho`, linear in q and hence unbiased (see docs/risk.md).
"""

from rqe_mappo.functional.risk.distortion import CPW, OUTERMOST, CVaR, Distortion, DualPower, Gini, Power, Wang
from rqe_mappo.functional.risk.entropic import SHIFTED_UPTO, Entropic
from rqe_mappo.functional.risk.expectile import Expectile
from rqe_mappo.functional.risk.grammar import GRAMMAR, parse_risk
from rqe_mappo.functional.risk.measure import Atoms, Form, OneNumber, RiskMeasure, Rows, RowsOfAtoms
from rqe_mappo.functional.risk.moments import MeanStd, MeanVariance, Neutral
from rqe_mappo.functional.risk.reported import NEGLIGIBLE, VaR, WorstCase

__all__ = [
    "CPW",
    "GRAMMAR",
    "NEGLIGIBLE",
    "OUTERMOST",
    "SHIFTED_UPTO",
    "Atoms",
    "CVaR",
    "Distortion",
    "DualPower",
    "Entropic",
    "Expectile",
    "Form",
    "Gini",
    "MeanStd",
    "MeanVariance",
    "Neutral",
    "OneNumber",
    "Power",
    "RiskMeasure",
    "Rows",
    "RowsOfAtoms",
    "VaR",
    "Wang",
    "WorstCase",
    "parse_risk",
]
