"""Does tau do what it says? Trains a grid of runs and evaluates each: `python -m benchmarks.risk STUDY`.

Settings are those of the recipes or of the study, fixed before the runs; the last checkpoint is evaluated with actions
drawn from the policy. Writes results/STUDY_risk.csv (a row a run, as it ends) and STUDY_risk_summary.csv (a row a
setting: mean and t-interval over seeds). Runs that have a row are not run again, so the command may be stopped and
started again; delete the rows, or the file, to have them run anew.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tables
from benchmarks.tables import RESULTS
from rqe_mappo.statistics import seed_interval
from rqe_mappo.sweeps import style
from rqe_mappo.sweeps.front_plots import front_name, reward_against_risk
from rqe_mappo.sweeps.tables import front_rows, over_seeds, pairs_of

EPISODES = 1000
TAUS = ("inf", "10", "2", "1", "0.5", "0.3")
# at tau = inf `value` and `nested` are GAE, which the influence advantage equals, so it is run once
ESTIMATORS = (
    *((tau, "influence") for tau in TAUS),
    *((tau, "nested") for tau in TAUS[1:]),
    *((tau, "value") for tau in TAUS[1:]),
)


@dataclass(frozen=True)
class Study:
    """A grid: settings are flags of rqe-train, and the columns that tell runs apart; all have the `common` flags."""

    env: str
    settings: tuple[dict[str, str], ...]
    seeds: tuple[int, ...]
    common: tuple[str, ...] = ()


STUDIES = {
    "sumo": Study("sumo", tuple({"tau": tau, "advantage": name} for tau, name in ESTIMATORS), (1, 2, 3, 4, 5)),
    "cartpole": Study(
        "cartpole",
        tuple({"tau": tau, "advantage": "influence"} for tau in TAUS),
        (1, 2, 3, 4, 5),
        # twice as long as the recipe, and half as fast: the neutral end of the front needs it
        ("--total-timesteps", "5000000", "--learning-rate", "0.001", "--settle", "0.2", "--average", "0"),
    ),
    "sumo_mixed": Study("sumo", ({"tau": "0.3,0.3,inf,inf"},), (1, 2, 3, 4, 5)),
}


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    study: str
    setting: dict[str, str]
    seed: int

    @property
    def key(self) -> dict[str, str]:
        """The columns that name the run."""
        return {"env": STUDIES[self.study].env, **self.setting, "seed": str(self.seed)}

    def run(self, root: Path, extra: list[str]) -> dict[str, str | float]:
        """Train and evaluate, going on where that was broken off; gives the run's row."""
        folder = root / "__".join(f"{name}{value}" for name, value in self.key.items() if name != "env")
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
                flags = [text for name, value in self.key.items() for text in (f"--{name}", value)]
                flags += STUDIES[self.study].common
                command("train", *flags, "--out", str(folder), "--eval-episodes", "0", *extra)
            command("eval", str(folder), "--episodes", str(EPISODES))
        content = json.loads((folder / "eval.json").read_text())
        row = {**self.key, "timesteps": content["timesteps"], "episodes": content["episodes"]}
        for metric in content["metrics"]:
            key = f"{metric['metric']} ({metric['level']})"
            row |= {key: metric["value"], f"{key} low": metric["low"], f"{key} high": metric["high"]}
        for name, value in content.get("critic", {}).items():
            if isinstance(value, float):
                row[f"critic {'KS' if name == 'ks' else name}"] = value
        print(f"{folder.name}: done", flush=True)
        return row


def read(path: Path) -> list[dict]:
    """The rows of a CSV, numbers as floats where they are no part of a run's name."""
    names = {name for study in STUDIES.values() for setting in study.settings for name in setting} | {"env", "seed"}

    def typed(name: str, text: str) -> str | float:
        return text if name in names or not text else float(text)

    return [{name: typed(name, text) for name, text in row.items()} for row in tables.read(path)]


def summarise(study: Study, rows: list[dict]) -> list[dict]:
    """Mean over seeds and 95 % interval, one row a setting."""
    summary = []
    for setting in study.settings:
        chosen = [row for row in rows if all(row[name] == value for name, value in setting.items())]
        if not chosen:
            continue
        line = {"env": study.env, **setting, "seeds": len(chosen)}
        for key in dict.fromkeys(key for row in chosen for key in row):
            if all(isinstance(row.get(key), float) for row in chosen) and not key.endswith((" low", " high")):
                estimate = over_seeds(chosen, key)
                line |= {key: estimate.value, f"{key} low": estimate.low, f"{key} high": estimate.high}
        summary.append(line)
    return summary


