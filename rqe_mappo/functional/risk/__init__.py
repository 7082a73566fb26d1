"""Risk measures of a return distribution: the value `rho(Z)` and the influence function `psi(x; Z)`.

Higher is better. `tau` is a tolerance in units of return: large is neutral, small is averse. All other parameters have
no unit. Atoms are `[N]`, shared by all rows, or `[*batch, N]`, as the values of a quantile critic are.

The influence function is the slope of the value when a little probability moves to x,
`psi(x; mu) = d/de rho((1 - e) mu + e delta_x)` at e = 0. Its mean under mu is zero. For a target distribution q,
`<psi, q>` estimates how much the action improved `rho`; it is linear in q and hence unbiased (see docs/risk.md).
"""

from rqe_mappo.functional.risk.distortion import CPW, OUTERMOST, CVaR, Distortion, DualPower, Gini, Power, Wang
from rqe_mappo.functional.risk.entropic import SHIFTED_UPTO, Entropic
from rqe_mappo.functional.risk.expectile import Expectile
from rqe_mappo.functional.risk.grammar import GRAMMAR, parse_risk
from rqe_mappo.functional.risk.measure import Atoms, Form, OneNumber, RiskMeasure, Rows, RowsOfAtoms, quantile_weights
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
    "quantile_weights",
]
