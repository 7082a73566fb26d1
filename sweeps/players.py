"""The runs that meet in cross-play: what they are called, and whether they can act in one environment."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rqe_mappo import checkpoint
from rqe_mappo import config as configs
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.deploy.policy import Policy

LEFT_OUT = {"seed", "out", "device", "eval_episodes", "save_interval", "log_interval", "keep", "num_workers"}
STRATEGIC = "strategic_tau"  # named beside a tau, lest `srpo tau inf` be taken for what it is not


@dataclass(frozen=True)
class Player:
    """A run: its policy file, what it is called, and its setting, which is everything but the seed."""

    path: str
    name: str
    setting: str
    seed: int


def known_players(runs: Sequence[Path], trusted: bool, folder: Path) -> list[Player]:
    """The runs, once it is known that they can act in the first one's environment.

    trusted: whether modules that their settings name may be imported.
    folder: where their policies are copied to, so that a run that still trains is the same one in every cell.
    """
    for path in runs if trusted else ():
        configs.trust(path)
    files = [_copied(path, folder / f"{number}.policy.pt") for number, path in enumerate(runs)]
    policies = [load_run(file) for file in files]
    found = [configs.from_json(policy.config_json) for policy in policies]
    for path, policy, config in zip(runs, policies, found, strict=True):
        if policy.timesteps < config.total_timesteps:
            print(f"{path} is not finished: {policy.timesteps:,} of {config.total_timesteps:,} steps")
        if config.env != found[0].env or _faces(policy) != _faces(policies[0]):
            raise ConfigError(
                f"--cross-play {path} is of {config.env} with other agents, observations or actions than "
                f"{runs[0]} of {found[0].env}: give runs that can act in the same environment"
            )
        if config.env_config != found[0].env_config:
            print(f"{path} was trained in other settings of {config.env}, and acts in those of {runs[0]}")
    if len(policies[0].agents) == 1:
        raise ConfigError(f"--cross-play {runs[0]} is of one agent, which has no others: use rqe-eval RUN")
    settings = [setting_of(config, found) for config in found]
    plain = [f"{setting} s{config.seed}" for setting, config in zip(settings, found, strict=True)]
    names = [name if plain.count(name) == 1 else str(path) for name, path in zip(plain, runs, strict=True)]
    return [
        Player(str(file), name, setting, config.seed)
        for file, name, setting, config in zip(files, names, settings, found, strict=True)
    ]


def _copied(run: Path, to: Path) -> Path:
    """A copy of a run's newest policy, which was read as one before: what is wrong with it is told by its own path."""
    load_run(run)
    shutil.copyfile(checkpoint.newest(run)[0] if run.is_dir() else run, to)
    return to


def _faces(policy: Policy) -> tuple[Any, ...]:
    """What must be the same of policies that act side by side; how a Gaussian comes into its bounds need not be."""
    return policy.agents, policy.spec.obs_dim, replace(policy.spec.actions, squash="tanh")


def setting_of(config: TrainConfig, others: Sequence[TrainConfig]) -> str:
    """The algorithm, and the flags in which the run differs from another of that algorithm, but for the seed."""
    mine, flats = config.flat(), [other.flat() for other in others if other.algo == config.algo]
    differing = {
        name for name in mine
        if name not in LEFT_OUT and any(other.get(name, mine[name]) != mine[name] for other in flats)
    }  # fmt: skip
    shown = [name for name in mine if name in differing or (name, "tau") == (STRATEGIC, *differing & {"tau"})]
    return " ".join([config.algo, *(f"{name.replace('_', '-')} {_spelled(mine[name])}" for name in shown)])


def _spelled(value: Any) -> str:
    numbers = isinstance(value, float) or (isinstance(value, tuple) and all(isinstance(one, float) for one in value))
    return configs.spelled(value) if numbers and value != () else str(value)
