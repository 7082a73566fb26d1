"""Pictures of an evaluation."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.evaluation.episodes import Calibration

FORETOLD, HAD = "#0072B2", "#D55E00"  # blue and vermilion, told apart by the colour-blind too (Okabe and Ito)
QUIET = "#666666"
PIT_BINS = 20
MOST_BARS = 60
LEFT_OUT = 0.005  # of either tail in the middle panel; the right one shows the lower
Note = tuple[str, str]


def calibration_plot(calibration: Calibration, path: Path) -> None:
    """Draw how well the critic foretold the returns, as a PNG at `path`.

    Left, the PIT histogram; middle, the law foretold and the returns had; right, the lower tails of both on a
    logarithmic scale. Bands are 95 %, each point by itself, at the number of episodes: cautious, as if agents of an
    episode had the same return. Returns had are put on the critic's atoms, each shared by its two neighbours.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.04)
    had = _on_atoms(calibration.atoms, calibration.realised)
    left, middle, right = figure.subplots(1, 3)
    _draw_pit(left, calibration)
    _draw_laws(middle, calibration, had)
    _draw_tails(right, calibration, had)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(QUIET)
        axes.tick_params(which="both", color=QUIET)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    write_atomically(path, image.getvalue())


def _on_atoms(atoms: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Share of the returns on each atom `[N]`."""
    last = len(atoms) - 1
    position = ((returns - atoms[0]) / (atoms[-1] - atoms[0]) * last).clip(0, last)
    lower = np.floor(position).astype(int).clip(max=last - 1)
    upper_share = position - lower
    counts = np.bincount(lower, 1 - upper_share, last + 1) + np.bincount(lower + 1, upper_share, last + 1)
    return counts / len(returns)


def _draw_pit(axes: Any, calibration: Calibration) -> None:
    from scipy.stats import binom

    n = calibration.episodes
    low, high = binom.ppf([0.025, 0.975], n, 1 / PIT_BINS) / n * PIT_BINS
    heights = np.histogram(calibration.pit, PIT_BINS, (0, 1))[0] / len(calibration.pit) * PIT_BINS
    edges = np.linspace(0, 1, PIT_BINS + 1)
    axes.axhspan(low, high, color="0.87", lw=0)
    axes.axhline(1, color=QUIET, lw=1)
    axes.stairs(heights, edges, fill=True, color=HAD, alpha=0.25, lw=0)
    axes.stairs(heights, edges, color=HAD, lw=1.6)
    axes.set(xlim=(0, 1), ylim=(0, max(1.3 * heights.max(), 1.3 * high, 2)))
    _title(axes, "Where returns fell (PIT)")
    axes.set(xlabel="foretold probability of a lower return", ylabel="returns per bin, 1: as many as foretold")
    _note(axes, [
        (f"KS {calibration.ks:.3f}; a critic that knows: below {calibration.ks_limit:.3f}", HAD),
        (f"grey: 95 % of its bins, {n} episodes", QUIET),
    ])  # fmt: skip


def _draw_laws(axes: Any, calibration: Calibration, had: np.ndarray) -> None:
    atoms, foretold = calibration.atoms, calibration.predicted
    spacing = atoms[1] - atoms[0]
    upto = np.stack((foretold, had)).cumsum(-1)
    first = np.searchsorted(upto.max(0), LEFT_OUT)
    last = min(np.searchsorted(upto.min(0), 1 - LEFT_OUT), len(atoms) - 1)
    each = -(-(last - first + 1) // MOST_BARS)
    starts = np.arange(first, last + 1, each)
    edges = atoms[first] + spacing * (np.append(starts, starts[-1] + each) - first - 0.5)
    percent_foretold, percent_had = (100 * np.add.reduceat(law[: starts[-1] + each], starts) for law in (foretold, had))
    axes.stairs(percent_had, edges, fill=True, color=HAD, alpha=0.4, lw=0)
    axes.stairs(percent_foretold, edges, color=FORETOLD, lw=1.6)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.5 * max(percent_had.max(), percent_foretold.max())))
    c = calibration
    for value, colour in ((c.realised_value, HAD), (c.predicted_value, FORETOLD)):
        axes.plot(value, 0, "^", color=colour, ms=9, mec="white", clip_on=False, zorder=5)
    _title(axes, "Returns foretold and had")
    axes.set(xlabel="discounted return, in units of reward", ylabel=f"% of returns per {each * spacing:.3g}")
    numbers = {
        "foretold": (c.predicted_mean, c.predicted_std, c.predicted_value),
        "had": (c.realised_mean, c.realised_std, c.realised_value),
    }
    numbers = {name: "mean {}, std {}, V {}".format(*map(_number, three)) for name, three in numbers.items()}
    tau = "" if c.tau is None else f" at tau {c.tau:g}"
    _note(axes, [
        (f"foretold: {numbers['foretold']}", FORETOLD),
        (f"had: {numbers['had']}", HAD),
        (f"95 % interval of V had: {_number(c.realised_value_low)} to {_number(c.realised_value_high)}", HAD),
        (f"triangles: V, the {c.risk} value{tau}", QUIET),
    ])  # fmt: skip


def _draw_tails(axes: Any, calibration: Calibration, had: np.ndarray) -> None:
    from scipy.stats import beta

    atoms, n = calibration.atoms, calibration.episodes
    foretold, below = calibration.predicted.cumsum(), had.cumsum().clip(max=1)
    # Clopper and Pearson's interval; where its beta law has no second parameter the bound is 0 or 1
    hits, misses = below * n, (1 - below) * n
    low = np.where(hits > 0, beta.ppf(0.025, np.maximum(hits, 1e-9), misses + 1), 0)
    high = np.where(misses > 0, beta.ppf(0.975, hits + 1, np.maximum(misses, 1e-9)), 1)
    floor = 0.3 / n
    first = max(np.searchsorted(np.maximum(below, foretold), floor) - 1, 0)
    last = min(np.searchsorted(np.minimum(below, foretold), 0.5) + 1, len(atoms) - 1)
    axes.fill_between(atoms, low, high, step="post", color=HAD, alpha=0.2, lw=0)
    axes.step(atoms, below, where="post", color=HAD, lw=1.6)
    axes.step(atoms, foretold, where="post", color=FORETOLD, lw=1.6)
    axes.set(yscale="log", xlim=(atoms[first], atoms[last]), ylim=(floor, 1.6))
    _title(axes, "Lower tails")
    axes.set(xlabel="discounted return x, in units of reward", ylabel="probability of a return up to x")
    _note(axes, [("foretold", FORETOLD), ("had, with its 95 % band", HAD)])


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=12, fontweight="bold")


def _note(axes: Any, lines: list[Note]) -> None:
    """Lines of text, each in its colour, at the upper left."""
    for row, (text, colour) in enumerate(lines):
        axes.annotate(
            text, (0.03, 0.975), xycoords="axes fraction", xytext=(0, -14 * row), textcoords="offset points",
            color=colour, va="top", fontsize=9.5,
        )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
