"""A run in its folder: everything that a checkpoint must hold to go on as if nothing had happened."""

import json
import platform
import shlex
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rqe_mappo import checkpoint, described_spaces, nets, registry
from rqe_mappo import config as configs
from rqe_mappo.algorithms.contract import Algorithm, KeepsFiles, PlaysOtherwise, Progress, Remarks
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data import finite, vector
from rqe_mappo.data.collector import Collector
from rqe_mappo.envs.contract import BatchedEnv, agent_spaces
from rqe_mappo.files import write_atomically

RESUME_SEED_STRIDE = 1009  # environments that cannot go on exactly start their next episodes from a fresh seed


@dataclass
class Run:
    """A run and where it stands: decisions of single agents, updates, how often it was resumed, last save.

    notes: what the log shall say of how it goes on.
    """

    folder: Path
    config: TrainConfig
    env: BatchedEnv
    algorithm: Algorithm
    collector: Collector
    generator: torch.Generator
    step: int = 0
    updates: int = 0
    resumed: int = 0
    saved: int = -1
    notes: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, config: TrainConfig, folder: Path, env: BatchedEnv) -> "Run":
        """A run at its beginning."""
        device = pick_device(config.device)
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        algorithm = registry.algorithm(config.algo)(config, env, generator)
        actor = algorithm.modules.get("actor")
        fault = f"--algo {config.algo} could not be loaded again"
        if actor is not algorithm.actor or nets.describe(actor) is None:
            raise ConfigError(
                f"{fault}: its actor must be in `modules` as 'actor', "
                "with a `spec` and a `kind` that rqe_mappo.nets.register knows"
            )
        for name, module in algorithm.modules.items():
            if description := nets.describe(module):
                try:
                    nets.check(checkpoint.to_plain(description), module.state_dict())
                except (ValueError, TypeError, RuntimeError) as error:
                    raise ConfigError(
                        f"{fault}: its network {name} is not what its `spec` describes ({error})"
                    ) from None
        plays = algorithm.rollout if isinstance(algorithm, PlaysOtherwise) else algorithm.actor
        collector = Collector(env, plays, config.num_steps, device, generator)
        notes = list(algorithm.notes) if isinstance(algorithm, Remarks) else []
        return cls(folder, config, env, algorithm, collector, generator, notes=notes)

    @property
    def progress(self) -> Progress:
        return Progress(self.step, self.config.total_timesteps)

    def policy_content(self) -> dict[str, Any]:
        """What a policy file holds of this moment."""
        algorithm = self.algorithm
        known = {name: nets.describe(module) for name, module in algorithm.modules.items()}
        described = {name: description for name, description in known.items() if description is not None}
        returns = [name for name, module in algorithm.modules.items() if module is algorithm.returns]
        risk = algorithm.risk
        return {
            "config": configs.to_json(self.config),
            "agents": list(self.env.possible_agents),
            "timesteps": self.step,
            "networks": checkpoint.to_plain(described),
            "returns": returns[0] if returns and returns[0] in described else None,
            "risk": None if risk is None else {**risk.description, "return_scale": risk.return_scale},
            "modules": {name: module.state_dict() for name, module in algorithm.modules.items()},
            **described_spaces.described(agent_spaces(self.env)),
        }

    def save(self, environments: bool = True) -> None:
        """Write a checkpoint of this moment; without its `environments` a resumed run starts new episodes."""
        workers = vector.workers_of(self.env)
        training = {
            "algorithm": self.algorithm.state_dict(),
            "collector": self.collector.state_dict(),
            "generator": self.generator.get_state(),
            "env": checkpoint.to_plain(self.env.snapshot()) if environments else None,
            "worker_restarts": workers.restarts if workers else [],
            "step": self.step,
            "updates": self.updates,
            "resumed": self.resumed,
        }
        if not (self.folder / "config.json").is_file():  # somebody took the folder away
            write_settings(self.folder, self.config)
        finite.check_weights(self.algorithm.modules)
        finite.check_state(training["algorithm"], "the algorithm's")
        if isinstance(self.algorithm, KeepsFiles):
            self.algorithm.write_files(self.folder)
        checkpoint.save(self.folder, self.step, self.policy_content(), training, self.config.keep)
        self.saved = self.step
        if isinstance(self.algorithm, KeepsFiles):
            self.algorithm.drop_files(self.folder)

    def restore(self) -> None:
        """Go on from the folder's newest checkpoint: exactly, where the environment can.

        CheckpointError, in one line, where it does not fit this run.
        """
        policy_file, training_file = checkpoint.newest(self.folder)
        policy = checkpoint.load_policy_file(policy_file)
        training = checkpoint.load_training_file(training_file)
        self._check_settings(configs.from_json(policy["config"], str(policy_file)), policy_file)
        if policy["timesteps"] != training["step"]:
            raise CheckpointError(
                f"{policy_file} and {training_file.name} are of different steps: use another checkpoint"
            )
        try:
            self.take_in(policy, policy_file)
            self._restore(training)
            if isinstance(self.algorithm, KeepsFiles):
                self.notes += self.algorithm.read_files(self.folder)
        except CheckpointError:
            raise
        except Exception as error:  # whatever algorithms and environments, also a user's own, make of a wrong state
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(f"{training_file} does not fit this run ({cause}): use another checkpoint") from error

    def take_in(self, policy: dict[str, Any], source: Path) -> None:
        """Take the weights of a policy file; CheckpointError where networks are missing or of another shape."""
        if missing := [name for name in self.algorithm.modules if name not in policy["modules"]]:
            raise CheckpointError(
                f"{source} holds no network {missing[0]!r}, which its settings ask for: "
                "an older version wrote it, start a new run"
            )
        try:
            for name, module in self.algorithm.modules.items():
                module.load_state_dict(policy["modules"][name])
        except RuntimeError as error:
            raise CheckpointError(f"{source} does not fit its own settings: {' '.join(str(error).split())}") from None

    def _check_settings(self, saved: TrainConfig, policy_file: Path) -> None:
        """CheckpointError where a checkpoint was made under settings of which this run has others."""
        before, now = saved.flat(), self.config.flat()
        for name in sorted(set(before) - configs.CHANGEABLE_ON_RESUME - {"out"}):
            if before[name] != now.get(name):
                raise CheckpointError(
                    f"{policy_file} was saved with --{name.replace('_', '-')} {before[name]}, and the run's settings "
                    f"say {now.get(name)}: {self.folder / 'config.json'} was changed, set that back"
                )

    def _restore(self, training: dict[str, Any]) -> None:
        self.algorithm.load_state_dict(training["algorithm"])
        self.generator.set_state(training["generator"])
        self.step = self.saved = training["step"]
        self.updates = training["updates"]
        self.resumed = training["resumed"] + 1
        if workers := vector.workers_of(self.env):
            restarts = training["worker_restarts"] or workers.restarts
            if len(restarts) != len(workers.restarts):
                raise ValueError(f"worker_restarts are of {len(restarts)} workers")
            workers.restarts = restarts
        if training["env"] is not None:
            observed = self.env.restore(checkpoint.to_arrays(training["env"]))
            self.collector.go_on(observed, training["collector"])
        else:
            self.collector.start(self.env.reset(self.config.seed + RESUME_SEED_STRIDE * self.resumed))


