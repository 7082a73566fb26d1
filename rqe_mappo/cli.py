"""The console scripts `rqe-train` and `rqe-eval`."""

import dataclasses
import itertools
import json
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rqe_mappo import config as configs
from rqe_mappo import registry
from rqe_mappo.command_line import fail, main, parse, train_config
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.functional.risk import parse_risk

if TYPE_CHECKING:
    from rqe_mappo.deploy.policy import Policy
    from rqe_mappo.evaluation.evaluation import Evaluation


def train(args: Sequence[str] | None = None) -> None:
    """rqe-train: train agents, save checkpoints, evaluate the last one."""

    def command(args: list[str]) -> None:
        from rqe_mappo.training.loop import train as run_training

        config, resume = train_config(args)
        folder = run_training(config, resume)
        if config.eval_episodes:
            report(EvalConfig(str(folder), config.eval_episodes, seed=config.seed + 1))
        trusted = " --trust" if registry.leads_to_code(config.env) or registry.leads_to_code(config.algo) else ""
        print(f"done: {folder}  (rqe-eval {shlex.quote(str(folder))} --episodes 1000{trusted} says how good it is)")

    main(command, "rqe-train", args)


@dataclass(frozen=True)
class EvalConfig:
    """Evaluate a trained policy in its environment; writes eval.json and calibration.png into the run folder.

    Two policies mixed: rqe-eval --mix SAFE NEUTRAL --alpha 0:1:0.1 (see rqe-eval --mix --help). All runs of a sweep:
    rqe-eval --sweep runs/sweep_sumo --deterministic --out runs/likeliest (see rqe-eval --sweep --help). Agents of runs
    among those of others: rqe-eval --cross-play RUN RUN ... (see rqe-eval --cross-play --help).
    """

    run: Annotated[str, tyro.conf.Positional]
    """Run folder, or a step_N.policy.pt file; with --driver also an environment, such as sumo or sumo/dense."""
    episodes: int = 1000
    """Episodes, a fixed number for each copy of the environment."""
    seed: int = 12345
    """Seed of the episodes and of the policy's draws."""
    deterministic: bool = False
    """Take the most probable action instead of drawing one; with eps > 0 the trained policy is the drawn one."""
    out: Path | None = None
    """Folder for eval.json and calibration.png instead of the run folder."""
    device: str = "cpu"
    """Where the networks live."""
    risk: tuple[str, ...] = ()
    """Further risk values of the return to report, spelled as for rqe-train, such as var:0.1 worst-case."""
    rigm: tuple[str, ...] = ()
    """Instead say how often the agents' own best actions are not the team's, by these measures, such as cvar:0.25, in
    as many visited states as --episodes says (ddn, dmix, riskq, rmix)."""
    driver: str = ""
    """A scripted policy instead: random; always-go, caution:0.5, sumo; lqr:-0.1; fixed, greedy (signals). In an
    environment, the flags of its settings follow, as in rqe-eval sumo --driver caution:0.5 --net FILE --junction ID."""
    render: Path | None = None
    """Film some episodes too, where there are pictures (sumo), into this .gif or .mp4; no screen is needed."""
    render_episodes: int = 3
    """How many episodes --render and --gui show."""
    laws: bool = False
    """With --render: draw what the critic expects of each agent's return beside the scene."""
    trust: bool = False
    """The run is your own: import the environment or algorithm of a module that its settings name."""
    gui: bool = False
    """Show some episodes in sumo-gui instead of measuring; needs a screen."""

    def __post_init__(self):
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed must be in [0, {2**31 - 1}] (got {self.seed})")
        for name in ("episodes", "render_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1 (got {getattr(self, name)})")
        for name in self.risk:
            parse_risk(name, tau=1.0)
        try:
            for name in self.rigm:
                parse_risk(name, tau=1.0)
        except ValueError as error:
            raise ConfigError(str(error).replace("--risk", "--rigm")) from None
        if self.rigm and (self.render or self.gui or self.driver):
            raise ConfigError("--rigm counts, and neither shows nor drives: leave --render, --gui and --driver out")
        if self.out and (self.rigm or self.gui or self.driver):
            raise ConfigError("--out is where a policy's evaluation goes: leave --rigm, --gui and --driver out")
        if self.laws and self.render is None:
            raise ConfigError("--laws draws beside the film: give --render out.gif too")


