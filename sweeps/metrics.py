"""The metrics of fronts, tables and plots: which way is better, in what unit, under what name."""

from dataclasses import dataclass

from rqe_mappo.statistics import FREE, POSITIVE, SHARE


@dataclass(frozen=True)
class Metric:
    """One measured number.

    name, level: as `eval.json` spells them.
    sign: +1 if more is better, -1 if less is, 0 where neither is.
    unit: "" for shares and counts; returns are in units of the environment's reward.
    label: on axes and in tables.
    digits: behind the point, in tables.
    bounds: the values that are possible, to which an interval over seeds is cut.
    """

    name: str
    level: str
    sign: int
    unit: str
    label: str
    digits: int
    bounds: tuple[float, float] = FREE

    @property
    def column(self) -> str:
        """The column of results.csv."""
        return f"{self.name} ({self.level})"

    @property
    def axis(self) -> str:
        """The label with its unit."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


MORE, LESS, NEITHER = 1, -1, 0
REWARD = "reward"
METRICS = (
    Metric("mean return", "agent", MORE, REWARD, "mean return", 2),
    Metric("CVaR5 of return", "agent", MORE, REWARD, "mean of the worst 5 % of returns (CVaR5)", 2),
    Metric("std of return", "agent", NEITHER, REWARD, "std of the return", 2, POSITIVE),
    Metric("team reward", "episode", MORE, REWARD, "reward of the team", 2),
    Metric("collision rate", "agent", LESS, "", "collisions per agent", 4, SHARE),
    Metric("collision rate", "episode", LESS, "", "episodes with a collision", 4, SHARE),
    Metric("fall rate", "agent", LESS, "", "falls per episode", 4, SHARE),
    Metric("time-out rate", "agent", LESS, "", "time-outs per agent", 4, SHARE),
    Metric("travel time s", "agent", LESS, "s", "travel time", 2, POSITIVE),
    Metric("travel time p95 s", "agent", LESS, "s", "travel time, 95th percentile", 2, POSITIVE),
    Metric("hard brakes", "agent", LESS, "", "hard brakes per agent", 3, POSITIVE),
    Metric("TTC below 1.5 s", "agent", LESS, "", "time to collision below 1.5 s", 4, SHARE),
    Metric("PET below 1.0 s", "agent", LESS, "", "post-encroachment below 1 s", 4, SHARE),
    Metric("impact speed m/s", "agent", LESS, "m/s", "impact speed", 2, POSITIVE),
    Metric("collisions per million km", "agent", LESS, "1/million km", "collisions per million km", 0, POSITIVE),
    Metric("decisions", "agent", NEITHER, "", "decisions per agent and episode", 1, POSITIVE),
)
BY_COLUMN = {metric.column: metric for metric in METRICS}


def bounds_of(column: str) -> tuple[float, float]:
    """The possible values of a column of results.csv, whatever its level: an agent, an episode or a group of agents."""
    return _BOUNDS.get(column.partition(" (")[0], FREE)


TAIL = "CVaR5 of return"  # of this name at any level: left out below 100 episodes

FRONTS = tuple(
    (BY_COLUMN[first], BY_COLUMN[second])
    for first, second in (
        ("mean return (agent)", "CVaR5 of return (agent)"),
        ("travel time s (agent)", "collision rate (agent)"),
        ("travel time s (agent)", "CVaR5 of return (agent)"),
        ("mean return (agent)", "collision rate (agent)"),
        ("mean return (agent)", "fall rate (agent)"),
    )
)
"""Pairs of objectives (reward against risk) of which a front is drawn, where an environment has both."""

HEADLINES = tuple(
    BY_COLUMN[name]
    for name in (
        "team reward (episode)", "mean return (agent)", "CVaR5 of return (agent)", "collision rate (agent)",
        "fall rate (agent)", "travel time s (agent)",
    )
)  # fmt: skip
"""What bars and comparisons show, where an environment has it."""

OF_GROUPS = (
    *HEADLINES,
    Metric("crosses later than others", "agent", NEITHER, "", "crosses later than others", 3, SHARE),
)
"""What is told of groups of agents that differ in their risk; their columns have the group's name for a level."""

TIMES = ("train_seconds", "train_cpu_seconds")
"""What training took: wall time, and the time of its process."""

_BOUNDS = {metric.name: metric.bounds for metric in (*METRICS, *OF_GROUPS)} | dict.fromkeys(TIMES, POSITIVE)
