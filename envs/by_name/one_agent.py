"""A Gymnasium environment as a PettingZoo one."""

from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

from rqe_mappo.spaces import MASK


class OneAgent(ParallelEnv):
    """A Gymnasium environment whose only agent is `agent`.

    The masks of an environment that has a method `action_masks`, as sb3-contrib asks for, are put into its infos.
    """

    def __init__(self, env: gymnasium.Env):
        self.env = env
        self.possible_agents = ["agent"]
        self.agents: list[str] = []
        self.metadata = env.metadata
        self.masks = env.get_wrapper_attr("action_masks") if env.has_wrapper_attr("action_masks") else None

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        return info if self.masks is None or MASK in info else {**info, MASK: self.masks()}

    def observation_space(self, agent: str) -> gymnasium.Space:
        return self.env.observation_space

    def action_space(self, agent: str) -> gymnasium.Space:
        return self.env.action_space

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        obs, info = self.env.reset(seed=seed, options=options)
        self.agents = ["agent"]
        return {"agent": obs}, {"agent": self._info(info)}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        obs, reward, terminated, truncated, info = self.env.step(actions["agent"])
        if np.any(terminated) or np.any(truncated):  # of what is no flag, `Copy` complains
            self.agents = []
        seen, earned, info = {"agent": obs}, {"agent": reward}, {"agent": self._info(info)}
        return seen, earned, {"agent": terminated}, {"agent": truncated}, info

    def close(self) -> None:
        self.env.close()
