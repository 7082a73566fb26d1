"""What numbers below 1e-38 cost in training, which takes them for 0: `python -m benchmarks.denormals` (20 minutes).

CPU seconds of whole runs, each in a process of its own, alternating: as they are, and with such numbers kept, as
PyTorch does on its own. Which runs meet many of them depends on the seed. Written to benchmarks/results/denormals.csv,
with the share of logged numbers, but for speeds, that are the same to the last digit.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import tables
from rqe_mappo.training import logs

RESULT = tables.RESULTS / "denormals.csv"
JOBS: dict[str, dict[str, Any]] = {
    "tag, neutral": {"config": "tag", "scenario": "shaped", "tau": float("inf"), "total_timesteps": 640_000},
    "stag hunt, tau 0.3": {"config": "stag-hunt", "tau": 0.3, "total_timesteps": 640_000},
    "CartPole, tau 0.3": {"config": "cartpole", "tau": 0.3, "total_timesteps": 1_000_000},
    "SUMO, tau 0.3": {"config": "sumo", "tau": 0.3, "total_timesteps": 400_000},
}
KINDS = ("as 0", "kept")


def train(job: str, seed: int, kind: str, out: str) -> float:
    """CPU seconds of a run, with what it logs in the folder `out`."""
    import torch

    import rqe_mappo

    if kind == "kept":
        torch.set_flush_denormal = lambda mode: True
    began = time.process_time()
    rqe_mappo.train(**JOBS[job], seed=seed, eval_episodes=0, out=out, quiet=True)
    return time.process_time() - began


def measured(job: str, seed: int, kind: str, out: str) -> tuple[float, list[dict[str, str]]]:
    """CPU seconds of a run in a process of its own, and the rows that it logged, without speeds."""
    command = [sys.executable, "-m", "benchmarks.denormals", "--only", job, str(seed), kind, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr[-2000:]}")
    with open(Path(out) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads(done.stdout.splitlines()[-1]), [
        {key: row[key] for key in row if key not in logs.TIMED} for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB", help="which (all)")
    parser.add_argument("--only", nargs=4, metavar=("JOB", "SEED", "KIND", "OUT"), help="one run, its seconds printed")
    args = parser.parse_args()
    if args.only:
        job, seed, kind, out = args.only
        print(json.dumps(train(job, int(seed), kind, out)))
        return
    rows: list[dict[str, Any]] = [row for row in tables.read(RESULT) if row["run"] not in args.jobs]
    for job in args.jobs:
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                seconds, logged = zip(*(measured(job, seed, kind, f"{folder}/{kind}") for kind in KINDS), strict=True)
            same = [one[key] == other[key] for one, other in zip(*logged, strict=True) for key in one]
            rows.append({"run": job, "seed": seed, "decisions": JOBS[job]["total_timesteps"]})
            rows[-1] |= {f"CPU s, {kind}": round(took, 1) for kind, took in zip(KINDS, seconds, strict=True)}
            rows[-1] |= {
                "kept / as 0": round(seconds[1] / seconds[0], 2),
                "same numbers": round(sum(same) / len(same), 4),
            }
            print("  ".join(map(str, rows[-1].values())), flush=True)
            tables.write(RESULT, rows)


if __name__ == "__main__":
    main()
