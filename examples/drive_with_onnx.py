"""Drives vehicles in SUMO with an exported policy: plain TraCI, onnxruntime and numpy, nothing of rqe_mappo.

    rqe-export RUN policy.onnx
    python examples/sumo_files.py RUN crossing
    python examples/drive_with_onnx.py policy.onnx crossing

The second command writes the junction and its traffic; movements.json is explained there. Vehicles of the type
`controlled` are driven, named after the policy's agents; the others belong to SUMO.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import traci
from sumolib import checkBinary

FOLLOW_ONLY = 39  # speed mode: keep off the vehicle ahead, ignore the right of way, which is the policy's business
LAWFUL = 31  # speed mode: SUMO's own driver


@dataclass
class Vehicle:
    """A vehicle on its way across; pos_m is how far it is beyond its stop line, negative before it."""

    way: str
    start_m: float
    driven: bool
    pos_m: float = 0.0
    speed_mps: float = 0.0
    accel_mps2: float = 0.0
    decisions: int = 0
    waited_s: float = 0.0


def observe(me: Vehicle, vehicles: list[Vehicle], movements: dict, settings: dict) -> np.ndarray:
    """What the policy was trained to see: the table in the docstring of `IntersectionEnv`, without its noise."""
    way, top_mps = movements[me.way], settings["max_speed_mps"]
    time_s = me.decisions * settings["decision_s"]
    own = [me.speed_mps / top_mps, np.clip(-me.pos_m / 50, -2, 2), *(way["turn"] == turn for turn in (0, 1, 2)),
           time_s / settings["horizon_s"], min(me.waited_s / 10, 2), me.pos_m > 0, me.accel_mps2 / 6]  # fmt: skip
    conflicting = []
    for other in vehicles:
        begin, end, their_begin, their_end, side = way["conflicts"].get(other.way, [-np.inf] * 5)
        own_m, their_m = begin - me.pos_m, their_begin - other.pos_m
        if end <= me.pos_m or their_end <= other.pos_m:
            continue  # our ways do not cross, or one of us has passed
        arrival_s, their_arrival_s = max(own_m, 0) / max(me.speed_mps, 2), max(their_m, 0) / max(other.speed_mps, 0.5)
        urgency = abs(their_arrival_s - arrival_s) + 0.1 * their_arrival_s
        conflicting.append((
            urgency, 1, np.clip(own_m / 30, -1, 3), np.clip(their_m / 30, -1, 3), other.speed_mps / top_mps,
            np.clip((their_arrival_s - arrival_s) / 4, -3, 3), *(side == where for where in (1, 2, 3)),
        ))  # fmt: skip
    nearest = sorted(conflicting, key=lambda vehicle: vehicle[0])[: settings["neighbours"]]
    values = [*own, *(value for _, *features in nearest for value in features)]
    padded = np.pad(np.array(values, np.float32), (0, 9 + 8 * settings["neighbours"] - len(values)))
    return np.clip(padded, -5, 5)


def drive(policy_file: str, folder: str, seed: int = 0) -> dict[str, int]:
    """Drive until the roads are empty; how many decisions were taken, and how many vehicles came through or crashed."""
    policy = onnxruntime.InferenceSession(policy_file)
    known = policy.get_modelmeta().custom_metadata_map
    agents, accelerations, settings = (json.loads(known[name]) for name in ("agents", "actions_mps2", "settings"))
    movements = json.loads(Path(folder, "movements.json").read_text())
    steps_each, span_s = round(settings["decision_s"] / settings["step_s"]), settings["decision_s"]
    rng = np.random.default_rng(seed)
    counts = {"decisions": 0, "through": 0, "crashed": 0}
    vehicles: dict[str, Vehicle] = {}
    step = 0
    traci.start([checkBinary("sumo"), "-c", str(Path(folder, "junction.sumocfg")), "--seed", str(seed)])
    while traci.simulation.getMinExpectedNumber():
        traci.simulationStep()
        step += 1
        for name in {name for crash in traci.simulation.getCollisions() for name in (crash.collider, crash.victim)}:
            counts["crashed"] += vehicles.pop(name, None) is not None
        entered = traci.simulation.getDepartedIDList()
        for name in entered:
            driven = traci.vehicle.getTypeID(name) == "controlled"
            way, start_m = " ".join(traci.vehicle.getRoute(name)), traci.vehicle.getLanePosition(name)
            vehicles[name] = Vehicle(way, start_m - movements[way]["stop_m"], driven)
            if driven:
                traci.vehicle.setSpeedMode(name, FOLLOW_ONLY)
                traci.vehicle.setLaneChangeMode(name, 0)
        deciding = entered if step % steps_each else list(vehicles)  # who has just entered decides at once
        if not deciding:
            continue
        for name, vehicle in list(vehicles.items()):
            vehicle.pos_m = vehicle.start_m + traci.vehicle.getDistance(name)
            vehicle.speed_mps = traci.vehicle.getSpeed(name)
            if vehicle.pos_m > movements[vehicle.way]["clear_m"]:
                counts["through"] += 1
                del vehicles[name]
                traci.vehicle.setSpeed(name, -1)  # SUMO drives it from here on
            elif vehicle.driven and vehicle.decisions * span_s >= settings["horizon_s"]:
                vehicle.driven = False  # the policy has never seen a later time
                traci.vehicle.setSpeedMode(name, LAWFUL)
                traci.vehicle.setSpeed(name, -1)
        for name in deciding:
            vehicle = vehicles.get(name)
            if vehicle is None or not vehicle.driven:
                continue
            vehicle.waited_s += span_s * (vehicle.speed_mps < 0.5)
            obs = observe(vehicle, list(vehicles.values()), movements, settings)
            agent = np.array([agents.index(name.partition(".")[0])])
            (probabilities,) = policy.run(["probabilities"], {"obs": obs[None], "agent": agent})
            vehicle.accel_mps2 = rng.choice(accelerations, p=probabilities[0])
            if vehicle.speed_mps <= 0.05 and vehicle.accel_mps2 <= 0:
                traci.vehicle.setSpeed(name, 0)
            else:
                traci.vehicle.setAcceleration(name, vehicle.accel_mps2, span_s)
            vehicle.decisions += 1
            counts["decisions"] += 1
    traci.close()
    return counts


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a policy.onnx and the folder that sumo_files.py wrote")
    print(drive(*sys.argv[1:]))
