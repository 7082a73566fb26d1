"""Finding an environment by its name; a Gymnasium environment becomes a parallel one with a single agent."""

from importlib import import_module
from typing import Any

import gymnasium
from pettingzoo import ParallelEnv

from rqe_mappo.envs.by_name.config import ByNameConfig

KINDS = ("gymnasium", "pettingzoo")


class OneAgent(ParallelEnv):
    """A Gymnasium environment whose only agent is `agent`."""

    possible_agents = ("agent",)

    def __init__(self, env: gymnasium.Env):
        self.env, self.agents = env, []
        self.metadata = env.metadata

    def observation_space(self, agent: str) -> gymnasium.Space:
        return self.env.observation_space

    def action_space(self, agent: str) -> gymnasium.Space:
        return self.env.action_space

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        obs, info = self.env.reset(seed=seed, options=options)
        self.agents = ["agent"]
        return {"agent": obs}, {"agent": info}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        parts = self.env.step(actions["agent"])
        if parts[2] or parts[3]:
            self.agents = []
        return tuple({"agent": part} for part in parts)

    def close(self) -> None:
        self.env.close()


def open_env(config: ByNameConfig) -> ParallelEnv:
    """One environment of that name; ValueError, in one line, where there is none."""
    kind, _, name = config.name.partition(":")
    if kind not in KINDS or not name or (kind == "pettingzoo" and name.startswith(".")):
        raise ValueError(f"--env {config.name} is unknown: use gymnasium:ID or pettingzoo:MODULE")
    try:
        if kind == "gymnasium":
            return OneAgent(gymnasium.make(name))
        module = import_module(name)
        if not hasattr(module, "parallel_env"):
            raise ValueError(f"--env {config.name}: the module {name} has no parallel_env()")
        return module.parallel_env()
    except ImportError as error:
        raise ValueError(f"--env {config.name} cannot be imported ({error}): pip install what it belongs to") from None
    except gymnasium.error.Error as error:
        raise ValueError(f"--env {config.name}: {error}") from None
    except (TypeError, AttributeError) as error:  # such as arguments without a default
        raise ValueError(f"--env {config.name} cannot be opened by its name alone: {error}") from None
