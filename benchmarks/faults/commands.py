"""Command lines that nobody means: each ends well, or in one line with exit code 2."""

import contextlib
import dataclasses
import os
import random
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults import Figure, forked, readers
from rqe_mappo import cli
from rqe_mappo.config import default_config
from rqe_mappo.deploy import export
from rqe_mappo.equilibrium import cli as solve
from rqe_mappo.live import cli as live
from rqe_mappo.sweeps import cli as sweeps

LIMIT_S = 20.0
MEMORY = 6 * 2**30
SHORT = ["--total-timesteps", "64", "--num-envs", "2", "--num-steps", "8", "--eval-episodes", "0"]
VALUES = (
    "", "0", "1", "2", "-1", "0.5", "8.5", "1e6", "1e12", "1e400", "nan", "inf", "-inf", "9" * 400, "abc", "None", "[]",
    "{}", "a,b", ",", "0.3,1", "0.3,1,inf", "cpu", "cuda:9", "influence", "nested", "--", "-h", "\ud800", "\x01",
    "../..", "/", "/dev/null", "/proc/self/mem", "os:system", "pettingzoo:os", "gymnasium:Nope-v0", "cartpole",
    "matrix", "gamble", "True", "cvar:0.1", "entropic", "caution:2", "lqr:nan", "0:1:0.1", "0:1:0", "\u202e",
    "\U0001f600", "$x$",
)  # fmt: skip
COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "rqe-train": cli.train,
    "rqe-eval": cli.evaluate,
    "rqe-sweep": sweeps.sweep,
    "rqe-plot": sweeps.plot,
    "rqe-report": sweeps.report,
    "rqe-export": export.command,
    "rqe-solve": solve.main,
    "rqe-play": live.play,
}
ASKED = {
    "rqe-eval": cli.EvalConfig,
    "rqe-export": export.ExportConfig,
    "rqe-solve": solve.SolveConfig,
    "rqe-play": live.PlayConfig,
}
SWEEPS = ["seeds", "first-seed", "taus", "tau", "eps", "algo", "grid", "episodes", "jobs", "slurm", "out"]


def run(count: int, rng: random.Random, folder: Path) -> list[Figure]:
    """Run `count` command lines, each in a process of its own, in a folder of its own."""
    seed = rng.randrange(2**31)
    kept = folder / "kept"
    forked.call(lambda: str(readers.sweep_folder(kept)), limit_s=300)
    before, seen = _content(kept), Counter()
    for number in range(count):
        own = random.Random(f"{seed} {number}")
        name, args = line(own, kept, folder / f"{number}")
        ended = forked.run(lambda name=name, args=args: _called(name, args, folder), LIMIT_S)
        word = _judged(ended)
        seen[word] += 1
        seen[name] += 1
        if word in ("traceback", "several lines", "another exit code"):
            print(f"{word} ({ended.code}): {name} {args!r}: {ended.err[-800:]}", flush=True)
    seen["changed"] = sum(_content(kept).get(path) != content for path, content in before.items())
    return [
        Figure("command lines", "command lines", count, count),
        *(Figure("command lines", f"of {name}", seen[name]) for name in COMMANDS),
        Figure("command lines", "ended well", seen["well"]),
        Figure("command lines", "refused in one line", seen["refused"]),
        Figure("command lines", f"still at work after {LIMIT_S:.0f} s, as they were asked to", seen["at work"]),
        Figure("command lines", "tracebacks", seen["traceback"], 0),
        Figure("command lines", "refused in several lines", seen["several lines"], 0),
        Figure("command lines", "other exit codes", seen["another exit code"], 0),
        Figure("command lines", "files of a finished run that were changed", seen["changed"], 0),
    ]


def _called(name: str, args: list[str], folder: Path) -> None:
    os.chdir(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with contextlib.suppress(ImportError):
        COMMANDS[name](args)


def _judged(ended: forked.Ended) -> str:
    if "Traceback" in ended.err:
        return "traceback"
    if ended.stopped:
        return "at work"
    if ended.code == 2:
        return "refused" if ended.in_one_line else "several lines"
    return "well" if ended.code in (0, 1) else "another exit code"


def line(rng: random.Random, kept: Path, out: Path) -> tuple[str, list[str]]:
    """A command and its arguments: valid ones, of which some were changed, dropped, doubled or added."""
    run = str(kept / "runs" / "tau1__s1")
    env = rng.choice(("cartpole", "matrix", "gamble", "cliff"))
    valid = {
        "rqe-train": ["--env", env, *SHORT, "--out", str(out)],
        "rqe-eval": [rng.choice((run, env)), "--episodes", "4"],
        "rqe-sweep": [rng.choice(("tau", "ablation", "compare", "grid")), "--env", env, "--dry-run", "--out", str(out)],
        "rqe-plot": [str(kept)],
        "rqe-report": [str(kept / "nothing")],
        "rqe-export": [run, str(out.with_suffix(rng.choice((".onnx", ".npz", ".pt"))))],
        "rqe-solve": ["stag-hunt", "--tau", "1", "--eps", "0.5"],
        "rqe-play": [str(out)],
    }
    name = rng.choices(list(COMMANDS), (8, 3, 3, 1, 1, 1, 3, 1))[0]
    args = valid[name]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(args) + 1)
        kind = rng.random()
        if kind < 0.05 and args:
            del args[min(at, len(args) - 1)]
        elif kind < 0.25 and args:
            args[min(at, len(args) - 1)] = rng.choice(VALUES)
        elif kind < 0.3:
            args.insert(at, rng.choice(VALUES))
        else:
            args += [rng.choice(_flags(name, env)), *rng.choices(VALUES, k=rng.choice((0, *[1] * 8, 2)))]
    return name, [arg.replace("\x00", "") for arg in args]


def _flags(name: str, env: str) -> list[str]:
    """The flags of a command, and some that it does not have."""
    config = default_config(env)
    parts: list[Any] = [config, config.algorithm, config.env_config]
    if name in ASKED:
        parts = [ASKED[name]]
    names = [field.name for part in parts for field in dataclasses.fields(part)]
    others = SWEEPS if name == "rqe-sweep" else ["help", "version", "no-such-flag", "seed"]
    return [f"--{name.replace('_', '-')}" for name in (*names, *others)]


def _content(folder: Path) -> dict[str, bytes]:
    """The files that no command may change: those of the run but its evaluation."""
    files = [*folder.rglob("checkpoints/*"), *folder.rglob("config.json"), *folder.rglob("metrics.csv")]
    return {str(path): path.read_bytes() for path in files}
