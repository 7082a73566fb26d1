"""Memory over ten million decisions: `python -m benchmarks.soak` (CartPole, then SUMO; half an hour).

Each run is a process of its own, whose memory (all but what it maps of files, such as libraries) is read every two
seconds beside the last step in its metrics.csv. The slope is the least-squares one over all but the first tenth, while
buffers and caches fill. Writes benchmarks/results/soak.csv: a row a sample; exits with 1 if a slope is too steep.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import tables
from rqe_mappo.sweeps.job import ONE_THREAD, steps_done

RESULT = Path(__file__).parent / "results" / "soak.csv"
FLAGS = {
    "cartpole": ["--env", "cartpole", "--num-envs", "128"],
    "sumo": ["--env", "sumo"],
}
SAMPLE_S = 2.0
START = 0.1  # share of the steps that does not count
STEEPEST = 1.0  # MB per million decisions


def memory_mb(pid: int) -> float | None:
    """The memory of a process; None where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024
    except (OSError, StopIteration):
        return None


def soak(env: str, steps: int) -> list[tuple[str, int, float]]:
    """Train for `steps` decisions; gives the environment, step and memory of each sample."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "rqe_mappo.cli", "train", *FLAGS[env], "--total-timesteps", str(steps),
                   "--eval-episodes", "0", "--log-interval", "1", "--out", str(run)]  # fmt: skip
        samples = []
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD}) as process:
            while process.poll() is None:
                time.sleep(SAMPLE_S)
                memory = memory_mb(process.pid)
                if memory is not None and (step := steps_done(run)):
                    samples.append((env, step, round(memory, 2)))
        if process.returncode:
            raise RuntimeError(f"the run on {env} ended with exit code {process.returncode}")
        return samples


def slope(samples: list[tuple[str, int, float]], steps: int) -> float:
    """MB per million decisions."""
    counted = np.array([(step / 1e6, memory) for _, step, memory in samples if step >= START * steps])
    return float(np.polyfit(*counted.T, 1)[0])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000_000)
    parser.add_argument("--env", nargs="+", choices=FLAGS, default=list(FLAGS))
    args = parser.parse_args()
    found = [soak(env, args.steps) for env in args.env]
    others = [tuple(row.values()) for row in tables.read(RESULT) if row["env"] not in args.env]
    with open(RESULT, "w", newline="") as file:
        rows = [*others, *(sample for samples in found for sample in samples)]
        csv.writer(file, lineterminator="\n").writerows([("env", "step", "memory MB"), *rows])
    slopes = {env: slope(samples, args.steps) for env, samples in zip(args.env, found, strict=True)}
    for env, samples in zip(args.env, found, strict=True):
        at = f"{samples[-1][2]:.0f} MB in the end"
        print(f"{env}: {slopes[env]:+.3f} MB per million decisions over {samples[-1][1]:,} ({at})")
    return int(any(value >= STEEPEST for value in slopes.values()))


if __name__ == "__main__":
    sys.exit(main())
