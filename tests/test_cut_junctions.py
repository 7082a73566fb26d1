"""Junctions cut out of networks are what they were there, copied side by side."""

import gzip
import itertools
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("libsumo")

from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, scripted
from rqe_mappo.envs.sumo_intersection.junction import EXIT_M, copies_of, cut, read_town, unfit
from tests.networks import changed, geometry_of, network_with_everything, public_networks, star

DEFAULT = SCENARIOS["default"]


def described(root: ElementTree.Element, junction: str) -> dict[str, dict]:
    """What a network says of a junction: the attributes of its edges, lanes, nodes, requests and connections, named."""
    found = {}
    edges = {}
    for edge in root.iter("edge"):
        within = edge.get("id")[1:].rpartition("_")[0] == junction and edge.get("id").startswith(":")
        if within or junction in (edge.get("from"), edge.get("to")):
            edges[edge.get("id")] = within or edge.get("to") == junction
            far = {} if within else {"from" if edge.get("to") == junction else "to": "elsewhere"}
            found[f"edge {edge.get('id')}"] = edge.attrib | far
            for part in edge.iter():
                if part.tag not in ("edge", "neigh"):  # nobody overtakes
                    where = part.get("id") or f"{edge.get('id')} {part.attrib}"
                    found[f"{part.tag} {where}"] = dict(part.attrib)
    lanes = {name.removeprefix("lane ") for name in found if name.startswith("lane ")}
    for node in root.iter("junction"):
        if node.get("id") == junction or node.get("id") in lanes:
            found[f"node {node.get('id')}"] = dict(node.attrib)
            found |= {f"request {node.get('id')} {r.get('index')}": dict(r.attrib) for r in node.iter("request")}
    for c in root.iter("connection"):
        if edges.get(c.get("from")) and c.get("to") in edges:
            ends = " ".join(c.attrib[name] for name in ("from", "fromLane", "to", "toLane"))
            found[f"connection {ends} {c.get('via')}"] = dict(c.attrib)
    return {"net": {name: value for name, value in root.attrib.items() if not name.startswith("{")}, **found}


def without_number(root: ElementTree.Element, junction: str) -> None:
    """Give the ids of copy 0 their first names."""
    for part in root.iter():
        for name, value in part.attrib.items():
            if name in ("id", "from", "to", "via", "incLanes", "intLanes", "crossingEdges"):
                part.set(name, value.replace("@0", ""))


def same(one: str | None, other: str | None) -> bool:
    """Whether two values of an attribute are equal, as numbers where they are such."""
    if one == other:
        return True
    try:
        pairs = [[[float(x) for x in p.split(",")] for p in value.split()] for value in (one or "", other or "")]
    except ValueError:
        return False
    return pairs[0] == pairs[1]


def lost(net: Path, junction: str) -> list[str]:
    """Attributes that differ between a junction and its copy, lengths aside."""
    with (gzip.open if net.suffix == ".gz" else open)(net, "rb") as file:
        before = described(ElementTree.parse(file).getroot(), junction)
    root = ElementTree.fromstring(copies_of(cut(net, read_town(net), junction), 1))
    without_number(root, junction)
    for edge in root.iter("edge"):
        for name in ("from", "to"):
            if (edge.get(name) or "").endswith(".end"):
                edge.set(name, "elsewhere")
    after = described(root, junction)
    return [f"{what} {name}: {before[what].get(name)} became {after.get(what, {}).get(name)}"
            for what in before for name in before[what] if not same(before[what][name], after.get(what, {}).get(name))
            and name != "bidi"]  # fmt: skip


def test_a_cut_junction_loses_no_attribute(tmp_path):
    net = network_with_everything(tmp_path, "--lefthand", "true", "--no-turnarounds", "false")
    assert lost(net, "J") == ["lane eo_0 speed: 12.00 became 8.00"]  # which the kind of road sets for cars
    text = net.read_text()
    for name in ("lefthand", "keepClear", "endOffset", "stopOffset", "visibility", "crossing", "cont="):
        assert name in text
    known = geometry_of(replace(DEFAULT, net=str(net), junction="J"))
    assert ("si@", "no@") not in set(zip(known.entry, known.leave, strict=True))  # closed to cars


