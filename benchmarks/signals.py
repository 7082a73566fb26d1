"""What lights do to the waiting of trips: `python -m benchmarks.signals` writes results/signals.csv.

A row for each scripted controller and each trained run (settings of the recipe, fixed before the runs; last
checkpoint, actions drawn from the policy): means over the same episodes, with 95 % intervals over these.
Then a row for each tau: means and t-intervals over the seeds. Runs are kept under --root and not run again if finished.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import tables
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import default_config, from_json
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.sumo_signals import BatchedSignals, scripted
from rqe_mappo.evaluation.episodes import Chooser, chooser, run_episodes
from rqe_mappo.statistics import Estimate, mean_interval, over_runs

RESULT = tables.RESULTS / "signals.csv"
SEED = 12345
TAUS, SEEDS = ("inf", "0.5"), (1, 2, 3)
METRICS = ("waiting_mean_s", "waiting_p95_s", "waiting_cvar95_s", "waiting_max_s", "trips", "unfinished_trips")
REFERENCES = {
    "random": scripted.random(0),
    "fixed, the net's program": scripted.fixed(),
    # the best two of six cycles tried by hand on another seed, with the demand of this net known
    "fixed 25 15 10 10 s": scripted.fixed((25, 15, 10, 10)),
    "fixed 40 20 15 10 s": scripted.fixed((40, 20, 15, 10)),
    "greedy": scripted.greedy,
}


def trained(root: Path, tau: str, seed: int) -> Policy:
    """The policy of a run, trained now unless it is there already."""
    folder = root / f"tau{tau}__seed{seed}"
    total = default_config("sumo-signals").total_timesteps
    try:
        policy = Policy.load(folder)
        if policy.timesteps >= total:
            return policy
        flags = ["--resume", str(folder)]
    except CheckpointError:
        flags = [
            "--env",
            "sumo-signals",
            "--tau",
            tau,
            "--seed",
            str(seed),
            "--out",
            str(folder),
            "--eval-episodes",
            "0",
        ]
    command = [sys.executable, "-m", "rqe_mappo.cli", "train", *flags]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return Policy.load(folder)


def measured(env: BatchedSignals, choose: Chooser, episodes: int) -> dict[str, Estimate]:
    """The METRICS over that many episodes."""
    records, _ = run_episodes(env, choose, episodes, SEED)
    return {name: mean_interval(records[name]) for name in METRICS}


def line(controller: str, tau: str, seed: str, found: dict[str, Estimate]) -> dict[str, str]:
    """A row of the table."""
    values = {"controller": controller, "tau": tau, "seed": seed}
    for name, estimate in found.items():
        for end, value in (("", estimate.value), (" low", estimate.low), (" high", estimate.high)):
            values[name + end] = f"{value:.5g}"
    print(controller, tau, seed, *(f"{name} {estimate}" for name, estimate in found.items()), sep="  ", flush=True)
    return values


SHOWN = {"waiting_mean_s": "mean s", "waiting_p95_s": "p95 s", "waiting_cvar95_s": "CVaR95 s", "waiting_max_s": "max s",
         "unfinished_trips": "unfinished"}  # fmt: skip


def markdown(rows: list[dict[str, str]]) -> str:
    """The table of docs/signals.md."""
    lines = [f"| policy | {' | '.join(SHOWN.values())} |", "|---" * (1 + len(SHOWN)) + "|"]
    for row in rows:
        name = row["controller"]
        if row["tau"]:
            which = f"{len(SEEDS)} seeds" if row["seed"] == "all" else f"seed {row['seed']}"
            name = f"trained, τ = {row['tau'].replace('inf', '∞')}, {which}"
        cells = []
        for metric in SHOWN:
            value, low, high = (float(row[metric + end]) for end in ("", " low", " high"))
            digits = 1 if abs(value) < 100 else 0
            cells.append(f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
        lines.append(f"| {f'**{name}**' if row['seed'] == 'all' else name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="run nothing: print the results in Markdown")
    parser.add_argument("--root", type=Path, default=Path("runs/signals"), help="folder of the trained runs")
    parser.add_argument("--episodes", type=int, default=10, help="hours of traffic for each controller (default: 10)")
    asked = parser.parse_args()
    if asked.table:
        print(markdown(tables.read(RESULT)))
        return
    root, episodes = asked.root, asked.episodes
    settings = default_config("sumo-signals").env_config
    table = []
    env = BatchedSignals(settings)
    try:
        for name, controller in REFERENCES.items():
            found = measured(env, lambda env, seen, controller=controller: controller(env), episodes)
            table.append(line(name, "", "", found))
        for tau in TAUS:
            runs = []
            for seed in SEEDS:
                policy = trained(root, tau, seed)
                if from_json(policy.config_json).env_config != settings:
                    sys.exit(f"{root} holds runs with other settings: delete it, or choose another --root")
                policy.seed(SEED)
                runs.append(measured(env, chooser(policy), episodes))
                table.append(line("trained", tau, str(seed), runs[-1]))
            means = {name: over_runs([run[name] for run in runs]) for name in METRICS}
            table.append(line("trained, mean over seeds", tau, "all", means))
    finally:
        env.close()
    tables.write(RESULT, table)


if __name__ == "__main__":
    main()
