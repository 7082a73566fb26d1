"""One live session: a thread that plays the simulation in a worker process and publishes what all tabs see."""

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rqe_mappo import registry
from rqe_mappo.config import TrainConfig, from_json
from rqe_mappo.data.vector import WorkerDied, WorkerEnvs
from rqe_mappo.data.workers import Failed
from rqe_mappo.deploy.interpolation import Kind, interpolate
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.contract import Observed
from rqe_mappo.envs.history import History
from rqe_mappo.live import minds
from rqe_mappo.live.messages import Alpha, Command, Pause, Reset, Speed, Step, Tau
from rqe_mappo.live.stage import Stage
from rqe_mappo.live.tally import Tally, outcome

LIMIT_S = 10.0  # for which a simulation may be silent before it is replaced
SHOW_S = 0.04  # between two pictures at least: 25 a second
TALLY_S = 1.0  # between two computations of the running figures
HOLD_S = 1.0  # of real time at speed 1 for which an episode's end stays
BEHIND_S = 0.5  # by which decisions may come late and still be caught up
MOST_COMMANDS = 100  # waiting
Publish = Callable[[str, dict[str, Any]], None]


class Session(threading.Thread):
    """Plays `policies`, one or the safe and the neutral one, and calls `publish(type, content)` from its own thread.

    Published are `hello` (what never changes), `settings`, `decision` (what agents thought, and the frames that
    followed), `statistics` and `notice`. The worker process lives and dies with this thread.

    error: why the thread ended, if not by `stop`.
    on_end: called by the thread when it ends.
    ValueError where there is no live view of the policies' environment, or they do not belong together.
    """

    def __init__(
        self, policies: tuple[Policy, ...], publish: Publish, alpha: float = 0.5, kind: Kind = "probability",
        seed: int = 1, limit_s: float = LIMIT_S,
    ):  # fmt: skip
        super().__init__(name="session", daemon=True)
        self.policies, self.publish, self.kind, self.seed, self.limit_s = policies, publish, kind, seed, limit_s
        self.config: TrainConfig = from_json(policies[0].config_json)
        if not registry.environment(self.config.env).scene:
            live = " or ".join(name for name, entry in registry.ENVIRONMENTS.items() if entry.scene)
            raise ValueError(f"there is no live view of --env {self.config.env}: give runs of --env {live}")
        single = len(policies) == 1
        self.decider = policies[0] if single else interpolate(*policies, alpha, kind)
        self.alpha = None if single else alpha
        self.tau = minds.own_tau(policies[0]) if single else None
        self.agents = np.arange(len(policies[0].agents))
        self.speed, self.paused = 1.0, False
        self.commands: queue.Queue[Command | None] = queue.Queue(MOST_COMMANDS)
        self.ending, self.ready = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.on_end: Callable[[], None] = lambda: None
        self.env: History | WorkerEnvs | None = None
        self.episode, self.clean, self.untold, self.noticed = 0, True, False, False
        self.due = self.shown_at = self.told_at = 0.0

    def ask(self, command: Command) -> None:
        """Obey `command` before the next decision; ValueError where it has no meaning here, or too many wait."""
        single = self.alpha is None
        if isinstance(command, Alpha) and single:
            raise ValueError("alpha needs two policies, and there is one")
        if isinstance(command, Tau) and not single:
            raise ValueError("tau is read for one policy, and there are two")
        try:
            self.commands.put_nowait(command)
        except queue.Full:
            raise ValueError("too many messages at once") from None

    def stop(self) -> None:
        """End the thread, and with it the simulation."""
        self.ending.set()
        with contextlib.suppress(queue.Full):  # then there is something to wake up for
            self.commands.put_nowait(None)
        self.join()

    def run(self) -> None:
        try:
            with torch.no_grad():
                self._open(self.seed)
                self.ready.set()
                while not self.ending.is_set():
                    self._obey()
                    if not self.paused and not self.ending.is_set() and time.monotonic() >= self.due:
                        self._attempt(self._decide)
        except Exception as error:
            self.error = error
        finally:
            self._close()
            self.ready.set()
            self.on_end()

    def _open(self, seed: int) -> None:
        """A simulation in a process of its own, at the start of an episode."""
        entry = registry.environment(self.config.env)
        build = functools.partial(Stage, entry.factory, entry.scene, self.config.env_config)
        self.worker = WorkerEnvs(build, 1, seed, self.limit_s)
        self.env = self.config.algorithm.wrap(self.worker, self.config.gamma)
        self.static = self._of_stage("static")
        self.tally = Tally(self.static["unit"])
        names = ("safe", "neutral") if len(self.policies) == 2 else ("policy",)
        self.publish("hello", {
            "env": self.config.env, "scenario": self.config.scenario, "scene": self.static, "kind": self.kind,
            "agents": list(self.policies[0].agents),
            "policies": [
                minds.describe(policy, from_json(policy.config_json), name)
                for policy, name in zip(self.policies, names, strict=True)
            ],
        })  # fmt: skip
        self._reset(seed)

    def _close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None

    def _attempt(self, action: Callable[[], None]) -> None:
        """Carry out `action`, or start a simulation that was given up; where it cannot be had, say so and wait."""
        try:
            if self.env is None:
                self._open(self.seed)
            else:
                action()
        except WorkerDied as error:
            self._close()
            self.paused = True
            self._notice(f"The simulation cannot be kept alive: {error}. Reset tries once more.")
            self._publish_settings()

    def _of_stage(self, name: str) -> Any:
        """The answer of the stage."""
        process = self.worker.workers[0]
        try:
            process.ask(name)
            return process.answer(time.monotonic() + self.limit_s)
        except Failed as failure:
            raise WorkerDied(f"the simulation {failure}") from None

    def _frames(self) -> list[dict[str, Any]]:
        with contextlib.suppress(WorkerDied):  # the next step replaces it
            return self._of_stage("frames")
        return []

    def _reset(self, seed: int) -> None:
        self.seed = seed
        self.decider.seed(seed)
        self.seen = self.env.reset(seed)
        self.episode, self.due = 0, 0.0
        self.tally.clear()
        self._begin()
        self._notice("")
        self._publish_settings()
        self._tell()
        self.publish(
            "decision", {"episode": 1, "alpha": self.alpha, "agents": None, "frames": self._frames(), "outcome": ""}
        )

    def _begin(self) -> None:
        """An episode begins; it counts as long as nobody moves the slider in it."""
        self.episode, self.clean = self.episode + 1, True
        self.decider.begin()

    def _obey(self) -> None:
        """Wait for the next decision, or for commands, and carry out all there are."""
        wait = None if self.paused else max(0.0, self.due - time.monotonic())
        try:
            command = self.commands.get(timeout=wait)
            while command is not None:
                self._carry_out(command)
                command = self.commands.get_nowait()
        except queue.Empty:
            pass

    def _carry_out(self, command: Command) -> None:
        match command:
            case Alpha(value=value):
                if value == self.alpha:
                    return
                self.alpha = self.decider.alpha = value
                self.tally.clear()
                self.clean = False
                self._tell()
            case Tau(value=value):
                self.tau = float(value)
            case Speed(value=value):
                self.speed, self.due = value, 0.0
            case Pause(value=value):
                self.paused, self.due = value, 0.0
                self._tell()
            case Step():
                self.paused = True
                self._attempt(self._decide)
            case Reset(seed=seed):
                self.seed, self.paused = seed, self.paused and self.env is not None
                self._attempt(lambda: self._reset(seed))
        self._publish_settings()

    def _decide(self) -> None:
        """One decision of every agent, and what of it is to be shown."""
        now, fast = time.monotonic(), self.speed == "max"
        seen = Observed(self.seen.obs.copy(), self.seen.state.copy(), self.seen.active.copy())  # the step overwrites it
        actions = self.decider.act(seen.obs, np.broadcast_to(self.agents, seen.active.shape))
        step = self.seen = self.env.step(actions)
        ended, lost = len(step.episodes["copy"]) > 0, step.sim_crashed is not None
        if ended and self.clean:
            self.tally.add(step.episodes)
            self.untold = True
        if ended and self.noticed:
            self._notice("")
        if lost:
            self._notice("The simulation failed and was started anew; the episode that it lost does not count.")
        if now - self.shown_at >= SHOW_S or self.paused or (ended and not fast):
            self.shown_at = now
            self.publish("decision", {
                "episode": self.episode, "alpha": self.alpha,
                "agents": minds.thoughts(self.policies, self.decider, seen, actions, self.tau),
                "frames": self._frames()[-1 if fast else 0 :],
                "outcome": outcome(step.episodes, self.policies[0].agents) if ended else "",
            })  # fmt: skip
        if ended or lost:
            self._begin()
        if self.untold and (now - self.told_at >= TALLY_S or self.paused):
            self._tell()
        if not fast:
            late = now - self.due
            pause = self.static["decision_s"] + HOLD_S * ended
            self.due = (self.due if late < BEHIND_S else now) + pause / self.speed

    def _tell(self) -> None:
        self.publish("statistics", self.tally.content())
        self.told_at, self.untold = time.monotonic(), False

    def _notice(self, text: str) -> None:
        """Say `text` on the page, or, if it is empty, take back what was said."""
        self.publish("notice", {"text": text})
        self.noticed = bool(text)

    def _publish_settings(self) -> None:
        tau = "inf" if self.tau == float("inf") else self.tau
        self.publish(
            "settings",
            {"alpha": self.alpha, "tau": tau, "speed": self.speed, "paused": self.paused, "seed": self.seed},
        )
