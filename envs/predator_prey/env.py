"""Predator-prey as a PettingZoo parallel environment."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from pettingzoo import ParallelEnv

from rqe_mappo.envs.predator_prey.config import PredatorPreyConfig
from rqe_mappo.envs.predator_prey.dynamics import ACTIONS, STAY, PredatorPreyDynamics
from rqe_mappo.envs.predator_prey.features import Features


class PredatorPreyEnv(ParallelEnv):
    """Predators on a grid without exits hunt prey that flee at random; two of them have to catch together.

    The game of Son et al. (QTRAN, arXiv 1905.05408) and Boehmer, Kurin & Whiteson (DCG, arXiv 1910.00091), after the
    latter's description.

    **Action**: Discrete(6): stay, up, down, left, right, catch. A move needs a free cell, a catch prey in one of the
    four neighbouring cells; what is not available is `stay`. `info["action_mask"]` says what is.

    **A step**: predators move one after the other in an order that is drawn, and who finds the cell taken by then
    stays. Then catches count: prey beside which two or more catch is caught, and leaves with all of them. Each predator
    counts for one prey. Then each prey goes to a free neighbouring cell, all alike, and stays where there is none. No
    cell ever holds two.

    **Reward**, the same for every predator on the grid: 10 for each prey caught, less `punishment` for each predator
    that tried to catch and took part in no capture.

    **Observation**: the cells up to `sight` away, along rows; which hold predators, which prey, which are walls, and
    with `observe_time` the time left, 1 to 0: float32 `[3 (2 sight + 1)^2 (+ 1)]`.

    **State**, a row a predator: all cells; which hold predators, which prey, which is its own, and the time left
    likewise: float32 `[3 size^2 (+ 1)]`. Rows of those that left are zero.

    **End**: a predator terminates when it leaves; all do when no prey is left. Truncated after `horizon` steps.

    **Info** of each agent: `action_mask`, int8 `[6]`, and after a step `cost`, 1.0 for a lone catch and else 0.0.

    Ours: walls are seen; a fine for every predator that fails, not for every prey; the end where no prey is left; and a
    predator that left is gone, where elsewhere it goes on with nothing to do and is paid for what the others catch.
    """

    metadata = {  # noqa: RUF012  (as PettingZoo declares it)
        "name": "predator_prey_v0",
        "render_modes": [],
        "common_reward": True,
    }

    def __init__(self, config: PredatorPreyConfig | None = None):
        self.config = config or PredatorPreyConfig()
        self.dynamics = PredatorPreyDynamics(self.config, 1)
        self.features = Features(self.config, self.dynamics)
        self.possible_agents = [f"predator_{i}" for i in range(self.config.n_predators)]
        self.agents: list[str] = []
        self.render_mode = None
        self.state_space = Box(0, 1, (len(self.possible_agents), *self.features.state_space.shape), np.float32)
        self.actions = {agent: Discrete(ACTIONS) for agent in self.possible_agents}
        self.observations = {agent: self.features.observation_space for agent in self.possible_agents}
        self.rng = np.random.default_rng()

    def observation_space(self, agent: str) -> Space:
        return self.observations[agent]

    def action_space(self, agent: str) -> Space:
        return self.actions[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode; without a seed the random numbers go on where they are."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.dynamics.reset(self.rng)
        self.agents = self.possible_agents[:]
        return self._shown(self.agents), self._infos(self.agents)

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """One decision of all agents on the grid; ValueError if one is missing or does not exist."""
        acting = self.agents
        if missing := [agent for agent in acting if agent not in actions]:
            raise ValueError(f"step() needs an action for every agent in env.agents (missing: {', '.join(missing)})")
        chosen = np.full((1, len(self.possible_agents)), STAY)
        for agent in acting:
            chosen[0, self.possible_agents.index(agent)] = actions[agent]
        moved = self.dynamics.step(chosen, self.rng)
        places = {agent: self.possible_agents.index(agent) for agent in acting}
        rewards = dict.fromkeys(acting, float(moved.reward[0]))
        terminated = {agent: bool(moved.terminated[0, i]) for agent, i in places.items()}
        truncated = {agent: bool(moved.truncated[0, i]) for agent, i in places.items()}
        infos = self._infos(acting)
        for agent, i in places.items():
            infos[agent]["cost"] = float(moved.lone[0, i])
        self.agents = [agent for agent in acting if not (terminated[agent] or truncated[agent])]
        return self._shown(acting), rewards, terminated, truncated, infos

    def _shown(self, agents: list[str]) -> dict[str, np.ndarray]:
        rows = self.features.obs()[0]
        return {agent: rows[self.possible_agents.index(agent)] for agent in agents}

    def _infos(self, agents: list[str]) -> dict[str, dict[str, Any]]:
        masks = self.dynamics.available()[0].astype(np.int8)
        return {agent: {"action_mask": masks[self.possible_agents.index(agent)]} for agent in agents}

    def state(self) -> np.ndarray:
        """What a centralised critic takes; see the class."""
        return self.features.state()[0]
