"""Where movements cross: lengths and conflict zones, computed from lane shapes."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.sax import SAXException

import numpy as np

SAMPLE_M = 0.25
CONFLICT_M = 2.2  # paths closer than a car's width of 1.9 m and a margin conflict
EXIT_M = 10.0  # of the exit lane that belongs to a movement's path
LOOK_BACK_M = 20.0  # from where an arm's direction is taken
TURN_OF = {"t": 0, "l": 0, "L": 0, "s": 1, "r": 2, "R": 2}  # SUMO's directions; where a sharp turn is one to the left
BEFORE_M = 60.0  # of the entry lane that is kept for pictures


@dataclass(frozen=True)
class Geometry:
    """The arms of a junction, clockwise from north, and its P movements: those of arm 0 from left to right, and so on.

    entry, leave: `[P]` ids of each movement's roads, to be completed by the number of a copy; lane: of the entry.
    arm, turn: `[P]` int; turn is 0 left, 1 straight, 2 right.
    length_m: `[P]`, path within the junction.
    zones_m: `[P, P, 4]`, for movements p, q: where the conflict begins and ends along p, then along q, in metres from
        p's and q's stop lines; zeros where `conflicts` `[P, P]` is False (always so for movements from one lane, which
        follow each other).
    approach_m: `[P]`, length of the lane before the stop line.
    side: `[arms, arms]` int, from where the second is seen by who comes from the first: 1 left, 2 ahead, 3 right; 0 on
        the diagonal.
    centre: `[2]` of the junction's node in the network of one copy.
    paths: what a movement drives, as `[n, 2]` points in metres about the junction's centre; `stop` `[P]` is how far
        along it its stop line lies.
    """

    entry: tuple[str, ...]
    leave: tuple[str, ...]
    lane: tuple[int, ...]
    arm: np.ndarray
    turn: np.ndarray
    length_m: np.ndarray
    zones_m: np.ndarray
    conflicts: np.ndarray
    approach_m: np.ndarray
    side: np.ndarray
    centre: np.ndarray
    paths: tuple[np.ndarray, ...]
    stop: np.ndarray

    @property
    def arms(self) -> int:
        return len(self.side)


def sampled(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points every quarter metre along a polyline `[n, 2]`: their distances from its start, and they themselves."""
    along = lengths(shape)
    at = np.arange(0, along[-1], SAMPLE_M)
    return at, np.stack([np.interp(at, along, shape[:, axis]) for axis in (0, 1)], 1)


def lengths(shape: np.ndarray) -> np.ndarray:
    """Distances of a polyline's points `[n, 2]` from its start."""
    return np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(shape, axis=0), axis=1))))


def last_part(shape: np.ndarray, metres: float) -> np.ndarray:
    """The last `metres` of a polyline `[n, 2]`."""
    along = lengths(shape)
    begin = max(0.0, along[-1] - metres)
    first = [np.interp(begin, along, shape[:, axis]) for axis in (0, 1)]
    return np.concatenate(([first], shape[along > begin]))


def conflict_zones(paths: list[np.ndarray], same_lane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`zones_m` and `conflicts` of paths `[n, 2]`; pairs with `same_lane` `[P, P]` never conflict (they follow)."""
    count = len(paths)
    zones, conflicts = np.zeros((count, count, 4)), np.zeros((count, count), bool)
    points = [sampled(path) for path in paths]
    for p, (at_p, xy_p) in enumerate(points):
        for q, (at_q, xy_q) in enumerate(points):
            close = np.linalg.norm(xy_p[:, None] - xy_q[None], axis=2) < CONFLICT_M
            if same_lane[p, q] or not close.any():
                continue
            along_p, along_q = at_p[close.any(1)], at_q[close.any(0)]
            zones[p, q] = along_p[0], along_p[-1], along_q[0], along_q[-1]
            conflicts[p, q] = True
    return zones, conflicts


def seen_from(bearings: np.ndarray) -> np.ndarray:
    """`side` of arms whose directions `[arms]` are given in degrees clockwise from north."""
    clockwise = (bearings[None] - bearings[:, None]) % 360
    side = np.where(clockwise < 135, 1, np.where(clockwise <= 225, 2, 3))
    return np.where(np.eye(len(bearings), dtype=bool), 0, side)


def read(net: Path, junction: str) -> Geometry:
    """Geometry of copy 0 of `junction` in a network made of `roads.plain_xml`; ValueError if the file is damaged."""
    import sumolib

    try:
        town = sumolib.net.readNet(str(net), withInternal=True)
    except SAXException as error:
        raise ValueError(f"the road network {net} is damaged ({error}): delete it, and it is made again") from None
    node = town.getNode(f"{junction}0")
    connections = [c for c in node.getConnections() if not c.getFrom().isSpecial()]
    entries = {c.getFrom() for c in connections}
    bearings = {edge: _bearing(edge.getLane(0)) for edge in entries}
    order = sorted(entries, key=lambda edge: (bearings[edge], edge.getID()))
    connections.sort(key=lambda c: (order.index(c.getFrom()), TURN_OF[c.getDirection()], c.getTo().getID()))
    centre = np.array(node.getCoord())
    inner, paths, stops, length = [], [], [], []
    for connection in connections:
        within, metres = _within(town, connection)
        start, end = (np.array(point[:2]) for point in connection.getToLane().getShape()[:2])
        beyond = start + (end - start) / np.linalg.norm(end - start) * EXIT_M
        inner.append(np.array([*within, beyond]))
        before = np.array(connection.getFromLane().getShape())[:, :2]
        kept = last_part(before, BEFORE_M)
        after = np.array(connection.getToLane().getShape())[:, :2]
        paths.append(np.concatenate((kept, within, after)) - centre)
        stops.append(lengths(kept)[-1])
        length.append(metres)
    lanes = [c.getFromLane().getID() for c in connections]
    zones, conflicts = conflict_zones(inner, np.array(lanes)[:, None] == np.array(lanes)[None])
    return Geometry(
        entry=tuple(c.getFrom().getID().removesuffix("0") for c in connections),
        leave=tuple(c.getTo().getID().removesuffix("0") for c in connections),
        lane=tuple(c.getFromLane().getIndex() for c in connections),
        arm=np.array([order.index(c.getFrom()) for c in connections]),
        turn=np.array([TURN_OF[c.getDirection()] for c in connections]),
        length_m=np.array(length),
        zones_m=zones,
        conflicts=conflicts,
        approach_m=np.array([c.getFromLane().getLength() for c in connections]),
        side=seen_from(np.array([bearings[edge] for edge in order])),
        centre=centre,
        paths=tuple(paths),
        stop=np.array(stops),
    )


def _bearing(lane) -> float:
    """Degrees clockwise from north at which a lane comes to its end, to a tenth."""
    shape = np.array(lane.getShape())[:, :2]
    x, y = last_part(shape, LOOK_BACK_M)[0] - shape[-1]
    return round(math.degrees(math.atan2(x, y)), 1) % 360


def _within(town, connection) -> tuple[list[tuple[float, float]], float]:
    """The points of a connection's path within the junction, which may have several parts, and its length."""
    points, metres, via = [], 0.0, connection.getViaLaneID()
    while via:
        lane = town.getLane(via)
        points += [point[:2] for point in lane.getShape()]
        metres += lane.getLength()
        via = next((c.getViaLaneID() for c in lane.getOutgoing()), "")
    return points, metres
