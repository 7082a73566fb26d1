"""The table of an evaluation: returns, tails and incidents, each with its interval and the episodes behind it."""

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rqe_mappo.functional.risk import RiskMeasure, WorstCase
from rqe_mappo.statistics import (
    FEWEST_FOR_MEAN,
    FEWEST_FOR_TAIL,
    Estimate,
    Statistic,
    cvar,
    interval,
    mean_interval,
    of_samples,
    p95,
    rate,
    ratio,
    std,
)

CLOSE_TTC_S, CLOSE_PET_S = 1.5, 1.0  # usual bounds below which an encounter counts as a conflict
MILLION_KM = 1e9  # in metres
FEWEST_IN_TAIL = 5  # episodes in the worst share, or the best, that a risk measure looks at
_TOO_FEW: dict[bool, dict[str, Any]] = {True: {"too_few": True}, False: {}}
NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Row:
    """One metric: `level` is agent (one sample per agent and episode), team (the episode's mean), episode, or the name
    of a group of agents.

    `estimate.n` counts the episodes, which the interval rests on, `samples` what was averaged, `fewest` the episodes
    from which there is an interval; with fewer the value is of these episodes, and says little of others.
    """

    metric: str
    level: str
    estimate: Estimate
    samples: int
    fewest: float = 1

    @property
    def too_few(self) -> bool:
        """Whether there are too few episodes for an interval."""
        return self.estimate.n < self.fewest


def fewest_for(measure: RiskMeasure) -> float:
    """The episodes from which a risk measure's value has an interval: never, for the worst case."""
    if isinstance(measure, WorstCase):
        return math.inf
    level = getattr(measure, "level", 1.0)
    tail = min(level, 1 - level) or 1.0
    return max(FEWEST_FOR_TAIL, FEWEST_IN_TAIL / tail)


def rows(records: dict[str, np.ndarray], seed: int = 0, measures: Sequence[RiskMeasure] = ()) -> list[Row]:
    """The metrics that episode records, as an environment gives them, have samples for.

    records: `return`, `length` `[F, A]` (length 0: the slot took no part), and what there is of `collision`, `fell`,
        `timed_out` (flags), `travel_time_s` (seconds, counted for agents that neither collided nor timed out) and
        `hard_brakes` (a number), `min_ttc_s`, `pet_s`, `impact_mps` and `distance_m`, all `[F, A]`.
        Whatever is `[F]` is reported by its name, as a mean over episodes. See `rqe_mappo.envs.contract.Step`.
    seed: of the bootstrap.
    measures: further risk measures of the return to report, tau in units of reward.
    A metric that no agent has a sample for, such as the travel time where nobody arrives, is nan from 0 episodes.
    Raises ValueError if there are no episodes.
    """
    took_part = records["length"] > 0
    if not took_part.any():
        raise ValueError("no episodes to report: run at least one")
    found: list[Row] = []

    def add(
        metric: str, level: str, statistic: Statistic, fewest: float, samples: np.ndarray, counted: np.ndarray
    ) -> None:
        estimate = interval(statistic, samples, counted, fewest=fewest, seed=seed) if counted.any() else NOTHING
        found.append(Row(metric, level, estimate, int(counted.sum()), fewest))

    def add_mean(metric: str, level: str, samples: np.ndarray, counted: np.ndarray) -> None:
        estimate = mean_interval(samples, counted, seed=seed) if counted.any() else NOTHING
        found.append(Row(metric, level, estimate, int(counted.sum()), FEWEST_FOR_MEAN))

    def add_rate(metric: str, level: str, flags: np.ndarray, counted: np.ndarray) -> None:
        found.append(Row(metric, level, rate(flags, counted), int(counted.sum())))

    def flag(key: str) -> np.ndarray:
        return took_part & (records[key] > 0) if key in records else np.zeros_like(took_part)

    returns = records["return"].astype(float)
    agents = took_part.sum(1)
    team = np.where(took_part, returns, 0).sum(1) / np.maximum(agents, 1)
    of_returns: list[tuple[str, Statistic, float]] = [
        ("std of return", std, FEWEST_FOR_TAIL), ("CVaR5 of return", cvar, FEWEST_FOR_TAIL),
        *((f"{each.name} of return", functools.partial(of_samples, each.value), fewest_for(each)) for each in measures),
    ]  # fmt: skip
    add_mean("mean return", "agent", returns, took_part)
    if returns.shape[1] > 1:
        add_mean("mean return", "team", team, agents > 0)
    for name, statistic, fewest in of_returns:
        add(name, "agent", statistic, fewest, returns, took_part)
        if returns.shape[1] > 1:
            add(name, "team", statistic, fewest, team, agents > 0)
    for key, name in (("collision", "collision rate"), ("fell", "fall rate"), ("timed_out", "time-out rate")):
        if key in records:
            add_rate(name, "agent", flag(key), took_part)
            if key == "collision":
                add_rate(name, "episode", flag(key).sum(1) > 0, agents > 0)
    if "travel_time_s" in records:
        crossed = took_part & ~flag("collision") & ~flag("timed_out")
        add_mean("travel time s", "agent", records["travel_time_s"], crossed)
        add("travel time p95 s", "agent", p95, FEWEST_FOR_TAIL, records["travel_time_s"], crossed)
    if "hard_brakes" in records:
        add_mean("hard brakes", "agent", records["hard_brakes"], took_part)
    if "min_ttc_s" in records:
        met = np.nan_to_num(records["pet_s"], nan=np.inf)
        add_rate(f"TTC below {CLOSE_TTC_S} s", "agent", took_part & (records["min_ttc_s"] < CLOSE_TTC_S), took_part)
        add_rate(f"PET below {CLOSE_PET_S} s", "agent", took_part & (met < CLOSE_PET_S), took_part)
        add_mean("impact speed m/s", "agent", records["impact_mps"], flag("collision"))
        per_km = ratio(flag("collision"), np.where(took_part, records["distance_m"], 0) / MILLION_KM)
        found.append(Row("collisions per million km", "agent", per_km, int(took_part.sum())))
    add_mean("decisions", "agent", records["length"], took_part)
    for key, values in records.items():
        if values.ndim == 1 and key != "copy":
            add_mean(key.replace("_", " "), "episode", values, agents > 0)
    return found


