"""One SUMO simulation: in this process by libsumo, or in a separate process by TraCI."""

import atexit
import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, ClassVar

from rqe_mappo.envs.sumo_intersection.network import SumoMissing, sumo_home

DOMAINS = ("vehicle", "route", "vehicletype", "simulation")


class SimulationCrashed(RuntimeError):
    """SUMO stopped answering or refused to start; the message holds its error output and the command."""


class Simulation:
    """SUMO, started on a network; `vehicle`, `route`, `vehicletype` and `simulation` are its API domains.

    backend: "libsumo" steps it in this process, of which there can be one: a second start would silently replace the
        first, and is refused. "traci" starts SUMO as a process of its own, and any number of them, with the same
        trajectories at a fraction of the speed; "gui" does so with a window.
    """

    vehicle: Any
    route: Any
    vehicletype: Any
    simulation: Any
    connection: Any
    owner: ClassVar[object | None] = None
    labels: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, net: Path, step_s: float, backend: str = "libsumo"):
        inside = backend == "libsumo"
        if inside and Simulation.owner is not None:
            raise RuntimeError(
                "a SUMO simulation is already open in this process: close() that environment first, "
                "or step environments in worker processes (--num-workers)"
            )
        home = sumo_home()
        try:
            if inside:
                import libsumo as api
            else:
                import traci as api
        except ImportError as error:
            raise SumoMissing(error) from None
        self.api: Any = api  # two modules with one interface, but for connections
        self.inside, self.started, self.closed = inside, False, False
        self.program = "sumo" if inside else str(home / "bin" / ("sumo-gui" if backend == "gui" else "sumo"))
        self.options = [
            "--net-file", str(net), "--step-length", str(step_s),
            # all four are needed for collisions that count: SUMO's defaults report none within junctions
            "--collision.check-junctions", "true", "--collision.action", "remove",
            "--collision.mingap-factor", "0", "--time-to-teleport", "-1",
            "--default.speeddev", "0", "--no-step-log", "true", "--no-warnings", "true",
        ]  # fmt: skip
        if backend == "gui":
            self.options += ["--start", "true", "--quit-on-end", "true", "--delay", "100"]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - what SUMO writes to standard error, until close()
        if inside:
            Simulation.owner = self
            self._set_domains(api)
        atexit.register(self.close)

    def _set_domains(self, source: Any) -> None:
        for name in DOMAINS:
            setattr(self, name, getattr(source, name))

    def load(self, seed: int) -> None:
        """Start at time 0 with empty roads and SUMO's random numbers seeded."""
        if self.closed:
            raise SimulationCrashed("this environment is closed: make a new one")
        options = [*self.options, "--seed", str(seed)]
        with self.guarded(), self._captured():
            if self.started:
                self.connection.load(options)
            elif self.inside:
                self.api.start([self.program, *options])
                self.connection = self.api
            else:
                label = f"rqe_mappo_{os.getpid()}_{next(Simulation.labels)}"
                with contextlib.redirect_stdout(None):  # it prints every retry to connect
                    self.api.start([self.program, *options], label=label, stdout=self.errors)
                self.connection = self.api.getConnection(label)
                self._set_domains(self.connection)
        self.started = True

    def step(self) -> Any:
        """One simulation step; the collisions in it."""
        self.connection.simulationStep()
        return self.simulation.getCollisions()

    @contextlib.contextmanager
    def _captured(self) -> Generator[None]:
        """Redirect standard error, to which SUMO writes without Python's streams, into `errors`."""
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(self.errors.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    @contextlib.contextmanager
    def guarded(self) -> Generator[None]:
        """Turn what SUMO raises inside into `SimulationCrashed`, with its error output."""
        try:
            yield
        except (self.api.TraCIException, self.api.FatalTraCIError, ConnectionError) as error:  # unrelated classes
            if not self.inside:
                self._end()
            self.started = False
            self.errors.seek(0)
            message = " ".join(f"{str(error).rstrip('.')}. {self.errors.read()}".split())
            raise SimulationCrashed(
                f"SUMO stopped: {message} (command: {self.program} {' '.join(self.options)})"
            ) from None

    def _end(self) -> None:
        if self.started:
            with contextlib.suppress(self.api.TraCIException, self.api.FatalTraCIError, ConnectionError):
                self.connection.close()
            self.started = False

    def close(self) -> None:
        """End the simulation; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        self._end()
        self.errors.close()
        if Simulation.owner is self:
            Simulation.owner = None