def evaluate(args: Sequence[str] | None = None) -> None:
    """rqe-eval: a table of returns, tails and incidents with intervals; a film."""

    def command(args: list[str]) -> None:
        given = flags_in(args)
        asked = ["--help"] if {"-h", "--help"} & set(args) else args
        if "--mix" in given:
            from rqe_mappo.sweeps.mixing import MixConfig, mix

            return mix(parse(MixConfig, "rqe-eval", asked))
        if "--cross-play" in given:
            from rqe_mappo.sweeps.cross_play import CrossPlayConfig, cross_play

            return cross_play(parse(CrossPlayConfig, "rqe-eval --cross-play", asked))
        if "--sweep" in given:
            from rqe_mappo.sweeps.evaluation import SweepEvalConfig
            from rqe_mappo.sweeps.evaluation import evaluate as evaluate_sweep

            return evaluate_sweep(parse(SweepEvalConfig, "rqe-eval", asked))
        return report(*eval_config(args))

    main(command, "rqe-eval", args)


def flags_in(args: Sequence[str]) -> list[str]:
    """The flags of a command line, without their values: `--seed` of `--seed 1` and of `--seed=1`."""
    return [word.partition("=")[0] for word in args if word.startswith("--")]


def flag_of(field: str) -> str:
    return "--" + field.replace("_", "-")


def check_own_flags(args: Sequence[str]) -> None:
    """ConfigError for a flag that rqe-eval has for something else than evaluating one policy, such as cross-play."""
    own = {flag_of(field.name) for field in dataclasses.fields(EvalConfig)}
    for flag in flags_in(args):
        if flag in own:
            continue
        from rqe_mappo.sweeps.cross_play import CrossPlayConfig
        from rqe_mappo.sweeps.evaluation import SweepEvalConfig
        from rqe_mappo.sweeps.mixing import MixConfig

        kinds = {"--cross-play": CrossPlayConfig, "--mix": MixConfig, "--sweep": SweepEvalConfig}
        needed = [
            mode for mode, kind in kinds.items() if flag in {flag_of(each.name) for each in dataclasses.fields(kind)}
        ]
        if needed:
            listed = " or ".join(filter(None, [", ".join(needed[:-1]), needed[-1]]))
            raise ConfigError(f"{flag} goes with {listed}: give that too (see rqe-eval {needed[0]} --help)")


def eval_config(args: list[str]) -> tuple[EvalConfig, TrainConfig | None]:
    """What rqe-eval is asked for; with --driver and an environment instead of a run also its settings, by its flags."""
    driven = "--driver" in flags_in(args)
    named = [
        word for before, word in itertools.pairwise(["", *args]) if before != "--driver"
    ]  # a driver is called sumo
    places = [word for word in named if word.partition("/")[0] in registry.ENVIRONMENTS]
    first = [word for word in args[:1] if not word.startswith("-")]
    place = (places or first or [""])[0]
    if not driven or not place or Path(place).exists():
        check_own_flags(args)
        asked = parse(EvalConfig, "rqe-eval", args)
        if "--rigm" in flags_in(args):
            if not asked.rigm:
                raise ConfigError("--rigm needs the measures to count by: --rigm cvar:0.25, for example")
            unused = [flag for flag in ("--risk", "--deterministic") if flag in flags_in(args)]
            if unused:
                raise ConfigError(f"--rigm counts greedy actions by its own measures: leave {unused[0]} out")
        return asked, None
    config = configs.default_config(*place.split("/", 1))
    annotated: Any = Annotated
    asked, settings = (annotated[kind, tyro.conf.OmitArgPrefixes] for kind in (EvalConfig, type(config.env_config)))
    fields = [("asked", asked), ("env_config", settings, dataclasses.field(default=config.env_config))]
    both: Any = dataclasses.make_dataclass("Both", fields)
    found = parse(both, "rqe-eval", args, about=f"{EvalConfig.__doc__}\n\nFlags of --env {config.env} come last.")
    return found.asked, dataclasses.replace(config, env_config=found.env_config)


