"""One junction of a SUMO network and its roads, cut out as they are; and copies of them side by side."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from rqe_mappo.envs.sumo_intersection.geometry import Point, car_movements, crossing_of, points_of

SPACING_M = 60.0  # between neighbouring copies
EXIT_M = 60.0  # of road beyond the junction: vehicles that are clear drive on for a moment
MARK = "|"  # in every id, where the number of a copy belongs: SUMO allows no id with it
SUPPORTED = ("priority", "right_before_left", "left_before_right", "allway_stop", "priority_stop", "unregulated")
LIGHTS = "it has traffic lights (for those there is --env sumo-signals)"
REFUSED = {
    "traffic_light": LIGHTS,
    "traffic_light_unregulated": LIGHTS,
    "traffic_light_right_on_red": LIGHTS,
    "zipper": "SUMO registers no collisions where lanes zip together",
}
IDS = {"id", "from", "to", "via", "incLanes", "intLanes", "edges", "nodes", "crossingEdges"}
CUT = ("type", "edge", "junction", "connection", "roundabout")  # in SUMO's order


@dataclass(frozen=True)
class Junction:
    """A junction and the roads that lead to and from it, in SUMO's XML, with a MARK in every id.

    name: of the junction, to be completed by the number of a copy.
    root: attributes of the network.
    parts: what the network holds of it, by the tags of CUT. Roads end at nodes of their own.
    """

    name: str
    root: dict[str, str]
    parts: dict[str, list[Element]]


def cut(net: Path, town: Any, junction: str, room_m: Callable[[int], float] | None = None) -> Junction:
    """The junction of a network file, with all attributes of everything that belongs to it.

    town: what `read_town` or `read_cached` gives of the file.
    room_m: of the number of arms; roads that lead to the junction are lengthened to this, straight on backwards, and
    those that lead away to EXIT_M. None leaves their lengths.
    Raises ValueError with the reason where the junction cannot be used.
    """
    from sumolib.miscutils import openz

    if not town.hasNode(junction):
        raise ValueError(f"--junction {junction} is not in {net}: use {_suggestions(town)}")
    node = town.getNode(junction)
    reason = unfit(town, node)
    if reason:
        raise ValueError(f"--junction {junction} cannot be used: {reason}")
    with openz(str(net), "rb") as file:
        root = ElementTree.parse(file).getroot()
    found = _parts(root, junction)
    if room_m is not None:
        room = room_m(len({movement.getFrom() for movement in car_movements(town, node)}))
        for edge in _roads(found):
            _lengthen(edge, edge.get("to") == f"{junction}{MARK}", room)
    attributes = {name: value for name, value in root.attrib.items() if not name.startswith("{")}
    return Junction(f"{junction}@", attributes, found)


def read_town(net: Path) -> Any:
    """A user's network (.net.xml, or .net.xml.gz) as sumolib knows it; ValueError if it cannot be read."""
    import sumolib

    if not net.is_file():
        raise ValueError(
            f"--net {net} is no file: give a SUMO network (.net.xml; netconvert makes one of OpenStreetMap)"
        )
    try:
        return sumolib.net.readNet(str(net), withInternal=True)
    except Exception as error:  # sumolib checks nothing: what it makes of a damaged file may be any error
        raise ValueError(f"--net {net} is no SUMO network ({type(error).__name__}: {error})") from None


def unfit(town: Any, node: Any) -> str:
    """Why a junction cannot be used; empty if it can."""
    return next(_reasons(town, node), "")


