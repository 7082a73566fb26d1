"""One live session: a thread that steps the simulation in a worker process and publishes what all tabs see."""

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from rqe_mappo import registry
from rqe_mappo.config import TrainConfig, from_json
from rqe_mappo.data.vector import WorkerDied, WorkerEnvs
from rqe_mappo.data.workers import Failed
from rqe_mappo.deploy.interpolation import Kind, Mixture, interpolate
from rqe_mappo.deploy.policy import ActingPolicy, Policy
from rqe_mappo.envs.contract import BatchedEnv, Observed
from rqe_mappo.live import inspection
from rqe_mappo.live.messages import Alpha, Command, Pause, Reset, Speed, Step, Tau
from rqe_mappo.live.running_statistics import RunningStatistics, outcome
from rqe_mappo.live.scene_env import SceneEnv

LIMIT_S = 10.0  # without an answer, after which a simulation is replaced
SHOW_S = 0.04  # at least, between two decisions that are shown: 25 a second
STATISTICS_S = 1.0  # between two computations of the running statistics
HOLD_S = 1.0  # of real time at speed 1 for which the end of an episode stays on the page
BEHIND_S = 0.5  # of delay that the session still catches up with
MOST_COMMANDS = 100  # that wait in the queue
Publish = Callable[[str, dict[str, Any]], None]