@pytest.mark.slow
def test_junctions_of_public_networks_lose_no_attribute():
    """Of an old version, of railways and footpaths, with internal junctions, roundabouts and bridges."""
    tried = 0
    for net in public_networks():
        town = read_town(net)
        usable = (node.getID() for node in town.getNodes() if not unfit(town, node))
        for junction in itertools.islice(usable, 4):
            tried += 1
            assert lost(net, junction) == []
    assert tried == 4 + 4 + 4 + 1


def test_cars_keep_left_on_a_left_hand_network(tmp_path):
    """The near turn is short and the far one long, as in the network; and there cars drive."""
    net = star(tmp_path, 4, "priority", 1, 150.0, "--lefthand", "true")
    config = replace(DEFAULT, net=str(net), junction="J", n_agents=12, n_background=0)
    env = BatchedIntersection(config, 1)
    known = env.world.geometry
    assert known.length_m[known.turn == 0].max() < 10 < known.length_m[known.turn == 2].min()
    env.reset(0)
    for _ in range(4):
        env.step(np.full((1, 12), scripted.GO))
    places = [env.world.sim.vehicle.getPosition(name) - known.centre for name in env.world.ids[0]]
    arms, before = env.world.arm[0], env.world.pos_m[0] < 0
    env.close()
    ahead = -np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])[arms]
    to_the_left = ahead[:, 0] * np.array(places)[:, 1] - ahead[:, 1] * np.array(places)[:, 0]
    assert before.sum() >= 8
    assert (to_the_left[before] > 1).all()


def test_speed_limits_of_lanes_and_movements_hold(tmp_path):
    """Also for vehicles that start faster, and for limits that a kind of road sets for cars alone."""
    net = changed(star(tmp_path, 4), 'speed="13.89"', 'speed="5.00"')
    text = net.read_text()
    text = text.replace("<edge id=\"in0\"", '<type id="slow"><restriction vClass="passenger" speed="3"/></type>\n'
                        '<edge type="slow" id="in0"')  # fmt: skip
    net.write_text(text)
    env = BatchedIntersection(replace(DEFAULT, net=str(net), junction="J"), 6)
    env.reset(0)
    slow = env.world.arm == 0
    for _ in range(12):
        env.step(np.full((6, 4), scripted.GO))
        moving = env.world.present & ~env.world.fresh
        assert env.world.speed_mps[moving].max() < 5.01
        assert env.world.speed_mps[moving & slow & (env.world.pos_m < 0)].max(initial=0) < 3.01
    env.close()


def test_roads_are_lengthened_and_nothing_else(tmp_path):
    net = network_with_everything(tmp_path)
    before, after = (cut(net, read_town(net), "J", room) for room in (None, lambda arms: 200.0))
    for old, new in zip(before.parts["edge"], after.parts["edge"], strict=True):
        for lane, longer in zip(old.iter("lane"), new.iter("lane"), strict=True):
            assert lane.attrib.keys() == longer.attrib.keys()
            if old.get("id").startswith(":"):
                assert lane.attrib == longer.attrib
            else:
                assert float(longer.get("length")) >= (200.0 if old.get("to") == "J|" else EXIT_M) - 1e-6
                assert float(longer.get("length")) >= float(lane.get("length"))


def test_copies_of_a_junction_do_not_meet(tmp_path):
    config = replace(DEFAULT, net=str(star(tmp_path, 3)), junction="J")
    env = BatchedIntersection(config, 9)
    env.reset(0)
    vehicle = env.world.sim.vehicle
    env.step(np.full((9, 4), scripted.GO))
    places = np.array([[vehicle.getPosition(name) for name in names[:4]] for names in env.world.ids])
    centres = places.mean(1)
    env.close()
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 1e9 * np.eye(9)
    assert apart.min() > 100
