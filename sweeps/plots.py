"""The plots of a sweep, from its CSV files alone."""

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rqe_mappo.config import ConfigError
from rqe_mappo.statistics import FEWEST_FOR_TAIL, Estimate, cvar, interval, over_runs, seed_interval
from rqe_mappo.sweeps import style
from rqe_mappo.sweeps.front_plots import (
    FEWEST_SEEDS,
    front_name,
    limits_of,
    reward_against_risk,
    sample_counts,
    span_text,
)
from rqe_mappo.sweeps.metrics import HEADLINES
from rqe_mappo.sweeps.style import looks, new_figure, pretty, style_axes, title
from rqe_mappo.sweeps.tables import by_label, metric_columns, number, over_seeds, pairs_of, read

Rows = list[dict[str, str]]
MOST_CURVES = 8  # settings in one panel; more get a panel a family, those of one setting together
EARLY = 1.0, 0.1  # how far curves show what the second half does not: shares of its range and of the whole
CURVE_POINTS = 40  # each the average of the rows about it
SCALARS = {
    "charts/episodic_return": "mean return of the episodes just finished",
    "charts/cvar05": "CVaR5 of the episodes just finished",
    "charts/collisions": "collisions per agent",
    "charts/falls": "falls per episode",
}
SHARES = ("charts/collisions", "charts/falls")
BINS = 60
RESAMPLES = 500  # of each run's CVaR5: a line of the plot is wider than what more would move


def draw(folder: Path) -> list[Path]:
    """Draw all that the tables in `folder` allow; ConfigError where there are none."""
    results = read(folder / "results.csv")
    if not results:
        again = f"rqe-report {shlex.quote(str(folder))}"
        raise ConfigError(f"{folder} holds no results.csv with finished runs: run rqe-sweep, or {again}")
    volumes = read(folder / "fronts.csv")
    figures = {front_name(pair): reward_against_risk(results, volumes, pair) for pair in pairs_of(results)}
    figures["bars"] = bars(results)
    rows = read(folder / "curves.csv")
    if any(row.get(name) for row in rows for name in SCALARS):  # a very short run sees no episode end
        figures["curves"] = curves(rows)
    if rows := read(folder / "episodes.csv.gz"):
        figures["returns"] = returns(rows)
    return [path for name, figure in figures.items() for path in style.save(figure, folder / "plots" / name)]


def bars(results: Rows) -> Figure:
    """The main metrics of every setting: bars with t-intervals over seeds, and the seeds as dots."""
    columns = metric_columns(results)
    shown = [metric for metric in HEADLINES if metric.column in columns]
    settings = by_label(results)
    place = np.arange(len(settings))[::-1]
    figure = new_figure(1.6 + 3.3 * len(shown), 1.7 + 0.42 * len(settings))
    for axes, metric in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        found: list[np.ndarray] = [np.zeros(1)]
        means: list[Estimate] = []
        drawn: list[tuple[int, Estimate]] = []
        for at, rows in zip(place, settings.values(), strict=True):
            mean = over_seeds(rows, metric.column)
            if mean is None:
                continue
            means.append(mean)
            values = np.array([number(row, metric.column) for row in rows])
            values = values[~np.isnan(values)]
            found.append(values)
            axes.barh(at, mean.value, height=0.62, color="#9cc4dd", edgecolor="#0072B2", lw=1)
            axes.plot(values, np.full(len(values), at), "o", ms=4, mfc="white", mec="#333333", mew=0.8, zorder=4)
            if mean.n >= FEWEST_SEEDS:
                axes.plot([mean.low, mean.high], [at, at], color="#000000", lw=1.6, zorder=3)
                drawn.append((int(at), mean))
        style_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{fill(metric.axis, 30)}\n{'better →' if metric.sign > 0 else '← better'}")
        low, high = limits_of(found, means, metric.bounds)
        low, high = min(low, 0) if min(map(np.min, found)) < 0 else 0, high if max(map(np.max, found)) > 0 else 0
        axes.set_xlim(low, high if high > low else low + 1)
        for at, mean in drawn:  # intervals that go on beyond the axes
            for edge, mark, beyond in ((low, "<", mean.low < low), (high, ">", mean.high > high)):
                if beyond:
                    axes.plot(edge, at, mark, ms=6, color="#000000", clip_on=False, zorder=5)
    figure.axes[0].set_yticks(place, [pretty(label) for label in settings])
    figure.axes[0].set_ylim(-0.6, len(settings) - 0.4)
    key = f"bars: means, 95 % t-intervals from {FEWEST_SEEDS} seeds, ◂ ▸ where they go on; dots: seeds"
    title(figure, "Settings side by side", f"{sample_counts(results)}; {key}")
    return figure


