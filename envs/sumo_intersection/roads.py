"""The roads of one junction in SUMO's plain XML: built-in ones, or cut out of a user's network; and copies of them."""

import copy
import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement
from xml.sax import SAXException

from rqe_mappo.envs.sumo_intersection.network import netconvert

SPACING_M = 60.0  # between neighbouring copies
EXIT_M = 60.0  # of road beyond the junction: vehicles that are clear drive on for a moment
SPEED_MPS = 13.89  # of every road; vehicles are limited by max_speed_mps
SUPPORTED = ("priority", "right_before_left", "left_before_right", "allway_stop", "priority_stop", "unregulated")
REFUSED = {
    "traffic_light": "it has traffic lights (for those there is --env sumo-signals)",
    "traffic_light_unregulated": "it has traffic lights (for those there is --env sumo-signals)",
    "zipper": "SUMO registers no collisions where lanes zip together",
}


@dataclass(frozen=True)
class Roads:
    """One junction and the roads into and out of it. Every id is to be completed by the number of a copy.

    junction: id of the junction's node.
    arms: roads that lead into it.
    """

    junction: str
    arms: int
    nodes: Element
    edges: Element
    connections: Element


def _roads(junction: str, kind: dict[str, str], edges: Iterable[Element], connections: Iterable[Element]) -> Roads:
    """Roads around a junction at the node `kind`; every edge gets an end node of its own at its other end."""
    nodes, kept, joined = Element("nodes"), Element("edges"), Element("connections")
    SubElement(nodes, "node", {"id": junction, **kind})
    arms = 0
    for edge in edges:
        points = _points(edge.attrib["shape"])
        inward = edge.get("to") == junction
        arms += inward
        far = points[0] if inward else points[-1]
        end = f"{edge.get('id')}.end"
        SubElement(nodes, "node", {"id": end, "x": f"{far[0]:.2f}", "y": f"{far[1]:.2f}"})
        edge.set("from" if inward else "to", end)
        kept.append(edge)
    joined.extend(connections)
    return Roads(junction, arms, nodes, kept, joined)


def _points(shape: str) -> list[tuple[float, float]]:
    numbers = [[float(number) for number in point.split(",")] for point in shape.split()]
    return [(x, y) for x, y, *_ in numbers]  # a height may follow


