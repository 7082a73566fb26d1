"""Junctions other than the four-way one: built in, from plain XML, cut out of networks that we did not make."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("libsumo")

from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, scripted
from rqe_mappo.envs.sumo_intersection.dynamics import junction_of
from rqe_mappo.envs.sumo_intersection.geometry import crossing_of, seen_from
from rqe_mappo.envs.sumo_intersection.junction import read_town, unfit
from rqe_mappo.envs.sumo_intersection.network import sumo_home
from rqe_mappo.envs.sumo_intersection.overlaps import BODY, LENGTH_M, WIDTH_M, corners, overlap
from rqe_mappo.evaluation.episodes import run_episodes
from tests.networks import changed, geometry_of, star

DEFAULT = SCENARIOS["default"]


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