def by_group(records: dict[str, np.ndarray], groups: dict[str, list[int]], seed: int = 0) -> list[Row]:
    """The agent level of `rows` for each group of agents, whose name is the level.

    Where there are travel times, also which group yields: of all pairs of an agent of the group and one of another that
    both crossed in the episode, the share in which the former took longer; ties count half.
    """
    found: list[Row] = []
    for name, agents in groups.items():
        part = {key: value[:, agents] if value.ndim > 1 else value for key, value in records.items()}
        found += [replace(row, level=name) for row in rows(part, seed) if row.level == "agent"]
        if "travel_time_s" in records:
            others = [agent for group in groups.values() for agent in group if agent not in agents]
            crossed = (records["length"] > 0) & ~(records["collision"] > 0) & ~(records["timed_out"] > 0)
            time = records["travel_time_s"]
            later = (np.sign(time[:, agents, None] - time[:, None, others]) + 1) / 2
            both = crossed[:, agents, None] & crossed[:, None, others]
            shape = (len(later), -1)
            estimate = rate(later.reshape(shape), both.reshape(shape)) if both.any() else NOTHING
            found.append(Row("crosses later than others", name, estimate, int(both.sum())))
    return found


def table(found: list[Row]) -> str:
    """The rows as aligned text, with what is missing where there are too few episodes for an interval."""
    lines = [("metric", "per", "value", "95 % interval", "episodes", "samples")]
    for row in found:
        estimate = row.estimate
        lines.append((row.metric, row.level, f"{estimate.value:.4g}", _ends(row), str(estimate.n), str(row.samples)))
    text = aligned(lines)
    if any(row.level == "team" for row in found):
        text.append("per team: one value an episode, the mean over its agents")
    episodes = max(row.estimate.n for row in found)
    if episodes < FEWEST_FOR_TAIL:
        text.append(f"caution: {episodes} episodes are too few for a worst 5 %; use at least {FEWEST_FOR_TAIL}")
    return "\n".join(text)


def aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of text, of a head and rows of cells, with a rule below the head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return text


def _ends(row: Row) -> str:
    estimate = row.estimate
    if not row.too_few or math.isnan(estimate.value):
        return f"{estimate.low:.4g} to {estimate.high:.4g}"
    return "unknown: none seen is not never" if math.isinf(row.fewest) else f"from {row.fewest:g} episodes on"


def episodes_file(records: dict[str, np.ndarray]) -> bytes:
    """The records of all episodes as the content of an .npz file: what is `[F]` or `[F, A]`, in single precision."""
    file = io.BytesIO()
    kept = {key: value.astype(np.float32) for key, value in records.items() if value.ndim <= 2 and key != "copy"}
    np.savez_compressed(file, allow_pickle=False, **kept)
    return file.getvalue()


def as_dict(found: list[Row]) -> list[dict[str, Any]]:
    """The rows as plain values, for JSON; nan, where there is no value or interval, as None.

    `too_few` stands, and is true, where the episodes are too few for an interval.
    """
    plain = []
    for row in found:
        numbers = {name: getattr(row.estimate, name) for name in ("value", "low", "high")}
        numbers = {name: None if math.isnan(number) else number for name, number in numbers.items()}
        counts = {"episodes": row.estimate.n, "samples": row.samples}
        plain.append({"metric": row.metric, "level": row.level, **numbers, **counts, **_TOO_FEW[row.too_few]})
    return plain