def _reasons(town: Any, node: Any) -> Iterator[str]:
    if node.getType() not in SUPPORTED:
        yield REFUSED.get(node.getType(), f"its type {node.getType()} is not supported")
    movements = car_movements(town, node)
    if len({c.getFrom() for c in movements}) < 2:
        yield "cars come from fewer than two roads, so nothing can collide there"
    if any(c.getTLSID() for c in movements):
        yield LIGHTS
    pairs = [(c.getFrom().getID(), c.getTo().getID()) for c in movements]
    for c, (start, leave) in zip(movements, pairs, strict=True):
        if pairs.count((start, leave)) > 1:
            yield f"the movement from {start} to {leave} has several lanes, one is supported"
        if not c.getViaLaneID():
            anew = "make the network anew, without --no-internal-links (netconvert -s OLD.net.xml -o NEW.net.xml)"
            yield f"the movement from {start} to {leave} has no lane within the junction: {anew}"
        for edge in (c.getFrom(), c.getTo()):
            if edge.getBidi() is not None:
                yield f"both directions share the road {edge.getID()} (bidi)"
            if edge.getFromNode() == edge.getToNode():
                yield f"the road {edge.getID()} leads from the junction back to it"
    crossing = crossing_of(town, node)
    foes = crossing.foes | (node.getType() == "unregulated")  # of which there is no matrix
    if not (crossing.conflicts & foes).any():
        yield "no two of its movements cross or merge, so nothing can collide there"


def _suggestions(town: Any) -> str:
    """Some junctions of a network that can be used."""
    good = [node for node in town.getNodes() if not unfit(town, node)]
    good.sort(key=lambda node: -len({c.getFrom() for c in car_movements(town, node)}))
    names = ", ".join(node.getID() for node in good[:5])
    return f"one of its {len(good)} that can be, such as {names}" if good else "another network"


def _parts(root: Element, junction: str) -> dict[str, list[Element]]:
    """What belongs to a junction, copied, its ids marked; roads begin and end at nodes of their own."""

    def within(name: str) -> bool:
        """Whether an edge lies within the junction; such ids are `:JUNCTION_NUMBER`."""
        return name.startswith(":") and name[1:].rpartition("_")[0] == junction

    edges = [e for e in root.iter("edge") if junction in (e.get("from"), e.get("to")) or within(e.attrib["id"])]
    ids = {e.get("id") for e in edges}
    inward = {e.get("id") for e in edges if e.get("to") == junction or within(e.attrib["id"])}
    lanes = {lane.get("id") for e in edges for lane in e.iter("lane")}
    found = {
        "type": [e for e in root.iter("type") if e.get("id") in {edge.get("type") for edge in edges}],
        "edge": edges,
        "junction": [j for j in root.iter("junction") if j.get("id") == junction or j.get("id") in lanes],
        "connection": [c for c in root.iter("connection") if c.get("from") in inward and c.get("to") in ids],
        "roundabout": [r for r in root.iter("roundabout") if junction in r.get("nodes", "").split()],
    }
    found = {tag: [copy.deepcopy(element) for element in elements] for tag, elements in found.items()}
    limits = {kind.get("id"): limit for kind in found["type"] for limit in kind.iter("restriction")
              if limit.get("vClass") == "passenger"}  # fmt: skip
    for edge in found["edge"]:
        if edge.get("type") in limits:  # a limit of this kind of road for cars, before which the lane's own yields
            for lane in edge.iter("lane"):
                lane.set("speed", limits[edge.get("type")].attrib["speed"])
    for circle in found["roundabout"]:
        circle.set("nodes", junction)
        circle.set("edges", " ".join(edge for edge in circle.attrib["edges"].split() if edge in ids))
    for element in (e for tag in CUT[1:] for part in found[tag] for e in part.iter()):
        _mark(element, junction)
    for edge in _roads(found):
        edge.attrib.pop("bidi", None)  # of railways; shared roads are refused
        for name, point in (("from", 0), ("to", -1)):
            if edge.get(name) != f"{junction}{MARK}":
                edge.set(name, f"{edge.get('id')}.end")
                found["junction"].append(_end(edge, name == "to", point))
    return found


def _roads(parts: dict[str, list[Element]]) -> list[Element]:
    """The edges outside the junction."""
    return [edge for edge in parts["edge"] if not edge.attrib["id"].startswith(":")]


