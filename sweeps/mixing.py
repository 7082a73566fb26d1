"""rqe-eval --mix: pairs of policies mixed at many alphas, over the front of a sweep.

The folder is like a sweep's, and rqe-plot can draw it: a row of results.csv is a pair at one alpha. Pairs take the
place of seeds.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro
from tqdm import tqdm

from rqe_mappo import config as configs
from rqe_mappo.config import ConfigError
from rqe_mappo.deploy.interpolation import Kind, interpolate
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.evaluation import report
from rqe_mappo.evaluation.episodes import chooser, drive
from rqe_mappo.statistics import seed_interval
from rqe_mappo.sweeps import front_plots, style, tables
from rqe_mappo.sweeps.metrics import HEADLINES
from rqe_mappo.sweeps.pools import processes
from rqe_mappo.training.lock import hold

MOST_ALPHAS = 1001
LABELLED = (0.0, 0.25, 0.5, 0.75, 1.0)  # alphas with a label in plots


@dataclass(frozen=True)
class MixConfig:
    """Mix two policies at run time and measure the mixtures; writes tables and plots into a folder of its own."""

    mix: tyro.conf.UseAppendAction[tuple[tuple[Path, Path], ...]]
    """A safe and a neutral policy (run folders or policy files); give it again for further pairs, such as seeds."""
    alpha: str = "0:1:0.1"
    """Shares of the safe policy: FIRST:LAST:STEP, or a list such as 0,0.5,1."""
    kind: str = "probability"
    """What a mixture means: probability, episode or logit, several with commas between, or all."""
    episodes: int = 1000
    """Episodes of each mixture."""
    seed: int = 12345
    """Seed of the episodes and of the policies' draws."""
    front: Path | None = None
    """Folder of rqe-sweep, whose settings are drawn beside the mixtures."""
    out: Path = Path("runs/mix")
    """Folder of the results; mixtures that it holds already are not measured again."""
    jobs: int = os.cpu_count() or 1
    """Mixtures at a time, one core each."""
    trust: bool = False
    """The runs are your own: import the environment or algorithm of a module that their settings name."""

    def __post_init__(self):
        for name in ("episodes", "jobs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1 (got {getattr(self, name)})")
        if not self.mix:
            raise ConfigError("--mix needs two run folders: --mix SAFE NEUTRAL")
        alphas(self.alpha)
        kinds(self.kind)
        if self.front is not None and not (self.front / "results.csv").is_file():
            raise ConfigError(f"--front {self.front} holds no results.csv: give the folder of a sweep that has run")


def alphas(text: str) -> list[float]:
    """The shares that `--alpha` asks for; ConfigError where it is not valid."""
    parts = text.split(":") if ":" in text else text.split(",")
    try:
        numbers = [float(part) for part in parts]
        if ":" in text:
            first, last, step = numbers
            count = round((last - first) / step)
            if not 0 <= count < MOST_ALPHAS:
                raise ValueError
            numbers = [round(first + step * index, 12) for index in range(count + 1)]
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"--alpha {text} must be FIRST:LAST:STEP or a list of numbers, as in 0:1:0.1") from None
    if not all(0 <= number <= 1 for number in numbers):
        raise ConfigError(f"--alpha {text} must lie in [0, 1]")
    return numbers


def kinds(text: str) -> list[Kind]:
    """The kinds of mixture that `--kind` names; ConfigError for another."""
    known: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    names = list(known) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--kind {unknown[0]} is unknown: use {', '.join(known)} or all")
    return [known[name] for name in names]


@dataclass(frozen=True)
class MixtureRun:
    """One mixture to measure: the `pair`-th pair of policies, a kind and an alpha."""

    pair: int
    safe: Path
    neutral: Path
    kind: Kind
    alpha: float
    episodes: int
    seed: int
    trust: bool = False

    def columns(self) -> dict[str, Any]:
        """The columns that name the row."""
        share = f"{self.alpha:g}"
        return {
            "run": f"{self.kind}__alpha{share}__pair{self.pair}", "label": f"{self.kind} alpha {share}",
            "family": f"mixed by {self.kind}", "point": f"alpha {share}" if self.alpha in LABELLED else "",
            "seed": str(self.pair), "safe": str(self.safe), "neutral": str(self.neutral), "kind": self.kind,
            "alpha": share, "eval_seed": str(self.seed), "episodes": str(self.episodes),
        }  # fmt: skip

    def measure(self) -> dict[str, Any]:
        """Run the episodes; gives the row of results.csv."""
        if self.trust:  # in a process of its own
            configs.trust(self.safe)
            configs.trust(self.neutral)
        safe, neutral = load_run(self.safe), load_run(self.neutral)
        mixture = interpolate(safe, neutral, self.alpha, self.kind)
        mixture.seed(self.seed)
        records = drive(configs.from_json(safe.config_json), chooser(mixture), self.episodes, self.seed)
        episodes = len(records["return"])  # more than requested where all copies must run equally many
        return self.columns() | {"episodes": episodes} | tables.cells(report.as_dict(report.rows(records, self.seed)))


