"""Faults while training on SUMO: `python -m benchmarks.faults` (needs the extra sumo; a few minutes).

A run with two worker processes; a thread kills (SIGKILL) and stops (SIGSTOP) workers in turn, 50 times in all, at
random moments. Every fault has to be counted as one restart and none as a collision or an episode, and no process may
be left. Writes benchmarks/results/faults.csv; exits with 1 if anything is not as it has to be.
"""

import argparse
import contextlib
import csv
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.data.vector import WorkerEnvs
from rqe_mappo.envs.contract import Step
from rqe_mappo.training.loop import Interrupted, train

RESULT = Path(__file__).parent / "results" / "faults.csv"
TIMEOUT_S = 3.0
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    waits: dict[signal.Signals, list[float]] = {kind: [] for kind in KINDS}
    vector.WorkerEnvs = WatchedEnvs
    threading.Thread(target=torment, args=(args.faults, random.Random(args.seed), waits), daemon=True).start()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        config = default_config("sumo").replace(
            num_workers=2, num_envs=16, total_timesteps=10**9, log_interval=1, eval_episodes=0,
            worker_timeout=TIMEOUT_S, return_scale=10.0, out=f"{folder}/run",
        )  # fmt: skip
        with contextlib.suppress(Interrupted):
            train(config)
        with open(Path(config.out) / "metrics.csv", newline="") as file:
            logged = float(list(csv.DictReader(file))[-1]["charts/worker_restarts"])
    wall_s = time.monotonic() - began
    env = WatchedEnvs.made
    left = sum(alive(pid) for pid in env.seen)
    rows = [
        ("faults", args.faults, ""),
        ("restarts counted", sum(env.restarts), args.faults),
        ("restarts in metrics.csv", int(logged), args.faults),
        ("steps marked sim_crashed", env.lost_steps, args.faults),
        ("collisions and ends reported of lost copies", env.lost_collisions, 0),
        ("episode records of lost copies", env.lost_records, 0),
        ("collisions of the whole run", env.collisions, ""),
        ("processes that ran", len(env.seen), args.faults + 2),
        ("processes left", left, 0),
        *((f"seconds from {kind.name} to the next step, median", round(statistics.median(waits[kind]), 2), "")
          for kind in KINDS),
        ("wall seconds", round(wall_s), ""),
    ]  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    with open(RESULT, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("figure", "value", "has to be"), *rows])
    for name, value, wanted in rows:
        print(f"{name:50s} {value:>8} {'' if wanted == '' else f'(has to be {wanted})'}")
    return int(any(wanted not in ("", value) for _, value, wanted in rows))


if __name__ == "__main__":
    sys.exit(main())
