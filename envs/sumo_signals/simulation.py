"""The lights of one network in SUMO. Importing this module imports SUMO: do so only where a simulation is needed."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import libsumo
import numpy as np
from sumo_rl.environment.observations import DefaultObservationFunction

from rqe_mappo.envs.sumo_intersection.simulation import SimulationCrashed
from rqe_mappo.envs.sumo_signals import trips
from rqe_mappo.envs.sumo_signals.config import PROGRAM, SignalsConfig
from rqe_mappo.envs.sumo_signals.light import Signal, is_driveable
from rqe_mappo.envs.sumo_signals.nets import Net

OWN_REWARDS = ("waiting", "long-waiting")
VEHICLE_M = 7.5  # a car and the gap before it


@dataclass(frozen=True)
class Light:
    """What does not change about a traffic light.

    lanes: its incoming lanes.
    room: `[lanes]`, how many vehicles fit onto each.
    served: bool `[green phases, lanes]`, which lanes each phase lets go.
    entries: the edges of its lanes; vehicles may stand before them that have not entered the net.
    """

    name: str
    lanes: tuple[str, ...]
    room: np.ndarray
    served: np.ndarray
    entries: tuple[str, ...]


class Junctions:
    """The lights of one network, with an explicit seed for each episode, and its trips written into `folder`.

    lights, signals: what stays about each light and what changes, in the same order; rail signals and crossings are
        none of them.
    waited: float `[A]`, what vehicles waited at each light in the last decision, in vehicle-minutes; with the reward
        "long-waiting" each is weighed by 1 and the minutes that it has stood already. Vehicles that cannot enter a
        full road count too.
    collided: how many vehicles collided in the last decision, each pair once an episode.
    """

    sumo = libsumo
    observation_class = DefaultObservationFunction  # sumo-rl's lights ask for one

    def __init__(self, config: SignalsConfig, files: Net, folder: Path):
        self.config, self.running = config, False
        self.options = [
            *files.options(), "--max-depart-delay", "-1", "--time-to-teleport", str(config.teleport_s),
            "--no-warnings", "true", "--no-step-log", "true", *trips.output_options(folder),
        ]  # fmt: skip
        try:
            self.start(0)  # what lanes each phase serves is known to a running simulation only
            if not self.signals:
                raise ValueError(f"--net-file {files.net_file} has no traffic light: use a net with one")
            self.lights = [self._light(signal) for signal in self.signals.values()]
        except BaseException:
            self.close()
            raise

    def start(self, seed: int, scale: float = 1.0) -> None:
        """Begin an episode; the same seed and scale of the demand give the same one."""
        self.close()
        scale *= self.config.demand
        with self.guarded():
            libsumo.start(["sumo", *self.options, "--seed", str(seed), "--scale", f"{scale:.6g}"])
            self.running = True
            names = [name for name in libsumo.trafficlight.getIDList() if is_driveable(name)]
            self.signals = {name: self._signal(name) for name in names}
        self.pairs: set[tuple[str, str]] = set()
        self.vehicles: dict[str, dict[str, float]] = {}  # what sumo-rl's lights keep of accumulated waiting
        self._clear()

    def _signal(self, name: str) -> Signal:
        config, begin_s = self.config, int(libsumo.simulation.getTime())
        reward = "queue" if config.reward in OWN_REWARDS else config.reward
        times = (config.delta_time_s, config.yellow_time_s, config.min_green_s, 0)  # sumo-rl ignores the longest green
        return Signal(self, name, *times, begin_s, reward, libsumo)

    @property
    def sim_step(self) -> float:
        """Second on SUMO's clock, under the name that sumo-rl's lights know."""
        return libsumo.simulation.getTime()

    def _clear(self) -> None:
        self.waited, self.collided = np.zeros(len(self.signals)), 0

    def decide(self, phases: list[int]) -> None:
        """Let each light choose its next green phase, or PROGRAM, and simulate until the next decision."""
        self._clear()
        signals = self.signals.values()
        steered = [(signal, phase) for signal, phase in zip(signals, phases, strict=True) if phase != PROGRAM]
        free = [signal for signal, phase in zip(signals, phases, strict=True) if phase == PROGRAM]
        with self.guarded():
            for signal, phase in steered:
                signal.set_next_phase(phase)
            for _ in range(self.config.delta_time_s):
                self._second()
                for signal, _ in steered:
                    signal.update()
                for signal in free:
                    signal.follow()

    def earned(self) -> np.ndarray:
        """`[A]`, each light's reward for the last decision, not yet clipped."""
        if self.config.reward in OWN_REWARDS:
            return -self.waited
        return np.array([signal.compute_reward() for signal in self.signals.values()])

    def _second(self) -> None:
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

    def _light(self, signal: Signal) -> Light:
        lanes = tuple(signal.lanes)
        served = np.zeros((signal.num_green_phases, len(lanes)), bool)
        for index, links in enumerate(libsumo.trafficlight.getControlledLinks(signal.id)):
            for incoming, _, _ in links:
                for phase, state in enumerate(signal.shown):
                    served[phase, lanes.index(incoming)] |= state[index] in "Gg"
        return Light(
            name=signal.id,
            lanes=lanes,
            room=np.array([signal.lanes_length[lane] / VEHICLE_M for lane in lanes]),
            served=served,
            entries=tuple(dict.fromkeys(libsumo.lane.getEdgeID(lane) for lane in lanes)),
        )

    def outside(self, light: Light) -> int:
        """How many vehicles wait to enter the roads that lead to `light`."""
        return sum(len(libsumo.edge.getPendingVehicles(edge)) for edge in light.entries)

    def close(self) -> None:
        """End the episode, which makes SUMO write its files; a second call does nothing."""
        if self.running:
            self.running = False
            libsumo.close()

    @contextlib.contextmanager
    def guarded(self) -> Generator[None]:
        """Turn what libsumo raises inside into `SimulationCrashed`, in one line."""
        try:
            yield
        except (libsumo.TraCIException, libsumo.FatalTraCIError) as error:  # unrelated classes
            self.running = False
            reason = " ".join(str(error).split())
            if reason == "Process Error":
                reason = "it refuses its files, with the reason above"
            command = " ".join(self.options)
            raise SimulationCrashed(f"SUMO stopped: {reason} (command: sumo {command})") from None
