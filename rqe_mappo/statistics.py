"""Estimates of returns and incidents, with their intervals.

Whatever the statistic, an interval asks the same: which values would be likely if the episodes that were not seen held
one that is worse than all that were, or better? For a share of single samples this is Clopper and Pearson's interval.
What the intervals cover is measured by `python -m benchmarks.coverage`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 2_000  # ends move by 3 % of the interval between seeds
AT_ONCE = 2**21  # weights held in memory
FEWEST_FOR_MEAN = 10  # episodes behind an interval of a mean
FEWEST_FOR_TAIL = 100  # of anything else: of CVaR5 they leave five
TAIL = 0.05  # the share of samples from which `_beyond` sees how a tail falls off
REACH_FOR_MEAN, REACH_FOR_TAIL = 1.0, 3.0  # an exponential tail goes as far on average; further in 5 % of cases
Samples = Sequence[float] | np.ndarray
FREE, POSITIVE, SHARE = (-math.inf, math.inf), (0.0, math.inf), (0.0, 1.0)  # which values are possible


class Statistic(Protocol):
    """A number of `samples` `[N]`, or, with `weights` `[R, N]` of any sum, one for each of their rows: `[R]`.

    Samples that have weights are in ascending order.
    """

    def __call__(self, samples: np.ndarray, *, weights: np.ndarray | None = None) -> float | np.ndarray: ...


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval (nan where too little stands behind it), and the number of independent samples."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean(samples: Samples, *, weights: np.ndarray | None = None) -> float | np.ndarray:
    """The mean, as a `Statistic`."""
    samples = _checked(samples)
    return float(samples.mean()) if weights is None else weights @ samples / weights.sum(-1)


def std(samples: Samples, *, weights: np.ndarray | None = None) -> float | np.ndarray:
    """The standard deviation, as a `Statistic`."""
    samples = _checked(samples)
    if weights is None:
        return float(samples.std())
    centred = samples - samples.mean()  # or the difference of squares would be lost where the mean is large
    total = weights.sum(-1)
    return np.sqrt(np.maximum(weights @ centred**2 / total - (weights @ centred / total) ** 2, 0.0))


def p95(samples: Samples, *, weights: np.ndarray | None = None) -> float | np.ndarray:
    """The 95th percentile, as a `Statistic`."""
    samples = _checked(samples)
    if weights is None:
        return float(np.percentile(samples, 95))
    below = np.cumsum(weights, axis=-1)
    return samples[(below < 0.95 * below[..., -1:]).sum(-1)]


def cvar(samples: Samples, level: float = TAIL, *, weights: np.ndarray | None = None) -> float | np.ndarray:
    """Mean of the worst `level` share of `samples`, the one on the boundary counted with its fraction; a `Statistic`.

    With N sorted samples, `(x_1 + ... + x_k + (level N - k) x_{k+1}) / (level N)` where `k = floor(level N)`; the mean
    at level 1, the minimum at levels up to 1/N.
    """
    if not 0 < level <= 1:
        raise ValueError(f"the level of CVaR must lie in (0, 1] (got {level:g})")
    samples = _checked(samples)
    if weights is None:
        share = level * len(samples)
        return float(np.clip(share - np.arange(len(samples)), 0, 1) @ np.sort(samples) / share)
    share = level * weights.sum(-1)
    part = min(len(samples), math.ceil(2 * level * len(samples)) + 20)  # nearly always holds the worst share
    reached = np.cumsum(weights[..., :part], axis=-1)
    if (reached[..., -1] < share).any():
        part, reached = len(samples), np.cumsum(weights, axis=-1)
    last = samples[part - 1]
    # by parts: the sum of x_k times what is reached at k and not at k - 1
    return last - np.minimum(reached, share[..., None]) @ np.diff(samples[:part], append=last) / share


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


def of_samples(
    value: Callable[[Tensor, Tensor], Tensor], samples: Samples, *, weights: np.ndarray | None = None
) -> float | np.ndarray:
    """A risk measure's `value` of the samples' own distribution: exact, where a critic's atoms would widen it."""
    atoms = torch.from_numpy(np.sort(_checked(samples)))
    if weights is None:
        return float(value(atoms, torch.full_like(atoms, -math.log(len(atoms)))))
    return value(atoms, torch.from_numpy(weights / weights.sum(-1, keepdims=True)).log()).numpy()