def _shape(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _star(ends: dict[str, tuple[float, float]], kind: str, movements: Iterable[tuple[str, str]]) -> Roads:
    """Straight one-lane roads between the origin and named `ends`; `movements` are the allowed pairs of ends."""
    movements = list(movements)
    edges, connections = [], []
    for name, end in ends.items():
        if any(start == name for start, _ in movements):
            shape = _shape((end, (0, 0)))
            edges.append(Element("edge", {"id": f"{name}i", "to": "C", "numLanes": "1", "shape": shape}))
        if any(leave == name for _, leave in movements):
            shape = _shape(((0, 0), end))
            edges.append(Element("edge", {"id": f"{name}o", "from": "C", "numLanes": "1", "shape": shape}))
    for edge in edges:
        edge.set("speed", f"{SPEED_MPS}")
    for start, leave in movements:
        lanes = {"fromLane": "0", "toLane": "0"}
        connections.append(Element("connection", {"from": f"{start}i", "to": f"{leave}o", **lanes}))
    return _roads("C", {"x": "0", "y": "0", "type": kind, "radius": "4"}, edges, connections)


def cross(room_m: float) -> Roads:
    """Four arms, one lane each way, right before left."""
    ends = {"N": (0, room_m), "E": (room_m, 0), "S": (0, -room_m), "W": (-room_m, 0)}
    return _star(ends, "right_before_left", ((a, b) for a in ends for b in ends if a != b))


def merge(room_m: float) -> Roads:
    """A main road from the west, and an on-ramp that joins it from the right at 30 degrees."""
    angle = math.radians(30)
    ends = {"W": (-room_m, 0), "R": (-room_m * math.cos(angle), -room_m * math.sin(angle)), "E": (EXIT_M, 0)}
    return _star(ends, "priority", (("W", "E"), ("R", "E")))


BUILT_IN = {"cross": (4, cross), "merge": (2, merge)}
"""Number of arms, and roads with a given room for vehicles on each."""


def cut(net: Path, junction: str, room_m: Callable[[int], float]) -> Roads:
    """The roads of a junction of the network `net` (.net.xml, or .net.xml.gz).

    Its incoming roads are made `room_m(arms)` long at least, straight on backwards. Raises ValueError with the reason
    where the file, the junction, or its type cannot be used.
    """
    import sumolib

    if not net.is_file():
        raise ValueError(
            f"--net {net} is no file: give a SUMO network (.net.xml; netconvert makes one of OpenStreetMap)"
        )
    try:
        town = sumolib.net.readNet(str(net), withInternal=True)
    except (SAXException, UnicodeDecodeError, OSError, KeyError) as error:
        raise ValueError(f"--net {net} is no SUMO network ({error})") from None
    if not town.hasNode(junction):
        raise ValueError(f"--junction {junction} is not in {net}: use {_suggestions(town)}")
    node = town.getNode(junction)
    reason = _unfit(node)
    if reason:
        raise ValueError(f"--junction {junction} cannot be used: {reason}")
    connections = [c for c in node.getConnections() if _for_cars(c)]
    pairs = [(c.getFrom().getID(), c.getTo().getID()) for c in connections]
    arms = len({start for start, _ in pairs})
    wanted = dict.fromkeys(edge for pair in pairs for edge in pair)
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "cut"
        netconvert("-s", net, "--keep-edges.explicit", ",".join(wanted), "--plain-output-prefix", prefix)
        plain = {kind: ElementTree.parse(f"{prefix}.{kind}.xml").getroot() for kind in ("nod", "edg")}
    (kind,) = (other for other in plain["nod"].iter("node") if other.get("id") == junction)
    about = {name: value for name, value in kind.attrib.items() if name not in ("id", "tl", "tlType")}
    if about["type"] == "unregulated":  # where SUMO registers no collisions
        about["type"] = "right_before_left"
    places = {node.get("id"): f"{node.get('x')},{node.get('y')}" for node in plain["nod"].iter("node")}
    for edge in plain["edg"].iter("edge"):  # straight ones come without a shape
        edge.set("shape", edge.get("shape") or f"{places[edge.get('from')]} {places[edge.get('to')]}")
    edges = [
        _lengthened(edge, junction, room_m(arms), town.getEdge(edge.get("id")).getLength())
        for edge in plain["edg"].iter("edge")
        if edge.get("id") in wanted
    ]
    lanes = [
        Element("connection", {"from": _mark(start), "to": _mark(leave),
                               "fromLane": str(c.getFromLane().getIndex()), "toLane": str(c.getToLane().getIndex())})
        for c, (start, leave) in zip(connections, pairs, strict=True)
    ]  # fmt: skip
    return _roads(_mark(junction), about, edges, lanes)


def _mark(name: str) -> str:
    """An id that a number may follow: a network may well hold both 12 and 120."""
    return f"{name}@"


def _for_cars(connection) -> bool:
    lanes = (connection.getFromLane(), connection.getToLane())
    outer = all(lane.allows("passenger") and not lane.getEdge().isSpecial() for lane in lanes)
    return outer and connection.getDirection() in "lLsrR"


def _unfit(node) -> str:
    """Why a junction cannot be used; empty if it can."""
    if node.getType() not in SUPPORTED:
        return REFUSED.get(node.getType(), f"its type {node.getType()} is not supported")
    pairs = [(c.getFrom().getID(), c.getTo().getID()) for c in node.getConnections() if _for_cars(c)]
    if len({start for start, _ in pairs}) < 2:
        return "cars come from fewer than two roads, so nothing can collide there"
    twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
    return f"the movement from {twice[0]} to {twice[1]} has several lanes, one is supported" if twice else ""


def _suggestions(town) -> str:
    """Some junctions of a network that can be used."""
    good = [node.getID() for node in town.getNodes() if not _unfit(node)]
    good.sort(key=lambda name: -len({c.getFrom() for c in town.getNode(name).getConnections() if _for_cars(c)}))
    return f"one of its {len(good)} that can be, such as {', '.join(good[:5])}" if good else "another network"


def _lengthened(edge: Element, junction: str, room_m: float, length_m: float) -> Element:
    """An edge of a plain file as ours, with room for vehicles before the junction or a piece of road beyond it."""
    edge = copy.deepcopy(edge)
    inward = edge.get("to") == junction
    points = _points(edge.attrib["shape"])
    if not inward:
        points.reverse()
    (x, y), (near_x, near_y) = points[0], points[1]
    missing = max(0.0, (room_m if inward else EXIT_M) - length_m)
    along = math.hypot(x - near_x, y - near_y)
    points[0] = (x + (x - near_x) / along * missing, y + (y - near_y) / along * missing)
    if not inward:
        points.reverse()
    for name in ("type", "name", "length", "from", "to"):
        edge.attrib.pop(name, None)
    for lane in edge.iter("lane"):
        lane.attrib.pop("shape", None)
        lane.attrib.pop("speed", None)
    edge.set("id", _mark(edge.attrib["id"]))
    edge.set("to" if inward else "from", _mark(junction))
    edge.set("speed", f"{SPEED_MPS}")
    edge.set("shape", _shape(points))
    return edge


def plain_xml(roads: Roads, copies: int) -> dict[str, str]:
    """SUMO's plain node, edge and connection files of `copies` junctions side by side."""
    xs, ys = zip(*(point for edge in roads.edges for point in _points(edge.attrib["shape"])), strict=True)
    side = math.ceil(math.sqrt(copies))
    wide, high = max(xs) - min(xs) + SPACING_M, max(ys) - min(ys) + SPACING_M
    files = {"nod": Element("nodes"), "edg": Element("edges"), "con": Element("connections")}
    for k in range(copies):
        dx, dy = wide * (k % side), high * (k // side)
        for kind, part in (("nod", roads.nodes), ("edg", roads.edges), ("con", roads.connections)):
            files[kind].extend(_moved(element, k, dx, dy) for element in part)
    return {kind: ElementTree.tostring(element, "unicode") for kind, element in files.items()}


def _moved(element: Element, k: int, dx: float, dy: float) -> Element:
    """A copy of a node, edge or connection for junction `k`, at another place."""
    element = copy.deepcopy(element)
    for name in ("id", "from", "to"):
        if element.get(name) is not None:
            element.set(name, f"{element.get(name)}{k}")
    for name, by in (("x", dx), ("y", dy)):
        if element.get(name) is not None:
            element.set(name, f"{float(element.attrib[name]) + by:.2f}")
    if element.get("shape") is not None:
        element.set("shape", _shape((x + dx, y + dy) for x, y in _points(element.attrib["shape"])))
    return element
