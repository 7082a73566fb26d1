"""sumo-rl's environment, adapted. Importing this module imports SUMO: do so only where a simulation is needed."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libsumo
import numpy as np

from rqe_mappo.envs.sumo_intersection.simulation import SimulationCrashed
from rqe_mappo.envs.sumo_signals import trips
from rqe_mappo.envs.sumo_signals.config import SignalsConfig
from rqe_mappo.envs.sumo_signals.loading import load_sumo_rl
from rqe_mappo.envs.sumo_signals.nets import Net, green_s

SumoEnvironment: Any = load_sumo_rl().SumoEnvironment
OWN_REWARDS = ("waiting", "long-waiting")
VEHICLE_M = 7.5  # a car and the gap before it


@dataclass(frozen=True)
class Light:
    """One traffic light.

    lanes: its incoming lanes.
    room: `[lanes]`, how many vehicles fit onto each.
    served: bool `[green phases, lanes]`, which lanes each phase lets go.
    entries: the edges of its lanes; vehicles may stand before them that have not entered the net.
    green_s: how long the net's program shows each green phase, its yellow included, in seconds.
    """

    name: str
    lanes: tuple[str, ...]
    room: np.ndarray
    served: np.ndarray
    entries: tuple[str, ...]
    green_s: tuple[float, ...]


class Junctions(SumoEnvironment):
    """sumo-rl's lights on one network: an explicit seed for each episode, and its trips written into `folder`.

    waited: float `[A]`, what vehicles waited at each light in the last decision, in vehicle-minutes; with the reward
        "long-waiting" each is weighed by 1 and the minutes that it has stood already. Vehicles that cannot enter a
        full road count too.
    collided: how many vehicles collided in the last decision, each pair once an episode.
    """

    def __init__(self, config: SignalsConfig, files: Net, folder: Path):
        self.config, self.scale = config, config.demand
        self.options = [
            "--net-file", files.net_file, "--route-files", files.route_file, "--begin", str(files.begin_s),
            "--max-depart-delay", "-1", "--time-to-teleport", str(config.teleport_s),
            "--no-warnings", "true", "--no-step-log", "true", *trips.output_options(folder),
        ]  # fmt: skip
        durations = green_s(files.net_file)
        with self.guarded():
            super().__init__(
                net_file=files.net_file,
                route_file=files.route_file,
                begin_time=files.begin_s,
                num_seconds=config.num_seconds,
                delta_time=config.delta_time_s,
                yellow_time=config.yellow_time_s,
                min_green=config.min_green_s,
                reward_fn="queue" if config.reward in OWN_REWARDS else config.reward,
                add_system_info=False,
                add_per_agent_info=False,
            )
            self.start(0)  # what lanes each phase serves is known to a running simulation only
            self.lights = [self._light(name, durations[name]) for name in self.ts_ids]

    def start(self, seed: int, scale: float = 1.0) -> None:
        """Begin an episode; the same seed and scale of the demand give the same one."""
        self.scale = self.config.demand * scale
        self.pairs: set[tuple[str, str]] = set()
        self._clear()
        with self.guarded():
            self.reset(seed=seed)  # without a seed sumo-rl would repeat the last one

    def _clear(self) -> None:
        self.waited, self.collided = np.zeros(len(self.ts_ids)), 0

    def decide(self, phases: list[int]) -> None:
        """Let each light choose its next green phase, and simulate until the next decision."""
        self._clear()
        with self.guarded():
            self._apply_actions(dict(zip(self.ts_ids, phases, strict=True)))
            self._run_steps()

    def earned(self) -> np.ndarray:
        """`[A]`, each light's reward for the last decision, not yet clipped."""
        if self.config.reward in OWN_REWARDS:
            return -self.waited
        return np.array([self.traffic_signals[name].compute_reward() for name in self.ts_ids])

    def _start_simulation(self) -> None:
        """Start SUMO; replaces sumo-rl's method, which splits options at spaces and has no demand scale."""
        libsumo.start(["sumo", *self.options, "--seed", str(self.sumo_seed), "--scale", f"{self.scale:.6g}"])
        self.sumo = libsumo

    def _sumo_step(self) -> None:
        libsumo.simulationStep()
        for collision in libsumo.simulation.getCollisions():
            pair = tuple(sorted((collision.collider, collision.victim)))
            if pair not in self.pairs:
                self.pairs.add(pair)
                self.collided += 2
        if self.config.reward in OWN_REWARDS:
            self._count_waiting()

    def _count_waiting(self) -> None:
        weighed = self.config.reward == "long-waiting"
        outside = len(libsumo.simulation.getPendingVehicles()) > 0
        for index, light in enumerate(self.lights):
            standing = sum(map(libsumo.lane.getLastStepHaltingNumber, light.lanes))
            stood_s = sum(map(libsumo.lane.getWaitingTime, light.lanes)) if weighed else 0.0
            if outside:
                for edge in light.entries:
                    vehicles = libsumo.edge.getPendingVehicles(edge)
                    standing += len(vehicles)
                    stood_s += sum(map(libsumo.vehicle.getDepartDelay, vehicles)) if weighed else 0.0
            self.waited[index] += (standing + stood_s / 60) / 60

    def _light(self, name: str, green: tuple[float, ...]) -> Light:
        signal = self.traffic_signals[name]
        lanes = tuple(signal.lanes)
        served = np.zeros((signal.num_green_phases, len(lanes)), bool)
        for index, links in enumerate(libsumo.trafficlight.getControlledLinks(name)):
            for incoming, _, _ in links:
                for phase, shown in enumerate(signal.green_phases):
                    served[phase, lanes.index(incoming)] |= shown.state[index] in "Gg"
        return Light(
            name=name,
            lanes=lanes,
            room=np.array([signal.lanes_length[lane] / VEHICLE_M for lane in lanes]),
            served=served,
            entries=tuple(dict.fromkeys(libsumo.lane.getEdgeID(lane) for lane in lanes)),
            green_s=green,
        )

    def outside(self, light: Light) -> int:
        """How many vehicles wait to enter the roads that lead to `light`."""
        return sum(len(libsumo.edge.getPendingVehicles(edge)) for edge in light.entries)

    @contextlib.contextmanager
    def guarded(self) -> Generator[None]:
        """Turn what libsumo raises inside into `SimulationCrashed`."""
        try:
            yield
        except (libsumo.TraCIException, libsumo.FatalTraCIError) as error:  # unrelated classes
            self.sumo = None
            raise SimulationCrashed(f"SUMO stopped: {error} (command: sumo {' '.join(self.options)})") from None
