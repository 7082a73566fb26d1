"""The main tables of a sweep as Markdown, for a page or a README: `rqe-report FOLDER --markdown`."""

import math
from collections.abc import Sequence
from pathlib import Path

from rqe_mappo.config import ConfigError
from rqe_mappo.sweeps.metrics import HEADLINES, METRICS, OF_GROUPS, Metric
from rqe_mappo.sweeps.style import pretty
from rqe_mappo.sweeps.tables import by_label, number, read

MINUS = "\N{MINUS SIGN}"
SHOWN = tuple(metric for metric in METRICS if metric in HEADLINES or metric.column == "std of return (agent)")


def text(folder: Path) -> str:
    """Means over seeds, of groups of agents too, and comparisons with the reference; from the tables in `folder`."""
    summary, compared = read(folder / "summary.csv"), read(folder / "comparisons.csv")
    if not summary:
        raise ConfigError(f"{folder} has no summary.csv with runs in it: give the folder of a sweep")
    tables = [main_numbers(summary)]
    if any(groups_of(rows) for rows in by_label(summary).values()):
        tables.append(of_groups(summary))
    if compared:
        tables.append(f"Better than {pretty(compared[0]['reference'])} by, seed by seed:\n\n{against(compared)}")
    return "\n\n".join(tables)


def main_numbers(summary: Sequence[dict[str, str]]) -> str:
    """A row a setting: means over seeds with 95 % t-intervals."""
    found = {label: {row["metric"]: row for row in rows} for label, rows in by_label(summary).items()}
    shown = [metric for metric in SHOWN if any(metric.column in rows for rows in found.values())]
    lines = [
        [pretty(label), *(_cell(rows.get(metric.column), ("mean", "low", "high"), metric) for metric in shown)]
        for label, rows in found.items()
    ]
    return table(["setting", *(metric.name for metric in shown)], lines)


def groups_of(rows: Sequence[dict[str, str]]) -> list[str]:
    """The groups of agents, apart by their risk, of which something is told."""
    known = {metric.name for metric in OF_GROUPS}
    parts = (row["metric"].removesuffix(")").partition(" (") for row in rows)
    return list(dict.fromkeys(level for name, _, level in parts if name in known and level.startswith("tau ")))


def of_groups(summary: Sequence[dict[str, str]]) -> str:
    """A row a setting and group of agents: means over seeds with 95 % t-intervals."""
    named = {row["metric"] for row in summary}
    shown = [metric for metric in OF_GROUPS if any(name.startswith(f"{metric.name} (tau ") for name in named)]
    lines = []
    for label, rows in by_label(summary).items():
        known = {row["metric"]: row for row in rows}
        for group in groups_of(rows):
            cells = [_cell(known.get(f"{one.name} ({group})"), ("mean", "low", "high"), one) for one in shown]
            lines.append([pretty(label), pretty(group), *cells])
    return table(["setting", "agents", *(metric.name for metric in shown)], lines)


def against(compared: Sequence[dict[str, str]]) -> str:
    """A row a setting: paired differences, positive where it is better, with 95 % t-intervals."""
    found = {label: {row["metric"]: row for row in rows} for label, rows in by_label(compared).items()}
    shown = [metric for metric in HEADLINES if any(metric.column in rows for rows in found.values())]
    lines = [
        [
            pretty(label), max(row["pairs"] for row in rows.values()),
            *(_cell(rows.get(metric.column), ("better_by", "low", "high"), metric) for metric in shown),
        ]
        for label, rows in found.items()
    ]  # fmt: skip
    return table(["setting", "pairs", *(metric.name for metric in shown)], lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _cell(row: dict[str, str] | None, names: tuple[str, str, str], metric: Metric) -> str:
    """A number and its interval; empty where there is none."""
    if row is None:
        return ""
    value, low, high = (number(row, name) for name in names)
    if math.isnan(value):
        return ""

    def spelled(one: float) -> str:
        return f"{round(one, metric.digits) + 0.0:.{metric.digits}f}".replace("-", MINUS)  # no -0

    return spelled(value) if math.isnan(low) else f"{spelled(value)} [{spelled(low)}, {spelled(high)}]"
