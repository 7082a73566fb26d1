"""rqe-sweep: a grid of runs, one after another or side by side, then their tables, plots and page."""

import argparse
import dataclasses
import os
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tqdm import tqdm

from rqe_mappo import command_line
from rqe_mappo import config as configs
from rqe_mappo.config import ConfigError, TrainConfig, spelled
from rqe_mappo.evaluation.report import FEWEST_FOR_TAIL
from rqe_mappo.sweeps import grid, manifest
from rqe_mappo.sweeps.backends import Backend, Local, Ray, Slurm
from rqe_mappo.sweeps.job import Job, Outcome, finished, steps_done, warnings
from rqe_mappo.sweeps.manifest import Manifest
from rqe_mappo.training.lock import hold
from rqe_mappo.training.run import versions

EPISODES = 1000  # the worst 5 % are then fifty
MAY_DIFFER = configs.CHANGEABLE_ON_RESUME - {"total_timesteps"} | {"out"}
PASSED_ON = "Further flags, such as --total-timesteps, are passed on to rqe-train."
KINDS = {
    "tau": "the price of risk aversion: tau times seeds",
    "ablation": "risk aversion and bounded rationality, each with and without the other",
    "compare": "algorithms against each other",
    "grid": "any flags of rqe-train as a grid",
}


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        command_line.fail("rqe-sweep", f"{message} (see rqe-sweep --help)")


def parser() -> argparse.ArgumentParser:
    """The command line; unknown flags are passed on to rqe-train."""
    common = Parser(add_help=False, allow_abbrev=False)
    common.add_argument("--env", default="sumo", help="environment, as for rqe-train (default: sumo)")
    common.add_argument("--scenario", default="default", help="its named setting")
    common.add_argument("--seeds", type=command_line.whole_number, default=5, help="runs of each setting (default: 5)")
    common.add_argument(
        "--first-seed", type=command_line.whole_number, default=1, help="the first seed; the others follow (default: 1)"
    )
    common.add_argument(
        "--episodes", type=command_line.whole_number, help=f"of each run's evaluation (default: {EPISODES} where cheap)"
    )
    common.add_argument("--out", type=Path, help="folder of the sweep (runs/sweep_ENV; later sweeps add to it)")
    common.add_argument(
        "--jobs", type=command_line.whole_number, default=os.cpu_count() or 1, help="runs at a time, one core each"
    )
    common.add_argument("--dry-run", action="store_true", help="print the runs and their states; run nothing")
    common.add_argument("--ray", metavar="ADDRESS", nargs="?", const="", help="run on a Ray cluster, or a new one here")
    common.add_argument("--slurm", metavar="KEY=VALUE,...", nargs="?", const="", help="run on SLURM, through submitit")
    main = Parser(
        prog="rqe-sweep", allow_abbrev=False, description=__doc__, epilog=PASSED_ON,
    )  # fmt: skip
    kinds = main.add_subparsers(dest="kind", required=True, parser_class=Parser, metavar="{" + ",".join(KINDS) + "}")
    made = {
        name: kinds.add_parser(
            name, parents=[common], help=text, description=text, epilog=PASSED_ON, allow_abbrev=False
        )
        for name, text in KINDS.items()
    }
    made["tau"].add_argument("--taus", default=",".join(grid.TAUS), help=f"values (default: {','.join(grid.TAUS)})")
    made["ablation"].add_argument("--tau", help="tau where risk aversion is on (default: the recipe's)")
    made["ablation"].add_argument("--eps", help="eps where rationality is bounded (default: the recipe's)")
    made["compare"].add_argument(
        "--algo", action="append", default=[],
        help="an algorithm, its own flags behind it: --algo mappo --algo 'rqe-mappo --tau 0.3' (default: all "
        f"but {', '.join(grid.NOT_EVERYWHERE)}); the first is what others are compared with",
    )  # fmt: skip
    made["grid"].add_argument(
        "--grid", action="append", default=[], required=True, metavar="FLAG=V,V",
        help="an axis: --grid tau=0.3,1 --grid collision-cost=20,30; values with commas between semicolons",
    )  # fmt: skip
    return main


@dataclass(frozen=True)
class Plan:
    """What a command line asks for; jobs seed-major: every setting once, then again, so that results can be compared at
    any time."""

    folder: Path
    env: str
    reference: str
    command: str
    jobs: list[Job]
    configs: dict[str, TrainConfig]


