"""How often 95 % intervals hold the truth: `python -m benchmarks.coverage` writes results/coverage.csv (an hour).

2000 data sets for each case and size, drawn from distributions whose value is known (or taken from four million draws).
`--sets 200` is a quick look, `--only CVaR5` one statistic, whose rows replace the earlier ones.

coverage, missed_low, missed_high: shares of data sets whose interval holds the truth, lies above it, lies below it.
unseen: the share of data sets in which a rare event that matters does not occur; no interval can know of it then.
"""

import argparse
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import tables
from rqe_mappo.statistics import (
    SHARE,
    Estimate,
    Statistic,
    compare,
    cvar,
    interval,
    iqm_interval,
    mean,
    mean_interval,
    over_runs,
    p95,
    rate,
    ratio,
    seed_interval,
    std,
)

RESULT = tables.RESULTS / "coverage.csv"
DRAWS = 4_000_000  # behind a value that no formula gives
VEHICLES = 4
RESAMPLES = 250  # of each interval; an evaluation draws 2000, whose ends waver less
Rng = np.random.Generator
Returns = Callable[[Rng, int], np.ndarray]


def normal(rng: Rng, n: int) -> np.ndarray:
    """Normal returns."""
    return rng.normal(size=n)


def crashes(rng: Rng, n: int, share: float) -> np.ndarray:
    """Normal returns about -10, std 2, of which a share lies 30 lower."""
    return rng.normal(-10, 2, n) - 30 * (rng.random(n) < share)


def cartpole(rng: Rng, n: int) -> np.ndarray:
    """Two fifths fall, most of them early; the others come close to the largest return, 700, or have it."""
    fell = rng.random(n) < 0.4
    return np.minimum(np.where(fell, 20 + rng.exponential(150, n), rng.normal(650, 60, n)), 700)


def exponential(rng: Rng, n: int) -> np.ndarray:
    """An exponential lower tail."""
    return -rng.exponential(size=n)


def ties(rng: Rng, n: int) -> np.ndarray:
    """Few different returns: whole numbers, half of them 0."""
    return -np.floor(rng.exponential(1.5, n))


def heavy(rng: Rng, n: int) -> np.ndarray:
    """A lower tail of Student's t with four degrees of freedom."""
    return rng.standard_t(4, n)


def vehicles(rng: Rng, n: int) -> np.ndarray:
    """Four vehicles an episode `[n, 4]` with something in common; in every twelfth two of them crash."""
    shared = rng.normal(-10, 1.5, (n, 1)) + rng.normal(0, 2, (n, VEHICLES))
    return shared - 30 * crashed(rng, n, 1 / 12, 2)


def crashed(rng: Rng, n: int, share: float, hit: int) -> np.ndarray:
    """Which of four vehicles crash `[n, 4]`: in a `share` of the episodes `hit` of them, any of them alike."""
    order = rng.random((n, VEHICLES)).argsort(1)
    return (order < hit) & (rng.random((n, 1)) < share)


@dataclass(frozen=True)
class Case:
    """A row of the table: `draw` gives a data set's interval, `truth` is the value that it should hold, or gives it."""

    statistic: str
    case: str
    episodes: int
    runs: int
    draw: Callable[[Rng], Estimate]
    truth: float | Callable[[], float]
    unseen: float = 0.0


ALL = (normal, functools.partial(crashes, share=0.03), functools.partial(crashes, share=0.01), cartpole, exponential,
       ties, heavy, vehicles)  # fmt: skip
NAMES = ("normal", "3 % crashes", "1 % crashes", "CartPole", "exponential", "ties", "Student's t", "4 vehicles")
BRIEF = ("1 % crashes", "exponential", "ties", "Student's t", "4 vehicles")  # not in a thousand episodes
RARE = {"3 % crashes": 0.03, "1 % crashes": 0.01, "4 vehicles": 1 / 12}
SIZES: dict[str, tuple[Statistic, tuple[int, ...]]] = {
    "mean": (mean, (10, 20, 50, 100, 400)),
    "std": (std, (100, 400)),
    "95th percentile": (p95, (100,)),
    "CVaR5": (cvar, (100, 200, 400, 1000)),
}


