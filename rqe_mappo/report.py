"""The table of an evaluation: returns, tails and incidents, each with its interval and the episodes behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rqe_mappo.statistics import Estimate, cvar, interval

FEWEST_FOR_TAIL = 100  # episodes; below, a worst 5 % rests on fewer than five


@dataclass(frozen=True)
class Row:
    """One metric: `level` is agent (one sample per agent and episode), team (the episode's mean) or episode."""

    metric: str
    level: str
    estimate: Estimate


def rows(records: dict[str, np.ndarray], seed: int = 0) -> list[Row]:
    """What can be said of episode records as an environment gives them (see `rqe_mappo.envs.batched.Step`)."""
    took_part = records["length"] > 0
    found: list[Row] = []

    def add(metric: str, level: str, statistic: Callable, *data: np.ndarray) -> None:
        found.append(Row(metric, level, interval(statistic, *data, seed=seed)))

    def of_agents(statistic: Callable) -> Callable:
        return lambda values, counted: statistic(values[counted]) if counted.any() else np.nan

    returns = records["return"].astype(float)
    team = np.where(took_part, returns, 0).sum(1) / took_part.sum(1)
    for name, statistic in (("mean return", np.mean), ("std of return", np.std), ("CVaR5 of return", cvar)):
        add(name, "agent", of_agents(statistic), returns, took_part)
        if returns.shape[1] > 1:
            add(name, "team", statistic, team)
    for key, name in (("collision", "collision rate"), ("fell", "fall rate"), ("timed_out", "time-out rate")):
        if key in records:
            hit = records[key].astype(bool) & took_part
            add(name, "agent", of_agents(np.mean), hit, took_part)
            if key == "collision":
                add(name, "episode", np.mean, hit.any(1))
    if "travel_time_s" in records:
        crossed = took_part & ~records["collision"].astype(bool) & ~records["timed_out"].astype(bool)
        add("travel time s", "agent", of_agents(np.mean), records["travel_time_s"], crossed)
        add("travel time p95 s", "agent", of_agents(lambda x: np.percentile(x, 95)), records["travel_time_s"], crossed)
    if "hard_brakes" in records:
        add("hard brakes", "agent", of_agents(np.mean), records["hard_brakes"], took_part)
    add("decisions", "agent", of_agents(np.mean), records["length"], took_part)
    return found


def table(found: list[Row]) -> str:
    """The rows as aligned text."""
    lines = [("metric", "per", "value", "95 % interval", "episodes")]
    for row in found:
        estimate = row.estimate
        interval_ = f"{estimate.low:.4g} to {estimate.high:.4g}"
        lines.append((row.metric, row.level, f"{estimate.value:.4g}", interval_, str(estimate.n)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    if found[0].estimate.n < FEWEST_FOR_TAIL:
        text.append(f"caution: {found[0].estimate.n} episodes are too few for a worst 5 %; use at least 100")
    return "\n".join(text)


def as_dict(found: list[Row]) -> list[dict[str, Any]]:
    """The rows as plain values, for JSON; nan, where there is no interval, as None."""
    plain = []
    for row in found:
        numbers = {name: getattr(row.estimate, name) for name in ("value", "low", "high")}
        numbers = {name: None if np.isnan(number) else number for name, number in numbers.items()}
        plain.append({"metric": row.metric, "level": row.level, **numbers, "episodes": row.estimate.n})
    return plain
