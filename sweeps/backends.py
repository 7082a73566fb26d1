"""Where jobs run: processes of this machine, a Ray cluster, or SLURM, each a `Backend`."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rqe_mappo.sweeps.job import Job, Outcome, run

POLL_S = 1.0
RETRIES = 3  # of a task whose machine was lost; it resumes from its checkpoint


class Backend(Protocol):
    """`submit` every job, then take outcomes from `as_completed` until there are no more."""

    def submit(self, job: Job) -> None: ...

    def as_completed(self) -> Iterator[Outcome | None]:
        """Outcomes as jobs end; None about every second while none does, so that progress can be shown."""

    def stop(self) -> None:
        """Ask running jobs to save and stop, and drop those that wait; their outcomes still come."""


class Local:
    """At most `jobs` processes of this machine at a time."""

    def __init__(self, jobs: int):
        self.pool = ThreadPoolExecutor(jobs)  # a thread only waits for its process
        self.futures: dict[Future[Outcome], Job] = {}
        self.children: list[subprocess.Popen] = []
        self.stopping, self.lock = False, threading.Lock()

    def submit(self, job: Job) -> None:
        self.futures[self.pool.submit(self._run, job)] = job

    def _run(self, job: Job) -> Outcome:
        if self.stopping:
            return Outcome(job.name, "waiting")
        outcome = run(job, self._started, lambda: self.stopping)
        return replace(outcome, state="interrupted") if self.stopping and outcome.state == "failed" else outcome

    def _started(self, child: subprocess.Popen) -> None:
        with self.lock:
            self.children.append(child)
            if self.stopping:
                child.terminate()

    def as_completed(self) -> Iterator[Outcome | None]:
        while self.futures:
            done, _ = wait(self.futures, POLL_S, FIRST_COMPLETED)
            for future in done:
                yield _outcome(self.futures.pop(future), future.result)
            if not done:
                yield None

    def stop(self) -> None:
        with self.lock:
            again, self.stopping = self.stopping, True
            for child in self.children:
                if child.poll() is None:
                    child.kill() if again else child.terminate()


class Ray:
    """Tasks of a Ray cluster, one core each; `address` empty: a new cluster on this machine, with `jobs` cores."""

    def __init__(self, address: str, jobs: int):
        try:
            import ray
        except ImportError:
            raise ImportError("--ray needs Ray: pip install 'rqe-mappo[ray]'") from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ray = ray
        new = {"address": "local", "num_cpus": jobs, "include_dashboard": False}  # even if another cluster is running
        try:
            ray.init(**({"address": address} if address else new), log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConnectionError(f"--ray {address} cannot be reached: {str(error).splitlines()[0]}") from None
        self.task = ray.remote(num_cpus=1, max_retries=RETRIES)(run)
        self.refs: dict[Any, Job] = {}
        self.stopping = False

    def submit(self, job: Job) -> None:
        self.refs[self.task.remote(job)] = job

    def as_completed(self) -> Iterator[Outcome | None]:
        while self.refs:
            done, _ = self.ray.wait(list(self.refs), timeout=POLL_S)
            for ref in done:
                yield _outcome(self.refs.pop(ref), lambda ref=ref: self.ray.get(ref), self.stopping)
            if not done:
                yield None
        self.ray.shutdown()

    def stop(self) -> None:
        self.stopping = True
        for ref in self.refs:
            self.ray.cancel(ref)


class Slurm:
    """Jobs of a SLURM cluster through submitit, one core each; `options` are those of submitit's executor."""

    def __init__(self, folder: Path, options: dict[str, str]):
        try:
            import submitit
        except ImportError:
            raise ImportError("--slurm needs submitit: pip install 'rqe-mappo[slurm]'") from None
        options = {"cluster": "slurm", "timeout_min": "1440", "cpus_per_task": "1", **options}
        try:
            self.executor = submitit.AutoExecutor(folder / "slurm", cluster=options.pop("cluster"))
            self.executor.update_parameters(**{k: int(v) if v.isdecimal() else v for k, v in options.items()})
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            raise RuntimeError(f"--slurm: {str(error).splitlines()[0]}") from None
        self.handles: dict[Any, Job] = {}
        self.stopping = False

    def submit(self, job: Job) -> None:
        self.handles[self.executor.submit(run, job)] = job

    def as_completed(self) -> Iterator[Outcome | None]:
        while self.handles:
            done = [handle for handle in self.handles if handle.done()]
            for handle in done:
                yield _outcome(self.handles.pop(handle), handle.result, self.stopping)
            if not done:
                yield None
                time.sleep(POLL_S)

    def stop(self) -> None:
        self.stopping = True
        for handle in self.handles:
            handle.cancel()


def _outcome(job: Job, result: Callable[[], Outcome], stopping: bool = False) -> Outcome:
    """The result; an error outside the run's own process, such as a lost machine, counts as a failure."""
    try:
        return result()
    except Exception as error:  # of the backend, each has its own
        if stopping:
            return Outcome(job.name, "interrupted")
        text = str(error).strip().splitlines()
        return Outcome(job.name, "failed", reason=f"{type(error).__name__}: {text[-1] if text else ''}")