def make_plan(args: Sequence[str]) -> tuple[Plan, argparse.Namespace]:
    """The runs of a command line; ConfigError or an exit in one line where it is not valid."""
    options, common = parser().parse_known_args(args)
    for name in ("seeds", "jobs", "episodes"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ConfigError(f"--{name} must be at least 1 (got {value})")
    if options.ray is not None and options.slurm is not None:
        raise ConfigError("--ray and --slurm cannot go together: choose one")
    grid.refuse(common)
    place = ["--env", options.env, "--scenario", options.scenario]
    settings = _settings(options, place, common)
    grid.check(settings, common)
    scenario = "" if options.scenario == "default" else f"_{options.scenario}"
    folder = (options.out or Path("runs") / f"sweep_{options.env.replace(':', '-')}{scenario}").resolve()
    base = {setting.label: command_line.train_config([*place, *common, *setting.args])[0] for setting in settings}
    jobs, known = [], {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for setting in settings:
            config = dataclasses.replace(base[setting.label], seed=seed)
            name = f"{setting.slug}__s{seed}"
            known[name] = config
            # a recipe that evaluates in few episodes has long ones
            usual = EPISODES if config.eval_episodes >= FEWEST_FOR_TAIL else config.eval_episodes
            jobs.append(
                Job(
                    name=name,
                    label=setting.label,
                    family=setting.family,
                    point=setting.point,
                    flags=setting.flags,
                    seed=seed,
                    args=(*place, *setting.args, *common, "--seed", str(seed)),
                    folder=str(folder / "runs" / name),
                    log=str(folder / "logs" / f"{name}.log"),
                    timesteps=config.total_timesteps,
                    episodes=options.episodes or usual,
                )
            )
    reference = settings[0 if options.kind in ("compare", "grid") else -1].label
    return Plan(
        folder, options.env + scenario.replace("_", "/", 1), reference, shlex.join(["rqe-sweep", *args]), jobs, known
    ), options


def _settings(options: argparse.Namespace, place: list[str], common: list[str]) -> list[grid.Setting]:
    if options.kind == "compare":
        return grid.compare(options.algo)
    recipe = command_line.train_config([*place, *common])[0]
    if options.kind == "tau":
        return grid.tau([value for value in options.taus.split(",") if value], recipe.algo)
    if options.kind == "ablation":
        values = {name: getattr(options, name) or spelled(getattr(recipe.algorithm, name)) for name in ("tau", "eps")}
        return grid.ablation(**{name: grid.number(name, value) for name, value in values.items()})
    return grid.grid(options.grid, recipe.algo)


def check_folders(plan: Plan) -> None:
    """Raise ConfigError where a run's folder already holds a run with other settings."""
    for job in plan.jobs:
        path = Path(job.folder) / "config.json"
        if not (Path(job.folder) / "latest").is_file() or not path.is_file():
            continue
        found = configs.from_file(path).flat()
        for name, value in plan.configs[job.name].flat().items():
            if name not in MAY_DIFFER and found.get(name) != value:
                raise ConfigError(
                    f"{job.folder} was run with another --{name.replace('_', '-')}: "
                    "give the same flags again, or choose another --out"
                )


def make_backend(options: argparse.Namespace, folder: Path) -> Backend:
    """Where the jobs of a command line run."""
    if options.ray is not None:
        return Ray(options.ray, options.jobs)
    if options.slurm is not None:
        pairs = [pair.partition("=") for pair in options.slurm.split(",") if pair]
        if bad := [name for name, equals, value in pairs if not (name and equals and value)]:
            raise ConfigError(f"--slurm {bad[0]} must be KEY=VALUE, as in partition=cpu,timeout_min=600")
        return Slurm(folder, {name: value for name, _, value in pairs})
    return Local(options.jobs)


class StopRequests:
    """Counts Ctrl-C and SIGTERM, which do not interrupt anything by themselves."""

    def __init__(self) -> None:
        self.count = 0
        self.previous: dict[int, Any] = {}  # whatever `signal.signal` returns

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def __enter__(self) -> "StopRequests":
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


class Progress:
    """A line for each run that ended; on a terminal also a bar over the decisions of all runs."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs, self.ended = jobs, 0
        self.bar = None
        if sys.stderr.isatty():
            total = sum(job.timesteps for job in jobs)
            self.bar = tqdm(total=total, initial=self._steps(), unit="step", unit_scale=True, dynamic_ncols=True)

    def _steps(self) -> int:
        return sum(min(job.timesteps, steps_done(Path(job.folder))) for job in self.jobs)

    def tick(self) -> None:
        if self.bar is not None:
            self.bar.update(self._steps() - self.bar.n)

    def log(self, text: str) -> None:
        tqdm.write(text) if self.bar is not None else print(text, flush=True)

    def job_ended(self, outcome: Outcome, log: Path, headline: str) -> None:
        self.ended += 1
        count = f"[{self.ended:>{len(str(len(self.jobs)))}}/{len(self.jobs)}]"
        minutes = f"{int(outcome.seconds // 60)}:{int(outcome.seconds % 60):02d}"
        texts = {
            "done": f"done{f' in {minutes}' * bool(outcome.seconds)}  {headline}",
            "failed": f"failed: {outcome.reason}  (log: {os.path.relpath(log)})",
            "interrupted": "stopped; its progress is saved",
        }
        self.log(f"{count} {outcome.name}  {texts[outcome.state]}".rstrip())
        for warning in warnings(log) if outcome.state == "done" else ():
            self.log(f"{' ' * len(count)} {warning}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def run_jobs(jobs: Sequence[Job], known: Manifest, backend: Backend) -> bool:
    """Run `jobs`, keeping the manifest and results.csv up to date; True if it was asked to stop."""
    from rqe_mappo.sweeps import tables

    with StopRequests() as stop, closing(Progress(jobs)) as progress:
        for job in jobs:
            backend.submit(job)
        handled = 0
        for outcome in backend.as_completed():
            if outcome is None:
                progress.tick()
            elif outcome.state != "waiting":
                known.record(outcome)
                headline = tables.headline(Path(known.run_folder(outcome.name))) if outcome.state == "done" else ""
                progress.job_ended(outcome, known.log(outcome.name), headline)
                if outcome.state == "done":
                    tables.write_results(known)
            if stop.count > handled:
                handled = stop.count
                progress.log("stopping: runs save their progress (Ctrl-C again kills them)")
                backend.stop()
    return stop.count > 0


def sweep(args: Sequence[str]) -> int:
    """Run what a command line asks for; gives the exit code: 1 if a run failed, 130 if it was stopped."""
    plan, options = make_plan(args)
    check_folders(plan)
    if options.dry_run:
        dry_run(plan)
        return 0
    with hold(plan.folder, "another rqe-sweep"):
        path = plan.folder / "manifest.json"
        known = manifest.load(plan.folder) if path.is_file() else Manifest(plan.folder, plan.env, plan.reference)
        if known.env != plan.env:
            raise ConfigError(f"{plan.folder} holds a sweep of --env {known.env}: choose another --out")
        known.add(plan.jobs)
        known.commands += [plan.command] if plan.command not in known.commands else []
        known.versions = versions()
        for job in plan.jobs:
            if finished(job):
                known.jobs[job.name] = dataclasses.replace(known.jobs[job.name], state="done", reason="")
        known.save()
        todo = [job for job in plan.jobs if not finished(job)]
        print(f"{plan.folder}: {len(plan.jobs)} runs, {len(plan.jobs) - len(todo)} of them finished", flush=True)
        began = time.monotonic()
        stopped = bool(todo) and run_jobs(todo, known, make_backend(options, plan.folder))
        states = Counter(known.jobs[job.name].state for job in plan.jobs)
        minutes = (time.monotonic() - began) / 60
        print(", ".join(f"{number} {state}" for state, number in states.items()) + f"; {minutes:.1f} minutes")
        if stopped:
            print(f"to continue: {plan.command}", file=sys.stderr)
            return 130
        if states["done"]:
            write_outputs(plan.folder)
        return 0 if states["done"] == len(plan.jobs) else 1


def write_outputs(folder: Path) -> None:
    """Tables, plots and page of what has finished."""
    from rqe_mappo.sweeps import page, plots, tables

    tables.collect(manifest.load(folder))
    pictures = plots.draw(folder)
    print(f"tables: {folder / 'results.csv'}, {folder / 'summary.csv'}")
    print(f"plots:  {', '.join(str(path.relative_to(folder)) for path in pictures if path.suffix == '.png')}")
    print(f"page:   {page.write(folder)}")


def dry_run(plan: Plan) -> None:
    """Print every run, its state and its command."""
    for job in plan.jobs:
        state = "finished" if finished(job) else "begun" if (Path(job.folder) / "latest").is_file() else "new"
        print(f"{job.name:<30} {state:<9} rqe-train {shlex.join(job.command())}")
    print(f"{len(plan.jobs)} runs in {plan.folder}")
