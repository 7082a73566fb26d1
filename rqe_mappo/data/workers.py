"""One worker process, and how its owner starts, calls and ends it. It loads no PyTorch."""

import atexit
import contextlib
import ctypes
import multiprocessing as mp
import os
import pickle
import signal
import socket
import struct
import sys
import time
import types
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NoReturn

import numpy as np
from gymnasium.spaces import Discrete

from rqe_mappo.envs.contract import BatchedEnv, Observed, Step, action_dtype, agent_spaces

SEEN, EARNED = ("obs", "state", "active"), ("reward", "cost", "terminated", "truncated")
FINAL = ("final_obs", "final_state")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A worker ended, failed or does not answer; the message is the rest of a sentence that begins with its name."""


class Board:
    """The arrays that a worker and its owner share, `actions` written by the owner and all others by the worker.

    The names are those of `Step`; shapes and dtypes follow from the environment's spaces. Of `final_obs` and
    `final_state` `[E * A, ...]` only the first rows are in use, and `avail` only where `has_avail`.
    """

    def __init__(self, described: dict[str, Any], name: str | None = None):
        e, a = described["num_envs"], len(described["possible_agents"])
        obs, state = described["observation_space"].shape, described["state_space"].shape
        action = described["action_space"]
        fields = {
            "actions": ((e, a, *action.shape), action_dtype(action)),
            "obs": ((e, a, *obs), np.float32),
            "state": ((e, a, *state), np.float32),
            "final_obs": ((e * a, *obs), np.float32),
            "final_state": ((e * a, *state), np.float32),
            **{name: ((e, a), np.float32) for name in ("reward", "cost")},
            **{name: ((e, a), np.bool_) for name in ("active", "terminated", "truncated")},
            "avail": ((e, a, int(action.n) if isinstance(action, Discrete) else 0), np.bool_),
            "has_avail": ((), np.bool_),
        }
        sizes = [int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in fields.values()]  # largest first
        self.memory = SharedMemory(name, create=name is None, size=sum(sizes))
        starts = np.cumsum([0, *sizes]).tolist()
        self.arrays: dict[str, np.ndarray] = {
            field: np.ndarray(shape, kind, self.memory.buf, start)
            for (field, (shape, kind)), start in zip(fields.items(), starts, strict=False)
        }

    def write(self, shown: Observed) -> int:
        """Put an observation or a step on the board; gives the number of final rows."""
        arrays, count = self.arrays, 0
        for name in (*SEEN, *EARNED) if isinstance(shown, Step) else SEEN:
            arrays[name][:] = getattr(shown, name)
        arrays["has_avail"][...] = shown.avail is not None
        if shown.avail is not None:
            arrays["avail"][:] = shown.avail
        if isinstance(shown, Step):
            count = len(shown.final_state)
            for name in FINAL:
                arrays[name][:count] = getattr(shown, name)
        return count

    def observed(self) -> Observed:
        """Views of the observation on the board."""
        return Observed(*(self.arrays[name] for name in SEEN), avail=self._avail())

    def step(self, count: int, episodes: dict[str, np.ndarray], sim_crashed: np.ndarray | None) -> Step:
        """Views of the step on the board, with `count` final rows, and what was sent with it."""
        shown = {name: self.arrays[name] for name in (*SEEN, *EARNED)}
        finals = {name: self.arrays[name][:count] for name in FINAL}
        return Step(**shown, **finals, episodes=episodes, sim_crashed=sim_crashed, avail=self._avail())

    def _avail(self) -> np.ndarray | None:
        return self.arrays["avail"] if self.arrays["has_avail"] else None

    def close(self) -> None:
        """Give the memory back; no view may be left."""
        self.arrays.clear()
        self.memory.close()


def _serve(pipe: Connection, build: Callable[[], BatchedEnv], owner: int) -> None:
    """Body of a worker: build the environments, then answer calls until asked to close."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the owner decides and closes us
        signal.signal(number, signal.SIG_IGN)
    die_with(owner)
    env: BatchedEnv | None = None
    board: Board | None = None
    try:
        env = build()
        described = {name: getattr(env, name) for name in BatchedEnv.__annotations__}
        described["agent_spaces"] = agent_spaces(env)
        pipe.send(("done", described))
        board = Board(described, pipe.recv())
        pipe.send(("done", None))
        while True:
            name, args = pipe.recv()
            if name == "close":
                break
            if name == "step":
                step = env.step(board.arrays["actions"].copy())
                answer: Any = board.write(step), step.episodes, step.sim_crashed
            else:
                answer = getattr(env, name)(*args)
                if isinstance(answer, Observed):
                    answer = board.write(answer)
            pipe.send(("done", answer))
    except (EOFError, ConnectionError):
        pass  # the owner has ended
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
    finally:
        if env is not None:
            env.close()
        if board is not None:
            board.close()


