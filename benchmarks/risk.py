"""Does tau do what it says? Trains a grid of runs and evaluates each: `python -m benchmarks.risk sumo|cartpole`.

Settings are those of the recipes, fixed before the runs; the last checkpoint is evaluated with actions drawn from the
policy. Finished runs are skipped, so the command may be stopped and started again. Writes, in benchmarks/results/,
ENV_risk.csv (a row a run) and ENV_risk_summary.csv (a row a tau and advantage, mean and t-interval over seeds).
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rqe_mappo.statistics import seed_interval

RESULTS = Path(__file__).parent / "results"
EPISODES = 1000
SEEDS = {"sumo": (1, 2, 3), "cartpole": (1, 2, 3, 4, 5)}
# (tau, advantage); at tau = inf `value` is GAE, which the influence advantage equals, so it is run once
GRIDS = {
    "sumo": (("inf", "influence"), ("1", "influence"), ("0.3", "influence"), ("1", "value"), ("0.3", "value")),
    "cartpole": (("inf", "influence"), ("1", "influence"), ("0.3", "influence")),
}


@dataclass(frozen=True)
class Job:
    """One run of the grid."""

    env: str
    tau: str
    advantage: str
    seed: int
    extra: tuple[str, ...]

    @property
    def name(self) -> str:
        return "__".join((f"{self.env}", f"tau{self.tau}", self.advantage, f"s{self.seed}"))

    def run(self, root: Path) -> dict[str, str | float]:
        """Train and evaluate, unless that was done before; gives the run's row."""
        folder = root / self.name
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}

        def command(kind: str, *args: str) -> None:
            line = [sys.executable, "-m", "rqe_mappo.cli", kind, *args]
            done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(line)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

        if not (folder / "eval.json").is_file():
            if (folder / "latest").is_file():
                command("train", "--resume", str(folder))
            else:
                command(
                    "train", "--env", self.env, "--tau", self.tau, "--advantage", self.advantage, "--seed",
                    str(self.seed), "--out", str(folder), "--eval-episodes", "0", *self.extra,
                )  # fmt: skip
            command("eval", str(folder), "--episodes", str(EPISODES))
        content = json.loads((folder / "eval.json").read_text())
        row = {"env": self.env, "tau": self.tau, "advantage": self.advantage, "seed": self.seed,
               "timesteps": content["timesteps"], "episodes": content["episodes"]}  # fmt: skip
        for metric in content["metrics"]:
            key = f"{metric['metric']} ({metric['level']})"
            row |= {key: metric["value"], f"{key} low": metric["low"], f"{key} high": metric["high"]}
        if "critic" in content:
            row["critic KS"] = content["critic"]["ks"]
        print(f"{self.name}: done", flush=True)
        return row


def summarise(rows: list[dict]) -> list[dict]:
    """Mean and 95 % t-interval over seeds, one row a setting."""
    settings = list(dict.fromkeys((row["env"], row["tau"], row["advantage"]) for row in rows))
    summary = []
    for env, tau, advantage in settings:
        chosen = [row for row in rows if (row["env"], row["tau"], row["advantage"]) == (env, tau, advantage)]
        line = {"env": env, "tau": tau, "advantage": advantage, "seeds": len(chosen)}
        for key in chosen[0]:
            numbers = isinstance(chosen[0][key], float) and not key.endswith((" low", " high"))
            if numbers:
                estimate = seed_interval([row[key] for row in chosen])
                line |= {key: estimate.value, f"{key} low": estimate.low, f"{key} high": estimate.high}
        summary.append(line)
    return summary


def write(path: Path, rows: list[dict]) -> None:
    """Rows as CSV, numbers to five digits."""
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        table.writeheader()
        table.writerows(
            {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", choices=GRIDS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--root", type=Path, help="folder of the runs (default: runs/risk_ENV)")
    args, extra = parser.parse_known_args()  # what is not ours is for rqe-train
    root = args.root or Path("runs") / f"risk_{args.env}"
    jobs = [
        Job(args.env, tau, advantage, seed, tuple(extra))
        for tau, advantage in GRIDS[args.env]
        for seed in SEEDS[args.env]
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda job: job.run(root), jobs))
    RESULTS.mkdir(exist_ok=True)
    write(RESULTS / f"{args.env}_risk.csv", rows)
    write(RESULTS / f"{args.env}_risk_summary.csv", summarise(rows))


if __name__ == "__main__":
    main()