def iqm(samples: Samples, axis: int = -1) -> float | np.ndarray:
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
    fewest: float = FEWEST_FOR_TAIL,
    reach: float = REACH_FOR_TAIL,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """`statistic` of all samples, with a 95 % interval over their rows that allows for what was not seen.

    samples: `[F]` or `[F, A]`. A row is an episode: agents that shared it are not independent, so whole rows are drawn.
    counted: which samples count, of the same shape (default: all); rows without any are left out, also from `n`.
    fewest: rows below which there is no interval (nan).
    reach: how much worse, or better, than all seen a further row may be, in mean excesses of the tail (`_beyond`).

    Rows get random weights, as in the Bayesian bootstrap (Rubin, 1981). The interval's ends are the outermost of the
    2.5 % and 97.5 % points for the rows seen, for these and one more that is worse than all, and for these and one
    more that is better. With the worst and the best possible value in that place it is the interval of Gaffke
    (2005; Learned-Miller and Thomas, 2019) for a mean, and for a share that of Clopper and Pearson.
    Where all samples are equal it is a point: nothing tells how far another could lie. Raises ValueError if nothing
    counts.
    """
    values, row_of, rows = _by_row(samples, counted)
    value = float(statistic(values))
    if rows < max(fewest, 2):
        return Estimate(value, math.nan, math.nan, rows)
    order = np.argsort(values)
    values, row_of = values[order], np.concatenate(([rows], row_of[order], [rows]))
    worst, best = _beyond(values, reach)
    values = np.concatenate(([worst], values, [best]))
    widest = np.bincount(row_of[1:-1]).max()
    seen, worse, better = slice(1, -1), slice(None, -1), slice(1, None)
    rng = np.random.default_rng(seed)
    found: list[list[np.ndarray]] = []
    for size in _blocks(resamples, len(values)):
        drawn = rng.standard_exponential((size, rows + 1))
        drawn[:, -1] *= widest
        weights = drawn[:, row_of]
        found.append([np.asarray(statistic(values[part], weights=weights[:, part])) for part in (seen, worse, better)])
    low, high = np.percentile(np.concatenate(found, axis=1), [2.5, 97.5], axis=1)
    return Estimate(value, float(min(value, *low)), float(max(value, *high)), rows)