def die_with(owner: int) -> None:
    """Let the system kill this process when its owner ends: a stopped process cannot see that the pipe is closed.

    To Linux the owner is the thread that started this process: that thread has to stay alive.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:  # it ended before the call
            os._exit(1)


@contextlib.contextmanager
def _lean_start(build: Callable[[], BatchedEnv]) -> Generator[None]:
    """Processes started here get one numeric thread, and do not run the program's main module again.

    multiprocessing would have them import it, which for rqe-train means PyTorch: 190 MB and a second for each worker.
    """
    added = [name for name in ONE_THREAD if name not in os.environ]
    main = sys.modules["__main__"]
    os.environ.update(dict.fromkeys(added, "1"))
    if b"__main__" not in pickle.dumps(build):
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in added:
            del os.environ[name]


def _bounded(pipe: Connection, limit_s: float) -> None:
    """Let reads and writes fail after `limit_s`, in case the other side stops within a message."""
    if sys.platform != "win32":
        timeval = struct.pack("ll", int(limit_s), int(limit_s % 1 * 1e6))
        with socket.socket(fileno=os.dup(pipe.fileno())) as end:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                end.setsockopt(socket.SOL_SOCKET, option, timeval)


class Worker:
    """A worker process as its owner sees it; once it has failed it stays dead, with the same `cause`.

    `described` holds the environment's attributes and `board` the shared arrays, both from `open` on.
    """

    def __init__(self, build: Callable[[], BatchedEnv], limit_s: float):
        self.limit_s, self.asked = limit_s, time.monotonic()
        self.cause: str | None = None
        self.board: Board | None = None
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        _bounded(self.pipe, limit_s)
        self.process = context.Process(target=_serve, args=(theirs, build, os.getpid()), daemon=True)
        with _lean_start(build):
            self.process.start()
        theirs.close()
        atexit.register(self.kill)

    def open(self, until: float) -> "Worker":
        """Wait until its environments are built, by `until` of the monotonic clock, and share memory with it."""
        self.described: dict[str, Any] = self.answer(until)
        board = self.board = Board(self.described)
        try:
            self._send(board.memory.name)
            self.answer(until)
        finally:
            board.memory.unlink()  # both have it open: it is freed whichever of them is killed from now on
        return self

    @property
    def shared(self) -> Board:
        """The board; Failed once the worker has failed."""
        if self.board is None:
            raise Failed(self.cause)
        return self.board

    def ask(self, name: str, *args: Any) -> None:
        """Call a method of its environments; `answer` gives the result."""
        self._send((name, args))

    def _send(self, message: Any) -> None:
        if self.cause is not None:
            raise Failed(self.cause)
        self.asked = time.monotonic()
        try:
            self.pipe.send(message)
        except BlockingIOError:
            self._fail(self._no_answer())
        except OSError:
            self._fail(self._end_of_process())

    def answer(self, until: float) -> Any:
        """The answer to what was asked, by `until` of the monotonic clock."""
        if self.cause is not None:
            raise Failed(self.cause)
        try:
            # poll twice: this process may have been suspended together with the worker
            if not (self.pipe.poll(max(0.0, until - time.monotonic())) or self.pipe.poll(self.limit_s / 10)):
                self._fail(self._no_answer())
            word, content = self.pipe.recv()
        except BlockingIOError:
            self._fail(self._no_answer())
        except (EOFError, OSError):
            self._fail(self._end_of_process())
        if word == "failed":
            self._fail(f"failed: {content}")
        return content

    def _no_answer(self) -> str:
        return f"gave no answer for {time.monotonic() - self.asked:.0f} s"

    def _end_of_process(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        if code is None:
            return "closed its connection"
        if code == -signal.SIGKILL:
            return "was killed by SIGKILL (by a user, or by the system when memory ran out)"
        return f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def _fail(self, cause: str) -> NoReturn:
        self.cause = cause
        self.kill()
        raise Failed(cause)

    def close(self, until: float) -> None:
        """End it, by force if it has not ended itself by `until` of the monotonic clock."""
        if self.process.is_alive():
            self.process.join(max(0.0, until - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End it at once, also if it is stopped, and free what it held; a second call does nothing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if self.board is not None:
            self.board.close()
            self.board = None
        self.cause = self.cause or "is closed"
        atexit.unregister(self.kill)
