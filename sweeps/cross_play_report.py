"""What cross-play found: gaps, the matrix in text, and a heat map."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rqe_mappo.statistics import Estimate, seed_interval
from rqe_mappo.sweeps import style
from rqe_mappo.sweeps.players import Player


def gap_rows(players: Sequence[Player], rows: Sequence[dict[str, Any]], noise: float) -> list[dict[str, Any]]:
    """For each setting with runs of several seeds: the mean return with themselves, with each other, the difference.

    Of several runs of a setting and a seed the first counts. The 95 % interval is a t-interval of jackknife
    pseudo-values: a run is left out with its row and its column, since pairs that share a run are not independent. nan
    below three runs.
    """
    value = {(row["one"], row["others"]): row["return of all"] for row in rows if row["noise"] == noise}
    found = []
    for setting in dict.fromkeys(player.setting for player in players):
        of_seed = {player.seed: player.name for player in reversed(players) if player.setting == setting}
        names = list(of_seed.values())[::-1]
        if len(names) > 1:
            matrix = np.array([[value[one, others] for others in names] for one in names])
            with_self, with_others, gap = gap_of(matrix)
            found.append({
                "setting": setting, "noise": noise, "runs": len(names), "with themselves": with_self,
                "with each other": with_others, "gap": gap.value, "low": gap.low, "high": gap.high,
            })  # fmt: skip
    return found


def gap_of(matrix: np.ndarray) -> tuple[float, float, Estimate]:
    """The means of the diagonal and of the rest of `matrix` `[n, n]`, and their difference with its interval."""
    n = len(matrix)

    def means(kept: list[int]) -> tuple[float, float]:
        part = matrix[np.ix_(kept, kept)]
        apart = ~np.eye(len(kept), dtype=bool)
        return float(part.diagonal().mean()), float(part[apart].mean())

    everyone = list(range(n))
    own, cross = means(everyone)
    if n < 3:
        return own, cross, Estimate(own - cross, np.nan, np.nan, n)
    without = [np.subtract(*means([other for other in everyone if other != left])) for left in everyone]
    pseudo = n * (own - cross) - (n - 1) * np.array(without)
    spread = seed_interval(pseudo)
    return own, cross, Estimate(own - cross, spread.low, spread.high, n)


def show(rows: Sequence[dict[str, Any]], gaps: Sequence[dict[str, Any]], noise: float) -> None:
    shown = [row for row in rows if row["noise"] == noise]
    ones, others = (list(dict.fromkeys(row[name] for row in shown)) for name in ("one", "others"))
    of = {(row["one"], row["others"]): f"{row['return of all']:.4g}" for row in shown}
    lines = [["one \\ others", *others], *([one, *(of.get((one, other), "") for other in others)] for one in ones)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"mean return of all agents{f', actions of the others replaced with a chance of {noise:g}' * (noise > 0)}")
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for gap in gaps:
        if gap["noise"] == noise:
            ends = "" if np.isnan(gap["low"]) else f" [{gap['low']:.4g}, {gap['high']:.4g}]"
            print(
                f"{gap['setting']}: {gap['with themselves']:.4g} with themselves, {gap['with each other']:.4g} with "
                f"each other; gap {gap['gap']:.4g}{ends} over {gap['runs']} runs"
            )
    print()


def draw(rows: Sequence[dict[str, Any]], gaps: Sequence[dict[str, Any]], noises: Sequence[float], out: Path) -> Path:
    """A heat map for each chance of noise, side by side, on one scale of colours."""
    ones, others = (list(dict.fromkeys(row[name] for row in rows)) for name in ("one", "others"))
    values = np.full((len(noises), len(ones), len(others)), np.nan)
    for row in rows:
        values[noises.index(row["noise"]), ones.index(row["one"]), others.index(row["others"])] = row["return of all"]
    figure = style.new_figure(len(noises) * (2.2 + 0.75 * len(others)) + 1.5, 2.4 + 0.5 * len(ones))
    axes_of = figure.subplots(1, len(noises), squeeze=False)[0]
    low, high = np.nanmin(values), np.nanmax(values)
    images = []
    for axes, matrix, noise in zip(axes_of, values, noises, strict=True):
        images.append(axes.imshow(matrix, vmin=low, vmax=high, cmap="viridis", aspect="auto"))
        axes.set_xticks(range(len(others)), [style.pretty(name) for name in others], rotation=35, ha="right")
        axes.set_yticks(range(len(ones)), [style.pretty(name) for name in ones] if axes is axes_of[0] else [])
        axes.set(xlabel="the others" + f", noise {noise:g}" * (len(noises) > 1))
        for (y, x), value in np.ndenumerate(matrix):
            dark = value < (low + high) / 2
            axes.text(x, y, "" if np.isnan(value) else f"{value:.3g}", ha="center", va="center", fontsize=8,
                      color="white" if dark else "black")  # fmt: skip
    axes_of[0].set_ylabel("the one")
    figure.colorbar(images[0], ax=list(axes_of), label="mean return of all agents")
    style.title(figure, "Who gets on with whom", f"{rows[0]['episodes']} episodes a cell")
    return style.save(figure, out / "plots" / "cross_play")[0]
