"""Worker processes that are killed and stopped while a run trains on SUMO (needs the extra sumo).

Every fault has to be counted as one restart and none as a collision or an episode, and no process may be left.
"""

import contextlib
import csv
import os
import random
import signal
import statistics
import threading
import time
from pathlib import Path
from typing import ClassVar

from benchmarks.faults import Figure, forked
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.data.vector import WorkerEnvs
from rqe_mappo.envs.contract import Step
from rqe_mappo.training.loop import Interrupted, train

TIMEOUT_S = 2.0
KINDS = (signal.SIGKILL, signal.SIGSTOP)


class WatchedEnvs(WorkerEnvs):
    """Workers whose steps are looked at: what is reported of copies whose simulation was lost."""

    made: ClassVar["WatchedEnvs | None"] = None
    up: ClassVar[threading.Event] = threading.Event()

    def __init__(self, *args):
        super().__init__(*args)
        self.lost_steps, self.lost_collisions, self.lost_records, self.collisions = 0, 0, 0, 0
        self.seen: set[int] = set()
        WatchedEnvs.made = self

    def step(self, actions) -> Step:
        step = super().step(actions)
        self.collisions += int(step.cost.sum())
        if step.sim_crashed is not None:
            lost = step.sim_crashed
            self.lost_steps += 1
            self.lost_collisions += int(step.cost[lost].sum() + step.terminated[lost].sum())
            self.lost_records += int(lost[step.episodes["copy"]].sum())
        self.seen |= {worker.process.pid for worker in self.workers}
        self.up.set()
        return step


def torment(faults: int, rng: random.Random, waits: dict[signal.Signals, list[float]]) -> None:
    """Kill and stop workers in turn, each time after the last one's successor has stepped; then interrupt the run."""
    WatchedEnvs.up.wait()
    env = WatchedEnvs.made
    for fault in range(faults):
        time.sleep(rng.random() * 0.3)
        kind = KINDS[fault % len(KINDS)]
        before = sum(env.restarts)
        began = time.monotonic()
        os.kill(rng.choice(env.workers).process.pid, kind)
        while sum(env.restarts) == before or any(env.failures):
            time.sleep(0.005)
        waits[kind].append(time.monotonic() - began)
    os.kill(os.getpid(), signal.SIGINT)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def run(faults: int, rng: random.Random, folder: Path) -> list[Figure]:
    """A SUMO run with two worker processes; a thread kills (SIGKILL) and stops (SIGSTOP) them in turn."""
    found = forked.call(lambda: _figures(faults, rng, folder), limit_s=60 + 30 * faults)
    return [Figure("workers", *figure) for figure in found]


def _figures(faults: int, rng: random.Random, folder: Path) -> list[tuple]:
    waits: dict[signal.Signals, list[float]] = {kind: [] for kind in KINDS}
    vector.WorkerEnvs = WatchedEnvs
    threading.Thread(target=torment, args=(faults, rng, waits), daemon=True).start()
    config = default_config("sumo").replace(
        num_workers=2, num_envs=16, total_timesteps=10**9, log_interval=1, eval_episodes=0,
        worker_timeout=TIMEOUT_S, return_scale=10.0, out=str(folder / "run"),
    )  # fmt: skip
    with contextlib.suppress(Interrupted):
        train(config)
    with open(folder / "run" / "metrics.csv", newline="") as file:
        logged = float(list(csv.DictReader(file))[-1]["charts/worker_restarts"])
    env = WatchedEnvs.made
    return [
        ("killed and stopped", faults, faults),
        ("restarts counted", sum(env.restarts), faults),
        ("restarts in metrics.csv", int(logged), faults),
        ("steps marked sim_crashed", env.lost_steps, faults),
        ("collisions and ends reported of lost copies", env.lost_collisions, 0),
        ("episode records of lost copies", env.lost_records, 0),
        ("collisions of the whole run", env.collisions, None),
        ("processes that ran", len(env.seen), faults + 2),
        ("processes left", sum(alive(pid) for pid in env.seen), 0),
        *((f"seconds from {kind.name} to the next step, median", round(statistics.median(waits[kind]), 2), None)
          for kind in KINDS),
    ]  # fmt: skip
