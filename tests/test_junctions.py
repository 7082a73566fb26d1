"""Junctions other than the four-way one: built in, from plain XML, cut out of networks that we did not make."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("libsumo")

from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, scripted
from rqe_mappo.envs.sumo_intersection.dynamics import roads_of
from rqe_mappo.envs.sumo_intersection.geometry import read, seen_from
from rqe_mappo.envs.sumo_intersection.network import build, netconvert, sumo_home
from rqe_mappo.envs.sumo_intersection.roads import plain_xml
from rqe_mappo.evaluation.episodes import run_episodes

DEFAULT = SCENARIOS["default"]


def geometry_of(config):
    roads = roads_of(config)
    return read(build(plain_xml(roads, 1), "test"), roads.junction)


def star(folder: Path, arms: int, kind: str = "priority", lanes: int = 1, length_m: float = 40.0) -> Path:
    """A network with one junction `J` of that many arms, made from plain XML as a user would."""
    nodes, edges = [f'<node id="J" x="0" y="0" type="{kind}"/>'], []
    for i in range(arms):
        x, y = (round(length_m * f(2 * math.pi * i / arms), 2) for f in (math.sin, math.cos))
        nodes.append(f'<node id="{i}" x="{x}" y="{y}"/>')
        edges += [f'<edge id="in{i}" from="{i}" to="J" numLanes="{lanes}"/>',
                  f'<edge id="out{i}" from="J" to="{i}" numLanes="{lanes}"/>']  # fmt: skip
    (folder / "n.nod.xml").write_text(f"<nodes>{''.join(nodes)}</nodes>")
    (folder / "n.edg.xml").write_text(f"<edges>{''.join(edges)}</edges>")
    net = folder / "town.net.xml"
    netconvert("-n", folder / "n.nod.xml", "-e", folder / "n.edg.xml", "-o", net)
    return net


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


def test_a_cut_junction_keeps_its_paths(tmp_path):
    """Lengths within the junction are those of the network it was cut from."""
    import sumolib

    net = star(tmp_path, 4, length_m=150.0)
    known = geometry_of(replace(DEFAULT, net=str(net), junction="J"))
    town = sumolib.net.readNet(str(net), withInternal=True)
    for entry, leave, length_m in zip(known.entry, known.leave, known.length_m, strict=True):
        start, end = (town.getEdge(name.removesuffix("@")) for name in (entry, leave))
        connection = start.getConnections(end)[0]
        whole, via = 0.0, connection.getViaLaneID()
        while via:
            lane = town.getLane(via)
            whole += lane.getLength()
            via = next((c.getViaLaneID() for c in lane.getOutgoing()), "")
        assert abs(whole - length_m) < 0.05


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
    ],
)
def test_what_is_not_supported_is_refused_with_the_reason(tmp_path, kind, lanes, junction, message):
    net = star(tmp_path, 4, kind, lanes)
    with pytest.raises(ValueError, match=message) as refusal:
        roads_of(replace(DEFAULT, net=str(net), junction=junction))
    assert "--junction" in str(refusal.value)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--net .* is no file"):
        roads_of(replace(DEFAULT, net=str(tmp_path / "none.net.xml"), junction="J"))
    (tmp_path / "bad.net.xml").write_text("not xml")
    with pytest.raises(ValueError, match="is no SUMO network"):
        roads_of(replace(DEFAULT, net=str(tmp_path / "bad.net.xml"), junction="J"))
    with pytest.raises(ValueError, match="--junction oval is unknown"):
        roads_of(replace(DEFAULT, junction="oval"))


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
