"""Pictures of an evaluation."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.evaluation.episodes import Calibration

PREDICTED, OBSERVED = "#0072B2", "#D55E00"  # blue and vermilion, told apart by the colour-blind too (Okabe and Ito)
QUIET = "#666666"
PIT_BINS = 20
MOST_BARS = 60
LEFT_OUT = 0.005  # of either tail in the middle panel; the right one shows the lower
Note = tuple[str, str]


def calibration_plot(calibration: Calibration, path: Path) -> None:
    """Draw how well the critic predicted the returns, as a PNG at `path`.

    Left, the PIT histogram; middle, the predicted distribution and the observed returns; right, the lower tails of both
    on a logarithmic scale. Bands are 95 %, each point by itself, at the number of episodes: cautious, as if agents of
    an episode had the same return. Observed returns are put on the critic's atoms, each shared by its two neighbours.
    """
    figure = Figure(figsize=(13, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04))
    FigureCanvasAgg(figure)
    observed = _on_atoms(calibration.atoms, calibration.realised)
    left, middle, right = figure.subplots(1, 3)
    _draw_pit(left, calibration)
    _draw_distributions(middle, calibration, observed)
    _draw_tails(right, calibration, observed)
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


def _draw_pit(axes: Axes, calibration: Calibration) -> None:
    from scipy.stats import binom

    n = calibration.episodes
    low, high = binom.ppf([0.025, 0.975], n, 1 / PIT_BINS) / n * PIT_BINS
    heights = np.histogram(calibration.pit, PIT_BINS, (0, 1))[0] / len(calibration.pit) * PIT_BINS
    edges = np.linspace(0, 1, PIT_BINS + 1)
    axes.axhspan(low, high, color="0.87", lw=0)
    axes.axhline(1, color=QUIET, lw=1)
    axes.stairs(heights, edges, fill=True, color=OBSERVED, alpha=0.25, lw=0)
    axes.stairs(heights, edges, color=OBSERVED, lw=1.6)
    axes.set(xlim=(0, 1), ylim=(0, max(1.3 * heights.max(), 1.3 * high, 2)))
    _title(axes, "Where returns fell (PIT)")
    axes.set(xlabel="predicted probability of a lower return", ylabel="returns per bin, 1: as many as predicted")
    _note(axes, [
        (f"KS {calibration.ks:.3f}; a calibrated critic: below {calibration.ks_limit:.3f}", OBSERVED),
        (f"grey: 95 % of its bins, {n} episodes", QUIET),
    ])  # fmt: skip


def _draw_distributions(axes: Axes, calibration: Calibration, observed: np.ndarray) -> None:
    atoms, predicted = calibration.atoms, calibration.predicted
    spacing = atoms[1] - atoms[0]
    upto = np.stack((predicted, observed)).cumsum(-1)
    first = np.searchsorted(upto.max(0), LEFT_OUT)
    last = min(np.searchsorted(upto.min(0), 1 - LEFT_OUT), len(atoms) - 1)
    each = -(-(last - first + 1) // MOST_BARS)
    starts = np.arange(first, last + 1, each)
    edges = atoms[first] + spacing * (np.append(starts, starts[-1] + each) - first - 0.5)
    percent_predicted, percent_observed = (
        100 * np.add.reduceat(probs[: starts[-1] + each], starts) for probs in (predicted, observed)
    )
    axes.stairs(percent_observed, edges, fill=True, color=OBSERVED, alpha=0.4, lw=0)
    axes.stairs(percent_predicted, edges, color=PREDICTED, lw=1.6)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.5 * max(percent_observed.max(), percent_predicted.max())))
    c = calibration
    for value, colour in ((c.realised_value, OBSERVED), (c.predicted_value, PREDICTED)):
        axes.plot(value, 0, "^", color=colour, ms=9, mec="white", clip_on=False, zorder=5)
    _title(axes, "Predicted and observed returns")
    axes.set(xlabel="discounted return, in units of reward", ylabel=f"% of returns per {each * spacing:.3g}")
    numbers = {
        "predicted": (c.predicted_mean, c.predicted_std, c.predicted_value),
        "observed": (c.realised_mean, c.realised_std, c.realised_value),
    }
    numbers = {name: "mean {}, std {}, V {}".format(*map(_number, three)) for name, three in numbers.items()}
    tau = "" if c.tau is None else f" at tau {c.tau:g}"
    _note(axes, [
        (f"predicted: {numbers['predicted']}", PREDICTED),
        (f"observed: {numbers['observed']}", OBSERVED),
        (f"95 % interval of observed V: {_number(c.realised_value_low)} to {_number(c.realised_value_high)}", OBSERVED),
        (f"triangles: V, the {c.risk} value{tau}", QUIET),
    ])  # fmt: skip


def _draw_tails(axes: Axes, calibration: Calibration, observed: np.ndarray) -> None:
    from scipy.stats import beta

    atoms, n = calibration.atoms, calibration.episodes
    predicted, below = calibration.predicted.cumsum(), observed.cumsum().clip(max=1)
    # Clopper and Pearson's interval; where its beta distribution has no second parameter the bound is 0 or 1
    hits, misses = below * n, (1 - below) * n
    low = np.where(hits > 0, beta.ppf(0.025, np.maximum(hits, 1e-9), misses + 1), 0)
    high = np.where(misses > 0, beta.ppf(0.975, hits + 1, np.maximum(misses, 1e-9)), 1)
    floor = 0.3 / n
    first = max(np.searchsorted(np.maximum(below, predicted), floor) - 1, 0)
    last = min(np.searchsorted(np.minimum(below, predicted), 0.5) + 1, len(atoms) - 1)
    axes.fill_between(atoms, low, high, step="post", color=OBSERVED, alpha=0.2, lw=0)
    axes.step(atoms, below, where="post", color=OBSERVED, lw=1.6)
    axes.step(atoms, predicted, where="post", color=PREDICTED, lw=1.6)
    axes.set(yscale="log", xlim=(atoms[first], atoms[last]), ylim=(floor, 1.6))
    _title(axes, "Lower tails")
    axes.set(xlabel="discounted return x, in units of reward", ylabel="probability of a return up to x")
    _note(axes, [("predicted", PREDICTED), ("observed, with its 95 % band", OBSERVED)])


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=12, fontweight="bold")


def _note(axes: Axes, lines: list[Note]) -> None:
    """Lines of text, each in its colour, at the upper left."""
    for row, (text, colour) in enumerate(lines):
        axes.annotate(
            text, (0.03, 0.975), xycoords="axes fraction", xytext=(0, -14 * row), textcoords="offset points",
            color=colour, va="top", fontsize=9.5,
        )  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
