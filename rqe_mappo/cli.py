"""The console scripts `rqe-train` and `rqe-eval`."""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import tyro

from rqe_mappo import config as configs
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.functional.risk import parse_risk

if TYPE_CHECKING:
    import numpy as np

    from rqe_mappo.evaluate import Calibration
    from rqe_mappo.policy import Policy

Parsed = TypeVar("Parsed")
CHANGEABLE_ON_RESUME = {
    "total_timesteps", "device", "keep", "save_interval", "log_interval", "eval_episodes", "worker_timeout",
}  # fmt: skip


def main(command: Callable[[list[str]], None], prog: str, args: Sequence[str] | None) -> None:
    """Run `command`; what the user can mend ends in one line and exit code 2, an interrupt in 130."""
    from rqe_mappo.train import Interrupted

    try:
        command(list(sys.argv[1:] if args is None else args))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        fail(prog, str(error))


def fail(prog: str, message: str) -> NoReturn:
    """One line on standard error, exit code 2."""
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def parse(kind: type[Parsed], prog: str, args: list[str], default: Any = None) -> Parsed:
    """tyro's parse, its boxed errors reduced to one line."""
    said = io.StringIO()
    keywords = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=prog, args=args, **keywords)
    except SystemExit as stop:
        if not stop.code:
            raise
        # a title, then paragraphs between rules, in a box or (where the terminal knows no boxes) without one
        body = "\n".join(line.strip(" │") for line in said.getvalue().splitlines()[1:])
        paragraphs = [part for part in re.split(r"[─╰╯\-]{9,}", body) if part.strip()]
        own = r"^Error parsing \S+: (?=--)"  # our own messages name the flag themselves
        message = re.sub(own, "", " ".join(paragraphs[0].split()))
        fail(prog, f"{message} (see {prog} --help)")


def train_config(args: list[str]) -> tuple[TrainConfig, Path | None]:
    """The settings that a command line asks for, and the run folder to go on from, if any."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("env", "scenario", "algo"):
        first.add_argument(f"--{name}")
    first.add_argument("--resume", type=Path)
    try:
        chosen, rest = first.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    if chosen.resume is None:
        default = configs.default_config(chosen.env or "sumo", chosen.scenario or "default", chosen.algo or "rqe-mappo")
        return parse(configs.kind_of(default), "rqe-train", rest, default), None
    settings = chosen.resume / "config.json"
    if not settings.is_file():
        raise ConfigError(f"--resume {chosen.resume} is no run folder: it holds no config.json")
    default = configs.from_json(settings.read_text())
    for name in ("env", "scenario", "algo"):
        if getattr(chosen, name) not in (None, getattr(default, name)):
            raise ConfigError(f"--{name} cannot change on --resume: start a new run instead")
    config = parse(configs.kind_of(default), "rqe-train", rest, default)
    changed = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(default, f.name)}
    if changed - CHANGEABLE_ON_RESUME:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(changed - CHANGEABLE_ON_RESUME))
        raise ConfigError(f"{flags} cannot change on --resume: start a new run instead")
    return config, chosen.resume


def train(args: Sequence[str] | None = None) -> None:
    """rqe-train: train agents, save checkpoints, evaluate the last one."""

    def command(args: list[str]) -> None:
        from rqe_mappo.train import train as run_training

        config, resume = train_config(args)
        folder = run_training(config, resume)
        if config.eval_episodes:
            report(EvalConfig(str(folder), config.eval_episodes, seed=config.seed + 1))
        print(f"done: {folder}  (rqe-eval {folder} --episodes 1000 says how good it is)")

    main(command, "rqe-train", args)


@dataclass(frozen=True)
class EvalConfig:
    """Evaluate a trained policy in its environment; writes eval.json and calibration.png into the run folder."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder, or a step_N.policy.pt file; with --driver also an environment, such as sumo or sumo/dense."""
    episodes: int = 1000
    """Episodes, a fixed number for each copy of the environment."""
    seed: int = 12345
    """Seed of the episodes and of the policy's draws."""
    deterministic: bool = False
    """Take the most probable action instead of drawing one; with eps > 0 the trained policy is the drawn one."""
    device: str = "cpu"
    """Where the networks live."""
    risk: tuple[str, ...] = ()
    """Further risk values of the return to report, spelled as for rqe-train, such as var:0.1 worst-case."""
    driver: str = ""
    """A policy that nobody trained instead: random; always-go, caution:0.5, sumo; lqr:-0.1; fixed, greedy (signals)."""
    render: Path | None = None
    """Film some episodes too, into this .gif or .mp4; no screen is needed."""
    render_episodes: int = 3
    """How many episodes --render and --gui show."""
    laws: bool = False
    """With --render: draw what the critic expects of each agent's return beside the scene."""
    gui: bool = False
    """Show some episodes in sumo-gui instead of measuring; needs a screen."""

    def __post_init__(self):
        for name in ("episodes", "render_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1 (got {getattr(self, name)})")
        for name in self.risk:
            parse_risk(name, tau=1.0)


