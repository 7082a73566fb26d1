"""The tables of a sweep, from its run folders: one row a run, then statistics over seeds.

results.csv      a row a run: settings, seed, training time, every metric with its interval over episodes
summary.csv      a row a setting and metric: mean and interval over seeds, and the interquartile mean with its own
comparisons.csv  a row a setting and metric: against the reference setting, seed by seed
fronts.csv       a row a family and pair of objectives: settings that are not dominated, and the hypervolume
curves.csv       rows of every run's metrics.csv
episodes.csv.gz  a row an agent and episode of every run's evaluation
"""

import csv
import gzip
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rqe_mappo import config as configs
from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.statistics import FEWEST_FOR_TAIL, POSITIVE, Estimate, compare, iqm_interval, over_runs, seed_interval
from rqe_mappo.sweeps import fronts
from rqe_mappo.sweeps.grid import per_agent_order
from rqe_mappo.sweeps.job import train_seconds
from rqe_mappo.sweeps.manifest import Entry, Manifest
from rqe_mappo.sweeps.metrics import BY_COLUMN, FRONTS, HEADLINES, METRICS, TAIL, TIMES, Metric, bounds_of
from rqe_mappo.sweeps.reading import episodes, evaluation, number, read

Row = dict[str, Any]
SETTINGS = ("env", "scenario", "algo", "advantage", "risk", "tau", "eps")
CURVES = ("charts/episodic_return", "charts/cvar05", "charts/collisions", "charts/falls")
BETTER = {1: "more", -1: "less", 0: ""}
EPISODES = ("return", "collision", "fell", "travel_time_s")


