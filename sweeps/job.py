"""One run of a sweep: a process of its own that trains and evaluates, or continues an interrupted run."""

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.config import ConfigError
from rqe_mappo.sweeps import reading

State = Literal["waiting", "done", "failed", "interrupted"]
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
LARGEST_LOG = 2**24  # bytes of a log that are searched for warnings
LOG_TAIL = 4000  # characters at the end of a log that are searched for the reason of a failure
POLL_S = 1.0
Started = Callable[[subprocess.Popen], None]


@dataclass(frozen=True)
class Job:
    """What to run, and where. Plain values only: it is sent to other processes and machines.

    name: of its folder; depends on setting and seed alone.
    label, family, point, flags: those of its setting, see `grid.Setting`.
    args: flags of rqe-train, the seed included.
    folder, log: absolute, so that every machine that shares the disk finds them.
    timesteps, episodes: what a finished run must have trained and been evaluated for.
    """

    name: str
    label: str
    family: str
    point: str
    flags: tuple[tuple[str, str], ...]
    seed: int
    args: tuple[str, ...]
    folder: str
    log: str
    timesteps: int
    episodes: int

    def command(self) -> list[str]:
        """The flags for rqe-train: those of a new run, or of one to resume."""
        flags = (*self.args, "--eval-episodes", str(self.episodes))
        if (Path(self.folder) / "latest").is_file():
            return ["--resume", self.folder, *flags]
        return [*flags, "--out", self.folder]


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `reason` in one line where it failed."""

    name: str
    state: State
    seconds: float = 0.0
    reason: str = ""


def finished(job: Job) -> bool:
    """Whether the run has been trained and evaluated as far as the job asks, with drawn actions."""
    folder = Path(job.folder)
    try:
        found = reading.evaluation(folder)
    except (OSError, ConfigError):  # it is evaluated again
        return False
    enough = found["timesteps"] >= job.timesteps and found["episodes"] >= job.episodes
    return enough and not found["deterministic"] and (folder / "eval_episodes.npz").is_file()


def run(job: Job, started: Started = lambda child: None, stopping: Callable[[], bool] = lambda: False) -> Outcome:
    """Train and evaluate, and wait for it; what the run prints is appended to its log.

    The log stays locked while the process lives, even if its parent was killed: the next caller waits for it. An
    exception that is raised meanwhile, such as a cancellation, stops the process, which saves first.
    started: called with the process.
    stopping: whether to give up waiting.
    """
    Path(job.log).parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "a") as log:
        while not _locked(log):
            if stopping():
                return Outcome(job.name, "waiting")
            time.sleep(POLL_S)
        if finished(job):
            return Outcome(job.name, "done")
        args = job.command()
        if args[0] != "--resume":
            (Path(job.folder) / "config.json").unlink(missing_ok=True)  # interrupted before anything was saved
        print(f"\n$ rqe-train {shlex.join(args)}", file=log, flush=True)
        began = time.monotonic()
        begin_attempt(Path(job.folder))
        child = subprocess.Popen(
            [sys.executable, "-m", "rqe_mappo.cli", "train", *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **ONE_THREAD}, start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
        )  # fmt: skip
        try:
            started(child)
            while (code := child.poll()) is None:  # waiting without a limit would hide a cancellation
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(timeout=POLL_S)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        end_attempt(Path(job.folder))
    seconds = time.monotonic() - began
    if code == 0 and finished(job):
        return Outcome(job.name, "done", seconds)
    if code in (130, -signal.SIGTERM, -signal.SIGINT):
        return Outcome(job.name, "interrupted", seconds)
    return Outcome(job.name, "failed", seconds, _reason(code, Path(job.log)))


def _locked(log: IO[str]) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _reason(code: int, log: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("rqe-train: ") if lines else f"exit code {code}"


def warnings(log: Path) -> list[str]:
    """What the log of a run warns of, each once."""
    if not log.is_file():
        return []
    with open(log, "rb") as file:
        lines = file.read(LARGEST_LOG).decode(errors="replace").splitlines()
    return list(dict.fromkeys(line for line in lines if line.startswith("warning: ")))


def begin_attempt(folder: Path) -> None:
    """Record in the run folder when an attempt begins."""
    folder.mkdir(parents=True, exist_ok=True)
    attempts: list[reading.Attempt] = [*_attempts(folder), {"began": time.time(), "saved": None}]
    write_atomically(folder / "attempts.json", json.dumps(attempts).encode())


def end_attempt(folder: Path) -> None:
    """Record when its last checkpoint was saved."""
    write_atomically(folder / "attempts.json", json.dumps(_attempts(folder)).encode())


def _attempts(folder: Path) -> list[reading.Attempt]:
    """The attempts so far; one that was killed counts up to its last checkpoint, since later work was lost."""
    path, latest = folder / "attempts.json", folder / "latest"
    attempts: list[reading.Attempt] = []
    if path.is_file():
        attempts = reading.read_json(list[reading.Attempt], path, "delete it: only the training time is lost")
    if attempts and attempts[-1]["saved"] is None:
        began = attempts[-1]["began"]
        attempts[-1]["saved"] = max(began, latest.stat().st_mtime) if latest.is_file() else began
    return attempts


def train_seconds(folder: Path) -> float:
    """Wall time that the training took, start of the process to last checkpoint, over all attempts."""
    return sum((attempt["saved"] or 0.0) - attempt["began"] for attempt in _attempts(folder))


def steps_done(folder: Path) -> int:
    """How far a run is: the last step in its metrics.csv, 0 where there is none."""
    try:
        with open(folder / "metrics.csv", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            return int(file.read().splitlines()[-1].split(b",")[0])
    except (OSError, ValueError, IndexError):
        return 0