def _mark(element: Element, junction: str) -> None:
    """Put the MARK into every id that an element holds."""

    def marked(name: str) -> str:
        return f":{junction}{MARK}{name[1 + len(junction) :]}" if name.startswith(":") else f"{name}{MARK}"

    def marked_lane(name: str) -> str:
        edge, _, index = name.rpartition("_")
        return f"{marked(edge)}_{index}"

    for name in IDS & set(element.attrib):
        of_lanes = name in ("via", "incLanes", "intLanes") or element.tag == "lane"
        rule = marked_lane if of_lanes else marked
        element.set(name, " ".join(rule(part) for part in element.attrib[name].split()))
    for beside in element.findall("neigh"):  # vehicles neither change lanes nor overtake
        element.remove(beside)


def _end(edge: Element, last: bool, point: int) -> Element:
    """The node at the far end of a road."""
    lanes = edge.findall("lane")
    x, y, *_ = points_of(lanes[0].attrib["shape"])[point]
    incoming = " ".join(lane.attrib["id"] for lane in lanes) if last else ""
    about = {"type": "dead_end", "x": f"{x}", "y": f"{y}", "incLanes": incoming, "intLanes": "", "shape": ""}
    return Element("junction", {"id": f"{edge.get('id')}.end", **about})


def _lengthen(edge: Element, inward: bool, room_m: float) -> None:
    """Give a road room for vehicles before the junction, or a piece of road beyond it."""
    lanes = edge.findall("lane")
    missing = (room_m if inward else EXIT_M) - min(float(lane.attrib["length"]) for lane in lanes)
    if missing <= 0:
        return
    for lane in lanes:
        points = points_of(lane.attrib["shape"])[:: 1 if inward else -1]
        start, near = points[0], next(point for point in points if point != points[0])
        along = math.dist(start[:2], near[:2])
        x, y = (a + (a - b) / along * missing for a, b in zip(start[:2], near[:2], strict=True))
        points[0] = (x, y, *start[2:])
        lane.set("shape", _shape(points[:: 1 if inward else -1]))
        lane.set("length", _number(float(lane.attrib["length"]) + missing))


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _shape(points: Iterable[Point]) -> str:
    return " ".join(",".join(map(_number, point)) for point in points)


def copies_of(junction: Junction, count: int) -> str:
    """The network of `count` copies of a junction, none of which meet."""
    parts = junction.parts
    lanes = (lane for edge in parts["edge"] for lane in edge.iter("lane"))
    xs, ys = zip(*(point[:2] for lane in lanes for point in points_of(lane.attrib["shape"])), strict=True)
    columns = math.ceil(math.sqrt(count))
    wide, high = (math.ceil(max(values) - min(values) + SPACING_M) for values in (xs, ys))
    root = Element("net", junction.root)
    box = f"{min(xs):.2f},{min(ys):.2f},{min(xs) + wide * columns:.2f},{min(ys) + high * columns:.2f}"
    SubElement(root, "location", {"netOffset": "0.00,0.00", "convBoundary": box, "origBoundary": box,
                                  "projParameter": "!"})  # fmt: skip
    root.extend(parts["type"])
    for tag in CUT[1:]:
        made = [
            _moved(element, k, wide * (k % columns), high * (k // columns))
            for k in sorted(range(count), key=str)
            for element in parts[tag]
        ]
        if tag == "edge":  # as netconvert orders them; SUMO's random numbers follow the order
            made.sort(key=lambda edge: "" if edge.attrib["id"].startswith(":") else edge.attrib["id"])
        root.extend(made)
    return ElementTree.tostring(root, "unicode")


def _moved(element: Element, k: int, dx: float, dy: float) -> Element:
    """An element of a junction's copy `k`, at another place."""
    moved = copy.deepcopy(element)
    for part in moved.iter():
        for name in IDS & set(part.attrib):
            part.set(name, part.attrib[name].replace(MARK, f"@{k}"))
        for name, by in (("x", dx), ("y", dy)):
            if part.get(name):
                part.set(name, _number(float(part.attrib[name]) + by))
        if part.get("shape"):
            part.set("shape", _shape((x + dx, y + dy, *z) for x, y, *z in points_of(part.attrib["shape"])))
    return moved