def write(path: Path, rows: Sequence[Row]) -> None:
    """Rows as CSV, gzipped if the name says so; floats to seven digits, None and nan as empty cells."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    table.writeheader()
    table.writerows({key: _format(value) for key, value in row.items()} for row in rows)
    content = text.getvalue().encode()
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _format(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value


def collect(known: Manifest) -> None:
    """Write all tables of what has finished; rows of runs whose folders are gone stay as they were."""
    done = write_results(known)
    _merge(known.folder / "curves.csv", done, (row for entry in done for row in _curve(known, entry)))
    _merge(known.folder / "episodes.csv.gz", done, (row for entry in done for row in _episodes(known, entry)))
    results = read(known.folder / "results.csv")
    write(known.folder / "summary.csv", summarise(results))
    write(known.folder / "comparisons.csv", comparisons(results, known.reference))
    write(known.folder / "fronts.csv", front_rows(results))


def write_results(known: Manifest) -> list[Entry]:
    """Write results.csv; gives the finished runs whose folders exist."""
    available = [
        entry for entry in known.jobs.values()
        if entry.state == "done" and (known.run_folder(entry.name) / "eval.json").is_file()
    ]  # fmt: skip
    _merge(known.folder / "results.csv", available, (_result(known, entry) for entry in available))
    return available


def _merge(path: Path, entries: Sequence[Entry], rows: Iterable[Row]) -> None:
    names = {entry.name for entry in entries}
    write(path, [*(row for row in read(path) if row["run"] not in names), *rows])


def _head(entry: Entry) -> Row:
    return {"run": entry.name, "label": entry.label, "family": entry.family, "point": entry.point, "seed": entry.seed}


def _result(known: Manifest, entry: Entry) -> Row:
    folder = known.run_folder(entry.name)
    settings = configs.flat_json((folder / "config.json").read_text())
    found = evaluation(folder)
    row = _head(entry)
    for name in SETTINGS:
        row[name] = settings.get(name, "")
    row |= {name: value or "on" for name, value in entry.flags.items() if name not in SETTINGS}
    row |= {"timesteps": found["timesteps"], "train_seconds": train_seconds(folder)}
    row |= {"train_cpu_seconds": cpu_seconds(read(folder / "metrics.csv")), "episodes": found["episodes"]}
    row |= cells(found["metrics"])
    critic = found.get("critic", {})
    return row | {f"critic {name}": critic[name] for name in ("ks", "value_gap_in_std") if name in critic}


def cpu_seconds(logged: Sequence[Mapping[str, str]]) -> float | str:
    """The CPU time of all attempts, each of which counts from 0, by the rows of metrics.csv; "" where they lack it."""
    times = [float(text) for row in logged if (text := row.get("charts/cpu_seconds"))]
    return sum(now - before if now >= before else now for before, now in pairwise((0.0, *times))) if times else ""


def cells(metrics: Sequence[Mapping[str, Any]]) -> Row:
    """The metrics of an evaluation, as eval.json lists them, each with its interval over episodes."""
    row = {}
    for metric in metrics:
        if metric["metric"].startswith(TAIL) and metric["episodes"] < FEWEST_FOR_TAIL:
            continue
        column = f"{metric['metric']} ({metric['level']})"
        row |= {column: metric["value"], f"{column} low": metric["low"], f"{column} high": metric["high"]}
    return row


def headline(folder: Path) -> str:
    """The main numbers of a run in a few words."""
    found = cells(evaluation(folder)["metrics"])
    shown = [(metric, found.get(metric.column)) for metric in HEADLINES]
    return "  ".join(f"{metric.name.removesuffix(' of return')} {v:.4g}" for metric, v in shown if v is not None)


def _curve(known: Manifest, entry: Entry) -> list[Row]:
    rows = read(known.run_folder(entry.name) / "metrics.csv")
    return [
        {**_head(entry), "global_step": row["global_step"], **{name: row[name] for name in CURVES if name in row}}
        for row in rows
    ]


def _episodes(known: Manifest, entry: Entry) -> list[Row]:
    path = known.run_folder(entry.name) / "eval_episodes.npz"
    if not path.is_file():
        return []
    kept = episodes(path)
    arrays = {name: kept[name] for name in EPISODES if name in kept}
    took_part = kept["length"] > 0
    head = _head(entry)
    return [
        {**head, "episode": episode, "agent": agent, **{n: f"{v[episode, agent]:.6g}" for n, v in arrays.items()}}
        for episode, agent in zip(*np.nonzero(took_part), strict=True)
    ]


def by_label(rows: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows by setting, in order of their first appearance; those that share all but tau, from averse to neutral, as a
    sweep that was made in several goes holds them in the order of the goes."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(row["label"], []).append(row)
    tolerances = {label: taus for label, own in found.items() if (taus := _tau(own[0]))}
    series: dict[str, list[str]] = {}
    for label in tolerances:
        series.setdefault(found[label][0].get("family", ""), []).append(label)
    ordered = {family: iter(sorted(labels, key=tolerances.__getitem__)) for family, labels in series.items()}
    places = [next(ordered[own[0].get("family", "")]) if label in tolerances else label for label, own in found.items()]
    return {label: found[label] for label in places}


def _tau(row: dict[str, str]) -> tuple[float, ...] | None:
    """Tau where it is all that tells a setting from others of its family, else None."""
    name, _, value = row.get("point", "").partition(" ")
    try:
        found = per_agent_order(value) if name == "tau" else None
        return None if found and any(map(math.isnan, found)) else found
    except ValueError:
        return None


def _values(rows: Sequence[dict[str, str]], column: str) -> np.ndarray:
    values = np.array([number(row, column) for row in rows])
    return values[~np.isnan(values)]


def over_seeds(rows: Sequence[dict[str, Any]], column: str) -> Estimate | None:
    """The mean of a column over the runs that have it, with the interval of `over_runs`; None where no run has it."""
    runs = [
        Estimate(value, number(row, f"{column} low"), number(row, f"{column} high"), 1)
        for row in rows if not math.isnan(value := number(row, column))
    ]  # fmt: skip
    return over_runs(runs, bounds_of(column)) if runs else None


def cut(found: Estimate, bounds: tuple[float, float]) -> Estimate:
    """An estimate whose interval keeps to the possible values: a t-interval of a share may pass 0 or 1."""
    if math.isnan(found.low):
        return found
    return replace(found, low=max(found.low, bounds[0]), high=min(found.high, bounds[1]))


def metric_columns(results: Sequence[dict[str, str]]) -> list[str]:
    """The columns that have an interval beside them."""
    columns = list(dict.fromkeys(column for row in results for column in row))
    return [column for column in columns if f"{column} low" in columns]


def summarise(results: Sequence[dict[str, str]]) -> list[Row]:
    """Mean and interquartile mean over the seeds of each setting, both with intervals: `over_seeds`, `iqm_interval`."""
    found = []
    for label, rows in by_label(results).items():
        for column in (*metric_columns(results), *TIMES):
            metric = BY_COLUMN.get(column)
            mean = over_seeds(rows, column)
            if mean is None:
                continue
            middle = cut(iqm_interval(_values(rows, column)), bounds_of(column))
            found.append({
                "label": label, "family": rows[0]["family"], "point": rows[0]["point"], "metric": column,
                "better": BETTER[metric.sign if metric else 0],
                "unit": "" if metric is None else metric.unit,
                "runs": mean.n, "episodes": int(sum(_values(rows, "episodes"))),
                "mean": mean.value, "low": mean.low, "high": mean.high,
                "iqm": middle.value, "iqm_low": middle.low, "iqm_high": middle.high,
            })  # fmt: skip
    return found


def comparisons(results: Sequence[dict[str, str]], reference: str) -> list[Row]:
    """Each setting against the `reference`, over the seeds that both have; positive differences are better."""
    settings, found = by_label(results), []
    for label in settings.keys() - {reference} if reference in settings else ():
        for metric in (metric for metric in METRICS if metric.sign):
            theirs, ours = (
                {row["seed"]: number(row, metric.column) for row in settings[name]} for name in (reference, label)
            )
            seeds = [s for s in ours if s in theirs and not math.isnan(ours[s] + theirs[s])]
            if not seeds:
                continue
            mine, other = (metric.sign * np.array([values[seed] for seed in seeds]) for values in (ours, theirs))
            known = compare(mine, other)
            found.append({
                "label": label, "reference": reference, "metric": metric.column, "pairs": len(seeds),
                "better_by": known.difference.value, "low": known.difference.low, "high": known.difference.high,
                "probability": known.improvement.value, "probability_low": known.improvement.low,
                "probability_high": known.improvement.high,
            })  # fmt: skip
    order = list(settings)
    return sorted(found, key=lambda row: order.index(row["label"]))


def pairs_of(results: Sequence[dict[str, str]]) -> list[tuple[Metric, Metric]]:
    """The fronts that can be drawn: pairs of metrics that some run has both of."""
    return [pair for pair in FRONTS if with_both(results, pair)]


def with_both(results: Sequence[dict[str, str]], pair: tuple[Metric, Metric]) -> list[dict[str, str]]:
    """The runs that have both objectives: where nobody arrives, for example, there is no travel time."""
    return [row for row in results if not any(math.isnan(number(row, metric.column)) for metric in pair)]


def points(rows: Sequence[dict[str, str]], pair: tuple[Metric, Metric]) -> np.ndarray:
    """The two objectives of each run `[K, 2]`."""
    return np.array([[number(row, metric.column) for metric in pair] for row in rows])


def front_rows(results: Sequence[dict[str, str]]) -> list[Row]:
    """For each family of settings: whose means are not dominated in the family or among all, and the hypervolume of
    each seed's runs, mean and t-interval over the seeds that ran every setting. The reference point is shared."""
    found = []
    for pair in pairs_of(results):
        runs = with_both(results, pair)
        reference = fronts.reference_point(points(runs, pair), pair)
        settings = by_label(runs)
        means = np.array([points(rows, pair).mean(0) for rows in settings.values()])
        best = {label for label, on in zip(settings, fronts.non_dominated(means, pair), strict=True) if on}
        for family in dict.fromkeys(row["family"] for row in runs):
            labels = [label for label, rows in settings.items() if rows[0]["family"] == family]
            own = np.array([points(settings[label], pair).mean(0) for label in labels])
            front = [label for label, on in zip(labels, fronts.non_dominated(own, pair), strict=True) if on]
            volumes = [
                fronts.hypervolume(points(rows, pair), reference, pair)
                for rows in complete([row for row in runs if row["family"] == family], len(labels))
            ]
            volume = cut(seed_interval(volumes), POSITIVE) if volumes else None
            found.append({
                "first": pair[0].column, "second": pair[1].column, "family": family, "settings": len(labels),
                "front": "; ".join(front), "front_of_all": "; ".join(label for label in labels if label in best),
                "seeds": len(volumes), "hypervolume": volume and volume.value,
                "low": volume and volume.low, "high": volume and volume.high,
                "reference_first": float(reference[0]), "reference_second": float(reference[1]),
            })  # fmt: skip
    return found


def complete(rows: Sequence[dict[str, str]], settings: int) -> list[list[dict[str, str]]]:
    """The rows of each seed that has all of the settings."""
    seeds: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        seeds.setdefault(row["seed"], []).append(row)
    return [chosen for chosen in seeds.values() if len(chosen) == settings]