@functools.cache
def _of_many(value: Statistic, returns: Returns, draws: int) -> float:
    return float(value(returns(np.random.default_rng(0), draws).ravel()))


def of_returns() -> Iterator[Case]:
    """One run: statistics of its returns."""
    for name, returns in zip(NAMES, ALL, strict=True):
        draws = DRAWS // (VEHICLES if name == "4 vehicles" else 1)
        for statistic, (value, sizes) in SIZES.items():
            truth = functools.partial(_of_many, value, returns, draws)
            for n in (n for n in sizes if n < 1000 or name not in BRIEF):
                yield Case(
                    statistic, name, n, 1,
                    lambda rng, value=value, draw=returns, n=n: _of(value, draw(rng, n), int(rng.integers(2**31))),
                    truth, 0.0 if statistic == "95th percentile" else (1 - RARE.get(name, 1.0)) ** n,
                )  # fmt: skip


def _of(value: Statistic, samples: np.ndarray, seed: int) -> Estimate:
    if value is mean:
        return mean_interval(samples, seed=seed, resamples=RESAMPLES)
    return interval(value, samples, seed=seed, resamples=RESAMPLES)


def of_incidents() -> Iterator[Case]:
    """One run: shares and frequencies of incidents."""
    for n in (10, 50, 100, 1000):
        for share in (0.0, 0.0005, 0.0031, 0.02, 0.3, 0.95, 1.0):
            yield Case("rate", f"{share:g}", n, 1, lambda rng, n=n, p=share: rate(rng.random(n) < p), share)
        for share in (0.003, 0.03, 0.3):
            for hit in (1, 2, 4):
                yield Case(
                    "rate of vehicles", f"{share:g} of episodes, {hit} of 4", n, 1,
                    lambda rng, n=n, p=share, hit=hit: rate(crashed(rng, n, p, hit)), share * hit / VEHICLES,
                )  # fmt: skip
                yield Case(
                    "rate of vehicles", f"{share:g} of episodes, {hit} of 4, half of them there", n, 1,
                    lambda rng, n=n, p=share, hit=hit: _some_there(rng, n, p, hit), share * hit / VEHICLES,
                )  # fmt: skip
                yield Case(
                    "ratio", f"{share:g} of episodes, {hit} of 4", n, 1,
                    lambda rng, n=n, p=share, hit=hit: ratio(
                        crashed(rng, n, p, hit), rng.gamma(4, 25, (n, VEHICLES))
                    ), share * hit / VEHICLES / 100,
                )  # fmt: skip


def _some_there(rng: Rng, n: int, share: float, hit: int) -> Estimate:
    there = rng.random((n, VEHICLES)) < 0.5
    there[:, 0] |= ~there.any(1)
    # every vehicle crashes with the same probability, whoever else is there
    return rate(crashed(rng, n, share, hit) & there, there)


