"""A Gymnasium environment as a PettingZoo one."""

from typing import Any

import gymnasium
from pettingzoo import ParallelEnv


class OneAgent(ParallelEnv):
    """A Gymnasium environment whose only agent is `agent`."""

    def __init__(self, env: gymnasium.Env):
        self.env = env
        self.possible_agents = ["agent"]
        self.agents: list[str] = []
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
        obs, reward, terminated, truncated, info = self.env.step(actions["agent"])
        if terminated or truncated:
            self.agents = []
        return {"agent": obs}, {"agent": reward}, {"agent": terminated}, {"agent": truncated}, {"agent": info}

    def close(self) -> None:
        self.env.close()
