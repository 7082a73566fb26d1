"""A Gymnasium environment of several agents as a PettingZoo one, as level-based foraging and RWARE write them."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Tuple
from pettingzoo import ParallelEnv

from rqe_mappo.envs.by_name.one_agent import Malformed, parts_of

STEP = "observations, rewards, terminated, truncated, info"


def has_agents_in_tuples(env: gymnasium.Env) -> bool:
    """Whether its spaces are tuples with a part for each agent."""
    seen, does = env.observation_space, env.action_space
    return isinstance(seen, Tuple) and isinstance(does, Tuple) and len(seen) == len(does) > 0


class AgentsInTuples(ParallelEnv):
    """A Gymnasium environment whose observations, actions and rewards hold a part for each agent, in order.

    What reset() and step() give is `Malformed` where there are not as many parts as agents. A reward, termination or
    truncation that is a single one is that of every agent; so is `info`, unless it is a list with one for each. The
    agents leave together, at the step by which all have ended, each as it ended.
    """

    def __init__(self, env: gymnasium.Env):
        self.env, self.metadata = env, env.metadata
        spaces: Any = env.observation_space, env.action_space  # tuples, see `has_agents_in_tuples`
        self.seen, self.does = (list(space) for space in spaces)
        self.possible_agents = [f"agent_{number}" for number in range(len(self.seen))]
        self.agents: list[str] = []
        self.ended: dict[str, tuple[bool, bool]] = {}

    def observation_space(self, agent: str) -> gymnasium.Space:
        return self.seen[self.possible_agents.index(agent)]

    def action_space(self, agent: str) -> gymnasium.Space:
        return self.does[self.possible_agents.index(agent)]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        obs, info = parts_of(self.env.reset(seed=seed, options=options), "reset", "observations, info")
        self.agents, self.ended = list(self.possible_agents), {}
        return self._each(obs, "observations", "reset"), self._infos(info, "reset")

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        chosen = tuple(actions[agent] for agent in self.possible_agents)
        obs, *given, info = parts_of(self.env.step(chosen), "step", STEP)
        rewards, terminated, truncated = (
            self._each(part, name, "step") if isinstance(part, Sequence) or np.ndim(part)
            else dict.fromkeys(self.possible_agents, part)
            for part, name in zip(given, STEP.split(", ")[1:4], strict=True)
        )  # fmt: skip
        seen = self._each(obs, "observations", "step")
        for agent in self.possible_agents:
            if np.any(terminated[agent]) or np.any(truncated[agent]):  # of what is no flag, `Copy` complains
                self.ended.setdefault(agent, (terminated[agent], truncated[agent]))
        if len(self.ended) == len(self.possible_agents):
            self.agents = []
            terminated, truncated = ({agent: self.ended[agent][end] for agent in self.ended} for end in (0, 1))
        else:
            terminated, truncated = (dict.fromkeys(self.possible_agents, False) for _ in range(2))
        return seen, rewards, terminated, truncated, self._infos(info, "step")

    def _infos(self, info: Any, method: str) -> dict[str, Any]:
        each = isinstance(info, list | tuple)
        return self._each(info, "infos", method) if each else dict.fromkeys(self.possible_agents, info)

    def _each(self, given: Any, name: str, method: str) -> dict[str, Any]:
        count = len(given) if isinstance(given, Sequence | np.ndarray) else 1
        if count != len(self.possible_agents):
            wanted = len(self.possible_agents)
            raise Malformed(f"{method}() must give {name} of {wanted} agents, in order (got {count})")
        return dict(zip(self.possible_agents, given, strict=True))

    def close(self) -> None:
        self.env.close()
