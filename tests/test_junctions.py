"""Junctions other than the four-way one: built in, from plain XML, cut out of networks that we did not make."""

import gzip
import itertools
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("libsumo")

from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, scripted
from rqe_mappo.envs.sumo_intersection.dynamics import junction_of
from rqe_mappo.envs.sumo_intersection.geometry import crossing_of, read, seen_from
from rqe_mappo.envs.sumo_intersection.junction import EXIT_M, copies_of, cut, read_town, unfit
from rqe_mappo.envs.sumo_intersection.network import keep, netconvert, sumo_home
from rqe_mappo.envs.sumo_intersection.overlaps import BODY, LENGTH_M, WIDTH_M, corners, overlap
from rqe_mappo.evaluation.episodes import run_episodes

DEFAULT = SCENARIOS["default"]


def geometry_of(config):
    junction = junction_of(config)
    return read(keep(copies_of(junction, 1), "junction_1"), junction.name)


def star(
    folder: Path, arms: int, kind: str = "priority", lanes: int = 1, length_m: float = 40.0, *options: str
) -> Path:
    """A network with one junction `J` of that many arms, made from plain XML as a user would, clockwise from north."""
    nodes, edges = [f'<node id="J" x="0" y="0" type="{kind}"/>'], []
    for i in range(arms):
        x, y = (round(length_m * f(2 * math.pi * i / arms), 2) for f in (math.sin, math.cos))
        nodes.append(f'<node id="{i}" x="{x}" y="{y}"/>')
        edges += [f'<edge id="in{i}" from="{i}" to="J" numLanes="{lanes}"/>',
                  f'<edge id="out{i}" from="J" to="{i}" numLanes="{lanes}"/>']  # fmt: skip
    (folder / "n.nod.xml").write_text(f"<nodes>{''.join(nodes)}</nodes>")
    (folder / "n.edg.xml").write_text(f"<edges>{''.join(edges)}</edges>")
    net = folder / "town.net.xml"
    netconvert("-n", folder / "n.nod.xml", "-e", folder / "n.edg.xml", "-o", net, *options)
    return net


def changed(net: Path, old: str, new: str) -> Path:
    """A network with `old` replaced in its text, once for each time that it stands there."""
    text = net.read_text()
    assert old in text
    net.write_text(text.replace(old, new))
    return net


def public_networks() -> list[Path]:
    """Those of SUMO's wheel, the largest aside."""
    return sorted(net for net in (sumo_home() / "tools").glob("**/*.net.xml*") if net.stat().st_size < 2e6)


@pytest.mark.slow
@pytest.mark.parametrize("arms", [3, 4, 5])
def test_junctions_of_three_to_five_arms_from_plain_xml(tmp_path, arms):
    config = replace(DEFAULT, net=str(star(tmp_path, arms)), junction="J")
    known = geometry_of(config)
    assert known.arms == arms
    assert len(known.turn) == arms * (arms - 1)
    assert known.approach_m.min() > config.spawn_far_m  # short roads were lengthened
    assert (known.conflicts == known.conflicts.T).all()
    env = BatchedIntersection(config, 4)
    records, _ = run_episodes(env, lambda env, seen: scripted.always_go(env), 10, seed=1)
    env.close()
    assert 0.1 < records["collision"].mean() < 0.7
    assert records["timed_out"].sum() == 0


def test_cautious_agents_rarely_crash_on_five_arms(tmp_path):
    env = BatchedIntersection(replace(DEFAULT, net=str(star(tmp_path, 5)), junction="J"), 8)
    careful = scripted.caution(1.0)
    records, _ = run_episodes(env, lambda env, seen: careful(env), 8, seed=1)
    env.close()
    assert records["collision"].mean() < 0.05


def test_junctions_of_public_networks_can_be_cut_out():
    """Two junctions converted from OpenStreetMap, in networks that come with SUMO."""
    games = sumo_home() / "tools" / "game"
    for net, junction, arms in (("bs3d/bs.net.xml", "34814866", 4), ("DRT/osm.net.xml", "1560223962", 3)):
        known = geometry_of(replace(DEFAULT, net=str(games / net), junction=junction))
        assert known.arms == arms
        assert known.conflicts.any()


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


