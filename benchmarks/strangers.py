"""How runs fare among strangers, setting by setting: `python -m benchmarks.strangers FOLDER [COLUMN ...]`.

FOLDER is one of `rqe-eval --cross-play RUN RUN ... --partners ...` with several seeds of each setting. A cell of the
table is the mean over runs of one setting, as the one, of a column of cross_play.csv among others of a setting: among
themselves, among other seeds of their own, among runs of other settings, among strangers. Intervals are 95 %
intervals over the runs of the one (`statistics.over_runs`), for the others as they are, whose runs are averaged within
each; of other seeds, whose pairs are in two rows, the ends are as far out as those of `statistics.among_runs`. Writes
FOLDER/strangers.csv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables
from rqe_mappo.statistics import FREE, POSITIVE, SHARE, Estimate, among_runs, over_runs

COLUMNS = ("return of all", "collisions of one", "travel time s of one")


def setting_of(name: str) -> str:
    """A run's name without its seed; strangers have none."""
    setting, _, seed = name.rpartition(" s")
    return setting if seed.isdigit() else name


def bounds_of(column: str) -> tuple[float, float]:
    """What its values can be."""
    return SHARE if column.startswith(("collisions", "falls")) else POSITIVE if column.startswith("travel") else FREE


def averaged(cells: Sequence[Estimate]) -> Estimate:
    """Of the cells of one run, which share the draws of their episodes: so a mean is no surer than a cell."""
    value = sum(cell.value for cell in cells) / len(cells)
    below, above = (sum(abs(getattr(cell, end) - cell.value) for cell in cells) / len(cells) for end in ("low", "high"))
    return Estimate(value, value - below, value + above, len(cells))


def summarised(rows: list[dict[str, str]], column: str) -> list[dict[str, Any]]:
    """A row for each setting of the one, kind of the others, and chance that their actions are replaced."""
    cells: dict[tuple[str, str, float], dict[str, list[Estimate]]] = {}
    for row in rows:
        mine, theirs = setting_of(row["one"]), setting_of(row["others"])
        kind = "itself" if row["one"] == row["others"] else "other seeds" if mine == theirs else theirs
        value, low, high = (float(row[column + end] or "nan") for end in ("", " low", " high"))
        if np.isnan([low, high]).any():
            raise SystemExit(f"benchmarks.strangers: {row['one']} among {row['others']} has no interval of {column}: "
                             "play more --episodes, or leave that column out")  # fmt: skip
        runs = cells.setdefault((mine, kind, float(row["noise"])), {})
        runs.setdefault(row["one"], []).append(Estimate(value, low, high, 1))
    value = {(row["one"], row["others"], float(row["noise"])): float(row[column]) for row in rows}
    found = []
    for (mine, kind, noise), runs in cells.items():
        known = over_runs([averaged(of_run) for of_run in runs.values()], bounds_of(column))
        low, high = known.low, known.high
        if kind == "other seeds":
            pairs = among_runs(np.array([[value.get((one, other, noise), np.nan) for other in runs] for one in runs]))
            low, high = cut(np.fmin(low, pairs.with_each_other.low), np.fmax(high, pairs.with_each_other.high), column)
        found.append({
            "column": column, "one": mine, "others": kind, "noise": noise, "runs": len(runs), "mean": known.value,
            "low": low, "high": high,
        })  # fmt: skip
    return found


def cut(low: float, high: float, column: str) -> tuple[float, float]:
    """An interval without what the column's values cannot be."""
    least, most = bounds_of(column)
    return max(low, least), min(high, most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of rqe-eval --cross-play")
    parser.add_argument("columns", nargs="*", help=f"of cross_play.csv (default: {', '.join(COLUMNS)}, as it has them)")
    args = parser.parse_args()
    rows = tables.read(args.folder / "cross_play.csv")
    if not rows:
        parser.error(f"{args.folder} holds no cross_play.csv: give a folder of rqe-eval --cross-play")
    if unknown := [column for column in args.columns if column not in rows[0]]:
        parser.error(f"{args.folder / 'cross_play.csv'} has no column {unknown[0]}: it has {', '.join(rows[0])}")
    table = []
    for column in args.columns or [column for column in COLUMNS if column in rows[0]]:
        for line in summarised(rows, column):
            table.append(line)
            slip = f", noise {line['noise']:g}" if line["noise"] else ""
            print(f"{column}: {line['one']} among {line['others']}{slip}: "
                  f"{line['mean']:.4g} [{line['low']:.4g}, {line['high']:.4g}]")  # fmt: skip
    tables.write(args.folder / "strangers.csv", table)


if __name__ == "__main__":
    main()
