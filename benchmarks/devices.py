"""Training on a card against the CPU of the same machine: `python -m benchmarks.devices` (needs CUDA, the extra sumo).

Decisions per wall second of collecting, targets and updates, each measurement in a process of its own; rounds alternate
between the devices. Written to benchmarks/results/devices.csv with the card's name; rows of other cards, and of jobs
not measured, stay.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import tables
from benchmarks.throughput import ours_training

RESULT = tables.RESULTS / "devices.csv"
WIDE = {"actor_hidden": (512, 512), "critic_hidden": (512, 512)}
MANY = {"num_envs": 1024, "num_steps": 32}
REPLAY = {"num_steps": 64, "before": 5}  # nothing is learned until the first episodes have ended, after 200 steps
JOBS = {
    "sumo": ("sumo", "rqe-mappo", {}),
    "sumo, networks of 512 x 512": ("sumo", "rqe-mappo", WIDE),
    "cartpole": ("cartpole", "rqe-mappo", {}),
    "cartpole, 1024 copies of 32 steps": ("cartpole", "rqe-mappo", MANY),
    "cartpole, 1024 copies of 32 steps, networks of 512 x 512": ("cartpole", "rqe-mappo", MANY | WIDE),
    "predator-prey, qmix": ("predator-prey", "qmix", REPLAY),
    "predator-prey, qmix, recurrent": ("predator-prey", "qmix", REPLAY | {"recurrent": True}),
}
DEVICES = {"cpu, one thread": ("cpu", 1), "cpu, all threads": ("cpu", os.cpu_count()), "cuda": ("cuda", 1)}


def measured(job: str, device: str, updates: int) -> float:
    """Decisions per wall second, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.devices", "--updates", str(updates), "--only", job, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job} on {device} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB", help="which (all)")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument(
        "--only", nargs=2, metavar=("JOB", "DEVICE"), help="one measurement, its number on the last line"
    )
    args = parser.parse_args()
    if args.only:
        job, device = args.only
        (env, algo, settings), (where, threads) = JOBS[job], DEVICES[device]
        torch.set_num_threads(threads)
        print(json.dumps(ours_training(env, "default", args.updates, where, algo, wall=True, **settings)))
        return
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.devices: PyTorch sees no CUDA device here")
    card = torch.cuda.get_device_name()
    rows: list[dict[str, Any]] = [
        row for row in tables.read(RESULT) if row["card"] != card or row["job"] not in args.jobs
    ]
    for job in args.jobs:
        figures: dict[str, list[float]] = {device: [] for device in DEVICES}
        for _ in range(args.rounds):
            for device, values in figures.items():
                values.append(measured(job, device, args.updates))
        for device, values in figures.items():
            rows.append({"card": card, "cores": os.cpu_count(), "job": job, "device": device, "rounds": args.rounds,
                         "decisions per second": round(statistics.median(values)),
                         "lowest": round(min(values)), "highest": round(max(values))})  # fmt: skip
            print("  ".join(map(str, rows[-1].values())), flush=True)
        tables.write(RESULT, rows)


if __name__ == "__main__":
    main()
