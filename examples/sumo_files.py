"""Writes the junction of a run with `--env sumo`, and traffic for it, as files for SUMO.

    python examples/sumo_files.py RUN crossing

makes in the folder `crossing`: junction.net.xml, traffic.rou.xml, junction.sumocfg that starts SUMO with both, and
movements.json, what an observation needs to know of the junction. That holds for each way across, named by the roads it
leads from and to:

* `turn`: 0 left, 1 straight, 2 right;
* `stop_m`: where along the first road its stop line lies;
* `clear_m`: how far beyond that line a vehicle is through;
* `conflicts` with other ways: where the conflict begins and ends along one's own path and along theirs, each in metres
  beyond the stop line, and the side they come from (1 left, 2 ahead, 3 right).

The traffic comes in waves, one for each episode that the environment would draw; the first is that of `reset(seed)`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
import tyro

from rqe_mappo import config as configs
from rqe_mappo.command_line import main, parse
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.sumo_intersection.config import IntersectionConfig
from rqe_mappo.envs.sumo_intersection.dynamics import CLEAR_M, Intersections, junction_of
from rqe_mappo.envs.sumo_intersection.geometry import Geometry
from rqe_mappo.envs.sumo_intersection.junction import copies_of
from rqe_mappo.envs.sumo_intersection.safety import BODY_M

TYPE = {
    "accel": "getAccel", "decel": "getDecel", "emergencyDecel": "getEmergencyDecel", "maxSpeed": "getMaxSpeed",
    "length": "getLength", "minGap": "getMinGap", "sigma": "getImperfection",
}  # fmt: skip
# SUMO's parameters of a driver who ignores the right of way
AGGRESSIVE = {"jmIgnoreFoeProb": "1", "jmIgnoreFoeSpeed": "100", "jmIgnoreJunctionFoeProb": "1"}


def write(config: IntersectionConfig, folder: Path, seed: int, waves: int) -> None:
    """All files of a junction with these settings."""
    folder.mkdir(parents=True, exist_ok=True)
    world = Intersections(config, 1)
    try:
        (folder / "junction.net.xml").write_text(copies_of(junction_of(config), 1))
        (folder / "movements.json").write_text(json.dumps(movements(world.geometry), indent=1))
        world.load(seed)
        _save(traffic(world, waves), folder / "traffic.rou.xml")
        _save(settings(world.sim.options), folder / "junction.sumocfg")
    finally:
        world.close()


def roads(geometry: Geometry, movement: int) -> tuple[str, str]:
    """Ids of the roads that a movement leads from and to."""
    return f"{geometry.entry[movement]}0", f"{geometry.leave[movement]}0"


def movements(geometry: Geometry) -> dict[str, dict]:
    """Contents of movements.json."""
    named = [" ".join(roads(geometry, p)) for p in range(len(geometry.arm))]
    return {
        name: {
            "turn": int(geometry.turn[p]),
            "stop_m": float(geometry.approach_m[p]),
            "clear_m": float(geometry.length_m[p] + CLEAR_M),
            "conflicts": {
                named[q]: [
                    *(geometry.zones_m[p, q] + (0, BODY_M, 0, BODY_M)).tolist(),
                    int(geometry.side[geometry.arm[p], geometry.arm[q]]),
                ]
                for q in np.flatnonzero(geometry.conflicts[p, :]).tolist()
            },
        }
        for p, name in enumerate(named)
    }


def traffic(world: Intersections, waves: int) -> Element:
    """Vehicle types, routes, and vehicles `veh_I.WAVE` of agents and `background_I.WAVE` of SUMO."""
    config, geometry, known = world.config, world.geometry, world.sim.vehicletype
    root = Element("routes")
    for name, own in (("controlled", {}), ("background", {}), ("aggressive", AGGRESSIVE)):
        model = "background" if name == "aggressive" else name
        numbers = {attribute: f"{getattr(known, get)(model):g}" for attribute, get in TYPE.items()}
        SubElement(root, "vType", {"id": name, **numbers, **own})
    for p in range(len(geometry.arm)):
        SubElement(root, "route", {"id": str(p), "edges": " ".join(roads(geometry, p))})
    for wave in range(waves):
        world.reset(np.array([0]))
        for j in range(config.n_vehicles):
            movement, agent = world.movement[0, j], j < config.n_agents
            driven = agent and not world.human[0, j]
            background = "aggressive" if world.aggressive[0, j] else "background"
            SubElement(root, "vehicle", {
                "id": f"{'veh' if agent else 'background'}_{j}.{wave}", "type": "controlled" if driven else background,
                "route": str(movement), "depart": f"{wave * config.horizon_s:g}",
                "departLane": str(geometry.lane[movement]), "departSpeed": f"{world.speed_mps[0, j]:.2f}",
                "departPos": f"{max(0.1, geometry.approach_m[movement] - world.spawn_m[0, j]):.2f}",
            })  # fmt: skip
    return root


def settings(options: list[str]) -> Element:
    """SUMO's configuration: the options of the environment, and the files of this folder."""
    root = Element("configuration")
    files = {"--net-file": "junction.net.xml", "--route-files": "traffic.rou.xml"}
    for option, value in (dict(zip(options[::2], options[1::2], strict=True)) | files).items():
        SubElement(root, option.removeprefix("--"), {"value": value})
    return root


def _save(root: Element, path: Path) -> None:
    indent(root)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


@dataclass(frozen=True)
class Asked:
    """Write the junction of a run with --env sumo, and traffic for it, as files for SUMO."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder, or a step_N.policy.pt file."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Where the files go."""
    seed: int = 0
    """Seed of the traffic."""
    waves: int = 10
    """Episodes' worth of vehicles."""


def command(args: list[str]) -> None:
    """Write the files that a command line asks for."""
    asked = parse(Asked, "sumo_files.py", args)
    config = configs.from_json(Policy.load(asked.run).config_json)
    if config.env != "sumo":
        raise ValueError(f"{asked.run} was trained with --env {config.env}: give a run with --env sumo")
    if getattr(config.algorithm, "advantage", "") == "static":
        raise ValueError(f"{asked.run} was trained with --advantage static and observes its return: give another run")
    write(config.env_config, asked.folder, asked.seed, asked.waves)


if __name__ == "__main__":
    main(command, "sumo_files.py", None)