def evaluate(args: Sequence[str] | None = None) -> None:
    """rqe-eval: a table of returns, tails and incidents with intervals; a film."""
    main(lambda args: report(parse(EvalConfig, "rqe-eval", args)), "rqe-eval", args)


def report(asked: EvalConfig) -> None:
    """Print what was measured; of a policy also write eval.json and calibration.png beside its checkpoints."""
    from rqe_mappo import film, vector
    from rqe_mappo import report as reports
    from rqe_mappo.evaluate import chooser, drive, play, reference
    from rqe_mappo.evaluate import evaluate as run_evaluation
    from rqe_mappo.policy import Policy
    from rqe_mappo.train import pick_device

    pick_device(asked.device)
    if asked.render is not None:
        film.check(asked.render)
    path = Path(asked.run)
    if asked.driver and not path.exists():
        policy, config = None, configs.default_config(*asked.run.split("/", 1))
    else:
        policy = Policy.load(path, asked.device)
        config = configs.from_json(policy.config_json)
    if asked.driver:
        policy, choose = None, reference(config, asked.driver, asked.seed)
    else:
        choose = chooser(policy, asked.deterministic)
    if asked.gui:
        env = vector.make(film.in_window(config), 1)
        try:
            play(env, choose, asked.render_episodes, asked.seed)
        finally:
            env.close()
        return
    if asked.render is not None:
        take = film.Take(asked.render_episodes, asked.seed, asked.laws)
        frames = film.film(config, choose, policy, asked.render, take)
        print(f"{asked.render}: {frames} frames of {take.episodes} episodes\n")
    if policy is None:
        records = drive(config, choose, asked.episodes, asked.seed)
        print(reports.table(reports.rows(records, asked.seed)))
        return
    measured = run_evaluation(policy, asked.episodes, asked.seed, asked.deterministic)
    write_report(asked, policy, config, *measured)


def write_report(
    asked: EvalConfig,
    policy: "Policy",
    config: TrainConfig,
    records: dict[str, "np.ndarray"],
    known: "Calibration | None",
    restarts: int,
) -> None:
    """Print the tables of a policy's evaluation, and keep them in its run folder."""
    from rqe_mappo import report as reports
    from rqe_mappo.checkpoint import write_atomically
    from rqe_mappo.plots import calibration_plot

    tau, unit = getattr(policy.measure, "tau", math.inf), policy.return_scale or 1.0
    rows = reports.rows(records, asked.seed, [parse_risk(name, tau).scaled(unit) for name in asked.risk])
    attitudes, index = config.attitudes(len(policy.agents))
    if len(attitudes) > 1:
        groups = {
            f"tau {tau:g} eps {eps:g}": [agent for agent, found in enumerate(index) if found == attitude]
            for attitude, (tau, eps) in enumerate(attitudes)
        }
        rows += reports.by_attitude(records, groups, asked.seed)
    print(reports.table(rows))
    content = {
        "episodes": len(records["return"]), "seed": asked.seed, "deterministic": asked.deterministic,
        "timesteps": policy.timesteps, "metrics": reports.as_dict(rows), "worker_restarts": restarts,
    }  # fmt: skip
    if policy.shapes.critic_values:
        print("\nno calibration: the critic of this run foretells the mean return, no distribution")
    if known is not None:
        print(f"\n{known}")
        content["critic"] = known.as_dict()
    path = Path(asked.run)
    folder = path if path.is_dir() else path.parent.parent
    if (folder / "config.json").is_file():
        write_atomically(folder / "eval_episodes.npz", reports.episodes_file(records))
        write_atomically(folder / "eval.json", json.dumps(content, indent=2).encode())
        if known is not None:
            calibration_plot(known, folder / "calibration.png")


if __name__ == "__main__":
    COMMANDS = {"train": train, "eval": evaluate}
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        fail("rqe_mappo", f"use python -m rqe_mappo.cli {' | '.join(COMMANDS)} ...")
    COMMANDS[sys.argv[1]](sys.argv[2:])
