"""The plots of one metric against another: fronts of trained settings, and curves of mixtures over them."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWNBASE, CARETLEFTBASE, CARETRIGHTBASE, CARETUPBASE

from rqe_mappo.statistics import Estimate
from rqe_mappo.sweeps import fronts
from rqe_mappo.sweeps.metrics import Metric
from rqe_mappo.sweeps.style import QUIET, Label, looks, new_figure, place_labels, pretty, style_axes, title
from rqe_mappo.sweeps.tables import by_label, complete, number, over_seeds, points, with_both

Rows = list[dict[str, str]]
REACH = 0.4  # of the range of the runs: intervals of three seeds may be so wide that they would hide the rest
FEWEST_SEEDS = 3  # behind a bar: one of two seeds is 12.7 standard errors long each way, and crosses the whole picture
ARROWS = ((CARETLEFTBASE, CARETRIGHTBASE), (CARETDOWNBASE, CARETUPBASE))  # of an axis: to its low end, to its high
BARS = f"bars: 95 % t-intervals, from {FEWEST_SEEDS} seeds on"
TRAINED = "#444444"  # the colour of trained settings, beside mixtures


def front_name(pair: tuple[Metric, Metric]) -> str:
    """The name of a front's files."""
    names = (metric.name.replace(" of return", "").replace(" ", "-").lower() for metric in pair)
    return "_".join(("front", *names))


def sample_counts(results: Rows) -> str:
    """The numbers of seeds and episodes of each setting."""
    seeds = [len(rows) for rows in by_label(results).values()]
    episodes = [int(number(row, "episodes")) for row in results]
    return f"seeds a setting: {span_text(seeds)}; episodes a run: {span_text(episodes)}"