EVERYTHING = {
    "nod": """<nodes>
        <node id="J" x="0" y="0" z="3" type="priority" radius="6" keepClear="false" rightOfWay="edgePriority"/>
        <node id="n" x="0" y="90"/><node id="e" x="90" y="10"/><node id="s" x="0" y="-90"/><node id="w" x="-90" y="0"/>
        <node id="b" x="70" y="70"/></nodes>""",
    "edg": """<edges><edge id="ni" from="n" to="J" speed="7.5" priority="3" name="High | Street"/>
        <edge id="no" from="J" to="n" width="4.2"/>
        <edge id="ei" from="e" to="J" numLanes="2" priority="9" endOffset="2">
            <lane index="0" allow="bus passenger" speed="6"/><lane index="1" width="2.8" acceleration="true"/></edge>
        <edge id="eo" from="J" to="e" shape="0,0 40,8 90,10" type="street"/>
        <edge id="si" from="s" to="J" disallow="truck" sidewalkWidth="2"><stopOffset value="1.5" exceptions="bus"/>
            <param key="owner" value="town | county"/></edge>
        <edge id="so" from="J" to="s" spreadType="center" sidewalkWidth="2"/>
        <edge id="bi" from="b" to="J" allow="bicycle"/>
        <edge id="wo" from="J" to="w" distance="12"/></edges>""",
    "con": """<connections>
        <connection from="ni" to="so" fromLane="0" toLane="1" keepClear="false" pass="true"/>
        <connection from="ni" to="wo" fromLane="0" toLane="0" speed="4.5"/>
        <connection from="ni" to="eo" fromLane="0" toLane="0" contPos="9" visibility="20"/>
        <connection from="si" to="no" fromLane="1" toLane="0" disallow="passenger"/>
        <connection from="si" to="wo" fromLane="1" toLane="0"/>
        <connection from="ei" to="no" fromLane="0" toLane="0" length="15.5"/>
        <connection from="ei" to="so" fromLane="1" toLane="1" shape="7,3 1,-2 0,-9"/>
        <crossing node="J" edges="si so" width="3"/></connections>""",
    "typ": """<types>
        <type id="street" numLanes="1" speed="12"><restriction vClass="passenger" speed="8"/></type></types>""",
}


def network_with_everything(folder: Path, *options: str) -> Path:
    """One of whose junction something unusual is said in every way that netconvert knows."""
    for kind, text in EVERYTHING.items():
        (folder / f"n.{kind}.xml").write_text(text)
    net = folder / "all.net.xml"
    files = {"-n": "nod", "-e": "edg", "-x": "con", "-t": "typ"}
    made_of = (word for flag, kind in files.items() for word in (flag, folder / f"n.{kind}.xml"))
    netconvert(*made_of, *options, "-o", net)
    return net


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


@pytest.mark.parametrize(
    ("kind", "lanes", "junction", "message"),
    [
        ("traffic_light", 1, "J", "traffic lights"),
        ("zipper", 1, "J", "no collisions"),
        ("priority", 2, "J", "several lanes"),
        ("priority", 1, "0", "fewer than two roads"),
        ("priority", 1, "nowhere", "is not in"),
        ("traffic_light_unregulated", 1, "J", "traffic lights"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_reason(tmp_path, kind, lanes, junction, message):
    net = star(tmp_path, 4, kind, lanes)
    with pytest.raises(ValueError, match=message) as refusal:
        junction_of(replace(DEFAULT, net=str(net), junction=junction))
    assert "--junction" in str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('via=":J_1_0"', 'via=":J_1_0" tl="lamp" linkIndex="0"', "traffic lights"),
        ('<edge id="in0"', '<edge bidi="out0" id="in0"', "in0 .bidi."),
        ('<edge id="in1" from="1"', '<edge id="in1" from="J"', "in1 leads from the junction back"),
        ('via=":J_1_0"', "", "no lane within the junction: make the network anew"),
    ],
)
def test_what_the_copy_cannot_carry_is_refused_by_name(tmp_path, old, new, message):
    net = changed(star(tmp_path, 4), old, new)
    with pytest.raises(ValueError, match=f"--junction J cannot be used: .*{message}"):
        junction_of(replace(DEFAULT, net=str(net), junction="J"))


def test_a_junction_where_nothing_can_collide_is_refused(tmp_path):
    """Two roads whose movements only pass each other; it is not suggested in place of another either."""
    net = star(tmp_path, 2, length_m=100.0)
    config = replace(DEFAULT, net=str(net), junction="J")
    with pytest.raises(ValueError, match=r"--junction J cannot be used: .*so nothing can collide there"):
        junction_of(config)
    with pytest.raises(ValueError, match="use another network"):
        junction_of(replace(config, junction="nowhere"))


def test_opposite_directions_of_a_bend_are_no_conflict():
    """At a junction of a public network whose two movements come within 2.2 m, and are no foes by SUMO's matrix."""
    net = sumo_home() / "tools" / "game" / "DRT" / "osm.net.xml"
    town = read_town(net)
    node = town.getNode("1685653005")
    assert crossing_of(town, node).conflicts.any()
    assert "nothing can collide" in unfit(town, node)


@pytest.mark.slow
def test_something_can_collide_at_every_junction_that_is_accepted():
    net = sumo_home() / "tools" / "game" / "A10KW" / "osm.net.xml"
    town = read_town(net)
    usable = [node.getID() for node in town.getNodes() if not unfit(town, node)]
    assert len(usable) == 10
    for junction in usable[:4]:
        env = BatchedIntersection(replace(DEFAULT, net=str(net), junction=junction, n_agents=6), 16)
        records, _ = run_episodes(env, lambda env, seen: scripted.always_go(env), 2, seed=1)
        env.close()
        assert records["collision"].any()
        assert np.isfinite(records["min_ttc_s"]).any()


def test_a_file_that_is_no_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--net .* is no file"):
        junction_of(replace(DEFAULT, net=str(tmp_path / "none.net.xml"), junction="J"))
    (tmp_path / "bad.net.xml").write_text("not xml")
    with pytest.raises(ValueError, match="is no SUMO network"):
        junction_of(replace(DEFAULT, net=str(tmp_path / "bad.net.xml"), junction="J"))
    with pytest.raises(ValueError, match="--junction oval is unknown"):
        junction_of(replace(DEFAULT, junction="oval"))


def overlapping(env: BatchedIntersection) -> int:
    """Pairs of vehicles on their way whose bodies, 0.2 m shorter and narrower, overlap and were not removed."""
    world = env.world
    vehicle, found = world.sim.vehicle, 0
    smaller = BODY * ((LENGTH_M - 0.2) / LENGTH_M, (WIDTH_M - 0.2) / WIDTH_M) + np.array([0.1, 0.0])
    for k, ids in enumerate(world.ids):
        there = np.flatnonzero(world.present[k] & ~world.fresh[k] & (world.pos_m[k] > -10))
        front = np.array([vehicle.getPosition(ids[j]) for j in there]).reshape(-1, 2)
        body = corners(front, np.array([vehicle.getAngle(ids[j]) for j in there]), smaller)
        found += int(np.triu(overlap(body[:, None], body[None]), 1).sum())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arms", "kind", "steps"), [(4, "right_before_left", 40), (4, "unregulated", 40), (6, "priority", 160)]
)
def test_every_overlap_of_bodies_is_a_collision(tmp_path, arms, kind, steps):
    """Where SUMO's matrix has them as foes and where not: at six arms it lacks some, where unregulated all."""
    config = replace(DEFAULT, net=str(star(tmp_path, arms, kind)), junction="J", n_agents=6)
    env = BatchedIntersection(config, 16)
    missed, collisions = 0, 0

    def look() -> None:
        nonlocal missed
        missed += overlapping(env)

    env.world.watch = look
    env.reset(1)
    for _ in range(steps):
        step = env.step(np.full(env.active.shape, scripted.GO))
        collisions += int(step.cost.sum())
        assert (step.episodes["impact_mps"][step.episodes["collision"]] > 0).all()
    env.close()
    assert missed == 0
    assert collisions > 20


