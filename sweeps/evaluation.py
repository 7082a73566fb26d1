"""rqe-eval --sweep: every finished run of a sweep evaluated anew, into a folder that is a sweep's too.

By the most probable actions, say, or in more episodes, while the evaluations of the sweep itself stay as they are.
"""

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rqe_mappo.config import ConfigError
from rqe_mappo.sweeps import manifest, reading
from rqe_mappo.sweeps.job import ONE_THREAD
from rqe_mappo.sweeps.manifest import Entry, Manifest
from rqe_mappo.sweeps.pools import ending
from rqe_mappo.sweeps.sweep import write_outputs
from rqe_mappo.training.lock import hold

TABLES_OF_A_RUN = ("config.json", "metrics.csv", "attempts.json")


@dataclass(frozen=True)
class SweepEvalConfig:
    """Evaluate every finished run of a sweep anew, and write its tables, plots and page into another folder."""

    sweep: Path
    """Folder of rqe-sweep."""
    out: Path
    """Folder of the results; runs that it holds already, evaluated as asked, are not evaluated again."""
    episodes: int = 1000
    """Episodes of each run; each begins with the seed of the sweep's own evaluation."""
    deterministic: bool = False
    """Take the most probable actions instead of drawing them."""
    jobs: int = os.cpu_count() or 1
    """Evaluations at a time, one core each."""
    trust: bool = False
    """The runs are your own: import the environment or algorithm of a module that their settings name."""

    def __post_init__(self):
        for name in ("episodes", "jobs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1 (got {getattr(self, name)})")
        if self.out.resolve() == self.sweep.resolve():
            raise ConfigError(f"--out {self.out} is the sweep itself, whose evaluations stay: choose another folder")

    @property
    def command(self) -> str:
        """The command line that asks for it."""
        words = ["rqe-eval", "--sweep", str(self.sweep), "--episodes", str(self.episodes), "--out", str(self.out)]
        return shlex.join([*words, *(["--deterministic"] if self.deterministic else [])])


def evaluate(asked: SweepEvalConfig) -> None:
    """Evaluate what is missing, then write tables, plots and page of all."""
    found = manifest.load(asked.sweep)
    entries = {
        name: entry for name, entry in found.jobs.items()
        if entry.state == "done" and (found.run_folder(name) / "latest").is_file()
    }  # fmt: skip
    if not entries:
        raise ConfigError(f"--sweep {asked.sweep} holds no finished run with its checkpoints")
    with hold(asked.out, "another rqe-eval --sweep"):
        known = _manifest(asked, found)
        known.jobs |= entries
        known.save()
        missing = [
            entry for name, entry in entries.items()
            if not _is_there(asked, found.run_folder(name), known.run_folder(name))
        ]  # fmt: skip
        with ending(ThreadPoolExecutor(asked.jobs)) as pool:
            ended = pool.map(lambda entry: _evaluate(asked, found, known, entry), missing)
            for _ in tqdm(ended, total=len(missing), disable=None, unit="run"):
                pass
        write_outputs(asked.out)


def _manifest(asked: SweepEvalConfig, found: Manifest) -> Manifest:
    path = asked.out / "manifest.json"
    if not path.is_file():
        return Manifest(asked.out, found.env, found.reference, [*found.commands, asked.command], found.versions)
    known = manifest.load(asked.out)
    if asked.command not in known.commands:
        raise ConfigError(f"--out {asked.out} holds the results of {known.commands[-1]}: choose another folder")
    return known


def _is_there(asked: SweepEvalConfig, run: Path, folder: Path) -> bool:
    """Whether `folder` holds what is asked of the run, of its last checkpoint."""
    try:
        done, own = reading.evaluation(folder), reading.evaluation(run)
    except (OSError, ConfigError):
        return False
    as_asked = done["episodes"] >= asked.episodes and done["deterministic"] == asked.deterministic
    return as_asked and done["timesteps"] == own["timesteps"]


def _evaluate(asked: SweepEvalConfig, found: Manifest, known: Manifest, entry: Entry) -> None:
    run, folder, log = found.run_folder(entry.name), known.run_folder(entry.name), known.log(entry.name)
    for place in (folder, log.parent):
        place.mkdir(parents=True, exist_ok=True)
    for name in TABLES_OF_A_RUN:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    args = [str(run), "--episodes", str(asked.episodes), "--seed", str(entry.seed + 1), "--out", str(folder)]
    args += [f"--{name}" for name in ("deterministic", "trust") if getattr(asked, name)]
    command = [sys.executable, "-m", "rqe_mappo.cli", "eval", *args]
    with open(log, "w") as file:
        ended = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **ONE_THREAD}
        )
    if ended.returncode:
        reason = (log.read_text(errors="replace").strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        raise ConfigError(f"{run}: {reason.removeprefix('rqe-eval: ')} (log: {log})")
