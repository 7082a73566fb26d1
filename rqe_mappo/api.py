"""The package from Python: train, evaluate, and register environments and algorithms of one's own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rqe_mappo import config as configs
from rqe_mappo import registry
from rqe_mappo.config import TrainConfig
from rqe_mappo.deploy.interpolation import Mixture
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import ByNameConfig, batched_from
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.evaluation.evaluation import Evaluation
from rqe_mappo.evaluation.evaluation import evaluate as evaluate_policy
from rqe_mappo.training.loop import OnEpisodes, OnUpdate
from rqe_mappo.training.loop import train as train_run


def default_config(env: str, scenario: str = "default", algo: str = "rqe-mappo", **settings: Any) -> TrainConfig:
    """The settings of a run: the recipe for the environment and the algorithm, changed by `settings`.

    settings: of the run, the algorithm or the environment, by the names of their flags: `tau=0.3`.
    Raises ConfigError, in one line, for names and values that cannot be.

    >>> config = default_config("sumo", tau=0.3, total_timesteps=200_000)
    """
    return configs.default_config(env, scenario, algo).replace(**settings)


def train(
    config: TrainConfig | str,
    *,
    resume: str | Path | None = None,
    on_update: OnUpdate | None = None,
    on_episodes: OnEpisodes | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Path:
    """Train, and give the run folder, from which `Policy.load` takes the policy.

    config: from `default_config`, or the name of an environment, whose recipe is used.
    resume: a run folder to go on with; its settings have to be those of `config`, but for a longer training.
    on_update: called after each update as `on_update(step, scalars)`; returning True stops the run, which saves first.
    on_episodes: called as `on_episodes(step, records)` with the episodes that ended (`Step.episodes`), likewise.
    quiet: print nothing.
    settings: changes of `config`, as in `default_config`; `scenario` and `algo` too, with the name of an environment.

    >>> folder = train("cartpole", tau=0.3, total_timesteps=100_000)
    >>> folder = train("sumo", scenario="dense", algo="qmix")
    """
    chosen = default_config(config, **settings) if isinstance(config, str) else config.replace(**settings)
    threads = torch.get_num_threads()
    try:
        cards = range(torch.cuda.device_count())
        with torch.random.fork_rng(cards, device_type="cuda"):  # a run seeds PyTorch's own generators
            return train_run(
                chosen,
                None if resume is None else Path(resume),
                on_update=on_update,
                on_episodes=on_episodes,
                quiet=quiet,
            )
    finally:
        torch.set_num_threads(threads)


def evaluate(
    policy: Policy | Mixture | str | Path,
    episodes: int = 1000,
    seed: int = 12345,
    deterministic: bool = False,
    trust: bool = False,
) -> Evaluation:
    """Run a policy in its environment: returns, tails and incidents with intervals, and how well its critic predicts.

    policy: a policy, a mixture of some, or a run folder.
    episodes: a fixed number for each copy of the environment.
    deterministic: take the most probable action; with eps > 0 the trained policy is the one that draws.
    trust: the run is your own: import the environment or algorithm of a module that its settings name.

    >>> print(evaluate("runs/safe", episodes=200))
    """
    if trust and isinstance(policy, str | Path):
        configs.trust(Path(policy))
    loaded = load_run(policy) if isinstance(policy, str | Path) else policy
    if trust:
        for each in loaded.policies if isinstance(loaded, Mixture) else (loaded,):
            settings = json.loads(each.config_json)
            registry.vouch(settings["env"], settings["algo"])
    return evaluate_policy(loaded, episodes, seed, deterministic)


@dataclass(frozen=True)
class _Copies:
    """The copies of an environment that a user registered."""

    factory: Callable[..., Any]
    configured: bool

    def __call__(self, config: Any, num_envs: int) -> BatchedEnv:
        if self.configured:
            return self.factory(config, num_envs)
        return batched_from(self.factory, num_envs, config)


def register_env(
    name: str,
    factory: Callable[..., Any],
    scenarios: dict[str, Any] | None = None,
    recipe: Callable[[str], dict[str, Any]] | None = None,
) -> None:
    """Make `factory` known as the environment `name`.

    factory: without `scenarios` it is called without arguments and gives a new gymnasium.Env or PettingZoo
        ParallelEnv each time, or it takes `num_envs` and gives a `BatchedEnv`. With `scenarios` it is called as
        `factory(settings, num_envs)` and gives a `BatchedEnv`. With `num_workers` it must be importable by its name.
    scenarios: named settings, frozen dataclasses, one of them "default"; their fields become flags.
    recipe: gives settings of runs and algorithms that train well in a scenario, by their names.
    """
    if ":" in name:
        raise ValueError(f"{name} is no name for an environment: leave the colon out, it stands for MODULE:FACTORY")
    known = {"default": ByNameConfig(name=name)} if scenarios is None else scenarios
    copies = _Copies(factory, scenarios is not None)
    registry.ENVIRONMENTS[name] = registry.Environment(copies, known, recipe or registry.BY_NAME.recipe)


def register_algorithm(name: str, algorithm: type) -> None:
    """Make a class that keeps the contract of `rqe_mappo.algorithms.contract` known as the algorithm `name`."""
    if ":" in name:
        raise ValueError(f"{name} is no name for an algorithm: leave the colon out, it stands for MODULE:CLASS")
    registry.ALGORITHMS[name] = algorithm
