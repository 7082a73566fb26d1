"""Do our conflicts, and our collisions, agree with SUMO's? `python -m benchmarks.conflicts` takes two minutes of CPU.

results/conflicts.csv: every junction of the networks in SUMO's wheel which cars enter from two roads or more. Each pair
of movements that do not begin on one lane is a conflict by our geometry or not, and a pair of foes by SUMO's matrix or
not; where the two differ, the columns say why.

results/collisions.csv: vehicles that always go, on junctions that netconvert makes. First SUMO only reports collisions
(`warn`) and nobody is removed, so that SUMO's list can be compared with the overlaps of bodies that we find on the
movements which SUMO calls foes, and with those on conflicts which it does not register. Then the environment as it is:
how many bodies, 0.2 m shorter and narrower, still overlap without a collision.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables, without_options
from rqe_mappo.envs.sumo_intersection import BatchedIntersection, IntersectionConfig, scripted
from rqe_mappo.envs.sumo_intersection.geometry import Crossing, car_movements, crossing_of
from rqe_mappo.envs.sumo_intersection.junction import read_town, unfit
from rqe_mappo.envs.sumo_intersection.network import netconvert, sumo_home
from rqe_mappo.envs.sumo_intersection.overlaps import BODY, LENGTH_M, WIDTH_M, corners, overlap

CONFLICTS, COLLISIONS = tables.RESULTS / "conflicts.csv", tables.RESULTS / "collisions.csv"
WHY = {
    "ours: unregulated": "SUMO keeps no matrix of unregulated junctions",
    "ours: paths cross": "their paths cross, and the matrix of the network lacks them",
    "ours: paths pass": "their paths come within 2.2 m and do not cross",
    "SUMO: same road": "they end on neighbouring lanes of one road, at least 2.2 m apart",
    "SUMO: apart": "paths at least 2.2 m apart all the way: the matrix of an old network is wrong",
}
COPIES, DECISIONS, SMALLER_M = 16, 150, 0.2
JUNCTIONS = (
    (3, "priority"), (4, "priority"), (4, "right_before_left"), (4, "unregulated"), (5, "priority"), (6, "priority"),
    (6, "right_before_left"), (6, "allway_stop"), (8, "priority"), (6, "priority", "--lefthand", "true"),
)  # fmt: skip
Pair = frozenset[str]


def cross(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two polylines `[n, 2]` cross."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    return any(
        side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        for a, b in pairwise(first)
        for c, d in pairwise(second)
    )


def compared(node: Any, movements: list[Any], crossing: Crossing, p: int, q: int) -> str:
    """What we and SUMO say of movements p and q; where we differ, why."""
    ours, foes = bool(crossing.conflicts[p, q]), bool(crossing.foes[p, q])
    if ours == foes:
        return "both" if ours else "neither"
    if foes:
        return "SUMO: same road" if movements[p].getTo() == movements[q].getTo() else "SUMO: apart"
    if node.getType() == "unregulated":
        return "ours: unregulated"
    return "ours: paths cross" if cross(crossing.within[p], crossing.within[q]) else "ours: paths pass"


def conflicts_of(net: Path) -> dict[str, Any]:
    """A row of conflicts.csv: its junctions, and the pairs of their movements."""
    town, found = read_town(net), Counter()
    for node in town.getNodes():
        movements = car_movements(town, node)
        if len({movement.getFrom() for movement in movements}) < 2:
            continue
        found["junctions"] += 1
        reason = unfit(town, node)
        found["usable"] += not reason
        found["nothing can collide"] += "nothing can collide" in reason
        crossing = crossing_of(town, node, movements)
        for p, q in combinations(range(len(movements)), 2):
            if movements[p].getFromLane() != movements[q].getFromLane():
                found[compared(node, movements, crossing, p, q)] += 1
    columns = ("junctions", "usable", "nothing can collide", "both", "neither", *WHY)
    return {"net": str(net.relative_to(sumo_home())), **{name: found[name] for name in columns}}


def star(folder: Path, arms: int, kind: str, *options: str) -> Path:
    """A network with one junction `J` of that many arms, one lane each way."""
    nodes, edges = [f'<node id="J" x="0" y="0" type="{kind}"/>'], []
    for i in range(arms):
        x, y = (round(150 * f(2 * math.pi * i / arms), 2) for f in (math.sin, math.cos))
        nodes.append(f'<node id="{i}" x="{x}" y="{y}"/>')
        edges.append(f'<edge id="in{i}" from="{i}" to="J"/><edge id="out{i}" from="J" to="{i}"/>')
    (folder / "n.nod.xml").write_text(f"<nodes>{''.join(nodes)}</nodes>")
    (folder / "n.edg.xml").write_text(f"<edges>{''.join(edges)}</edges>")
    netconvert("-n", folder / "n.nod.xml", "-e", folder / "n.edg.xml", "-o", folder / "star.net.xml", *options)
    return folder / "star.net.xml"


@dataclass
class Traffic:
    """Copies of a junction where every vehicle goes."""

    env: BatchedIntersection

    def drive(self) -> Iterator[Any]:
        """The steps of DECISIONS decisions."""
        self.env.reset(1)
        for _ in range(DECISIONS):
            yield self.env.step(scripted.always_go(self.env))

    def overlaps(self, smaller_m: float = 0.0) -> dict[Pair, tuple[int, int]]:
        """Vehicles on their way whose bodies overlap now, and their movements."""
        world, found = self.env.world, {}
        body = BODY * (1 - smaller_m / LENGTH_M, 1 - smaller_m / WIDTH_M) + np.array([smaller_m / 2, 0])
        for k, ids in enumerate(world.ids):
            there = np.flatnonzero(world.present[k] & ~world.fresh[k] & (world.pos_m[k] > -10))
            front = np.array([world.sim.vehicle.getPosition(ids[j]) for j in there]).reshape(-1, 2)
            shape = corners(front, np.array([world.sim.vehicle.getAngle(ids[j]) for j in there]), body)
            for a, b in np.argwhere(np.triu(overlap(shape[:, None], shape[None]), 1)).tolist():
                i, j = there[a], there[b]
                found[frozenset((ids[i], ids[j]))] = (world.movement[k, i], world.movement[k, j])
        return found


def only_reported(config: IntersectionConfig) -> dict[str, int]:
    """SUMO's collisions and overlaps of bodies, where nobody is removed."""
    env = BatchedIntersection(config, COPIES)
    world, traffic = env.world, Traffic(env)
    world.all_registered = True  # we remove nobody
    world.sim.options[world.sim.options.index("remove")] = "warn"
    step, registered, seen = world.sim.step, set(), {}

    def recorded() -> tuple:
        registered.update(frozenset((c.collider, c.victim)) for c in step())
        seen.update(traffic.overlaps())
        return ()

    world.sim.step = recorded
    for _ in traffic.drive():
        pass
    env.close()
    unregistered = {pair for pair, (p, q) in seen.items() if world.geometry.unregistered[p, q]}
    return {
        "foes: both": len((seen.keys() & registered) - unregistered),
        "foes: SUMO alone": len(registered - seen.keys()),
        "foes: we alone": len(seen.keys() - registered - unregistered),
        "not foes: SUMO": len(registered & unregistered),
        "not foes: we": len(unregistered),
    }


