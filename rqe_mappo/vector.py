"""Environments in this process, or spread over spawned processes that look like one."""

import contextlib
import functools
import multiprocessing as mp
import signal
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rqe_mappo import registry
from rqe_mappo.config import TrainConfig
from rqe_mappo.envs.batched import BatchedEnv, Observed, Step
from rqe_mappo.envs.history import History

DESCRIPTION = tuple(name for name in BatchedEnv.__annotations__)
SEED_STRIDE = 100_003  # workers' seeds lie apart; a run's other seeds are small offsets


class WorkerDied(RuntimeError):
    """A process that stepped environments ended; the message says which and why."""


def make(config: TrainConfig, num_envs: int, num_workers: int = 0) -> BatchedEnv:
    """`num_envs` copies of a run's environment, in this process or in `num_workers` spawned ones.

    Objectives that look at an episode from its start are given its `History`.
    """
    factory = registry.load(registry.environment(config.env).factory)
    if num_workers == 0:
        env = factory(config.knobs, num_envs)
    else:
        env = WorkerEnvs(functools.partial(factory, config.knobs, num_envs // num_workers), num_workers)
    static = config.advantage == "static"
    return History(env, config.gamma, shown=static) if static or config.discount_tau else env


def _serve(pipe: Connection, build: Any) -> None:
    """Body of a worker: build the environments, then answer calls until told to close."""
    env = None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides and closes us
    try:
        env = build()
        pipe.send(("built", {name: getattr(env, name) for name in DESCRIPTION}))
        while True:
            name, args = pipe.recv()
            if name == "close":
                break
            pipe.send((name, getattr(env, name)(*args)))
    except EOFError:
        pass  # the parent is gone
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))
    finally:
        if env is not None:
            env.close()


class WorkerEnvs:
    """A `BatchedEnv` whose copies live in spawned processes, in order: worker 0's copies first."""

    def __init__(self, build: Any, num_workers: int):
        context = mp.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, build), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        described = self._gather("built")
        for name, value in described[0].items():
            setattr(self, name, value)
        self.copies_each = self.num_envs
        self.num_envs *= num_workers

    def _gather(self, expected: str) -> list[Any]:
        answers = []
        for index, pipe in enumerate(self.pipes):
            try:
                name, answer = pipe.recv()
            except EOFError:
                self.processes[index].join(1)
                code = self.processes[index].exitcode
                raise WorkerDied(f"environment worker {index} ended (exit code {code})") from None
            if name == "error":
                raise WorkerDied(f"environment worker {index} failed: {answer}") from None
            assert name == expected
            answers.append(answer)
        return answers

    def _call(self, name: str, arguments: list[tuple]) -> list[Any]:
        for index, (pipe, args) in enumerate(zip(self.pipes, arguments, strict=True)):
            try:
                pipe.send((name, args))
            except (BrokenPipeError, OSError):
                code = self.processes[index].exitcode
                raise WorkerDied(f"environment worker {index} ended (exit code {code})") from None
        return self._gather(name)

    def reset(self, seed: int) -> Observed:
        parts = self._call("reset", [(seed + SEED_STRIDE * index,) for index in range(len(self.pipes))])
        return Observed(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in Observed.__slots__})

    def step(self, actions: np.ndarray) -> Step:
        parts = self._call("step", [(part,) for part in np.split(actions, len(self.pipes))])
        names = (*Observed.__slots__, *(name for name in Step.__slots__ if name != "episodes"))
        episodes = {}
        for key in parts[0].episodes:
            rows = [part.episodes[key] for part in parts]
            if key == "copy":
                rows = [row + index * self.copies_each for index, row in enumerate(rows)]
            episodes[key] = np.concatenate(rows)
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return Step(**joined, episodes=episodes)

    def snapshot(self) -> dict[str, Any] | None:
        parts = self._call("snapshot", [()] * len(self.pipes))
        return None if parts[0] is None else {str(index): part for index, part in enumerate(parts)}

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        parts = self._call("restore", [(snapshot[str(index)],) for index in range(len(self.pipes))])
        return Observed(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in Observed.__slots__})

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            if process.is_alive():
                with contextlib.suppress(OSError):  # it died meanwhile
                    pipe.send(("close", ()))
            process.join(5)
            if process.is_alive():
                process.terminate()
            pipe.close()
        self.pipes, self.processes = [], []