COLUMNS = {  # of the table in Markdown: what to show, how many digits, and whether seed by seed
    "collision rate (agent)": ("collisions per vehicle", 3, True),
    "collision rate (episode)": ("per episode", 3, False),
    "fall rate (agent)": ("falls", 3, True),
    "mean return (agent)": ("mean return", 1, False),
    "CVaR5 of return (agent)": ("CVaR5", 1, False),
    "travel time s (agent)": ("travel time s", 1, False),
}


def table(study: Study, rows: list[dict]) -> str:
    """The rows as a table in Markdown: means over seeds with intervals, and the critic's largest KS."""
    known = {key: column for key, column in COLUMNS.items() if key in rows[0]}
    head = [
        *study.settings[0],
        "seeds",
        *(f"{name}{', by seed' * each}" for name, _, each in known.values()),
        "largest KS",
    ]
    lines = [head, ["---"] * len(head)]
    for setting in study.settings:
        chosen = [row for row in rows if all(row[name] == value for name, value in setting.items())]
        if not chosen:
            continue
        cells = [*setting.values(), str(len(chosen))]
        for key, (_, digits, each) in known.items():
            mean = over_seeds(chosen, key)
            text = f"{mean.value:.{digits}f}"
            if len(chosen) > 1:
                text += f" [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"
            shown = f" ({', '.join(f'{row[key]:.{digits}f}' for row in chosen)})" if each else ""
            cells.append(text + shown)
        lines.append([*cells, f"{max(row['critic KS'] for row in chosen):.3f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def differences(rows: list[dict]) -> str:
    """`nested` and `value` less `influence` at the same tau, over the seeds that both have, as a table in Markdown."""
    known = {key: column for key, column in COLUMNS.items() if key in rows[0]}
    heads = ["tau", "less `influence`", "seeds", *(name for name, *_ in known.values())]
    lines = [heads, ["---"] * len(heads)]
    runs = {(row["tau"], row["advantage"], row["seed"]): row for row in rows}
    for tau, name in ESTIMATORS:
        seeds = [seed for at, other, seed in runs if (at, other) == (tau, name) and (tau, "influence", seed) in runs]
        if name == "influence" or len(seeds) < 2:
            continue
        cells = [tau, f"`{name}`", str(len(seeds))]
        for key, (_, digits, _) in known.items():
            mean = seed_interval([runs[tau, name, seed][key] - runs[tau, "influence", seed][key] for seed in seeds])
            cells.append(f"{mean.value:.{digits}f} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(name: str, rows: list[dict]) -> list[Path]:
    """The fronts of the estimators, drawn as those of a sweep; at tau = inf they are one."""
    results = []
    for row in rows:
        family = "neutral" if row["tau"] == "inf" else row["advantage"]
        point = f"tau {row['tau']}"
        results.append({**row, "label": f"{family} {point}", "family": family, "point": point})
    written = []
    for pair in pairs_of(results):
        figure = reward_against_risk(results, front_rows(results), pair)
        written += style.save(figure, RESULTS / "plots" / f"{name}_{front_name(pair)}")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--table", action="store_true", help="run nothing: print the results so far in Markdown")
    parser.add_argument("--plot", action="store_true", help="run nothing: draw the fronts so far in results/plots")
    parser.add_argument("--only", default="", help="settings that have this value, such as influence")
    parser.add_argument("--root", type=Path, help="folder of the runs (default: runs/risk_STUDY)")
    args, extra = parser.parse_known_args()  # what is not ours is for rqe-train
    study, path = STUDIES[args.study], RESULTS / f"{args.study}_risk.csv"
    root = args.root or Path("runs") / f"risk_{args.study}"
    rows, lock = read(path), threading.Lock()
    every = [Job(args.study, setting, seed) for setting in study.settings for seed in study.seeds]
    order = {tuple(job.key.items()): index for index, job in enumerate(every)}
    jobs = [job for job in every if args.only in job.setting.values() or not args.only]
    jobs.sort(key=lambda job: job.seed)  # every setting once, then again: what is there at any time can be compared

    def name(row: dict) -> tuple:
        return tuple((key, row[key]) for key in jobs[0].key)

    done = {name(row) for row in rows}

    def run(job: Job) -> None:
        row = job.run(root, extra)
        with lock:
            rows.append(row)
            rows.sort(key=lambda row: order[name(row)])
            tables.write(path, rows)
            tables.write(RESULTS / f"{args.study}_risk_summary.csv", summarise(study, rows))

    if args.table:
        print(table(study, rows))
        if any(row.get("advantage") == "nested" for row in rows):
            print(f"\n{differences(rows)}")
        return
    if args.plot:
        if not all("advantage" in row for row in rows):
            parser.error(f"--plot compares estimators, and {args.study} has one: use sumo or cartpole")
        print(*draw(args.study, rows), sep="\n")
        return
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(run, [job for job in jobs if tuple(job.key.items()) not in done]))


if __name__ == "__main__":
    main()
