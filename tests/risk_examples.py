"""Risk measures, distributions and a support that the tests of risk share."""

import dataclasses
import math
from pathlib import Path

import torch

from rqe_mappo.functional.risk import (
    CPW,
    CVaR,
    DualPower,
    Entropic,
    Expectile,
    Gini,
    MeanStd,
    MeanVariance,
    Neutral,
    Power,
    VaR,
    Wang,
    WorstCase,
)

INF = math.inf
WIDE = torch.linspace(-10, 100, 51)

# The lottery {-2: 1/4, 1: 1/4, 4: 1/2}: mean 1.75, variance 6.1875.
Z = torch.tensor([-2.0, 1.0, 4.0])
LOTTERY = torch.tensor([0.25, 0.25, 0.5]).log()
# The gamble {4, -2} at even odds, on a support of its own.
GAMBLE = torch.tensor([0.5, 0.0, 0.5]).log()

# One number, free of units.
NUMBERED = [
    CVaR(0.3),
    MeanStd(0.7),
    MeanStd(-0.4),
    Wang(0.75),
    Wang(-0.5),
    CPW(),
    DualPower(2.5),
    DualPower(0.6),
    Power(1.5),
    Power(0.4),
    Gini(0.5),
    Gini(-1),
    Expectile(0.1),
    Expectile(0.8),
]
MEASURES = [Neutral(), *map(Entropic, (0.8, 3.0, INF)), Entropic(0.8, None), MeanVariance(2.0), *NUMBERED]
UNCLIPPED = [Neutral(), *(Entropic(tau, None) for tau in (1.0, 6.0, 1e6)), MeanVariance(2.0), *NUMBERED]
REPORTED = [VaR(0.3), WorstCase()]


def random_logits(*shape, seed=0, dtype=torch.float64):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def named(measure):
    return "-".join(str(value) for value in (measure.name, *dataclasses.astuple(measure)))


def documented_family():
    """The measure that `docs/adding-a-risk-measure.md` works out."""
    page = (Path(__file__).parent.parent / "docs/adding-a-risk-measure.md").read_text(encoding="utf-8")
    namespace = {"__name__": "semideviation"}
    exec(compile(page.split("```python\n")[1].split("```")[0], "adding-a-risk-measure.md", "exec"), namespace)
    return namespace["Semideviation"]