def test_sumo_registers_all_conflicts_of_the_built_in_junctions():
    """So that counting overlaps costs them nothing."""
    for junction in ("cross", "merge"):
        known = geometry_of(replace(DEFAULT, junction=junction))
        assert known.conflicts.any() and not known.unregistered.any()


def test_bodies_overlap_where_their_shapes_do():
    """At angles of 0 (north) and 90 degrees (east), with SUMO's cut corners, from numbers worked out by hand."""
    north = corners(np.array([0.0, 0.0]), np.array(0.0))
    assert np.allclose([north.min(0), north.max(0)], [(-0.9, -4.5), (0.9, 0.0)])
    for front, angle, meets in (
        ((1.79, 0.0), 0.0, True), ((1.81, 0.0), 0.0, False),  # side by side
        ((0.0, 4.49), 0.0, True), ((0.0, 4.51), 0.0, False),  # one behind the other
        ((-0.89, -2.0), 90.0, True), ((-0.91, -2.0), 90.0, False),  # its bumper at our side
        ((-0.8, 0.8), 90.0, False),  # corner beside corner: the boxes would overlap
        ((0.0, -2.0), 45.0, True),
    ):  # fmt: skip
        other = corners(np.array(front), np.array(angle))
        assert overlap(north, other) == overlap(other, north) == meets


def test_an_arm_is_seen_left_ahead_or_right():
    assert seen_from(np.array([0.0, 90.0, 180.0, 270.0])).tolist() == [
        [0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1], [1, 2, 3, 0],
    ]  # fmt: skip
    assert seen_from(np.array([240.0, 270.0])).tolist() == [[0, 1], [3, 0]]  # the ramp comes from the main road's right


def test_scenarios_merge_and_mixed_run():
    for name, rate in (("merge", 0.2), ("mixed", 0.05)):
        env = BatchedIntersection(SCENARIOS[name], 8)
        records, _ = run_episodes(env, lambda env, seen: scripted.always_go(env), 5, seed=1)
        env.close()
        took_part = records["length"] > 0
        assert records["collision"][took_part].mean() > rate
        assert took_part.any(1).all()
        assert took_part.all() == (name == "merge")  # in `mixed`, humans take slots


@pytest.mark.slow
def test_backends_give_the_same_trajectories():
    found = {}
    for backend in ("libsumo", "traci"):
        env = BatchedIntersection(replace(DEFAULT, sumo_backend=backend), 1)
        rows = []
        for seed in range(20):
            rng = np.random.default_rng(0)
            rows.append(env.reset(seed).obs.copy())
            for _ in range(25):
                step = env.step(rng.integers(1, 4, env.active.shape))
                rows += [step.obs.copy(), step.state.copy(), step.reward]
        env.close()
        found[backend] = rows
    assert all(np.array_equal(a, b) for a, b in zip(found["libsumo"], found["traci"], strict=True))