def mix(config: MixConfig) -> None:
    """Measure all mixtures, then write and draw the tables."""
    runs = plan(config)
    with hold(config.out, "another rqe-eval --mix"):
        _mix(config, runs)


def _mix(config: MixConfig, runs: Sequence[MixtureRun]) -> None:
    path = config.out / "results.csv"
    done = {_name(row): row for row in tables.read(path) if row.get("kind")}
    pairs = {str(run.pair): (str(run.safe), str(run.neutral)) for run in runs}
    for row in done.values():
        if pairs.get(row["seed"], (row["safe"], row["neutral"])) != (row["safe"], row["neutral"]):
            raise ConfigError(f"--out {config.out} holds mixtures of {row['safe']}, {row['neutral']}: choose another")
    missing = [run for run in runs if _name(run.columns()) not in done]
    beside = [] if config.front is None else tables.read(config.front / "results.csv")
    with processes(config.jobs) as pool:
        measured = tqdm(pool.map(MixtureRun.measure, missing), total=len(missing), disable=None)
        for run, row in zip(missing, measured, strict=False):
            done[_name(run.columns())] = row
            tables.write(path, [*done.values(), *beside])
    results = tables.read(path)
    tables.write(config.out / "summary.csv", tables.summarise(results))
    tables.write(config.out / "fronts.csv", tables.front_rows(results))
    bends = bend_rows(results)
    tables.write(config.out / "bends.csv", bends)
    _print(results, bends)
    for pair in tables.pairs_of(results):
        figure = front_plots.mixtures(results, tables.read(config.out / "fronts.csv"), pair)
        print(style.save(figure, config.out / "plots" / front_plots.front_name(pair))[0])


def plan(config: MixConfig) -> list[MixtureRun]:
    """The mixtures to measure, alphas innermost; ConfigError where two policies do not fit together."""
    for safe, neutral in config.mix:
        if config.trust:
            configs.trust(safe)
            configs.trust(neutral)
        one, other = load_run(safe), load_run(neutral)
        interpolate(one, other)
        mine, theirs = (configs.from_json(policy.config_json) for policy in (one, other))
        if mine.env_config != theirs.env_config:
            raise ConfigError(
                f"--mix {safe} {neutral}: they were trained in different settings of {mine.env}, and would have to be "
                "measured in one of them: give two runs of the same setting"
            )
    return [
        MixtureRun(index, safe, neutral, kind, alpha, config.episodes, config.seed, config.trust)
        for index, (safe, neutral) in enumerate(config.mix, 1)
        for kind in kinds(config.kind)
        for alpha in alphas(config.alpha)
    ]


def bend_rows(results: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """How far mixtures lie from the straight line between their policies: in the main metrics, by kind.

    The mean over all measured alphas between 0 and 1, then over pairs, with a t-interval; pairs whose ends were not
    measured do not count. A mixture of distributions would have 0, apart from chance and from CVaR, which lies below.
    """
    found = []
    for kind in dict.fromkeys(row["kind"] for row in results if row.get("kind")):
        for metric in HEADLINES:
            by_pair: dict[str, list[dict[str, str]]] = {}
            for row in results:
                if row.get("kind") == kind and row.get(metric.column):
                    by_pair.setdefault(row["seed"], []).append(row)
            bends = [
                _bend({float(row["alpha"]): tables.number(row, metric.column) for row in rows})
                for rows in by_pair.values()
            ]
            if known := [bend for bend in bends if bend is not None]:
                mean = seed_interval(known)
                found.append({"kind": kind, "metric": metric.column, "pairs": len(known), "bend": mean.value,
                             "low": mean.low, "high": mean.high})  # fmt: skip
    return found


def _bend(found: dict[float, float]) -> float | None:
    inner = [alpha for alpha in found if 0 < alpha < 1]
    if not inner or not {0.0, 1.0} <= found.keys():
        return None
    return float(np.mean([found[alpha] - (1 - alpha) * found[0.0] - alpha * found[1.0] for alpha in inner]))


def _name(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("safe", "neutral", "kind", "alpha", "eval_seed"))


def _print(results: Sequence[dict[str, str]], bends: Sequence[dict[str, Any]]) -> None:
    """The main metrics of every mixture and setting, means over pairs or seeds with t-intervals; then the bends."""
    shown = [metric for metric in HEADLINES if metric.column in tables.metric_columns(results)]
    lines = [["", *(metric.label for metric in shown)]]
    for label, rows in tables.by_label(results).items():
        cells = []
        for metric in shown:
            mean = tables.over_seeds(rows, metric.column)
            cells.append("" if mean is None else _format(mean.value, mean.low, mean.high, metric.digits))
        lines.append([label, *cells])
    of = {(row["kind"], row["metric"]): row for row in bends}
    for kind in dict.fromkeys(row["kind"] for row in bends):
        found = [(of.get((kind, metric.column)), metric.digits) for metric in shown]
        lines.append([f"{kind}: from the straight line",
                      *("" if row is None else _format(row["bend"], row["low"], row["high"], digits)
                        for row, digits in found)])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _format(value: float, low: float, high: float, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")
