"""A run in its folder: everything that a checkpoint must hold to go on as if nothing had happened."""

import json
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rqe_mappo import checkpoint, nets, registry
from rqe_mappo import config as configs
from rqe_mappo.algorithms.contract import Algorithm, Progress
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data import finite, vector
from rqe_mappo.data.collector import Collector
from rqe_mappo.envs.contract import BatchedEnv

RESUME_SEED_STRIDE = 1009  # environments that cannot go on exactly start their next episodes from a fresh seed


@dataclass
class Run:
    """A run and where it stands: decisions of single agents, updates, how often it was resumed, last save."""

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

    @classmethod
    def build(cls, config: TrainConfig, folder: Path, env: BatchedEnv) -> "Run":
        """A run at its beginning."""
        device = pick_device(config.device)
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        algorithm = registry.algorithm(config.algo)(config, env, generator)
        actor = algorithm.modules.get("actor")
        if actor is not algorithm.actor or nets.describe(actor) is None:
            raise ConfigError(
                f"--algo {config.algo} could not be loaded again: its actor must be in `modules` as 'actor', "
                "with a `spec` and a `kind` that rqe_mappo.nets.register knows"
            )
        collector = Collector(env, algorithm.actor, config.num_steps, device, generator)
        return cls(folder, config, env, algorithm, collector, generator)

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
        finite.check_weights(self.algorithm.modules)
        finite.check_state(training["algorithm"], "the algorithm's")
        checkpoint.save(self.folder, self.step, self.policy_content(), training, self.config.keep)
        self.saved = self.step

    def restore(self) -> None:
        """Go on from the folder's newest checkpoint: exactly, where the environment can."""
        policy_file, training_file = checkpoint.newest(self.folder)
        policy = checkpoint.load_policy_file(policy_file)
        training = checkpoint.load_training_file(training_file)
        for name, module in self.algorithm.modules.items():
            module.load_state_dict(policy["modules"][name])
        self.algorithm.load_state_dict(training["algorithm"])
        self.generator.set_state(training["generator"])
        self.step = self.saved = training["step"]
        self.updates = training["updates"]
        self.resumed = training["resumed"] + 1
        if workers := vector.workers_of(self.env):
            workers.restarts = training["worker_restarts"] or workers.restarts
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


def new_folder(config: TrainConfig) -> Path:
    """An empty folder for a run; ConfigError where it cannot be written or already holds a run."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(config.out) if config.out else Path("runs") / f"{config.run_name}__{stamp}"
    if (folder / "config.json").exists():
        raise ConfigError(f"--out {folder} already holds a run: go on with --resume {folder}, or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(folder / "config.json", configs.to_json(config).encode())
        checkpoint.write_atomically(folder / "versions.json", json.dumps(versions(), indent=2).encode())
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written ({error.strerror}): choose another folder") from None
    return folder


def versions() -> dict[str, str]:
    """What ran: the package, what it stands on, and the platform."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("rqe-mappo", "torch", "numpy", "gymnasium", "pettingzoo", "libsumo"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
