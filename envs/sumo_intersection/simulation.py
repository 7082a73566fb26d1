"""The one libsumo simulation that a process may have."""

import atexit
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from rqe_mappo.envs.sumo_intersection.network import SumoMissing, sumo_home


class SimulationCrashed(RuntimeError):
    """SUMO stopped answering or refused to start; the message holds its words and the command."""


class Simulation:
    """libsumo, started on a network. A second start in one process would silently replace the first: it is refused.

    `vehicle`, `route`, `vehicletype` and `simulation` are libsumo's own domains.
    """

    owner: ClassVar["Simulation | None"] = None

    def __init__(self, net: Path, step_s: float):
        if Simulation.owner is not None:
            raise RuntimeError(
                "a SUMO simulation is already open in this process: close() that environment first, "
                "or step environments in worker processes (--num-workers)"
            )
        sumo_home()
        try:
            import libsumo
        except ImportError:
            raise SumoMissing from None
        self.libsumo, self.started = libsumo, False
        self.options = [
            "--net-file", str(net), "--step-length", str(step_s),
            # all four are needed for collisions that count: SUMO's defaults report none within junctions
            "--collision.check-junctions", "true", "--collision.action", "remove",
            "--collision.mingap-factor", "0", "--time-to-teleport", "-1",
            "--default.speeddev", "0", "--no-step-log", "true", "--no-warnings", "true",
        ]  # fmt: skip
        Simulation.owner = self
        atexit.register(self.close)
        for name in ("vehicle", "route", "vehicletype", "simulation"):
            setattr(self, name, getattr(libsumo, name))

    def load(self, seed: int) -> None:
        """Start at time 0 with SUMO's own random numbers seeded; empty roads."""
        if Simulation.owner is not self:
            raise SimulationCrashed("this environment is closed: make a new one")
        options = [*self.options, "--seed", str(seed)]
        with self.guarded():
            if self.started:
                self.libsumo.load(options)
            else:
                self.libsumo.start(["sumo", *options])
        self.started = True

    def step(self) -> Any:
        """One simulation step; the collisions in it."""
        self.libsumo.simulationStep()
        return self.simulation.getCollisions()

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn whatever libsumo raises inside into `SimulationCrashed`."""
        try:
            yield
        except (self.libsumo.TraCIException, self.libsumo.FatalTraCIError) as error:  # unrelated classes
            self.started = False
            raise SimulationCrashed(f"SUMO stopped: {error} (command: sumo {' '.join(self.options)})") from None

    def close(self) -> None:
        """End the simulation; a second call does nothing."""
        if Simulation.owner is self:
            Simulation.owner = None
            atexit.unregister(self.close)
            if self.started:
                self.libsumo.close()
                self.started = False
