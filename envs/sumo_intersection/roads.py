"""The built-in junctions, as the plain XML of which SUMO's netconvert makes a network."""

import math
from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, tostring

SPEED_MPS = 13.89  # limit of every road; vehicles are limited by max_speed_mps
MERGED_M = 60.0  # of road beyond the merge, from its middle
JUNCTION = "C"


def _star(ends: dict[str, tuple[float, float]], kind: str, movements: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Plain files of straight one-lane roads between JUNCTION at the origin and named `ends`.

    movements: the allowed pairs of ends. Roads are named after their end: `Ni` leads in from `N`, `No` out to it.
    """
    nodes, edges, connections = Element("nodes"), Element("edges"), Element("connections")
    SubElement(nodes, "node", {"id": JUNCTION, "x": "0", "y": "0", "type": kind, "radius": "4"})
    for name, (x, y) in ends.items():
        SubElement(nodes, "node", {"id": name, "x": f"{x:.2f}", "y": f"{y:.2f}"})
    road = {"numLanes": "1", "speed": f"{SPEED_MPS}"}
    for start in dict.fromkeys(start for start, _ in movements):
        SubElement(edges, "edge", {"id": f"{start}i", "from": start, "to": JUNCTION, **road})
    for leave in dict.fromkeys(leave for _, leave in movements):
        SubElement(edges, "edge", {"id": f"{leave}o", "from": JUNCTION, "to": leave, **road})
    for start, leave in movements:
        lanes = {"fromLane": "0", "toLane": "0"}
        SubElement(connections, "connection", {"from": f"{start}i", "to": f"{leave}o", **lanes})
    return {kind: tostring(element, "unicode") for kind, element in
            (("nod", nodes), ("edg", edges), ("con", connections))}  # fmt: skip


def cross(room_m: float) -> dict[str, str]:
    """Four arms, one lane each way, right before left."""
    ends = {"N": (0, room_m), "E": (room_m, 0), "S": (0, -room_m), "W": (-room_m, 0)}
    return _star(ends, "right_before_left", [(a, b) for a in ends for b in ends if a != b])


def merge(room_m: float) -> dict[str, str]:
    """A main road from the west, and an on-ramp that joins it from the right at 30 degrees."""
    angle = math.radians(30)
    ends = {"W": (-room_m, 0), "R": (-room_m * math.cos(angle), -room_m * math.sin(angle)), "E": (MERGED_M, 0)}
    return _star(ends, "priority", [("W", "E"), ("R", "E")])


BUILT_IN = {"cross": (4, cross), "merge": (2, merge)}
"""Number of arms, and the plain files with a given room for vehicles on each."""