def span_text(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def axis_label(metric: Metric, gap: str = "     ") -> str:
    """The axis label, with an arrow to the better end (which points up on a vertical axis)."""
    return metric.axis + gap + ("better →" if metric.sign > 0 else "← better")


def reward_against_risk(results: Rows, volumes: Rows, pair: tuple[Metric, Metric]) -> Figure:
    """The plot of a pair of metrics: mixtures where there are any, else the front of settings."""
    return (mixtures if any(row.get("kind") for row in results) else front)(results, volumes, pair)


def front(results: Rows, volumes: Rows, pair: tuple[Metric, Metric]) -> Figure:
    """Reward against risk: a point a setting (mean over seeds) with t-intervals, the seeds behind it as small dots,
    filled where no other setting dominates it; the median attainment curve of families with several settings."""
    figure = new_figure(8.6, 6.2)
    axes = figure.subplots()
    results = with_both(results, pair)
    settings = by_label(results)
    families = list(dict.fromkeys(row["family"] for row in results))
    look, reference = looks(families), ""
    means = {label: points(rows, pair).mean(0) for label, rows in settings.items()}
    best = dict(zip(means, fronts.non_dominated(np.array(list(means.values())), pair), strict=True))
    limits = _frame(settings, pair)
    axes.set(xlim=limits[0], ylim=limits[1])
    volume = _volumes(volumes, pair)
    for family in families:
        rows = [row for row in results if row["family"] == family]
        labels = list(by_label(rows))
        colour, marker = look[family].colour, look[family].marker
        if len(labels) > 1 and (seeds := complete(rows, len(labels))):
            rows = [row for seed in seeds for row in seed]
            corners = fronts.median_front(points(rows, pair), [number(row, "seed") for row in rows], pair)
            border = _to_the_edges(fronts.staircase(corners, pair), limits, pair)
            axes.plot(*border.T, color=colour, ls=look[family].line, lw=1.4, alpha=0.75, zorder=2)
        for label in labels:
            runs = points(settings[label], pair)
            x, y = over_both(settings[label], pair)
            axes.plot(*runs.T, ls="", marker=marker, ms=3.5, mew=0, color=colour, alpha=0.4, zorder=3)
            _bar(axes, x, y, colour)
            axes.plot(
                x.value, y.value, marker=marker, ms=9, color=colour, mfc=colour if best[label] else "white", mew=1.8,
                zorder=5, ls="",
            )  # fmt: skip
        axes.plot(
            [], [], marker=marker, ms=8, color=colour, ls=look[family].line if len(labels) > 1 else "",
            label=_volume(family, volume.get(family)),
        )  # fmt: skip
    if any(int(row["settings"]) > 1 for row in volume.values()):
        reference = f"hypervolume: mean over seeds [95 % t-interval], from {_reference(volume)}"
    legend = figure.legend(frameon=False, fontsize=9.5, loc="outside lower left", title=reference, alignment="left",
                           handlelength=3.5)  # fmt: skip
    legend.get_title().set(fontsize=8.5, color=QUIET)
    axes.set(xlabel=axis_label(pair[0]), ylabel=axis_label(pair[1], gap="\n"))
    style_axes(axes)
    subtitle = f"{sample_counts(results)}; points: means over seeds; small: single seeds\n"
    subtitle += f"{BARS}; filled: no other is better in both; lines: what half of the seeds attain"
    text = f"{pair[0].label} against {pair[1].label}"
    title(figure, text[0].upper() + text[1:], subtitle)
    first = [rows[0] for rows in settings.values()]
    alike = Counter(row["family"] for row in first)
    texts = [pretty(row["point"]) or ("default" if alike[row["family"]] > 1 else "") for row in first]
    colours = [look[row["family"]].colour for row in first]
    place_labels(figure, axes, list(zip(means.values(), texts, colours, strict=True)))
    return figure


def mixtures(results: Rows, volumes: Rows, pair: tuple[Metric, Metric]) -> Figure:
    """Policies mixed at run time, a panel a kind: the curve of alpha over the settings that were trained."""
    results = with_both(results, pair)
    families = list(dict.fromkeys(row["family"] for row in results if row.get("kind")))
    trained = [row for row in results if not row.get("kind")]
    look, volume, limits = looks(families), _volumes(volumes, pair), _frame(by_label(results), pair)
    figure = new_figure(0.8 + 4.6 * len(families), 5.6)
    for axes, family in zip(figure.subplots(1, len(families), sharey=True, squeeze=False)[0], families, strict=True):
        own = [row for row in results if row["family"] == family]
        named: list[Label] = []
        axes.set(xlim=limits[0], ylim=limits[1], xlabel=axis_label(pair[0]))
        for rows, colour, marker, line in (
            (trained, TRAINED, "D", ":"),
            (own, look[family].colour, look[family].marker, "-"),
        ):
            settings = by_label(rows)
            means = np.array([points(each, pair).mean(0) for each in settings.values()]).reshape(-1, 2)
            axes.plot(*means.T, color=colour, ls=line, lw=1.4, marker=marker, ms=6, zorder=5)
            for mean, each in zip(means, settings.values(), strict=True):
                _bar(axes, *over_both(each, pair), colour, faint=True)
                named.append((mean, pretty(each[0]["point"]), colour))  # without a text too: labels avoid its point
            for name in dict.fromkeys(row["family"] for row in rows):
                text = _volume(name, volume.get(name)).replace(": hyper", ":\nhyper")
                axes.plot([], [], color=colour, ls=line, marker=marker, ms=6, label=text)
        axes.legend(frameon=False, fontsize=9.5, loc="upper left", bbox_to_anchor=(-0.03, -0.14), handlelength=3)
        style_axes(axes)
        place_labels(figure, axes, named)
    figure.axes[0].set_ylabel(axis_label(pair[1], gap="\n"))
    text = f"{pair[0].label} against {pair[1].label}"
    subtitle = f"{sample_counts(results)}; means over pairs of policies, or seeds; {BARS}"
    subtitle += f"\nhypervolumes: from {_reference(volume)}" if volume else ""
    title(figure, f"Policies mixed: {text}", subtitle)
    return figure


def _frame(settings: dict[str, Rows], pair: tuple[Metric, Metric]) -> np.ndarray:
    """Limits `[2, 2]` (axis, low and high) of a plot of all settings."""
    runs = [points(rows, pair) for rows in settings.values()]
    means = [over_both(rows, pair) for rows in settings.values()]
    return np.array([
        limits_of([each[:, at] for each in runs], [each[at] for each in means], pair[at].bounds) for at in (0, 1)
    ])  # fmt: skip


def over_both(rows: Rows, pair: tuple[Metric, Metric]) -> tuple[Estimate, Estimate]:
    """Both objectives of a setting over its seeds; see `tables.over_seeds`."""
    first, second = (over_seeds(rows, metric.column) for metric in pair)
    assert first is not None and second is not None, "rows have both objectives"
    return first, second


def _volumes(volumes: Rows, pair: tuple[Metric, Metric]) -> dict[str, dict[str, str]]:
    """The row of each family's hypervolume."""
    columns = tuple(metric.column for metric in pair)
    return {row["family"]: row for row in volumes if (row["first"], row["second"]) == columns}


def _reference(volumes: dict[str, dict[str, str]]) -> str:
    """The point from which hypervolumes are measured, the same for all families."""
    ends = [number(next(iter(volumes.values())), f"reference_{end}") for end in ("first", "second")]
    return f"reference point ({ends[0]:.4g}, {ends[1]:.4g})"


def _bar(axes: Axes, x: Estimate, y: Estimate, colour: str, faint: bool = False) -> None:
    """The intervals of both objectives, with an arrowhead at the picture's edge where they go on beyond it."""
    style: dict[str, Any] = {"color": colour, "alpha": 0.3 if faint else 0.7, "zorder": 4}
    if math.isnan(x.low) or x.n < FEWEST_SEEDS:
        return
    for at, mean, frame in ((0, x, axes.get_xlim()), (1, y, axes.get_ylim())):
        ends = np.clip([mean.low, mean.high], *frame)
        line = [ends, [y.value, y.value]] if at == 0 else [[x.value, x.value], ends]
        axes.plot(*line, lw=0.9 if faint else 1.2, **style)
        for end, beyond, head in zip(ends, (mean.low < frame[0], mean.high > frame[1]), ARROWS[at], strict=True):
            if beyond:
                place = (end, y.value) if at == 0 else (x.value, end)
                axes.plot(*place, marker=head, ms=5, mew=0, clip_on=False, **style)


def _volume(family: str, row: dict[str, str] | None) -> str:
    if row is None or not row["hypervolume"] or int(row["settings"]) == 1:
        return pretty(family)
    value, low, high = (number(row, name) for name in ("hypervolume", "low", "high"))
    ends = "" if math.isnan(low) else f" [{low:.4g}, {high:.4g}]"
    return f"{pretty(family)}: hypervolume {value:.4g}{ends}, n = {row['seeds']}"


def _to_the_edges(border: np.ndarray, limits: np.ndarray, pair: tuple[Metric, Metric]) -> np.ndarray:
    """A staircase `[L, 2]` with the ends of what it borders: `limits` `[2, 2]` (axis, low and high) of the plot."""
    worst = [limit[0] if metric.sign > 0 else limit[1] for limit, metric in zip(limits, pair, strict=True)]
    ends = [[worst[0], border[0, 1]], [border[-1, 0], worst[1]]]
    if pair[0].sign < 0:
        ends = [[border[0, 0], worst[1]], [worst[0], border[-1, 1]]]
    return np.vstack((ends[:1], border, ends[1:]))


def limits_of(
    groups: Sequence[np.ndarray], means: Sequence[Estimate], bounds: tuple[float, float]
) -> tuple[float, float]:
    """Limits that show every run and, up to `REACH` of their range further, the intervals of the means over seeds."""
    runs = np.concatenate(groups)
    intervals = [each for each in means if each.n >= FEWEST_SEEDS]
    size = np.abs(runs).max()
    reach = REACH * (np.ptp(runs) if np.ptp(runs) > 1e-6 * size else size or 1.0)
    low = min([runs.min(), *(max(each.low, runs.min() - reach) for each in intervals)])
    high = max([runs.max(), *(min(each.high, runs.max() + reach) for each in intervals)])
    pad = 0.2 * reach
    return low - (0.25 if low == bounds[0] else 1) * pad, high + pad