def over_seeds() -> Iterator[Case]:
    """Several runs; `spread` is the std between them in standard errors of one run's episodes."""
    tail = functools.partial(_of_many, cvar, ALL[1], DRAWS)
    for runs in (3, 5):
        for spread in (0.0, 1.0, 3.0):
            case = f"spread {spread:g}"
            yield Case("mean over runs", case, 100, runs, lambda rng, k=runs, s=spread: over_runs([
                mean_interval(rng.normal(s * rng.normal() / 10, 1, n), seed=1, resamples=RESAMPLES)
                for n in _lengths(rng, k)
            ]), 0.0)  # fmt: skip
            yield Case("CVaR5 over runs", f"3 % crashes, {case}", 100, runs, lambda rng, k=runs, s=spread: over_runs([
                interval(cvar, crashes(rng, n, 0.03) + 5 * s * rng.normal(), seed=1, resamples=RESAMPLES)
                for n in _lengths(rng, k)
            ]), tail)  # fmt: skip
    for runs in (2, 3, 5):
        for share in (0.0005, 0.003, 0.05):
            for spread in (0.0, 0.5, 1.0, 1.7):
                yield Case(
                    "rate over runs", f"{share:g}, std between runs {spread:g} of it", 1000, runs,
                    lambda rng, k=runs, p=share, s=spread: over_runs([
                        rate(rng.random(1000) < p * (rng.gamma(1 / s**2, s**2) if s else 1.0)) for _ in range(k)
                    ], SHARE), share,
                )  # fmt: skip
    for runs in (3, 4, 5, 10, 20):
        yield Case("t-interval of runs", "normal", 1, runs, lambda rng, k=runs: seed_interval(rng.normal(size=k)), 0.0)
        yield Case("interquartile mean", "normal", 1, runs, lambda rng, k=runs: iqm_interval(rng.normal(size=k)), 0.0)
        for ahead in (0.0, 1.0, 3.0):
            yield Case(
                "improvement", f"ahead by {ahead:g} std", 1, runs,
                lambda rng, k=runs, d=ahead: compare(rng.normal(d, 1, k), rng.normal(size=k)).improvement,
                0.5 * (1 + math.erf(ahead / 2)),
            )  # fmt: skip


def over_uneven_seeds() -> Iterator[Case]:
    """Runs whose values are skewed, or of which some fail altogether."""
    of_runs: dict[str, tuple[Returns, float]] = {
        "exponential": (exponential, -1.0),
        "one in five fails": (lambda rng, n: -(rng.random(n) < 0.2).astype(float), -0.2),
    }
    for case, (values, truth) in of_runs.items():
        for runs in (2, 3, 5, 8):
            yield Case(
                "t-interval of uneven runs",
                case,
                1,
                runs,
                lambda rng, k=runs, v=values: seed_interval(v(rng, k)),
                truth,
            )


def _lengths(rng: Rng, runs: int) -> np.ndarray:
    """Unequal numbers of episodes, from the fewest that CVaR5 takes to twice as many."""
    return rng.integers(100, 201, runs)


def measured(case: Case, sets: int) -> dict[str, Any]:
    """A row of the table."""
    rng, began = np.random.default_rng(1), time.perf_counter()
    found = [case.draw(rng) for _ in range(sets)]
    low, high = (np.array([getattr(each, end) for each in found]) for end in ("low", "high"))
    truth = case.truth() if callable(case.truth) else case.truth
    rounding = 1e-12 * (1 + abs(truth))
    above, below = float(np.mean(low > truth + rounding)), float(np.mean(high < truth - rounding))
    row = {
        "statistic": case.statistic, "case": case.case, "episodes": case.episodes, "runs": case.runs, "sets": sets,
        "truth": truth, "coverage": 1 - above - below, "missed_low": above, "missed_high": below,
        "width": float(np.median(high - low)), "unseen": case.unseen,
    }  # fmt: skip
    print(*(f"{value:.4g}" if isinstance(value, float) else value for value in row.values()),
          f"{time.perf_counter() - began:.0f} s", sep="  ", flush=True)  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=2000, help="data sets for each case")
    parser.add_argument("--only", nargs="+", help="statistics by name, such as CVaR5; the rows of others are kept")
    args = parser.parse_args()
    cases = [*of_incidents(), *over_seeds(), *over_uneven_seeds(), *of_returns()]
    names = list(dict.fromkeys(case.statistic for case in cases))
    if unknown := set(args.only or ()) - set(names):
        parser.error(f"--only {sorted(unknown)[0]}: there are {', '.join(names)}")
    asked = args.only or names
    rows = [measured(case, args.sets) for case in cases if case.statistic in asked]
    kept = [row for row in tables.read(RESULT) if row["statistic"] not in asked]
    tables.write(RESULT, sorted([*kept, *rows], key=lambda row: names.index(row["statistic"])))


if __name__ == "__main__":
    main()
