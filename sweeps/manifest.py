"""The record of a sweep in its folder: manifest.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypedDict

from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.config import ConfigError
from rqe_mappo.schema import Rule
from rqe_mappo.sweeps.job import Job, Outcome, State
from rqe_mappo.sweeps.reading import read_json

FORMAT = "rqe_mappo sweep 1"


@dataclass(frozen=True)
class Entry:
    """A job, its state, and the reason if it failed; paths are within the sweep's folder."""

    name: Annotated[str, Rule(lambda name: Path(name).name == name != "..", "be the name of a folder")]
    label: str
    family: str
    point: str
    flags: dict[str, str]
    seed: int
    args: tuple[str, ...]
    state: State = "waiting"
    reason: str = ""


class Content(TypedDict):
    """What manifest.json holds."""

    format: str
    env: str
    reference: str
    commands: list[str]
    versions: dict[str, str]
    jobs: list[Entry]


@dataclass
class Manifest:
    """Everything about a sweep except its results.

    env: the environment, and behind a slash its scenario if that is not the default.
    commands: the rqe-sweep commands that went into it, oldest first.
    reference: the label of the setting that others are compared with.
    versions: of what ran, as in `versions.json`.
    """

    folder: Path
    env: str
    reference: str
    commands: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, Entry] = field(default_factory=dict)

    def run_folder(self, name: str) -> Path:
        return self.folder / "runs" / name

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def add(self, jobs: Sequence[Job]) -> None:
        """Add jobs; those of earlier commands stay."""
        for job in jobs:
            known = self.jobs.get(job.name)
            entry = Entry(job.name, job.label, job.family, job.point, dict(job.flags), job.seed, job.args)
            self.jobs[job.name] = replace(entry, state=known.state, reason=known.reason) if known else entry

    def record(self, outcome: Outcome) -> None:
        """Record how a job ended."""
        self.jobs[outcome.name] = replace(self.jobs[outcome.name], state=outcome.state, reason=outcome.reason)
        self.save()

    def save(self) -> None:
        content = {
            "format": FORMAT, "env": self.env, "reference": self.reference, "commands": self.commands,
            "versions": self.versions, "jobs": [asdict(entry) for entry in self.jobs.values()],
        }  # fmt: skip
        write_atomically(self.folder / "manifest.json", json.dumps(content, indent=1).encode())


def load(folder: Path) -> Manifest:
    """The manifest of `folder`; ConfigError where there is none."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ConfigError(f"{folder} is not a folder of rqe-sweep: it holds no manifest.json")
    content: Content = read_json(Content, path, "delete it and run again")
    if content["format"] != FORMAT:
        raise ConfigError(f"{path} is of another version ({content['format']}): delete it and run again")
    jobs = {entry.name: entry for entry in content["jobs"]}
    return Manifest(folder, content["env"], content["reference"], content["commands"], content["versions"], jobs)
