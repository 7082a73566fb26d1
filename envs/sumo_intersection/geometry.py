"""Where movements cross: lengths and conflict zones, computed from lane shapes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rqe_mappo.envs.sumo_intersection.network import read_cached

SAMPLE_M = 0.25
CONFLICT_M = 2.2  # paths closer than a car's width of 1.9 m and a margin conflict
EXIT_M = 10.0  # of the exit lane that belongs to a movement's path
LOOK_BACK_M = 20.0  # from where an arm's direction is taken
TURN_OF = {"l": 0, "L": 0, "s": 1, "r": 2, "R": 2}  # SUMO's directions; turning round aside
BEFORE_M = 60.0  # of the entry lane that is kept for pictures
Point = tuple[float, ...]


@dataclass(frozen=True)
class Geometry:
    """The arms of a junction, clockwise from north, and its P movements: those of arm 0 from left to right, and so on.

    entry, leave: `[P]` ids of each movement's roads, to be completed by the number of a copy; lane: of the entry.
    arm, turn: `[P]` int; turn is 0 left, 1 straight, 2 right.
    length_m: `[P]`, path within the junction.
    zones_m: `[P, P, 4]`, for movements p, q: where the conflict begins and ends along p, then along q, in metres from
        p's and q's stop lines; zeros where `conflicts` `[P, P]` is False (always so for movements from one lane, which
        follow each other).
    unregistered: `[P, P]` bool, conflicts in which SUMO registers no collisions, for they are no foes by its matrix.
    approach_m: `[P]`, length of the lane before the stop line; limit_mps: `[P]`, its speed limit.
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
    unregistered: np.ndarray
    approach_m: np.ndarray
    limit_mps: np.ndarray
    side: np.ndarray
    centre: np.ndarray
    paths: tuple[np.ndarray, ...]
    stop: np.ndarray

    @property
    def arms(self) -> int:
        return len(self.side)


@dataclass(frozen=True)
class Crossing:
    """What P movements of a junction have to do with each other: `zones_m` and `conflicts` as in `Geometry`.

    within: what each drives within the junction, `[n, 2]` points; length_m: `[P]`, how long that is.
    foes: `[P, P]` bool, whether SUMO's matrix calls them foes: only between foes it registers collisions.
    """

    within: list[np.ndarray]
    length_m: np.ndarray
    zones_m: np.ndarray
    conflicts: np.ndarray
    foes: np.ndarray


def points_of(shape: str) -> list[Point]:
    """The points of a shape in SUMO's files; a height may follow x and y."""
    return [tuple(map(float, point.split(","))) for point in shape.split()]


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
    for p, q in zip(*np.nonzero(~same_lane), strict=True):
        (at_p, xy_p), (at_q, xy_q) = points[p], points[q]
        close = np.linalg.norm(xy_p[:, None] - xy_q[None], axis=2) < CONFLICT_M
        if close.any():
            along_p, along_q = at_p[close.any(1)], at_q[close.any(0)]
            zones[p, q] = along_p[0], along_p[-1], along_q[0], along_q[-1]
            conflicts[p, q] = True
    return zones, conflicts


def seen_from(bearings: np.ndarray) -> np.ndarray:
    """`side` of arms whose directions `[arms]` are given in degrees clockwise from north."""
    clockwise = (bearings[None] - bearings[:, None]) % 360
    side = np.where(clockwise < 135, 1, np.where(clockwise <= 225, 2, 3))
    return np.where(np.eye(len(bearings), dtype=bool), 0, side)


def car_movements(town: Any, node: Any) -> list[Any]:
    """The connections of a junction that cars may use, turning round aside; `town`, `node`: sumolib's."""

    def for_cars(connection: Any) -> bool:
        lanes = [connection.getFromLane(), connection.getToLane()]
        if any(lane.getEdge().isSpecial() for lane in lanes) or connection.getDirection() not in "lLsrR":
            return False
        via = connection.getViaLaneID()
        lanes += [town.getLane(via)] if via else []
        return all(lane.allows("passenger") for lane in lanes)

    return [connection for connection in node.getConnections() if for_cars(connection)]


def crossing_of(town: Any, node: Any, movements: Iterable[Any] | None = None) -> Crossing:
    """How a junction's `movements` cross, by default all of cars; each needs lanes within the junction."""
    movements = car_movements(town, node) if movements is None else list(movements)
    parts = [_lanes_within(town, movement) for movement in movements]
    within, inner = [], []
    for movement, lanes in zip(movements, parts, strict=True):
        start, end = (np.array(point[:2]) for point in movement.getToLane().getShape()[:2])
        beyond = start + (end - start) / np.linalg.norm(end - start) * EXIT_M
        points = [point[:2] for lane in lanes for point in lane.getShape()]
        within.append(np.array(points))
        inner.append(np.array([*points, beyond]))
    entries = np.array([movement.getFromLane().getID() for movement in movements])
    zones, conflicts = conflict_zones(inner, entries[:, None] == entries[None])
    known = node.getInternal()
    links = [next((known.index(lane.getID()) for lane in lanes if lane.getID() in known), -1) for lanes in parts]
    foes = [[node.hasFoes() and -1 not in (p, q) and node.areFoes(p, q) for q in links] for p in links]
    return Crossing(
        within, np.array([sum(lane.getLength() for lane in lanes) for lanes in parts]), zones, conflicts, np.array(foes)
    )


def read(net: Path, junction: str) -> Geometry:
    """Geometry of copy 0 of `junction` in a network made of `junction.copies_of`; ValueError if the file is damaged."""
    town = read_cached(net)
    node = town.getNode(f"{junction}0")
    movements = car_movements(town, node)
    entries = {c.getFrom() for c in movements}
    bearings = {edge: _bearing(edge.getLane(0)) for edge in entries}
    order = sorted(entries, key=lambda edge: (bearings[edge], edge.getID()))
    movements.sort(key=lambda c: (order.index(c.getFrom()), TURN_OF[c.getDirection()], c.getTo().getID()))
    crossing = crossing_of(town, node, movements)
    centre = np.array(node.getCoord())
    paths, stops = [], []
    for movement, within in zip(movements, crossing.within, strict=True):
        kept = last_part(np.array(movement.getFromLane().getShape())[:, :2], BEFORE_M)
        after = np.array(movement.getToLane().getShape())[:, :2]
        paths.append(np.concatenate((kept, within, after)) - centre)
        stops.append(lengths(kept)[-1])
    lanes = [c.getFromLane() for c in movements]
    return Geometry(
        entry=tuple(c.getFrom().getID().removesuffix("0") for c in movements),
        leave=tuple(c.getTo().getID().removesuffix("0") for c in movements),
        lane=tuple(lane.getIndex() for lane in lanes),
        arm=np.array([order.index(c.getFrom()) for c in movements]),
        turn=np.array([TURN_OF[c.getDirection()] for c in movements]),
        length_m=crossing.length_m,
        zones_m=crossing.zones_m,
        conflicts=crossing.conflicts,
        unregistered=crossing.conflicts & ~crossing.foes,
        approach_m=np.array([lane.getLength() for lane in lanes]),
        limit_mps=np.array([lane.getSpeed() for lane in lanes]),
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


def _lanes_within(town: Any, connection: Any) -> list[Any]:
    """The lanes of a connection within the junction: several parts where vehicles may wait on the way."""
    lanes, via = [], connection.getViaLaneID()
    while via:
        lanes.append(town.getLane(via))
        via = next((c.getViaLaneID() for c in lanes[-1].getOutgoing()), "")
    return lanes
