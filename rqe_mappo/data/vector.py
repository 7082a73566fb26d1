"""Environments in this process, or spread over worker processes that look like one and are replaced when they fail."""

import contextlib
import functools
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo import registry
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data.workers import EARNED, FINAL, SEEN, Failed, Worker
from rqe_mappo.envs.contract import ActionSpace, BatchedEnv, Observed, Step
from rqe_mappo.envs.history import History

SEED_STRIDE = 100_003  # workers' seeds lie apart; a run's other seeds are small offsets
MOST_FAILURES = 3  # in a row, without a step between them
START_LIMIT_S = 60.0  # to import, build a road network and open a simulation, on a busy machine
CLOSE_LIMIT_S = 5.0


class WorkerDied(RuntimeError):
    """Worker processes cannot be started or kept alive; the message names the worker and the cause."""


def make(config: TrainConfig, num_envs: int, num_workers: int = 0, in_process: bool = False) -> BatchedEnv:
    """`num_envs` copies of a run's environment, in this process or in `num_workers` spawned ones.

    An environment of which a process can hold one copy only has a worker for each, unless `in_process`. The
    algorithm sees it as it wants to (`AlgorithmConfig.wrap`).
    """
    entry = registry.environment(config.env)
    factory = registry.load(entry.factory)
    if entry.own_process and not in_process:
        if num_workers not in (0, num_envs):
            raise ConfigError(
                f"--num-workers {num_workers} leaves {num_envs // num_workers} copies of {config.env} to a process, "
                f"which can hold one: leave it out (a worker for each), or use {num_envs}"
            )
        num_workers = num_envs
    if num_workers == 0:
        env = factory(config.env_config, num_envs)
    else:
        build = functools.partial(factory, config.env_config, num_envs // num_workers)
        _check_it_travels(build, config.env)
        env = WorkerEnvs(build, num_workers, config.seed, config.worker_timeout)
    return config.algorithm.wrap(env, config.gamma)


def _check_it_travels(build: Callable[[], BatchedEnv], env: str) -> None:
    """ConfigError for a factory that no other process could import, such as a lambda that was registered."""
    try:
        pickle.dumps(build)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"--num-workers: what makes --env {env} cannot be sent to a worker process ({error}): "
            "register a function or class that can be imported by its name, or use --num-workers 0"
        ) from None


def workers_of(env: BatchedEnv) -> "WorkerEnvs | None":
    """The workers behind `env`, if it has any."""
    inner = env.env if isinstance(env, History) else env
    return inner if isinstance(inner, WorkerEnvs) else None


def fresh_seed(seed: int, worker: int, restart: int) -> int:
    """The seed of a worker's episodes after its `restart`-th restart: the old seed would repeat what led to it."""
    return int(np.random.SeedSequence((seed, worker, restart)).generate_state(1)[0] >> 1)


