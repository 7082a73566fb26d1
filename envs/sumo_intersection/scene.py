"""Where everything at the junction is, for pictures, films and live pages; not used for learning."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rqe_mappo.envs.sumo_intersection.batched_intersection import BatchedIntersection
from rqe_mappo.envs.sumo_intersection.dynamics import ACTIONS_MPS2
from rqe_mappo.envs.sumo_intersection.geometry import Geometry, lengths

VIEW_M = 100.0  # width and height of what is seen
LENGTH_M, WIDTH_M, LANE_M = 4.5, 1.9, 3.2
WRECK_S = 3.0  # that a collision stays marked
AGENTS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")  # Okabe and Ito
ACTION_NAMES = ("brake hard", "brake", "keep", "go")
Pose = tuple[np.ndarray, float]


@dataclass
class Scene:
    """Where SUMO's vehicles are: place `[2]` of the front bumper in metres about the centre, degrees from north.

    wrecks: the last pose of vehicles that collided, and when that was.
    """

    time_s: float = 0.0
    vehicles: dict[int, Pose] = field(default_factory=dict)
    wrecks: dict[int, tuple[Pose, float]] = field(default_factory=dict)


class Watcher:
    """Looks at an environment with one copy after each simulation step, and keeps collided vehicles for WRECK_S."""

    def __init__(self, env: BatchedIntersection):
        if env.num_envs != 1:
            raise ValueError(f"pictures are of an environment with one copy (got {env.num_envs})")
        self.env, self.scene = env, Scene()
        self.centre = env.world.geometry.centre

    def look(self) -> Scene:
        """Where everything is at this simulation step."""
        world, old = self.env.world, self.scene
        vehicle, ids = world.sim.vehicle, world.ids[0]
        entered = set(vehicle.getIDList())
        vehicles = {
            j: (np.array(vehicle.getPosition(ids[j])) - self.centre, vehicle.getAngle(ids[j]))
            for j in np.flatnonzero(world.on_road[0]).tolist()
            if ids[j] in entered
        }
        time_s = float(world.sim.simulation.getTime())
        crashed = [j for j in old.vehicles if j not in vehicles and world.crashed[0, j]]
        wrecks = {j: wreck for j, wreck in old.wrecks.items() if time_s - wreck[1] < WRECK_S}
        wrecks |= {j: (old.vehicles[j], time_s) for j in crashed}
        self.scene = Scene(time_s, vehicles, wrecks)
        return self.scene

    def watch(self, take: Callable[[], None]) -> None:
        """Look, then call `take`, after each simulation step from now on."""

        def each() -> None:
            self.look()
            take()

        self.env.world.watch = each

    def forget(self) -> None:
        """An episode is over: drop what was in it."""
        self.scene = Scene()


class LiveScene(Watcher):
    """The scene as plain numbers for `rqe_mappo.live`: metres about the centre, degrees clockwise from north."""

    def static(self) -> dict[str, Any]:
        """What never moves: roads as polylines, stop lines by their ends, sizes, colours, actions and times."""
        geometry, config = self.env.world.geometry, self.env.config
        return {
            "kind": "intersection",
            "title": "Merge of two roads" if config.junction == "merge" else "Unsignalised intersection",
            "roads": [path.round(2).tolist() for path in geometry.paths],
            "stops": [np.round(ends, 2).tolist() for ends in stop_lines(geometry)],
            "view_m": VIEW_M,
            "lane_m": LANE_M,
            "vehicle_m": [LENGTH_M, WIDTH_M],
            "colours": [AGENTS[i % len(AGENTS)] for i in range(config.n_agents)],
            "actions": list(ACTION_NAMES),
            "action_values": [f"{accel:{'+g' if accel else 'g'}} m/s²" for accel in ACTIONS_MPS2],
            "unit": "s",
            "frame_s": config.step_s,
            "decision_s": config.decision_s,
        }

    def frame(self) -> dict[str, Any]:
        """The vehicles as they were looked at last, wrecks among them.

        slot: number of the vehicle; x_m, y_m: its front bumper; agent: its agent, None where SUMO drives; lawless: a
        background driver who ignores the right of way, which no agent observes; through: clear of the junction.
        """
        world, scene = self.env.world, self.scene
        moving = [
            self._vehicle(j, pose, float(world.sim.vehicle.getSpeed(world.ids[0][j])), False)
            for j, pose in scene.vehicles.items()
        ]
        return {"vehicles": moving + [self._vehicle(j, pose, 0.0, True) for j, (pose, _) in scene.wrecks.items()]}

    def _vehicle(self, j: int, pose: Pose, speed_mps: float, collided: bool) -> dict[str, Any]:
        world = self.env.world
        driven = j < self.env.config.n_agents and not world.human[0, j]
        (x, y), angle = pose
        return {
            "slot": j, "agent": j if driven else None, "x_m": round(float(x), 2), "y_m": round(float(y), 2),
            "angle_deg": round(float(angle), 1), "speed_mps": round(speed_mps, 2), "collided": collided,
            "lawless": bool(world.aggressive[0, j]), "through": not bool(world.present[0, j]),
        }  # fmt: skip


def stop_lines(geometry: Geometry) -> list[np.ndarray]:
    """The ends `[2, 2]` of each movement's stop line, in metres about the centre."""
    found = []
    for path, stop in zip(geometry.paths, geometry.stop, strict=True):
        along = lengths(path)
        at, before = (np.array([np.interp(x, along, path[:, i]) for i in (0, 1)]) for x in (stop, stop - 1))
        ahead = (at - before) / np.linalg.norm(at - before)
        side = np.array([-ahead[1], ahead[0]]) * LANE_M * 0.42
        found.append(np.array([at - side, at + side]))
    return found
