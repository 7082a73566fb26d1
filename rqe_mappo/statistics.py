"""Estimates of returns and incidents, with their intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 5_000
RUN_RESAMPLES = 20_000  # over runs, which is cheap; at 2,000 the ends still moved by 3 % of the interval
WITHIN_RUN = 1_000  # resamples of each run's episodes, from which `over_runs` draws
DRAWN_AT_ONCE = 2**20  # row numbers held in memory
Samples = Sequence[float] | np.ndarray
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


def cvar(samples: Samples, level: float = 0.05) -> float:
    """Mean of the worst `level` share of `samples`, the one on the boundary counted with its fraction.

    With N sorted samples, `(x_1 + ... + x_k + (level N - k) x_{k+1}) / (level N)` where `k = floor(level N)`; the mean
    at level 1, the minimum at levels up to 1/N.
    """
    if not 0 < level <= 1:
        raise ValueError(f"the level of CVaR must lie in (0, 1] (got {level:g})")
    ordered = np.sort(_checked(samples))
    share = level * len(ordered)
    weights = np.clip(share - np.arange(len(ordered)), 0, 1)
    return float(weights @ ordered / share)


def entropic(samples: Samples, tau: float) -> float:
    """The entropic value `-tau log mean exp(-x / tau)` of `samples`: the mean at `tau = inf`, the minimum near 0."""
    if not tau > 0:
        raise ValueError(f"tau must be > 0 (got {tau:g}); use inf for the mean")
    samples = _checked(samples)
    if math.isinf(tau):
        return float(samples.mean())
    lowest = samples.min()
    # expm1 and log1p: for a large tau the exponents are small, and their sum would drown in the 1 of exp
    return float(lowest - tau * np.log1p(np.mean(np.expm1(-(samples - lowest) / tau))))


def of_samples(value: Callable[[Tensor, Tensor], Tensor], samples: Samples) -> float:
    """A risk measure's `value` of the samples' own distribution: exact, where a critic's atoms would widen it."""
    atoms = torch.from_numpy(np.sort(_checked(samples)))
    return float(value(atoms, torch.full_like(atoms, -math.log(len(atoms)))))


def iqm(samples: np.ndarray, axis: int = -1) -> float | np.ndarray:
    """Mean of the middle half of `samples` along `axis` (Agarwal et al., 'Deep RL at the Edge of the Precipice', 2021).

    A quarter is cut off each end, rounded down to whole samples: of 5 the middle 3 stay, of 3 all.
    """
    from scipy.stats import trim_mean

    return trim_mean(_checked(samples), 0.25, axis=axis)


