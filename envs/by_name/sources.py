"""Environments of other packages, found by name or made by a factory, as one `BatchedEnv`."""

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv
from pettingzoo import AECEnv, ParallelEnv

from rqe_mappo.envs.by_name import trial
from rqe_mappo.envs.by_name.agents_in_tuples import AgentsInTuples, has_agents_in_tuples
from rqe_mappo.envs.by_name.batched_copies import BatchedCopies
from rqe_mappo.envs.by_name.config import ByNameConfig
from rqe_mappo.envs.by_name.global_generators import GlobalGenerators
from rqe_mappo.envs.by_name.one_agent import OneAgent
from rqe_mappo.envs.by_name.one_copy import raised
from rqe_mappo.envs.contract import BatchedEnv

Factory = Callable[..., Any]
IN_TURN = (
    "its agents act in turn: convert it with pettingzoo.utils.aec_to_parallel, "
    "as in parallel_env = lambda: aec_to_parallel(env()) in a module of your own"
)
KINDS = "gymnasium:ID, pettingzoo:MODULE or MODULE:FACTORY"


def make(config: ByNameConfig, num_envs: int) -> BatchedEnv:
    """Copies of the environment that `config.name` names; ValueError, in one line, where there is none."""
    return batched_from(_factory(config.name), num_envs, config)


def batched_from(factory: Factory, num_envs: int, config: ByNameConfig | None = None) -> BatchedEnv:
    """A `BatchedEnv` of what a factory gives.

    A factory that takes `num_envs` is called once, with it, and has to give a `BatchedEnv`. Any other is called without
    arguments, once for each copy, and has to give a new gymnasium.Env or PettingZoo ParallelEnv each time; `config`
    then bounds episodes and rewards.

    Raises ValueError, in one line, where the factory fails or gives something else.
    """
    config = config or ByNameConfig(getattr(factory, "__qualname__", type(factory).__name__))
    if "num_envs" in _parameters(factory):
        env = _called(factory, config.name, num_envs=num_envs)
        missing = [name for name in BatchedEnv.__annotations__ if not hasattr(env, name)]
        if missing:
            raise ValueError(
                f"--env {config.name} takes num_envs and gives a {type(env).__name__}, which is no BatchedEnv: "
                f"it has no {', '.join(missing)}"
            )
        return env
    with GlobalGenerators(trial.SEED):  # so that what their makers draw is the same in every process
        envs = [_parallel(_called(factory, config.name), config.name) for _ in range(num_envs)]
    if len({id(env.env if isinstance(env, OneAgent | AgentsInTuples) else env) for env in envs}) < num_envs:
        raise ValueError(f"--env {config.name} gives the same environment twice: make a new one in each call")
    return BatchedCopies(envs, config)


def _factory(name: str) -> Factory:
    """What `name` names, not yet called."""
    kind, _, rest = name.partition(":")
    if not kind or not rest or name.startswith(".") or (kind == "pettingzoo" and rest.startswith(".")):
        raise ValueError(f"--env {name} is unknown: use {KINDS}")
    if kind == "gymnasium":
        return partial(gymnasium.make, rest, disable_env_checker=True)  # `Copy` looks more closely
    module, attribute = (rest, "parallel_env") if kind == "pettingzoo" else (kind, rest)
    try:
        found = import_module(module)
    except ImportError as error:
        fix = f"run from the folder that holds {module}, or pip install what it belongs to"
        raise ValueError(f"--env {name} cannot be imported ({error}): {fix}") from None
    if not hasattr(found, attribute):
        turns = kind == "pettingzoo" and (hasattr(found, "env") or hasattr(found, "raw_env"))
        raise ValueError(
            f"--env {name}: the module {module} has no {attribute}(){f', but an env(): {IN_TURN}' * turns}"
        )
    factory = getattr(found, attribute)
    if not callable(factory):
        raise ValueError(f"--env {name}: {attribute} is of type {type(factory).__name__}: name a class or a function")
    return factory


def _parameters(factory: Factory) -> list[str]:
    try:
        return list(inspect.signature(factory).parameters)
    except ValueError:  # of some built-in callables it is not known
        return []


def _called(factory: Factory, name: str, **arguments: int) -> Any:
    try:
        return factory(**arguments)
    except ImportError as error:
        raise ValueError(f"--env {name} cannot be imported ({error}): pip install what it belongs to") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"--env {name}: {error}") from error
    except (TypeError, AttributeError) as error:  # such as arguments without a default
        raise ValueError(f"--env {name} cannot be opened by its name alone: {error}") from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"--env {name} cannot be opened: it raised {raised(error)}") from error


def _parallel(env: Any, name: str) -> ParallelEnv:
    """What a factory gave, as a parallel environment."""
    if isinstance(env, ParallelEnv):
        return env
    if isinstance(env, gymnasium.Env):
        return AgentsInTuples(env) if has_agents_in_tuples(env) else OneAgent(env)
    fix = "return a gymnasium.Env or a PettingZoo ParallelEnv, or take num_envs and return a BatchedEnv"
    if isinstance(env, AECEnv):
        fix = IN_TURN
    if isinstance(env, VectorEnv):
        fix = "return a single environment, of which copies are made"
    raise ValueError(f"--env {name} gives a {type(env).__name__}: {fix}")
