"""Fronts of two objectives: what is not dominated, how much it dominates, and the median front over seeds.

Every function takes the two `Metric`s of its columns: they alone define which way is better.
"""

from collections.abc import Sequence

import numpy as np

from rqe_mappo.sweeps.metrics import Metric

MARGIN = 0.1  # of the range: how much worse than the worst value the reference point is, so that ends count too
Pair = tuple[Metric, Metric]


def non_dominated(points: np.ndarray, metrics: Pair) -> np.ndarray:
    """Which of the `points` `[K, 2]` no other one beats in one objective and equals or beats in the other: `[K]`.

    Equal points are all kept.
    """
    import moocore

    return moocore.is_nondominated(_checked(points), maximise=_maximise(metrics), keep_weakly=True)


def reference_point(points: np.ndarray, metrics: Pair) -> np.ndarray:
    """The worst value of each objective, a tenth of its range further: `[2]`.

    Give all points that are to be compared: a hypervolume means nothing without its reference point.
    """
    points, sign = _checked(points), _signs(metrics)
    return points[np.argmin(points * sign, axis=0), [0, 1]] - sign * MARGIN * np.ptp(points, axis=0)


def hypervolume(points: np.ndarray, reference: np.ndarray, metrics: Pair) -> float:
    """The area that the `points` `[K, 2]` dominate, down to `reference`; points beyond it add nothing."""
    import moocore

    return float(moocore.hypervolume(_checked(points), ref=np.asarray(reference), maximise=_maximise(metrics)))


def median_front(points: np.ndarray, seeds: Sequence[float], metrics: Pair) -> np.ndarray:
    """Corners `[M, 2]` of the region that the fronts of at least half of the seeds attain, by the first objective.

    points, seeds: `[K, 2]` and `[K]`: the runs, and the set that each belongs to. Source: the empirical attainment
    function of Grunert da Fonseca, Fonseca and Hall (2001), as moocore computes it, at 50 %.
    """
    import moocore

    sign = _signs(metrics)
    sets = np.unique(np.asarray(seeds), return_inverse=True)[1]
    found = moocore.eaf(-sign * _checked(points), sets, percentiles=[50])
    corners = -sign * found[:, :2]
    return corners[np.argsort(corners[:, 0])]


def staircase(corners: np.ndarray, metrics: Pair) -> np.ndarray:
    """The border `[2 M - 1, 2]` of what `corners` `[M, 2]` dominate, to draw: between two neighbours, in order of the
    first objective, the point that is as bad as the worse of them in both."""
    sign = _signs(metrics)
    corners = corners[np.argsort(corners[:, 0])]
    border = np.empty((2 * len(corners) - 1, 2))
    border[::2] = corners
    border[1::2] = sign * np.minimum(sign * corners[1:], sign * corners[:-1])
    return border


def _signs(metrics: Pair) -> np.ndarray:
    return np.array([metric.sign for metric in metrics])


def _maximise(metrics: Pair) -> list[bool]:
    return [metric.sign > 0 for metric in metrics]


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.ascontiguousarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or np.isnan(points).any():
        raise ValueError(f"a front needs points of two numbers each (got shape {points.shape})")
    return points