def curves(rows: Rows) -> Figure:
    """Learning curves: mean and t-interval over seeds, at steps that all of a setting's runs reached."""
    scalars = [name for name in SCALARS if any(row.get(name) for row in rows)]
    settings = by_label(rows)
    families: dict[str, list[str]] = {}
    for label, own in settings.items():
        families.setdefault(own[0]["family"] if len(settings) > MOST_CURVES else "", []).append(label)
    alone = [group[0] for group in families.values() if len(group) == 1]
    groups = [group for group in families.values() if len(group) > 1]
    groups += [alone[at : at + MOST_CURVES] for at in range(0, len(alone), MOST_CURVES)]
    figure = new_figure(4.7 * len(scalars) + 1.3, 1.0 + 3.7 * len(groups))
    grid = figure.subplots(len(groups), len(scalars), squeeze=False, sharex=True, sharey="col")
    for line, labels in zip(grid, groups, strict=True):
        look = looks(labels)
        for axes, scalar in zip(line, scalars, strict=True):
            for place, label in enumerate(labels):
                _curve(axes, settings[label], scalar, look[label], place)
            style_axes(axes)
            axes.set_ylabel(SCALARS[scalar])
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(FuncFormatter(_short))
        handles = [
            line[0].plot([], [], color=look[label].colour, ls=look[label].line, marker=look[label].marker,
                         ms=6, label=pretty(label))[0]
            for label in labels
        ]  # fmt: skip
        line[-1].legend(handles=handles, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("decisions")
    for scalar, column in zip(scalars, grid.T, strict=True):
        low, high = _heights(rows, scalar)
        pad = 0.08 * (high - low or 1.0)
        ends = (max(low - pad, -0.02), min(high + pad, 1.02)) if scalar in SHARES else (low - pad, high + pad)
        column[0].set_ylim(*ends)
    seeds = [len({row["run"] for row in own}) for own in settings.values()]
    subtitle = f"mean and 95 % t-interval over seeds ({span_text(seeds)} a setting); "
    subtitle += f"a point averages 1/{CURVE_POINTS} of the run; early play may lie outside"
    title(figure, "Learning curves: play in training, exploration included", subtitle)
    return figure


def _heights(rows: Rows, scalar: str) -> tuple[float, float]:
    """Where most values lie; what was there in the first half alone is cut where it would flatten the second."""
    steps, values = (np.array([number(row, name) for row in rows]) for name in ("global_step", scalar))
    whole = np.nanpercentile(values, [1, 99])
    late = values[steps >= steps.max() / 2]
    if np.isnan(late).all():
        return float(whole[0]), float(whole[1])
    low, high = np.nanpercentile(late, [1, 99])
    reach = max(EARLY[0] * (high - low), EARLY[1] * (whole[1] - whole[0]))
    return float(max(whole[0], low - reach)), float(min(whole[1], high + reach))


def _curve(axes: Axes, rows: Rows, scalar: str, look: style.Look, place: int) -> None:
    """Draw one setting; markers stand at different steps, so that curves that overlap can be told apart."""
    runs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step, value = number(row, "global_step"), number(row, scalar)
        if not math.isnan(value):
            runs.setdefault(row["run"], []).append((step, value))
    if not runs:
        return
    paths = [np.array(run).T for run in runs.values()]
    first, last = max(path[0][0] for path in paths), min(path[0][-1] for path in paths)
    steps = np.linspace(first, max(first, last), CURVE_POINTS)
    found = [seed_interval(column) for column in np.array([_averaged(*path, steps) for path in paths]).T]
    mean = np.array([estimate.value for estimate in found])
    if len(paths) > 1:
        low, high = ([getattr(estimate, end) for estimate in found] for end in ("low", "high"))
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.12, lw=0)
    every = CURVE_POINTS // 4
    axes.plot(steps, mean, color=look.colour, ls=look.line, lw=1.7, marker=look.marker, ms=5,
              markevery=((place * 3) % every, every))  # fmt: skip


def _averaged(at: np.ndarray, values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The mean of the `values` nearest to each of `steps`, between its neighbours' where none is."""
    nearest = np.abs(at[:, None] - steps).argmin(1)
    counts = np.bincount(nearest, minlength=len(steps))
    means = np.bincount(nearest, values, len(steps))[counts > 0] / counts[counts > 0]
    return np.interp(steps, steps[counts > 0], means)


def _short(value: float, position: int | None = None) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g} {letter}"
    return f"{value:g}"


