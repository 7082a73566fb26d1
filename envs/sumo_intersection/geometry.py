"""Where movements cross: lengths and conflict zones, computed from lane shapes."""

from dataclasses import dataclass
from pathlib import Path
from xml.sax import SAXException

import numpy as np

from rqe_mappo.envs.sumo_intersection.network import ARMS, TURNS

SAMPLE_M = 0.25
CONFLICT_M = 2.2  # paths closer than a car's width of 1.9 m and a margin conflict
EXIT_M = 10.0  # of the exit lane that belongs to a movement's path


@dataclass(frozen=True)
class Geometry:
    """The twelve movements of a junction; movement `3 * arm + turn`, turns left, straight, right.

    length_m: `[12]`, path within the junction.
    zones_m: `[12, 12, 4]`, for movements p, q: where the conflict begins and ends along p, then along q, in metres from
        p's and q's stop lines; zeros where `conflicts` `[12, 12]` is False (always so for movements from one arm).
    approach_m: length of the lane before the stop line.
    """

    length_m: np.ndarray
    zones_m: np.ndarray
    conflicts: np.ndarray
    approach_m: float


def sampled(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points every quarter metre along a polyline `[n, 2]`: their distances from its start, and they themselves."""
    along = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(shape, axis=0), axis=1))))
    at = np.arange(0, along[-1], SAMPLE_M)
    return at, np.stack([np.interp(at, along, shape[:, axis]) for axis in (0, 1)], 1)


def conflict_zones(paths: list[np.ndarray], same_arm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`zones_m` and `conflicts` of paths `[n, 2]`; pairs with `same_arm` `[P, P]` never conflict (they follow)."""
    count = len(paths)
    zones, conflicts = np.zeros((count, count, 4)), np.zeros((count, count), bool)
    points = [sampled(path) for path in paths]
    for p, (at_p, xy_p) in enumerate(points):
        for q, (at_q, xy_q) in enumerate(points):
            close = np.linalg.norm(xy_p[:, None] - xy_q[None], axis=2) < CONFLICT_M
            if same_arm[p, q] or not close.any():
                continue
            along_p, along_q = at_p[close.any(1)], at_q[close.any(0)]
            zones[p, q] = along_p[0], along_p[-1], along_q[0], along_q[-1]
            conflicts[p, q] = True
    return zones, conflicts


def read(net: Path) -> Geometry:
    """Geometry of the junction with index 0 in a network made by `network.build`; ValueError if it is damaged."""
    import sumolib

    try:
        roads = sumolib.net.readNet(str(net), withInternal=True)
    except SAXException as error:
        raise ValueError(f"the road network {net} is damaged ({error}): delete it, it will be made anew") from None
    paths, lengths = [], []
    for arm in range(4):
        entry = roads.getEdge(f"{ARMS[arm]}i0")
        for turn in TURNS:
            leave = roads.getEdge(f"{ARMS[(arm + turn) % 4]}o0")
            via = roads.getLane(entry.getConnections(leave)[0].getViaLaneID())
            start, end = (np.array(point) for point in leave.getLane(0).getShape()[:2])
            beyond = start + (end - start) / np.linalg.norm(end - start) * EXIT_M
            paths.append(np.array([*via.getShape(), beyond]))
            lengths.append(via.getLength())
    arms = np.repeat(np.arange(4), 3)
    zones, conflicts = conflict_zones(paths, arms[:, None] == arms[None])
    return Geometry(np.array(lengths), zones, conflicts, entry.getLength())