def as_it_is(config: IntersectionConfig) -> dict[str, int]:
    """Collisions of the environment, and overlaps that it does not count."""
    env = BatchedIntersection(config, COPIES)
    traffic, missed, collisions = Traffic(env), set(), 0
    env.world.watch = lambda: missed.update(traffic.overlaps(SMALLER_M))
    for step in traffic.drive():
        collisions += int(step.cost.sum())
    env.close()
    return {"vehicles in collisions": collisions, "overlaps missed": len(missed)}


def compare_conflicts() -> None:
    """Write conflicts.csv."""
    rows = [conflicts_of(net) for net in sorted((sumo_home() / "tools").glob("**/*.net.xml*"))]
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name != "net"}
    tables.write(CONFLICTS, [*(row for row in rows if row["junctions"]), {"net": "all", **total}])
    print(*(f"{name}: {count}  {WHY.get(name, '')}" for name, count in total.items()), sep="\n")


def compare_collisions() -> None:
    """Write collisions.csv."""
    table = []
    for arms, kind, *options in JUNCTIONS:
        with tempfile.TemporaryDirectory() as folder:
            net = star(Path(folder), arms, kind, *options)
            config = IntersectionConfig(net=str(net), junction="J", n_agents=6, n_background=0)
            row = {"arms": arms, "type": kind, "hand": "left" if options else "right"}
            table.append(row | only_reported(config) | as_it_is(config))
        print(*(f"{name} {value}" for name, value in table[-1].items()), sep="  ", flush=True)
    tables.write(COLLISIONS, table)


if __name__ == "__main__":
    without_options(__doc__)
    compare_conflicts()
    compare_collisions()
