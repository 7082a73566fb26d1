"""The style of plots: colours, markers and lines that stay distinct for everyone and in print; placed labels."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.typing import LineStyleType

from rqe_mappo.checkpoint import write_atomically

# Okabe and Ito (2008), without the yellow, which is too faint on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES: tuple[LineStyleType, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
QUIET = "#555555"
DPI = 150
PLACES = [(8, 6), (8, -13), (-8, 6), (-8, -13), (0, 11), (0, -18), (14, -3), (-14, -3), (16, 14), (-16, 14), (16, -22),
          (-16, -22), (0, 24), (0, -32), (34, 6), (-34, 6)]  # fmt: skip
LABELS_IN, LETTERS_PER_IN = 2.0, 13.5  # what labels of an axis take from a figure's width; of a subtitle
WIDTH_PT, HEIGHT_PT = 5.6, 11.0  # of a letter and of a line of labels
Box = tuple[float, float, float, float]  # left, low, right, high
Label = tuple[np.ndarray, str, str]  # where its point is `[2]`, text, colour


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str
    line: LineStyleType


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name; 63 before one repeats."""
    return {
        name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, name in enumerate(names)
    }


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes) -> None:
    """Thin axes, and a grid behind everything."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(which="both", color=QUIET)
    axes.grid(color="0.92", lw=0.8)
    axes.set_axisbelow(True)


def title(figure: Figure, text: str, subtitle: str) -> None:
    """A title, and a subtitle with what was measured, how often, in lines that fit the figure."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=13, fontweight="bold")
    letters = int((figure.get_figwidth() - LABELS_IN) * LETTERS_PER_IN)
    lines = fill(subtitle, max(letters, 30))
    axes = figure.axes[0]
    axes.set_title("\n".join(" " * (1 + lines.count("\n"))), fontsize=9.5)  # room for as many lines
    # a wide title would push the other panels away
    beside = Annotation(lines, (0, 1), (0, 6), axes.transAxes, "offset points", fontsize=9.5, color=QUIET, va="bottom")
    figure.add_artist(beside).set_in_layout(False)


def pretty(label: str) -> str:
    """A setting's label with the Greek letters."""
    for word, letter in (("tau", "τ"), ("eps", "ε"), ("alpha", "α")):
        label = " ".join(letter if part == word else part for part in label.split(" "))
    return label.replace("τ inf", "τ ∞")


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write labels beside their points, each where it covers the fewest other labels, points and edges.

    Labels do not cover a point without a text either.
    """
    figure.canvas.draw()  # the layout has to be known
    scale = 72 / figure.dpi
    at = axes.transData.transform([point for point, _, _ in labels]) * scale
    frame = np.array(axes.get_window_extent().extents) * scale
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    for (point, text, colour), here in zip(labels, at, strict=True):
        if not text:
            continue
        wide = WIDTH_PT * len(text)

        def box(place: tuple[int, int], here: np.ndarray = here, wide: float = wide) -> Box:
            left = here[0] + place[0] - (0 if place[0] > 0 else wide if place[0] < 0 else wide / 2)
            return left, here[1] + place[1], left + wide, here[1] + place[1] + HEIGHT_PT

        # the last term: the bars of an interval run straight above, below and beside the point
        def cost(place: tuple[int, int], box: Callable[[tuple[int, int]], Box] = box) -> float:
            left, low, right, high = box(place)
            over = sum(
                max(0, min(right, r) - max(left, x)) * max(0, min(high, t) - max(low, b)) for x, b, r, t in taken
            )
            outside = max(0, frame[0] - left) + max(0, right - frame[2]) + max(0, frame[1] - low, high - frame[3])
            return over + 20 * outside + 0.1 * (abs(place[0]) + abs(place[1])) + 2 * (place[0] == 0 or place[1] == -3)

        best = min(PLACES, key=cost)
        taken.append(box(best))
        x, y = point
        axes.annotate(
            text, (x, y), xytext=best, textcoords="offset points", color=colour, fontsize=10, fontweight="bold",
            ha="left" if best[0] > 0 else "right" if best[0] < 0 else "center", zorder=6,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.png and `path`.svg; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, metadata in (("png", {}), ("svg", {"Date": None})):
        image = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "rqe"}):
            figure.savefig(image, format=kind, dpi=DPI, metadata=metadata)
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_atomically(written[-1], image.getvalue())
    return written
