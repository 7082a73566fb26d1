"""Games of fixed length as PettingZoo parallel environments."""

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from pettingzoo import ParallelEnv

from rqe_mappo.envs.contract import Observed, action_dtype
from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.fixed_length.game import Game


class FixedLengthEnv(ParallelEnv):
    """One copy of a `Game`. `state()` is what a centralised critic takes, float32 `[A, S]`, a row an agent.

    `info` of each agent has its `cost` after a step.
    """

    def __init__(self, game: Game):
        self.batch = BatchedFixedLength(game)
        self.possible_agents = list(game.players)
        self.agents: list[str] = []
        self.following: Observed | None = None  # the batch has begun the next episode with the end of the last
        self.render_mode = None
        seen, shown = self.batch.observation_space, self.batch.state_space
        rows = (len(self.possible_agents), 1)
        self.state_space = Box(np.tile(shown.low, rows), np.tile(shown.high, rows))
        # Generators of spaces are their own.
        self.actions = {agent: deepcopy(game.action_space) for agent in self.possible_agents}
        self.observations = {agent: deepcopy(seen) for agent in self.possible_agents}

    def observation_space(self, agent: str) -> Space:
        return self.observations[agent]

    def action_space(self, agent: str) -> Space:
        return self.actions[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode; without a seed the random numbers go on where they are."""
        if seed is not None or not hasattr(self.batch, "rng"):
            begun = self.batch.reset(seed)
        else:
            begun = self.following or self.batch.restart()
        self.agents, self.following = self.possible_agents[:], None
        return self._shown(begun.obs[0], begun.state[0]), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """One decision of all agents; ValueError if one is missing or does not exist."""
        acting = self.agents
        if missing := [agent for agent in acting if agent not in actions]:
            raise ValueError(f"step() needs an action for every agent in env.agents (missing: {', '.join(missing)})")
        if not acting:
            return {}, {}, {}, {}, {}
        chosen = np.array([[actions[agent] for agent in acting]], action_dtype(self.batch.action_space))
        step = self.batch.step(chosen)
        rewards = dict(zip(acting, step.reward[0].tolist(), strict=True))
        terminated = dict.fromkeys(acting, False)
        truncated = dict(zip(acting, step.truncated[0].tolist(), strict=True))
        infos = {agent: {"cost": cost} for agent, cost in zip(acting, step.cost[0].tolist(), strict=True)}
        if not step.truncated.any():
            return self._shown(step.obs[0], step.state[0]), rewards, terminated, truncated, infos
        self.agents, self.following = [], step
        return self._shown(step.final_obs, step.final_state), rewards, terminated, truncated, infos

    def _shown(self, seen: np.ndarray, state: np.ndarray) -> dict[str, np.ndarray]:
        self.shown = state
        return dict(zip(self.possible_agents, seen, strict=True))

    def state(self) -> np.ndarray:
        """What a centralised critic takes; see the class."""
        return self.shown
