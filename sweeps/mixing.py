"""rqe-eval --mix: pairs of policies mixed at many alphas, over the front of a sweep.

The folder is one that rqe-plot draws, like a sweep's: a row of results.csv is a pair at one alpha. Pairs stand where a
sweep has its seeds.
"""

import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro
from tqdm import tqdm

from rqe_mappo import config as configs
from rqe_mappo import report
from rqe_mappo.config import ConfigError
from rqe_mappo.evaluate import chooser, drive
from rqe_mappo.interpolation import Kind, interpolate
from rqe_mappo.policy import Policy
from rqe_mappo.sweeps import plots, style, tables
from rqe_mappo.sweeps.metrics import HEADLINES

MOST_ALPHAS = 1001
NAMED = (0.0, 0.25, 0.5, 0.75, 1.0)  # alphas that a plot spells out


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
    """Folder of the results; mixtures that it holds already are not played again."""
    jobs: int = os.cpu_count() or 1
    """Mixtures at a time, one core each."""

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
    """The shares that `--alpha` asks for; ConfigError where they are none."""
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
    known = get_args(Kind)
    named = list(known) if text == "all" else text.split(",")
    if unknown := [name for name in named if name not in known]:
        raise ConfigError(f"--kind {unknown[0]} is unknown: use {', '.join(known)} or all")
    return named


@dataclass(frozen=True)
class Play:
    """One mixture to measure: the `pair`-th pair of policies, a kind and an alpha."""

    pair: int
    safe: Path
    neutral: Path
    kind: Kind
    alpha: float
    episodes: int
    seed: int

    def head(self) -> dict[str, Any]:
        """The columns that name the row."""
        share = f"{self.alpha:g}"
        return {
            "run": f"{self.kind}__alpha{share}__pair{self.pair}", "label": f"{self.kind} alpha {share}",
            "family": f"mixed by {self.kind}", "point": f"alpha {share}" if self.alpha in NAMED else "",
            "seed": str(self.pair), "safe": str(self.safe), "neutral": str(self.neutral), "kind": self.kind,
            "alpha": share, "eval_seed": str(self.seed), "episodes": str(self.episodes),
        }  # fmt: skip

    def row(self) -> dict[str, Any]:
        """Play the episodes; gives the row of results.csv."""
        safe, neutral = Policy.load(self.safe), Policy.load(self.neutral)
        mixture = interpolate(safe, neutral, self.alpha, self.kind)
        mixture.seed(self.seed)
        records = drive(configs.from_json(safe.config_json), chooser(mixture), self.episodes, self.seed)
        played = len(records["return"])  # more than asked for, where copies have to play alike
        return self.head() | {"episodes": played} | tables.cells(report.as_dict(report.rows(records, self.seed)))


def mix(asked: MixConfig) -> None:
    """Measure what is asked for, then write and draw the tables."""
    plays = plan(asked)
    asked.out.mkdir(parents=True, exist_ok=True)
    path = asked.out / "results.csv"
    done = {_name(row): row for row in tables.read(path) if row.get("kind")}
    fresh = [play for play in plays if _name(play.head()) not in done]
    beside = [] if asked.front is None else tables.read(asked.front / "results.csv")
    with ProcessPoolExecutor(asked.jobs, multiprocessing.get_context("spawn"), _one_thread) as pool:
        for play, row in zip(fresh, tqdm(pool.map(Play.row, fresh), total=len(fresh), disable=None), strict=False):
            done[_name(play.head())] = row
            tables.write(path, [*done.values(), *beside])
    results = tables.read(path)
    tables.write(asked.out / "summary.csv", tables.summarise(results))
    tables.write(asked.out / "fronts.csv", tables.front_rows(results))
    _print(results)
    for pair in tables.pairs_of(results):
        figure = plots.front(results, tables.read(asked.out / "fronts.csv"), pair)
        print(style.save(figure, asked.out / "plots" / plots.front_name(pair))[0])


def plan(asked: MixConfig) -> list[Play]:
    """The mixtures to measure, alphas innermost; ConfigError where two policies do not go together."""
    for safe, neutral in asked.mix:
        one, other = Policy.load(safe), Policy.load(neutral)
        interpolate(one, other)
        mine, theirs = (configs.from_json(policy.config_json) for policy in (one, other))
        if mine.knobs != theirs.knobs:
            raise ConfigError(
                f"--mix {safe} {neutral}: they were trained in different settings of {mine.env}, and would have to be "
                "measured in one of them: give two runs of the same setting"
            )
    return [
        Play(index, safe, neutral, kind, alpha, asked.episodes, asked.seed)
        for index, (safe, neutral) in enumerate(asked.mix, 1)
        for kind in kinds(asked.kind)
        for alpha in alphas(asked.alpha)
    ]


def _name(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("safe", "neutral", "kind", "alpha", "eval_seed"))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _print(results: Sequence[dict[str, str]]) -> None:
    """The main metrics of every mixture and setting: means over pairs or seeds, with t-intervals."""
    shown = [metric for metric in HEADLINES if metric.column in tables.metric_columns(results)]
    lines = [["", *(metric.label for metric in shown)]]
    for label, rows in tables.by_label(results).items():
        cells = []
        for metric in shown:
            values = np.array([tables.number(row, metric.column) for row in rows])
            mean = tables.over_seeds(values[~np.isnan(values)], metric.bounds)
            ends = "" if math.isnan(mean.low) else f" [{mean.low:.{metric.digits}f}, {mean.high:.{metric.digits}f}]"
            cells.append(f"{mean.value:.{metric.digits}f}{ends}")
        lines.append([label, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