def mean_interval(
    samples: np.ndarray, counted: np.ndarray | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """The mean with its `interval`, which takes fewer rows than that of a tail, and depends less on one of them."""
    return interval(
        mean, samples, counted, fewest=FEWEST_FOR_MEAN, reach=REACH_FOR_MEAN, seed=seed, resamples=resamples
    )


def rate(flags: np.ndarray, counted: np.ndarray | None = None) -> Estimate:
    """The share of `flags` (or of what lies between 0 and 1) that are set, with Clopper and Pearson's interval.

    flags, counted: as the samples of `interval`; an agent's episode is a sample, the episode the independent unit.

    With one agent a row it is exact: 0 to `1 - 0.025^(1/n)` if none is set (0.0037 at n = 1000). The ends are 2.5 %
    and 97.5 % points of Beta distributions: the upper one's has the mean of the samples and one more row of which all
    are set, and its variance between rows; so agents that share an incident count less, yet a row never for more than
    its agents one by one. (The sum of incidents, where these are rare, is Fay and Feuer's, 1997, weighted Poisson.)
    The lower end is the same of what is not set. Below FEWEST_FOR_TAIL rows nobody knows how alike agents are: then
    a row counts as one sample, so that an incident more never brings an end closer to 0.
    """
    values, row_of, rows = _by_row(flags, counted)
    exposure, events = np.bincount(row_of), np.bincount(row_of, values)
    low, high = 1 - _highest_share(exposure - events, exposure), _highest_share(events, exposure)
    return Estimate(float(values.mean()), low, high, rows)


def ratio(events: np.ndarray, exposure: np.ndarray) -> Estimate:
    """Events per unit of exposure, `sum(events) / sum(exposure)`, with Garwood's interval of a Poisson count.

    events, exposure: `[F]`, or `[F, A]` where agents share an episode.

    With no more than one event a row it is exact: 0 to 3.7 events in all if there are none. Otherwise the ends are
    points of Gamma distributions that have the mean and the variance between rows, no less than Poisson's, of what was
    seen: for the upper one with a further row as full of events as can be (Fay and Feuer, 1997). Below FEWEST_FOR_TAIL
    rows nobody knows how alike agents are, and all events of a row count as one.
    """
    from scipy.special import gammaincinv

    events, exposure = _checked(events), _checked(exposure)
    if not exposure.sum() > 0:
        raise ValueError("a ratio needs some exposure")
    most = max(1.0, events.max()) * math.prod(events.shape[1:])
    rows, units = (each.reshape(len(each), -1).sum(1) for each in (events, exposure))
    total, whole = rows.sum(), float(units.sum())
    alone = total * (most if len(rows) < FEWEST_FOR_TAIL else 1.0)
    variance = max(((rows - total / whole * units) ** 2).sum(), alone)

    def end(share: float, mean: float, variance: float) -> float:
        return float(gammaincinv(mean**2 / variance, share) * variance / mean) / whole

    low = end(0.025, total, variance) if total else 0.0
    return Estimate(float(total / whole), low, end(0.975, total + most, variance + most**2), len(rows))


def seed_interval(values: Samples) -> Estimate:
    """Mean over runs with different seeds, and its 95 % t-interval; nan for a single run.

    For the handful of runs that one can afford: a bootstrap of three values has only ten different means and is far too
    narrow, while `mean +- t_{n-1} s / sqrt(n)` has its nominal coverage where runs are roughly normal (t = 4.3 at
    n = 3).
    """
    from scipy.stats import t

    runs = _checked(values)
    n, centre = len(runs), float(runs.mean())
    if n == 1:
        return Estimate(centre, math.nan, math.nan, 1)
    half = float(t.ppf(0.975, n - 1) * runs.std(ddof=1) / math.sqrt(n))
    return Estimate(centre, centre - half, centre + half, n)


@dataclass(frozen=True)
class AmongRuns:
    """What runs bring with themselves and with each other, on average over runs and pairs, and the difference."""

    with_themselves: float
    with_each_other: Estimate
    gap: Estimate


def among_runs(matrix: np.ndarray) -> AmongRuns:
    """Of `matrix` `[n, n]`, run by run, its diagonal and the rest, with 95 % intervals; nan below three runs.

    Pairs that share a run are not independent. The runs are drawn anew, with replacement, each draw with all pairs of
    different runs in it, and the intervals are some times the spread over draws: the vertex bootstrap of Snijders and
    Borgatti, 'Non-parametric standard errors and tests for network statistics' (1999), but that it has no pairs of a
    run with its copy. Of the difference it is `t_{n-1} sqrt(n / (n - 1))` times; in means of pairs draws spread less,
    as `w` copies of a run have the weight `w (n - w)`, and it is `t_{n-1} / (n s)` times, `s` the spread of that weight
    in the whole: exact where each run has an effect and pairs have none. It covers where runs, pairs or both have
    effects, and from six runs on also where pairs get on, or do not, by a habit that they share, for which leaving out
    a run at a time gives hardly any width; of three runs with one of two habits it then covers 77 %, of four 87 %.
    """
    from scipy.stats import t

    values = np.asarray(matrix, dtype=float)
    n, own = len(values), values.diagonal()

    def means(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of draws `[B, n]`, how often each run is in them."""
        pairs = drawn.sum(-1) ** 2 - (drawn**2).sum(-1)
        apart = ((drawn @ values) * drawn).sum(-1) - drawn**2 @ own
        return drawn @ own / n, apart / pairs

    nobody = math.nan, math.nan
    if n < 2:
        return AmongRuns(float(own.mean()), Estimate(math.nan, *nobody, n), Estimate(math.nan, *nobody, n))
    with_self, with_others = (float(found[0]) for found in means(np.ones((1, n))))
    gap = with_self - with_others
    if n < 3:
        return AmongRuns(with_self, Estimate(with_others, *nobody, n), Estimate(gap, *nobody, n))
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    drawn = drawn[(drawn > 0).sum(-1) > 1]
    selves, others = means(drawn)
    in_pairs = drawn * (n - drawn)
    weight = in_pairs / in_pairs.sum(-1, keepdims=True)
    quantile = t.ppf(0.975, n - 1)
    apart = float(quantile / (n * weight.std()) * others.std())
    lost = float(quantile * math.sqrt(n / (n - 1)) * (selves - others).std())
    return AmongRuns(
        with_self,
        Estimate(with_others, with_others - apart, with_others + apart, n),
        Estimate(gap, gap - lost, gap + lost, n),
    )


def over_runs(runs: Sequence[Estimate], bounds: tuple[float, float] = FREE) -> Estimate:
    """The mean over runs, each with its interval over episodes, and a 95 % interval; nan for a single run.

    bounds: the possible values: any, those above 0, or those from 0 to 1.

    The ends are the outermost of three: `seed_interval`, cut to the bounds; the same of the mean's logarithm or logit,
    where it has bounds, since a few runs may be far above the others and hardly below them; and what runs that differ
    by nothing but their episodes would give, `sqrt(sum d_i^2) / n`, `d_i` the distances of the runs' ends from their
    values, since a few runs may agree by chance, and those without any incident always do.
    """
    found = seed_interval([run.value for run in runs])
    if found.n == 1:
        return found
    below, above = (
        math.sqrt(np.nansum([(getattr(run, end) - run.value) ** 2 for run in runs])) / found.n
        for end in ("low", "high")
    )
    low, high = _stretched(found, bounds)
    low, high = min(low, found.low, found.value - below), max(high, found.high, found.value + above)
    return replace(found, low=max(low, bounds[0]), high=min(high, bounds[1]))


def _stretched(mean: Estimate, bounds: tuple[float, float]) -> tuple[float, float]:
    """The ends of a t-interval on the scale on which a value with bounds has none, by the delta method."""
    if bounds == FREE or not bounds[0] < mean.value < bounds[1]:
        return mean.low, mean.high
    if bounds == POSITIVE:
        factor = math.exp(min((mean.high - mean.value) / mean.value, 700))
        return mean.value / factor, mean.value * factor
    odds, rest = mean.value / (1 - mean.value), mean.value * (1 - mean.value)
    factor = math.exp(min((mean.high - mean.value) / rest, 300))
    return odds / (odds + factor), odds / (odds + 1 / factor)


def iqm_interval(values: Samples) -> Estimate:
    """Interquartile mean over runs, and its 95 % t-interval of a trimmed mean; nan for a single run.

    `iqm +- t_{h-1} sqrt(SSD_w / (h (h - 1)))`, `h` the runs that stay and `SSD_w` the squared deviations of the runs
    with the others moved to the nearest of these (Yuen, 1974); below four runs it is `seed_interval`. A bootstrap of
    ten runs covers some 90 %.
    """
    from scipy.stats import t

    runs = np.sort(_checked(values))
    n, cut, middle = len(runs), len(runs) // 4, float(iqm(runs))
    if n == 1:
        return Estimate(middle, math.nan, math.nan, 1)
    stay = n - 2 * cut
    deviations = runs.clip(runs[cut], runs[-cut - 1]).var() * n
    half = float(t.ppf(0.975, stay - 1)) * math.sqrt(deviations / (stay * (stay - 1)))
    return Estimate(middle, middle - half, middle + half, n)


@dataclass(frozen=True)
class Comparison:
    """Runs of ours against theirs; `n` of both estimates is the number of pairs of runs.

    difference: the mean of ours less theirs, pair by pair, with a t-interval.
    improvement: the probability that a run of ours beats a run of theirs.
    """

    difference: Estimate
    improvement: Estimate


def compare(ours: Samples, theirs: Samples) -> Comparison:
    """Compare runs in pairs, `ours[i]` with `theirs[i]` (the same seed), larger being better.

    The probability of improvement is Mann and Whitney's, over all pairs `(i, j)`, ties counting half (Agarwal et al.,
    2021). Its interval is Clopper and Pearson's of a share of the n seeds (from 0.48 where one side wins five of five
    times): pairs tell more than seeds, but never less (Birnbaum and Klose, 1957).
    """
    mine, other = _checked(ours), _checked(theirs)
    if mine.shape != other.shape:
        raise ValueError(f"runs are compared in pairs: give as many of both (got {len(mine)} and {len(other)})")
    wins = (np.sign(mine[:, None] - other) + 1) / 2
    improvement = rate(wins)
    if len(mine) == 1:
        improvement = replace(improvement, low=math.nan, high=math.nan)
    return Comparison(seed_interval(mine - other), improvement)


def _highest_share(events: np.ndarray, exposure: np.ndarray) -> float:
    """The upper end of `rate`, from the events and the agents of each row `[F]`."""
    from scipy.special import betaincinv

    if events.sum() == exposure.sum():
        return 1.0
    rows, most = len(events), exposure.max()
    events, exposure = np.append(events, most), np.append(exposure, most)
    share = events.sum() / exposure.sum()
    alike = ((events - share * exposure) ** 2).sum() / exposure.sum() / (share * (1 - share))  # the design effect
    independent = exposure.sum() / (most if rows < FEWEST_FOR_TAIL else max(alike, 1.0))
    return float(betaincinv(share * independent, (1 - share) * independent, 0.975))


def _beyond(ordered: np.ndarray, reach: float) -> tuple[float, float]:
    """A value below all of the `ordered` samples `[N]`, and one above: by `reach` times the mean excess of the tail."""
    tail = max(math.ceil(TAIL * len(ordered)), min(5, len(ordered) // 2))
    below, above = ordered[tail] - ordered[:tail].mean(), ordered[-tail:].mean() - ordered[-tail - 1]
    return ordered[0] - reach * below, ordered[-1] + reach * above


def _by_row(samples: np.ndarray, counted: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, int]:
    """The samples that count `[N]`, which row each is from, and how many rows there are."""
    samples = np.asarray(samples, dtype=float)
    counted = np.ones(samples.shape, bool) if counted is None else np.asarray(counted, dtype=bool)
    if counted.shape != samples.shape:
        raise ValueError(f"samples and counted must have the same shape (got {samples.shape} and {counted.shape})")
    values = _checked(samples[counted])
    used, row_of = np.unique(np.nonzero(counted)[0], return_inverse=True)
    return values, row_of, len(used)


def _blocks(count: int, width: int) -> list[int]:
    """`count` in parts that leave `AT_ONCE` numbers of `width` columns in memory."""
    part = max(1, AT_ONCE // width)
    return [min(part, count - done) for done in range(0, count, part)]


def _checked(samples: Samples) -> np.ndarray:
    samples = np.asarray(samples, dtype=float)
    if len(samples) == 0:
        raise ValueError("no samples: a statistic needs at least one episode")
    return samples
