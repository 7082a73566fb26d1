"""How plots look: colours, markers and lines that anyone and any printer tells apart; labels that give way."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from rqe_mappo.checkpoint import write_atomically

# Okabe and Ito (2008), without the yellow, which is too faint on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
QUIET = "#555555"
DPI = 150
PLACES = [(8, 6), (8, -13), (-8, 6), (-8, -13), (0, 11), (0, -18), (14, -3), (-14, -3), (16, 14), (-16, 14), (16, -22),
          (-16, -22), (0, 24), (0, -32), (34, 6), (-34, 6)]  # fmt: skip
WIDTH_PT, HEIGHT_PT = 5.6, 11.0  # of a letter and of a line of labels


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str
    line: Any


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name; 63 before one repeats."""
    return {
        name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, name in enumerate(names)
    }


def new(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1, wspace=0.03, hspace=0.03)
    return figure


def dress(axes: Axes) -> None:
    """Thin axes, and a grid behind everything."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(which="both", color=QUIET)
    axes.grid(color="0.92", lw=0.8)
    axes.set_axisbelow(True)


def title(figure: Figure, text: str, under: str) -> None:
    """A title, and under it what was measured, how often."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.axes[0].set_title(under, loc="left", fontsize=9.5, color=QUIET)


def pretty(label: str) -> str:
    """A setting's label with the Greek letters."""
    for word, letter in (("tau", "τ"), ("eps", "ε"), ("alpha", "α")):
        label = " ".join(letter if part == word else part for part in label.split(" "))
    return label.replace("τ inf", "τ ∞")


def place_labels(axes: Axes, points: np.ndarray, texts: Sequence[str], colours: Sequence[str]) -> None:
    """Write `texts` beside `points` `[K, 2]`, each where it covers the fewest others, points and edges.

    A point without a text is kept clear of.
    """
    figure = axes.get_figure()
    figure.canvas.draw()  # the layout has to be known
    scale = 72 / figure.dpi
    at = axes.transData.transform(points) * scale
    frame = axes.get_window_extent().extents * scale
    taken: list[tuple[float, float, float, float]] = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    for point, here, text, colour in zip(points, at, texts, colours, strict=True):
        if not text:
            continue
        wide = WIDTH_PT * len(text)

        def box(place: tuple[int, int], here: np.ndarray = here, wide: float = wide) -> tuple[float, ...]:
            left = here[0] + place[0] - (0 if place[0] > 0 else wide if place[0] < 0 else wide / 2)
            return left, here[1] + place[1], left + wide, here[1] + place[1] + HEIGHT_PT

        # straight above, below and beside it the bars of an interval run
        def cost(place: tuple[int, int], box: Any = box) -> float:
            left, low, right, high = box(place)
            over = sum(
                max(0, min(right, r) - max(left, x)) * max(0, min(high, t) - max(low, b)) for x, b, r, t in taken
            )
            outside = max(0, frame[0] - left) + max(0, right - frame[2]) + max(0, frame[1] - low, high - frame[3])
            return over + 20 * outside + 0.1 * (abs(place[0]) + abs(place[1])) + 2 * (place[0] == 0 or place[1] == -3)

        best = min(PLACES, key=cost)
        taken.append(box(best))
        axes.annotate(
            text, point, xytext=best, textcoords="offset points", color=colour, fontsize=10, fontweight="bold",
            ha="left" if best[0] > 0 else "right" if best[0] < 0 else "center", zorder=6,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.png and `path`.svg; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, metadata in (("png", {}), ("svg", {"Date": None})):
        image = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "rqe"}):
            figure.savefig(image, format=kind, dpi=DPI, metadata=metadata)
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_atomically(written[-1], image.getvalue())
    return written
