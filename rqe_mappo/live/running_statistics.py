"""Statistics of the episodes since the slider last moved, with intervals and the number of episodes behind them."""

import math
from typing import Any

import numpy as np

from rqe_mappo.statistics import FEWEST_FOR_TAIL, Estimate, cvar, interval, mean_interval, rate

RESAMPLES = 200  # of an interval that is drawn anew every second; its ends vary by some 10 %


class RunningStatistics:
    """Collects the records of episodes (`Step.episodes`) and computes the statistics that the page shows."""

    def __init__(self, unit: str):
        self.unit = unit
        self.parts: list[dict[str, np.ndarray]] = []

    def add(self, records: dict[str, np.ndarray]) -> None:
        """Count the episodes of one step."""
        self.parts.append({key: value for key, value in records.items() if key != "copy"})

    def clear(self) -> None:
        """Start counting again from zero."""
        self.parts.clear()

    def content(self) -> dict[str, Any]:
        """The number of episodes, and a row for each statistic: name, unit, value, low, high, n (episodes), note."""
        if not self.parts:
            return {"episodes": 0, "rows": []}
        if len(self.parts) > 1:
            self.parts = [{key: np.concatenate([part[key] for part in self.parts]) for key in self.parts[0]}]
        records = self.parts[0]
        took_part = records["length"] > 0
        rows = [
            self._share(name, records[key] > 0, took_part)
            for key, name in (("collision", "collisions per vehicle"), ("fell", "falls per episode"))
            if key in records
        ]
        if "travel_time_s" in records:
            crossed = took_part & ~(records["collision"] > 0) & ~(records["timed_out"] > 0)
            rows.append(self._mean("travel time", "s", records["travel_time_s"], crossed, "of those that cross"))
        rows.append(self._mean("mean return", self.unit, records["return"], took_part, "per agent"))
        rows.append(self._tail(records["return"], took_part))
        return {"episodes": len(took_part), "rows": rows}

    def _share(self, name: str, flags: np.ndarray, took_part: np.ndarray) -> dict[str, Any]:
        found = rate(flags, took_part)
        return _row(name, "%", Estimate(*(100 * x for x in (found.value, found.low, found.high)), found.n), "")

    def _mean(self, name: str, unit: str, samples: np.ndarray, counted: np.ndarray, note: str) -> dict[str, Any]:
        if not counted.any():
            return _row(name, unit, Estimate(math.nan, math.nan, math.nan, 0), note)
        found = mean_interval(samples, counted, resamples=RESAMPLES)
        return _row(name, unit, found, note)

    def _tail(self, returns: np.ndarray, took_part: np.ndarray) -> dict[str, Any]:
        name, n = "mean of the worst 5 %", int(took_part.any(1).sum())
        if n < FEWEST_FOR_TAIL:
            return _row(
                name, self.unit, Estimate(math.nan, math.nan, math.nan, n), f"from {FEWEST_FOR_TAIL} episodes on"
            )
        return _row(name, self.unit, interval(cvar, returns, took_part, resamples=RESAMPLES), "of returns, CVaR5")


def _row(name: str, unit: str, estimate: Estimate, note: str) -> dict[str, Any]:
    """A row for JSON, nan as None."""
    numbers = {key: getattr(estimate, key) for key in ("value", "low", "high")}
    plain = {key: None if math.isnan(number) else round(number, 3) for key, number in numbers.items()}
    return {"name": name, "unit": unit, **plain, "n": estimate.n, "note": note}


def outcome(records: dict[str, np.ndarray], agents: tuple[str, ...]) -> str:
    """How the first episode of `records` ended, in a few words."""
    took_part = records["length"][0] > 0
    for key, word in (("collision", "collision"), ("timed_out", "out of time")):
        if key in records and (records[key][0] > 0).any():
            names = [name for name, flag in zip(agents, records[key][0] > 0, strict=True) if flag]
            return f"{word}: {', '.join(names)}"
    if "fell" in records:
        return "the pole fell, or the cart left the track" if records["fell"][0].any() else "to the end without a fall"
    if "travel_time_s" in records:
        return f"all through after {records['travel_time_s'][0][took_part].max():.1f} s"
    return "episode over"