def returns(rows: Rows) -> Figure:
    """The returns of the evaluations: left their distributions with mean and CVaR5, right the lower tails.

    Means and CVaR5 are those over runs of each run's; CVaR5 with the interval of `over_runs`.
    """
    settings = by_label(rows)
    runs = {label: _runs(own) for label, own in settings.items()}
    look = looks(list(settings))
    figure = new_figure(12.5, 2.2 + 0.62 * max(len(settings), 4))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    everything = np.concatenate([run.ravel() for found in runs.values() for run in found])
    everything = everything[~np.isnan(everything)]
    edges = np.linspace(everything.min(), everything.max(), BINS + 1)
    tail = min(len(run) for found in runs.values() for run in found) >= FEWEST_FOR_TAIL
    shares = {label: _histogram(found, edges) for label, found in runs.items()}
    tallest = max(share.max() for share in shares.values())
    for at, (label, found) in zip(range(len(runs))[::-1], runs.items(), strict=True):
        colour, marker = look[label].colour, look[label].marker
        heights = at + 0.78 * np.sqrt(shares[label] / tallest)
        left.stairs(heights, edges, baseline=at, fill=True, color=colour, alpha=0.35)
        left.plot(edges[[0, -1]], [at, at], color="0.8", lw=0.8, zorder=0)
        mean = float(np.mean([run[~np.isnan(run)].mean() for run in found]))
        left.plot([mean, mean], [at, at + 0.3], color="black", lw=2.4, zorder=5)
        if tail:
            worst = over_runs([interval(cvar, run, ~np.isnan(run), resamples=RESAMPLES) for run in found])
            left.plot(worst.value, at, marker="^", ms=7, color="black", mec="white", zorder=5)
            if worst.n >= FEWEST_SEEDS:
                left.plot([worst.low, worst.high], [at, at], color="black", lw=2, zorder=4)
        x, below = _tail(found)
        right.step(x, below, where="post", color=colour, ls=look[label].line, lw=1.6)
        spots = np.unique(np.searchsorted(below, np.geomspace(2 * below[0], 0.7, 5)))
        spots = spots[spots < len(x)]  # none where all returns are the same
        right.plot(x[spots], below[spots], ls="", marker=marker, ms=5.5, color=colour)
        right.plot([], [], color=colour, ls=look[label].line, marker=marker, ms=5.5, label=pretty(label))
    left.set_yticks(range(len(runs)), [pretty(label) for label in list(runs)[::-1]])
    left.set(xlabel="undiscounted return of an agent [reward]", ylim=(-0.35, len(runs) + 0.05))
    margin = 0.03 * (edges[-1] - edges[0]) or 0.5
    left.set_xlim(edges[0] - margin, edges[-1] + margin)  # an interval of two seeds may be longer than the axis
    episodes = [len(run) for found in runs.values() for run in found]
    right.set(yscale="log", ylim=(0.5 / max(episodes), 1.05), xlabel="return x [reward]")
    right.set_ylabel("share of returns up to x, mean over seeds")
    right.legend(frameon=False, fontsize=9.5, loc="lower right")
    for axes in (left, right):
        style_axes(axes)
    left.grid(visible=False, axis="y")
    seeds = span_text([len(found) for found in runs.values()])
    subtitle = f"seeds a setting: {seeds}; episodes a run: {span_text(episodes)}; "
    subtitle += "heights: square root of the share; bar: mean; "
    note = "triangle: CVaR5 with its 95 % t-interval over seeds"
    title(figure, "Returns, and their lower tails",
          subtitle + (note if tail else f"no CVaR5: it takes {FEWEST_FOR_TAIL} episodes a run"))  # fmt: skip
    return figure


def _runs(rows: Rows) -> list[np.ndarray]:
    """The returns `[F, A]` of each run, nan where an agent took no part."""
    found: dict[str, list[tuple[int, int, float]]] = {}
    for row in rows:
        found.setdefault(row["run"], []).append((int(row["episode"]), int(row["agent"]), number(row, "return")))
    runs = []
    for cells in found.values():
        episode, agent, value = (np.array(column) for column in zip(*cells, strict=True))
        at = [np.unique(index, return_inverse=True)[1] for index in (episode, agent)]
        run = np.full([index.max() + 1 for index in at], np.nan)
        run[*at] = value
        runs.append(run[~np.isnan(run).all(1)])
    return runs


def _mean_over_runs(runs: Sequence[np.ndarray], share: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The mean over runs of `share` of each run's returns: every run counts the same."""
    return np.mean([share(run[~np.isnan(run)]) for run in runs], axis=0)


def _histogram(runs: Sequence[np.ndarray], edges: np.ndarray) -> np.ndarray:
    return _mean_over_runs(runs, lambda values: np.histogram(values, edges)[0] / len(values))


def _tail(runs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns that occurred, and the share of returns up to each."""
    values = np.unique(np.concatenate([run[~np.isnan(run)] for run in runs]))
    below = _mean_over_runs(runs, lambda own: np.searchsorted(np.sort(own), values, side="right") / len(own))
    return values, below
