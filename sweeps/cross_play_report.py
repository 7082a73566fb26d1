"""What cross-play found: gaps, the matrix in text, and a heat map."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from rqe_mappo.statistics import among_runs
from rqe_mappo.sweeps import style
from rqe_mappo.sweeps.players import Player

Row = dict[str, Any]
ACROSS = 3  # heat maps side by side
LONGEST, INCHES = 36, 0.075  # of names, in characters; of a character


def gap_rows(players: Sequence[Player], rows: Sequence[Row], noise: float) -> list[Row]:
    """For each setting with runs of several seeds: the mean return with themselves, with each other, the difference.

    Of several runs of a setting and a seed the first counts. The interval of the difference is that of `among_runs`.
    """
    value = {(row["one"], row["others"]): row["return of all"] for row in rows if row["noise"] == noise}
    found = []
    for setting in dict.fromkeys(player.setting for player in players):
        of_seed = {player.seed: player.name for player in reversed(players) if player.setting == setting}
        names = list(of_seed.values())[::-1]
        if len(names) > 1:
            matrix = np.array([[value[one, others] for others in names] for one in names])
            known = among_runs(matrix)
            found.append({
                "setting": setting, "noise": noise, "runs": len(names), "with themselves": known.with_themselves,
                "with each other": known.with_each_other.value, "gap": known.gap.value, "low": known.gap.low,
                "high": known.gap.high,
            })  # fmt: skip
    return found


def show(rows: Sequence[Row], gaps: Sequence[Row], noise: float, players: Sequence[Player]) -> None:
    """Print the matrix of some players, and the gaps of their settings."""
    shown = of_players(rows, noise, players)
    ones, others = (list(dict.fromkeys(row[name] for row in shown)) for name in ("one", "others"))
    of = {(row["one"], row["others"]): f"{row['return of all']:.4g}" for row in shown}
    lines = [["one \\ others", *others], *([one, *(of.get((one, other), "") for other in others)] for one in ones)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"mean return of all agents{f', actions of the others replaced with a chance of {noise:g}' * (noise > 0)}")
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for gap in gaps:
        if gap["noise"] == noise and gap["setting"] in {player.setting for player in players}:
            ends = "" if np.isnan(gap["low"]) else f" [{gap['low']:.4g}, {gap['high']:.4g}]"
            print(
                f"{gap['setting']}: {gap['with themselves']:.4g} with themselves, {gap['with each other']:.4g} with "
                f"each other; gap {gap['gap']:.4g}{ends} over {gap['runs']} runs"
            )
    print()


def of_players(rows: Sequence[Row], noise: float, players: Sequence[Player]) -> list[Row]:
    names = {player.name for player in players}
    return [row for row in rows if row["noise"] == noise and row["one"] in names]


def draw(
    rows: Sequence[Row], gaps: Sequence[Row], noises: Sequence[float], groups: Sequence[Sequence[Player]], out: Path
) -> Path:
    """A heat map for each chance of noise and each group of players, on one scale of colours."""
    panels = [(noise, players, of_players(rows, noise, players)) for noise in noises for players in groups]
    by_noise = len(noises) > 1 and 1 < len(groups) <= 2 * ACROSS  # a row of maps each
    across = len(groups) if by_noise else min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    ones, others = (max(len({row[name] for row in found}) for *_, found in panels) for name in ("one", "others"))
    labels = {player.name: _short(player, len(groups) > 1) for players in groups for player in players}
    labels |= {row["others"]: _cut(row["others"]) for row in rows if row["others"] not in labels}
    margin = 0.7 + INCHES * max(map(len, labels.values()))
    figure = style.new_figure(across * (margin + 0.75 * others) + 1.5, down * (margin + 0.5 * ones) + 0.4)
    axes_of = figure.subplots(down, across, squeeze=False)
    values = [row["return of all"] for *_, found in panels for row in found]
    for number, axes in enumerate(axes_of.flat):
        if number >= len(panels):
            axes.set_axis_off()
            continue
        noise, players, found = panels[number]
        image = _heat_map(axes, found, (min(values), max(values)), labels)
        _lines(axes, [player.setting for player in players])
        said = [style.pretty(players[0].setting)][: len(groups) > 1] + [f"noise {noise:g}"][: len(noises) > 1]
        axes.set_title("\n".join([", ".join(said), *_with_whom(gaps, players, noise)]), fontsize=10)
        if number + across >= len(panels):
            axes.set_xlabel("the others")
        if number % across == 0:
            axes.set_ylabel("the one")
    figure.colorbar(image, ax=list(axes_of.flat), label="mean return of all agents [reward]")
    each = f"Who gets on with whom: {rows[0]['episodes']} episodes a cell"
    figure.suptitle(each, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return style.save(figure, out / "plots" / "cross_play")[0]


def _with_whom(gaps: Sequence[Row], players: Sequence[Player], noise: float) -> list[str]:
    """What a group gains by itself and with each other, where all are of one setting."""
    settings = {player.setting for player in players}
    return [
        f"{gap['with themselves']:.3g} with themselves, {gap['with each other']:.3g} with each other"
        for gap in gaps
        if {gap["setting"]} == settings and gap["noise"] == noise
    ]


def _short(player: Player, seed_alone: bool) -> str:
    return f"seed {player.seed}" if seed_alone else _cut(style.pretty(player.name))


def _cut(name: str) -> str:
    """A name without its middle, where it is too long for the side of a map."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 3]}…{name[-2 * LONGEST // 3 :]}"


def _lines(axes: Axes, settings: Sequence[str]) -> None:
    """Set the seeds of each setting apart from others."""
    for place in range(1, len(settings)):
        if settings[place] != settings[place - 1]:
            axes.axhline(place - 0.5, color="white", lw=1.5)
            axes.axvline(place - 0.5, color="white", lw=1.5)
    if settings:
        axes.axvline(len(settings) - 0.5, color="white", lw=1.5)  # strangers stand behind


def _heat_map(axes: Axes, rows: Sequence[Row], scale: tuple[float, float], labels: dict[str, str]) -> AxesImage:
    ones, others = (list(dict.fromkeys(row[name] for row in rows)) for name in ("one", "others"))
    values = np.full((len(ones), len(others)), np.nan)
    for row in rows:
        values[ones.index(row["one"]), others.index(row["others"])] = row["return of all"]
    image = axes.imshow(values, vmin=scale[0], vmax=scale[1], cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(others)), [labels[name] for name in others], rotation=35, ha="right")
    axes.set_yticks(range(len(ones)), [labels[name] for name in ones])
    for (y, x), value in np.ndenumerate(values):
        axes.text(x, y, "" if np.isnan(value) else f"{value:.3g}", ha="center", va="center", fontsize=8,
                  color="white" if value < sum(scale) / 2 else "black")  # fmt: skip
    return image