class Session(threading.Thread):
    """Drives with `policies`, one or the safe and the neutral one; calls `publish(type, content)` from its own thread.

    Published are `hello` (what never changes), `settings`, `decision` (what the policies computed, and the frames that
    followed), `statistics` and `notice`. The worker process ends with this thread.

    error: why the thread ended, if not by `stop`.
    on_end: called by the thread when it ends.
    ValueError where there is no live view of the policies' environment, or the policies do not fit together.
    """

    def __init__(
        self, policies: tuple[Policy, ...], publish: Publish, alpha: float = 0.5, kind: Kind = "probability",
        seed: int = 1, limit_s: float = LIMIT_S,
    ):  # fmt: skip
        super().__init__(name="session", daemon=True)
        self.policies, self.publish, self.kind, self.seed, self.limit_s = policies, publish, kind, seed, limit_s
        self.config: TrainConfig = from_json(policies[0].config_json)
        if not registry.environment(self.config.env).scene:
            known = " or ".join(name for name, entry in registry.ENVIRONMENTS.items() if entry.scene)
            raise ValueError(f"there is no live view of --env {self.config.env}: give runs of --env {known}")
        if policies[0].spec.actions.kind != "discrete":
            raise ValueError("the live page shows probabilities of actions: give runs with one choice a decision")
        single = len(policies) == 1
        self.mixture: Mixture | None = None if single else interpolate(*policies, alpha, kind)
        self.actor: ActingPolicy = self.mixture or policies[0]
        self.alpha = None if single else alpha
        self.tau = inspection.training_tau(policies[0]) if single else None
        self.agents = np.arange(len(policies[0].agents))
        self.speed: float | Literal["max"] = 1.0
        self.paused = False
        self.commands: queue.Queue[Command | None] = queue.Queue(MOST_COMMANDS)
        self.ending, self.ready = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.on_end: Callable[[], None] = lambda: None
        self.env: BatchedEnv | None = None
        self.episode, self.counts = 0, True  # the running episode; whether it will count
        self.unpublished, self.noticed = False, False
        self.due = self.shown_at = self.published_at = 0.0

    def ask(self, command: Command) -> None:
        """Queue `command` for the next decision; ValueError where it has no meaning here, or too many wait."""
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
        with contextlib.suppress(queue.Full):  # a full queue wakes the thread anyway
            self.commands.put_nowait(None)
        self.join()

    def run(self) -> None:
        try:
            with torch.no_grad():
                self._open(self.seed)
                self.ready.set()
                while not self.ending.is_set():
                    self._handle_commands()
                    if not self.paused and not self.ending.is_set() and time.monotonic() >= self.due:
                        self._with_simulation(self._decide)
        except Exception as error:
            self.error = error
        finally:
            self._close()
            self.ready.set()
            self.on_end()

    def _open(self, seed: int) -> None:
        """A simulation in a process of its own, at the start of an episode."""
        entry = registry.environment(self.config.env)
        build = functools.partial(SceneEnv, entry.factory, entry.scene, self.config.env_config)
        self.worker = WorkerEnvs(build, 1, seed, self.limit_s)
        env = self.env = self.config.algorithm.wrap(self.worker, self.config.gamma)
        self.static = self._ask_worker("static")
        self.statistics = RunningStatistics(self.static["unit"])
        names = ("safe", "neutral") if len(self.policies) == 2 else ("policy",)
        self.publish("hello", {
            "env": self.config.env, "scenario": self.config.scenario, "scene": self.static, "kind": self.kind,
            "agents": list(self.policies[0].agents),
            "policies": [
                inspection.describe_policy(policy, from_json(policy.config_json), name)
                for policy, name in zip(self.policies, names, strict=True)
            ],
        })  # fmt: skip
        self._reset(env, seed)

    def _close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None

    def _with_simulation(self, action: Callable[[BatchedEnv], None]) -> None:
        """Run `action`, or start the simulation if there is none; where it keeps failing, show that and pause."""
        try:
            if self.env is None:
                self._open(self.seed)
            else:
                action(self.env)
        except WorkerDied as error:
            self._close()
            self.paused = True
            self._notice(f"The simulation keeps failing: {error}. Reset tries once more.")
            self._publish_settings()

    def _ask_worker(self, name: str) -> Any:
        """What the method `name` of the worker's environment returns."""
        process = self.worker.workers[0]
        try:
            process.ask(name)
            return process.answer(time.monotonic() + self.limit_s)
        except Failed as failure:
            raise WorkerDied(f"the simulation {failure}") from None

    def _frames(self) -> list[dict[str, Any]]:
        with contextlib.suppress(WorkerDied):  # the next step replaces it
            return self._ask_worker("frames")
        return []

    def _reset(self, env: BatchedEnv, seed: int) -> None:
        self.seed = seed
        self.actor.seed(seed)
        self.observed: Observed = env.reset(seed)
        self.episode, self.due = 0, 0.0
        self.statistics.clear()
        self._begin()
        self._notice("")
        self._publish_settings()
        self._publish_statistics()
        self.publish(
            "decision", {"episode": 1, "alpha": self.alpha, "agents": None, "frames": self._frames(), "outcome": ""}
        )

    def _begin(self) -> None:
        """An episode begins; it counts unless alpha changes while it runs."""
        self.episode, self.counts = self.episode + 1, True
        self.actor.begin()

    def _handle_commands(self) -> None:
        """Wait until the next decision is due or a command comes; apply all that wait."""
        timeout = None if self.paused else max(0.0, self.due - time.monotonic())
        try:
            command = self.commands.get(timeout=timeout)
            while command is not None:
                self._apply(command)
                command = self.commands.get_nowait()
        except queue.Empty:
            pass

    def _apply(self, command: Command) -> None:
        match command:
            case Alpha(value=value):
                if value == self.alpha:
                    return
                self.alpha = value
                if self.mixture is not None:
                    self.mixture.alpha = value
                self.statistics.clear()
                self.counts = False
                self._publish_statistics()
            case Tau(value=value):
                self.tau = float(value)
            case Speed(value=value):
                self.speed, self.due = value, 0.0
            case Pause(value=value):
                self.paused, self.due = value, 0.0
                self._publish_statistics()
            case Step():
                self.paused = True
                self._with_simulation(self._decide)
            case Reset(seed=seed):
                self.seed, self.paused = seed, self.paused and self.env is not None
                self._with_simulation(lambda env: self._reset(env, seed))
        self._publish_settings()

    def _decide(self, env: BatchedEnv) -> None:
        """One decision of every agent; publish it if it is time to show one."""
        now, fast = time.monotonic(), self.speed == "max"
        latest, mask = self.observed, self.observed.avail
        observed = Observed(  # the step overwrites them
            latest.obs.copy(), latest.state.copy(), latest.active.copy(), avail=None if mask is None else mask.copy()
        )
        before = self.actor.memory  # with which the decision was made
        rows = np.broadcast_to(self.agents, observed.active.shape)
        actions = self.actor.act(observed.obs, rows, avail=observed.avail, active=observed.active)
        step = self.observed = env.step(actions)
        ended, lost = len(step.episodes["copy"]) > 0, step.sim_crashed is not None
        if ended and self.counts:
            self.statistics.add(step.episodes)
            self.unpublished = True
        if ended and self.noticed:
            self._notice("")
        if lost:
            self._notice("The simulation failed and was started anew; the lost episode does not count.")
        if now - self.shown_at >= SHOW_S or self.paused or (ended and not fast):
            self.shown_at = now
            after, self.actor.memory = self.actor.memory, before
            inspected = inspection.inspect_decision(self.policies, self.actor, observed, actions, self.tau)
            self.actor.memory = after
            self.publish("decision", {
                "episode": self.episode, "alpha": self.alpha, "agents": inspected,
                "frames": self._frames()[-1 if fast else 0 :],
                "outcome": outcome(step.episodes, self.policies[0].agents) if ended else "",
            })  # fmt: skip
        if ended or lost:
            self._begin()
        if self.unpublished and (now - self.published_at >= STATISTICS_S or self.paused):
            self._publish_statistics()
        if self.speed != "max":
            late = now - self.due
            pause = self.static["decision_s"] + HOLD_S * ended
            self.due = (self.due if late < BEHIND_S else now) + pause / self.speed

    def _publish_statistics(self) -> None:
        self.publish("statistics", self.statistics.content())
        self.published_at, self.unpublished = time.monotonic(), False

    def _notice(self, text: str) -> None:
        """Show `text` on the page; an empty one clears it."""
        self.publish("notice", {"text": text})
        self.noticed = bool(text)

    def _publish_settings(self) -> None:
        tau = "inf" if self.tau == float("inf") else self.tau
        self.publish(
            "settings",
            {"alpha": self.alpha, "tau": tau, "speed": self.speed, "paused": self.paused, "seed": self.seed},
        )
