"""Estimates and their intervals: what a table may say about returns and incidents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 5_000
BATCH = 250  # resamples held in memory at a time
Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and the number of independent samples behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def cvar(samples: np.ndarray, level: float = 0.05) -> float:
    """Mean of the worst `level` share of `samples`, the one on the boundary counted with its fraction."""
    if not 0 < level <= 1:
        raise ValueError(f"the level of CVaR must lie in (0, 1] (got {level:g})")
    ordered = np.sort(_checked(samples))
    share = level * len(ordered)
    weights = np.clip(share - np.arange(len(ordered)), 0, 1)
    return float(weights @ ordered / share)


def entropic(samples: np.ndarray, tau: float) -> float:
    """The entropic value `-tau log mean exp(-x / tau)` of `samples`."""
    samples = _checked(samples)
    if math.isinf(tau):
        return float(samples.mean())
    lowest = samples.min()
    return float(lowest - tau * np.log(np.mean(np.exp(-(samples - lowest) / tau))))


def iqm(samples: np.ndarray) -> float:
    """Mean of the middle half of `samples` (Agarwal et al., 'Deep RL at the Edge of the Precipice', 2021)."""
    from scipy.stats import trim_mean

    return float(trim_mean(_checked(samples), 0.25))


def interval(statistic: Callable, *data: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """`statistic(*data)` with its 95 % percentile bootstrap interval, drawing rows of `data` together.

    A row is one episode: agents that shared it are not independent, so they are drawn together. The interval is nan
    for a single row.
    """
    from scipy.stats import bootstrap

    rows = len(_checked(data[0]))
    value = float(statistic(*data))
    if rows == 1:
        return Estimate(value, math.nan, math.nan, 1)

    def of_rows(index: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.apply_along_axis(lambda drawn: statistic(*(each[drawn] for each in data)), axis, index)

    found = bootstrap(
        (np.arange(rows),), of_rows, n_resamples=resamples, batch=BATCH, vectorized=True, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Estimate(value, float(found.confidence_interval.low), float(found.confidence_interval.high), rows)


def seed_interval(values: Sequence[float]) -> Estimate:
    """Mean over runs with different seeds, and its 95 % t-interval; nan for a single run."""
    from scipy.stats import t

    values = _checked(np.asarray(values, dtype=float))
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def _checked(samples: np.ndarray) -> np.ndarray:
    if len(samples) == 0:
        raise ValueError("no samples: a statistic needs at least one episode")
    return samples