def report(asked: EvalConfig, driven: TrainConfig | None = None) -> None:
    """Print what was measured; of a policy also write eval.json and calibration.png beside its checkpoints.

    driven: the settings of an environment in which a scripted policy acts without any run.
    """
    from rqe_mappo.data import vector
    from rqe_mappo.deploy.loading import load_run
    from rqe_mappo.evaluation import film, progress
    from rqe_mappo.evaluation import report as reports
    from rqe_mappo.evaluation.episodes import chooser, drive, run_episodes, scripted
    from rqe_mappo.evaluation.evaluation import evaluate as run_evaluation
    from rqe_mappo.training.run import pick_device

    pick_device(asked.device)
    if asked.render is not None:
        film.check(asked.render)
    path = Path(asked.run)
    if asked.out is not None:
        _prepare(asked.out, path)  # before the work, lest it be lost
    if asked.trust:
        configs.trust(path)
    if asked.rigm:
        from rqe_mappo.evaluation import rigm

        print(rigm.table(rigm.violations(path, asked.rigm, asked.episodes, asked.seed)))
        return
    if driven is not None:
        policy, config = None, driven
    else:
        policy = load_run(path, asked.device)
        config = configs.from_json(policy.config_json)
    if policy is None or asked.driver:
        policy, choose = None, scripted(config, asked.driver, asked.seed)
    else:
        choose = chooser(policy, asked.deterministic)
    if asked.gui:
        env = vector.make(film.in_window(config), 1)
        try:
            run_episodes(env, choose, asked.render_episodes, asked.seed)
        finally:
            env.close()
        return
    if asked.render is not None:
        settings = film.FilmSettings(asked.render_episodes, asked.seed, asked.laws)
        frames = film.film(config, choose, policy, asked.render, settings)
        print(f"{asked.render}: {frames} frames of {settings.episodes} episodes\n")
    if policy is None:
        with progress.shown("episodes") as show:
            records = drive(config, choose, asked.episodes, asked.seed, show)
        print(reports.table(reports.rows(records, asked.seed)))
        return
    with progress.shown("episodes") as show:
        evaluation = run_evaluation(policy, asked.episodes, asked.seed, asked.deterministic, show)
    write_report(asked, policy, config, evaluation)


def _prepare(out: Path, run: Path) -> None:
    """Make the folder of results; ConfigError where it cannot be, or belongs to another run."""
    own = run if run.is_dir() else run.parent.parent
    if (out / "latest").is_file() and out.resolve() != own.resolve():
        raise ConfigError(f"--out {out} is another run, whose evaluation stays: choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from None


def write_report(
    asked: EvalConfig,
    policy: "Policy",
    config: TrainConfig,
    evaluation: "Evaluation",
) -> None:
    """Print the tables of a policy's evaluation, and keep them in its run folder."""
    from rqe_mappo.algorithms.groups import agent_groups
    from rqe_mappo.checkpoint import write_atomically
    from rqe_mappo.evaluation import report as reports
    from rqe_mappo.evaluation.plots import calibration_plot

    tau = getattr(policy.measure, "tau", math.inf)
    records, known = evaluation.records, evaluation.calibration
    rows = evaluation.rows([policy.in_reward(parse_risk(name, tau)) for name in asked.risk])
    algorithm = config.algorithm
    known_groups = agent_groups(getattr(algorithm, "tau", math.inf), getattr(algorithm, "eps", 0.0), len(policy.agents))
    if len(known_groups.pairs) > 1:
        named = zip(known_groups.pairs, known_groups.members, strict=True)
        groups = {f"tau {tau:g} eps {eps:g}": members for (tau, eps), members in named}
        rows += reports.by_group(records, groups, asked.seed)
    print(reports.table(rows))
    content = {
        "episodes": evaluation.episodes, "seed": asked.seed, "deterministic": asked.deterministic,
        "timesteps": policy.timesteps, "metrics": reports.as_dict(rows), "worker_restarts": evaluation.worker_restarts,
    }  # fmt: skip
    if policy.returns is not None and not policy.predicts_distribution:
        print("\nno calibration: the critic of this run predicts the mean return, no distribution")
    if known is not None:
        print(f"\n{known}")
        content["critic"] = known.as_dict()
    path = Path(asked.run)
    folder = asked.out or (path if path.is_dir() else path.parent.parent)
    if asked.out or (folder / "config.json").is_file():
        write_atomically(folder / "eval_episodes.npz", reports.episodes_file(records))
        write_atomically(folder / "eval.json", json.dumps(content, indent=2).encode())
        if known is not None:
            calibration_plot(known, folder / "calibration.png")


if __name__ == "__main__":
    COMMANDS = {"train": train, "eval": evaluate}
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        fail("rqe_mappo", f"use python -m rqe_mappo.cli {' | '.join(COMMANDS)} ...")
    COMMANDS[sys.argv[1]](sys.argv[2:])