def interval(
    statistic: Statistic,
    samples: np.ndarray,
    counted: np.ndarray | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """`statistic` of all samples, with its 95 % percentile bootstrap interval over their rows.

    samples: `[F]` or `[F, A]`. A row is an episode: agents that shared it are not independent, so whole rows are drawn.
    counted: which samples count, of the same shape (default: all); rows without any are left out, also from `n`.
    The interval is nan for a single row, and a point where all samples are equal.
    Raises ValueError if nothing counts.
    """
    from scipy.stats import bootstrap

    samples = np.asarray(samples)
    counted = np.ones(samples.shape, bool) if counted is None else np.asarray(counted, dtype=bool)
    if counted.shape != samples.shape:
        raise ValueError(f"samples and counted must have the same shape (got {samples.shape} and {counted.shape})")
    used = counted.any(axis=tuple(range(1, counted.ndim)))
    samples, counted = samples[used], counted[used]
    rows = len(_checked(samples))
    value = float(statistic(samples[counted]))
    if rows == 1:
        return Estimate(value, math.nan, math.nan, 1)

    def of_rows(index: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.apply_along_axis(lambda drawn: statistic(samples[drawn][counted[drawn]]), axis, index)

    found = bootstrap(
        (np.arange(rows),), of_rows, n_resamples=resamples, batch=max(1, DRAWN_AT_ONCE // rows), vectorized=True,
        method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Estimate(value, float(found.confidence_interval.low), float(found.confidence_interval.high), rows)


def rate(flags: np.ndarray, counted: np.ndarray | None = None, *, seed: int = 0) -> Estimate:
    """The share of `flags` that are set, with an interval as in `interval`.

    Where all are alike, resampling shows no variation, yet none among n episodes does not prove never: then the
    interval is Clopper and Pearson's over rows, 0 to `1 - 0.025^(1/n)` (0.0037 at n = 1000), or its mirror image at 1.
    Several agents to a row only make it cautious.
    """
    found = interval(np.mean, flags, counted, seed=seed)
    unseen = 1 - 0.025 ** (1 / found.n)
    if found.value == 0:
        return Estimate(0.0, 0.0, unseen, found.n)
    if found.value == 1:
        return Estimate(1.0, 1 - unseen, 1.0, found.n)
    return found


def ratio(events: np.ndarray, exposure: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Events per unit of exposure, `sum(events) / sum(exposure)`, both `[F]`, with an interval as in `interval`.

    Without any event resampling shows no variation: then the interval ends where a Poisson count of 0 would become
    unlikely, at `-ln(0.025)` events (3.7) in all.
    """
    from scipy.stats import bootstrap

    events, exposure = _checked(events), _checked(exposure)
    if not exposure.sum() > 0:
        raise ValueError("a ratio needs some exposure")
    value = float(events.sum() / exposure.sum())
    if not events.any():
        return Estimate(0.0, 0.0, -math.log(0.025) / float(exposure.sum()), len(events))
    if len(events) == 1:
        return Estimate(value, math.nan, math.nan, 1)

    def of_rows(events: np.ndarray, exposure: np.ndarray, axis: int = -1) -> np.ndarray:
        return events.sum(axis) / exposure.sum(axis)

    found = bootstrap(
        (events, exposure), of_rows, paired=True, n_resamples=resamples, batch=max(1, DRAWN_AT_ONCE // len(events)),
        vectorized=True, method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Estimate(value, float(found.confidence_interval.low), float(found.confidence_interval.high), len(events))


def seed_interval(values: Samples) -> Estimate:
    """Mean over runs with different seeds, and its 95 % t-interval; nan for a single run.

    For the handful of runs that one can afford: a bootstrap of three values has only ten different means and is far too
    narrow, while `mean +- t_{n-1} s / sqrt(n)` has its nominal coverage where runs are roughly normal (t = 4.3 at
    n = 3).
    """
    from scipy.stats import t

    runs = _checked(values)
    n, mean = len(runs), float(runs.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    half = float(t.ppf(0.975, n - 1) * runs.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def stratified(
    statistic: Callable[..., float | np.ndarray],
    strata: Sequence[Samples],
    *,
    seed: int = 0,
    resamples: int = RUN_RESAMPLES,
) -> Estimate:
    """`statistic` of the runs of all strata together, with its 95 % stratified percentile bootstrap interval.

    statistic: takes samples `[..., n]` and `axis`, as `iqm` and `np.mean` do.
    strata: the runs of each task or scenario; each is resampled by itself, so that no task is lost from a resample
        (Agarwal et al., 2021). `n` is the number of runs. The interval is nan where a stratum holds a single run.
    """
    from scipy.stats import bootstrap

    samples = [_checked(values) for values in strata]
    value, n = float(statistic(np.concatenate(samples), axis=-1)), sum(map(len, samples))
    if min(map(len, samples)) == 1:
        return Estimate(value, math.nan, math.nan, n)
    found = bootstrap(
        samples, lambda *drawn, axis: statistic(np.concatenate(drawn, axis), axis=axis), n_resamples=resamples,
        vectorized=True, method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Estimate(value, float(found.confidence_interval.low), float(found.confidence_interval.high), n)


def over_runs(
    statistic: Statistic, runs: Sequence[np.ndarray], *, seed: int = 0, resamples: int = RUN_RESAMPLES
) -> Estimate:
    """The mean over runs of `statistic` of each run's episodes, with a 95 % interval over runs and their episodes.

    runs: `[F]` or `[F, A]` of each run, nan where an agent took no part. A resample draws runs, then whole episodes of
        each run drawn. Noise of episodes counts twice, once within runs and once between them: the interval is
        cautious where runs have few episodes. `n` is the number of runs; the interval is nan for a single one.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(samples[~np.isnan(samples)]) for samples in map(_checked, runs)]
    n, mean = len(runs), float(np.mean(_checked(values)))
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    within = np.empty((n, WITHIN_RUN))
    for row, samples in zip(within, map(_checked, runs), strict=True):
        for resample in range(WITHIN_RUN):
            drawn = samples[rng.integers(len(samples), size=len(samples))]
            row[resample] = statistic(drawn[~np.isnan(drawn)])
    means = within[rng.integers(n, size=(resamples, n)), rng.integers(WITHIN_RUN, size=(resamples, n))].mean(1)
    return Estimate(mean, *map(float, np.percentile(means, [2.5, 97.5])), n)


@dataclass(frozen=True)
class Comparison:
    """Runs of ours against theirs; `n` of both estimates is the number of pairs of runs.

    difference: the mean of ours less theirs, pair by pair, with a t-interval.
    improvement: the probability that a run of ours beats a run of theirs.
    """

    difference: Estimate
    improvement: Estimate


def compare(ours: Samples, theirs: Samples, *, seed: int = 0, resamples: int = RUN_RESAMPLES) -> Comparison:
    """Compare runs in pairs, `ours[i]` with `theirs[i]` (the same seed), larger being better.

    The probability of improvement is Mann and Whitney's, over all pairs `(i, j)`, ties counting half (Agarwal et al.,
    2021); its bootstrap draws seeds, that is whole pairs. Where one side wins always, resampling shows no variation:
    then the interval is Clopper and Pearson's over the n seeds, as in `rate` (from 0.48 at n = 5).
    """
    mine, other = _checked(ours), _checked(theirs)
    if mine.shape != other.shape:
        raise ValueError(f"runs are compared in pairs: give as many of both (got {len(mine)} and {len(other)})")
    n, wins = len(mine), (np.sign(mine[:, None] - other) + 1) / 2
    value, unseen = float(wins.mean()), 1 - 0.025 ** (1 / n)
    if n == 1:
        low, high = math.nan, math.nan
    elif value in (0, 1):
        low, high = (0.0, unseen) if value == 0 else (1 - unseen, 1.0)
    else:
        drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
        low, high = map(float, np.percentile(wins[drawn[:, :, None], drawn[:, None]].mean((1, 2)), [2.5, 97.5]))
    return Comparison(seed_interval(mine - other), Estimate(value, low, high, n))


def _checked(samples: Samples) -> np.ndarray:
    samples = np.asarray(samples, dtype=float)
    if len(samples) == 0:
        raise ValueError("no samples: a statistic needs at least one episode")
    return samples
