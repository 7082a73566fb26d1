"""rqe-report: one page with everything about a sweep, in a single file."""

import base64
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.sweeps import front_plots, manifest
from rqe_mappo.sweeps.job import warnings
from rqe_mappo.sweeps.manifest import Manifest
from rqe_mappo.sweeps.metrics import BY_COLUMN, FRONTS, HEADLINES
from rqe_mappo.sweeps.style import pretty
from rqe_mappo.sweeps.tables import by_label, number, read

Rows = list[dict[str, str]]
CAPTIONS = {  # in this order
    **{front_plots.front_name(pair): "Reward against risk" for pair in FRONTS},
    "bars": "Settings side by side",
    "returns": "Distributions of the returns",
    "curves": "Learning curves",
}

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --ink: #1b1f24; --quiet: #59636e; --paper: #ffffff; --line: #d8dee4; --wash: #f5f7f9; --bad: #a40e26; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --quiet: #9aa5b1; --paper: #14171b; --line: #333a42; --wash: #1d2228; --bad: #ff8f8f; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
p { max-width: 46rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.bad { color: var(--bad); }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
      white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap;
         vertical-align: top; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
.text td { white-space: normal; overflow-wrap: anywhere; }
thead th { white-space: normal; max-width: 9rem; vertical-align: bottom; border-bottom: 2px solid var(--line); }
td small { color: var(--quiet); display: block; font-size: .76rem; }
figure { margin: 1rem 0 1.75rem; }
figure img { max-width: 100%; max-height: 38rem; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
@media print {
  :root { --ink: #000; --quiet: #444; --paper: #fff; --line: #bbb; --wash: #f5f5f5; --bad: #a40e26; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding: .15rem .35rem; white-space: normal; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
</style>
</head>
<body>
<h1>$title</h1>
<p class="quiet">$state</p>
$body
</body>
</html>
""")


def write(folder: Path) -> Path:
    """Write report.html from the manifest, the tables and the plots in `folder`; gives its path."""
    known = manifest.load(folder)
    path = folder / "report.html"
    write_atomically(path, html(known).encode())
    return path


def html(known: Manifest) -> str:
    """The page."""
    tables = {name: read(known.folder / f"{name}.csv") for name in ("results", "summary", "comparisons", "fronts")}
    labels = list(by_label(tables["summary"]))
    sections = [
        ("What did not finish", _unfinished(known)),
        ("Warnings", _warnings(known)),
        ("Main numbers", _headlines(tables["summary"], tables["results"], labels)),
        ("Plots", _plots(known.folder / "plots")),
        (f"Against {pretty(known.reference)}", _comparisons(tables["comparisons"])),
        ("Fronts", _fronts(tables["fronts"])),
        ("All metrics", _metrics(tables["summary"], labels)),
        ("Runs", _runs(tables["results"])),
        ("How this was made", _provenance(known)),
    ]
    states = Counter(entry.state for entry in known.jobs.values())
    seeds = sorted({entry.seed for entry in known.jobs.values()})
    state = f"{len(known.jobs)} runs: " + ", ".join(f"{number} {state}" for state, number in states.items())
    return PAGE.substitute(
        title=escape(f"Sweep of {known.env}"),
        state=escape(f"{state}. Seeds {', '.join(map(str, seeds))}."),
        body="\n".join(f"<section><h2>{escape(head)}</h2>\n{text}</section>" for head, text in sections if text),
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], kind: str = "") -> str:
    """An HTML table of cells that are inserted as they are: the caller escapes them."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def _estimate(row: dict[str, str], names: tuple[str, str, str], digits: int | None = None) -> str:
    value, low, high = (number(row, name) for name in names)

    def formatted(number: float) -> str:
        return f"{number:.4g}" if digits is None else f"{number:.{digits}f}"

    if math.isnan(value):
        return ""
    return formatted(value) + ("" if math.isnan(low) else f"<small>{formatted(low)} to {formatted(high)}</small>")


def _unfinished(known: Manifest) -> str:
    rows = [
        [escape(entry.name), f'<span class="bad">{entry.state}</span>', escape(entry.reason),
         escape(f"logs/{entry.name}.log")]
        for entry in known.jobs.values() if entry.state != "done"
    ]  # fmt: skip
    return _table(("run", "state", "why", "log"), rows, "text") if rows else ""


def _warnings(known: Manifest) -> str:
    rows = [
        [escape(entry.name), escape(warning.removeprefix("warning: "))]
        for entry in known.jobs.values() if entry.state == "done" for warning in warnings(known.log(entry.name))
    ]  # fmt: skip
    return _table(("run", "it warned"), rows, "text") if rows else ""


def _headlines(summary: Rows, results: Rows, labels: Sequence[str]) -> str:
    cells = {(row["label"], row["metric"]): row for row in summary}
    shown = [metric for metric in HEADLINES if any((label, metric.column) in cells for label in labels)]
    if not shown:
        return ""
    seeds = {label: len(rows) for label, rows in by_label(results).items()}
    lines = [
        [
            escape(pretty(label)), str(seeds.get(label, 0)),
            *(_estimate(cells.get((label, m.column), {}), ("mean", "low", "high"), m.digits) for m in shown),
        ]
        for label in labels
    ]  # fmt: skip
    head = [escape(metric.axis) + ("&nbsp;↑" if metric.sign > 0 else "&nbsp;↓") for metric in shown]
    return (
        "<p class='quiet'>Means over seeds, below them 95 % t-intervals. ↑ more is better, ↓ less is. "
        "A worst 5 % is given from 100 episodes on.</p>" + _table(("setting", "seeds", *head), lines)
    )


def _plots(folder: Path) -> str:
    found = []
    for name, caption in CAPTIONS.items():
        path = folder / f"{name}.png"
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            found.append(
                f'<figure><img alt="{caption}: {name}" src="data:image/png;base64,{data}">'
                f"<figcaption>{caption} (plots/{name}.svg)</figcaption></figure>"
            )
    return "\n".join(found)


def _comparisons(rows: Rows) -> str:
    shown = [row for row in rows if BY_COLUMN[row["metric"]] in HEADLINES]
    lines = [
        [
            escape(pretty(row["label"])), escape(row["metric"]), row["pairs"],
            _estimate(row, ("better_by", "low", "high")),
            _estimate(row, ("probability", "probability_low", "probability_high"), 2),
        ]
        for row in shown
    ]  # fmt: skip
    note = (
        "<p class='quiet'>Seed by seed, positive is better, with 95 % t-intervals. Probability: that a run of the "
        "setting beats one of the reference (Mann and Whitney), with Clopper and Pearson's interval over seeds.</p>"
    )
    return note + _table(("setting", "metric", "pairs", "better by", "probability"), lines) if lines else ""


def _fronts(rows: Rows) -> str:
    lines = [
        [
            f"{escape(row['first'])}, {escape(row['second'])}", escape(pretty(row["family"])),
            escape("; ".join(pretty(label) for label in row["front_of_all"].split("; "))) or "none",
            _estimate(row, ("hypervolume", "low", "high")), row["seeds"],
            f"({number(row, 'reference_first'):.4g}, {number(row, 'reference_second'):.4g})",
        ]
        for row in rows
    ]  # fmt: skip
    note = (
        "<p class='quiet'>Settings whose means no other setting beats in both objectives; hypervolume of each seed's "
        "runs, mean over the seeds that ran every setting of the family, and the reference point it starts from.</p>"
    )
    head = ("objectives", "family", "not dominated", "hypervolume", "seeds", "reference point")
    return note + _table(head, lines) if lines else ""


def _metrics(summary: Rows, labels: Sequence[str]) -> str:
    cells = {(row["label"], row["metric"]): row for row in summary}
    lines = [
        [escape(metric), *(_estimate(cells.get((label, metric), {}), ("mean", "low", "high")) for label in labels)]
        for metric in dict.fromkeys(row["metric"] for row in summary)
    ]
    return _table(("metric", *(escape(pretty(label)) for label in labels)), lines) if lines else ""


def _runs(results: Rows) -> str:
    shown = [metric for metric in HEADLINES if any(row.get(metric.column) for row in results)]
    lines = [
        [
            escape(row["run"]), row["seed"], row["episodes"], f"{number(row, 'train_seconds') / 60:.1f}",
            *(_estimate(row, (m.column, f"{m.column} low", f"{m.column} high"), m.digits) for m in shown),
        ]
        for row in results
    ]  # fmt: skip
    note = "<p class='quiet'>Below each number its 95 % interval over the episodes of the run.</p>"
    head = ("run", "seed", "episodes", "minutes", *(escape(metric.axis) for metric in shown))
    return note + _table(head, lines) if lines else ""


def _provenance(known: Manifest) -> str:
    commands = "\n".join(known.commands)
    versions = _table(
        ("what", "version"), [[escape(name), escape(text)] for name, text in known.versions.items()], "text"
    )
    return f"<pre>{escape(commands)}</pre>\n{versions}"
