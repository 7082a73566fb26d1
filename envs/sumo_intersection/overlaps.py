"""Collisions that SUMO does not register: bodies that overlap on movements which its matrix does not call foes."""

import numpy as np

LENGTH_M, WIDTH_M = 4.5, 1.8  # of every vehicle
# SUMO's body of a passenger car: its corners are cut off. In metres behind the front bumper, and to the left.
BODY = np.array([
    (along * LENGTH_M, across * WIDTH_M)
    for along, across in ((0, 0.3), (0, -0.3), (0.1, -0.5), (0.9, -0.5), (1, -0.3), (1, 0.3), (0.9, 0.5), (0.1, 0.5))
])  # fmt: skip


def corners(front: np.ndarray, angle_deg: np.ndarray, body: np.ndarray = BODY) -> np.ndarray:
    """Corners `[..., 8, 2]` of vehicles with front bumpers at `front` `[..., 2]`, headed clockwise from north."""
    angle = np.deg2rad(angle_deg)[..., None]
    ahead = np.concatenate((np.sin(angle), np.cos(angle)), -1)[..., None, :]
    left = np.stack((-ahead[..., 1], ahead[..., 0]), -1)
    return front[..., None, :] - body[:, :1] * ahead + body[:, 1:] * left


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether convex shapes `[..., n, 2]` overlap, `[...]` bool: no edge of either has the other wholly beyond it."""
    apart = np.zeros(np.broadcast_shapes(first.shape[:-2], second.shape[:-2]), bool)
    for shape in (first, second):
        side = np.roll(shape, -1, -2) - shape
        normal = np.stack((side[..., 1], -side[..., 0]), -1)
        a, b = (np.einsum("...nd,...kd->...kn", points, normal) for points in (first, second))
        apart |= ((a.max(-1) <= b.min(-1)) | (b.max(-1) <= a.min(-1))).any(-1)
    return ~apart