class WorkerEnvs:
    """A `BatchedEnv` whose copies live in worker processes, in order: worker 0's copies first.

    A worker that was killed, crashed, or gave no answer within `limit_s` is replaced by one with a new seed; the step
    that it did not answer is marked `sim_crashed` for its copies. See docs/workers.md.

    restarts: how often each worker was replaced.
    log: called with one line about each restart; prints to standard error unless replaced.
    """

    num_envs: int
    possible_agents: tuple[str, ...]
    observation_space: Box
    state_space: Box
    action_space: ActionSpace
    return_bounds: tuple[float, float]
    reward_bounds: tuple[float, float]
    reward_step: float | None
    common_reward: bool
    horizon: int
    time_in_observation: bool

    def __init__(self, build: Callable[[], BatchedEnv], num_workers: int, seed: int = 0, limit_s: float = 60.0):
        self.build, self.seed, self.limit_s = build, seed, limit_s
        self.restarts, self.failures = [0] * num_workers, [0] * num_workers
        self.log: Callable[[str], None] = functools.partial(print, file=sys.stderr, flush=True)
        until = time.monotonic() + START_LIMIT_S * num_workers  # all at the same time, possibly on one core
        self.workers = [Worker(build, limit_s) for _ in range(num_workers)]
        for index, worker in enumerate(self.workers):
            try:
                worker.open(until)
            except Failed as failure:
                for other in self.workers:
                    other.kill()
                raise WorkerDied(f"environment worker {index} {failure}") from None
        for name, value in self.workers[0].described.items():
            setattr(self, name, value)
        self.copies_each = self.num_envs
        self.num_envs *= num_workers

    def _ask(self, name: str, arguments: list[tuple]) -> tuple[dict[int, Any], dict[int, str]]:
        """The answers of the workers, and of those that gave none the causes."""
        answers, causes = {}, {}
        for worker, args in zip(self.workers, arguments, strict=True):
            with contextlib.suppress(Failed):  # `answer` then gives the cause
                worker.ask(name, *args)
        until = time.monotonic() + self.limit_s
        for index, worker in enumerate(self.workers):
            try:
                answers[index] = worker.answer(until)
            except Failed as failure:
                causes[index] = str(failure)
        return answers, causes

    def _restart(self, index: int, cause: str) -> None:
        """Replace a worker by a new one, reset to new episodes."""
        while True:
            self.failures[index] += 1
            if self.failures[index] >= MOST_FAILURES:
                raise WorkerDied(
                    f"environment worker {index} failed {self.failures[index]} times in a row without a step; "
                    f"the last time it {cause}"
                )
            self.restarts[index] += 1
            self.workers[index] = worker = Worker(self.build, self.limit_s)
            self.log(
                f"environment worker {index} {cause}; replaced (restart {sum(self.restarts)}): "
                f"the running episodes of its {self.copies_each} copies do not count"
            )
            until = time.monotonic() + max(START_LIMIT_S, self.limit_s)
            try:
                worker.open(until).ask("reset", fresh_seed(self.seed, index, self.restarts[index]))
                worker.answer(until)
                return
            except Failed as failure:
                cause = str(failure)

    def _show(self, shown: Sequence[Observed]) -> Observed:
        """Join what the workers' agents see."""
        masks = [part.avail for part in shown if part.avail is not None]
        self.last = Observed(
            *(np.concatenate([getattr(part, name) for part in shown]) for name in SEEN),
            avail=np.concatenate(masks) if masks else None,
        )
        return self.last

    def _begin(self, name: str, arguments: list[tuple]) -> Observed:
        for index, cause in self._ask(name, arguments)[1].items():
            self._restart(index, cause)
        return self._show([worker.shared.observed() for worker in self.workers])

    def reset(self, seed: int) -> Observed:
        self.seed = seed
        return self._begin("reset", [(seed + SEED_STRIDE * index,) for index in range(len(self.workers))])

    def step(self, actions: np.ndarray) -> Step:
        for worker, part in zip(self.workers, np.split(actions, len(self.workers)), strict=True):
            if worker.board is not None:  # else it failed since the last step
                worker.board.arrays["actions"][:] = part
        answers, causes = self._ask("step", [()] * len(self.workers))
        for index in answers:
            self.failures[index] = 0
        for index, cause in causes.items():
            self._restart(index, cause)
        parts = [
            worker.shared.step(*answers[index]) if index in answers else self._not_played(index)
            for index, worker in enumerate(self.workers)
        ]
        played = np.zeros(self.copies_each, bool)
        lost = [played if part.sim_crashed is None else part.sim_crashed for part in parts]
        shown = self._show(parts)
        return Step(
            shown.obs,
            shown.state,
            shown.active,
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in (*EARNED, *FINAL)},
            episodes=self._episodes({index: answers[index][1] for index in sorted(answers)}),
            sim_crashed=None if all(mask is played for mask in lost) else np.concatenate(lost),
            avail=shown.avail,
        )

    def _not_played(self, index: int) -> Step:
        """The step of a worker that was replaced: its active agents are truncated where they were seen last."""
        mine = slice(index * self.copies_each, (index + 1) * self.copies_each)
        cut, obs, state = (getattr(self.last, name)[mine] for name in ("active", "obs", "state"))
        shown = self.workers[index].shared.observed()
        nothing = np.zeros(cut.shape, np.float32)
        return Step(
            shown.obs, shown.state, shown.active,
            reward=nothing, cost=nothing, terminated=np.zeros_like(cut), truncated=cut,
            final_obs=obs[cut], final_state=state[cut], sim_crashed=np.ones(len(cut), bool), avail=shown.avail,
        )  # fmt: skip

    def _episodes(self, records: dict[int, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Join the records of the workers that played."""
        joined = {"copy": np.zeros(0, np.int64)}
        for key in next(iter(records.values()), {}):
            rows = [record[key] for record in records.values()]
            if key == "copy":
                rows = [row + index * self.copies_each for index, row in zip(records, rows, strict=True)]
            joined[key] = np.concatenate(rows)
        return joined

    def snapshot(self) -> dict[str, Any] | None:
        """None also where a worker fails now: the next step replaces it, and a resumed run starts new episodes."""
        answers, causes = self._ask("snapshot", [()] * len(self.workers))
        if causes or answers[0] is None:
            return None
        return {str(index): part for index, part in answers.items()}

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        return self._begin("restore", [(snapshot[str(index)],) for index in range(len(self.workers))])

    def close(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(Failed):
                worker.ask("close")
        until = time.monotonic() + CLOSE_LIMIT_S
        for worker in self.workers:
            worker.close(until)
        self.workers = []