def pick_device(name: str) -> torch.device:
    """The device `name`; ConfigError with the fix where there is none."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            f"--device {name} cannot be used ({reason}): use cpu, or cuda on a machine with one"
        ) from None
    return device


def folder_of(config: TrainConfig) -> Path:
    """Where a new run goes: `--out`, or a name of its settings and the time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path(config.out) if config.out else Path("runs") / f"{config.run_name}__{stamp}"


def new_folder(config: TrainConfig, folder: Path) -> None:
    """Begin a run in an empty `folder`; ConfigError where it cannot be written or already holds a run."""
    if (folder / "config.json").exists() and checkpoint.begun(folder):
        again = f"--resume {shlex.quote(str(folder))}"
        raise ConfigError(f"--out {folder} already holds a run: go on with {again}, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_settings(folder, config)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written ({error.strerror}): choose another folder") from None


def write_settings(folder: Path, config: TrainConfig) -> None:
    """Write config.json and versions.json, which stand beside the checkpoints; the folder is made where it is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", configs.to_json(config).encode())
    write_atomically(folder / "versions.json", json.dumps(versions(), indent=2).encode())


def versions() -> dict[str, str]:
    """What ran: the package, what it stands on, and the platform."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("rqe-mappo", "torch", "numpy", "gymnasium", "pettingzoo", "libsumo"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
