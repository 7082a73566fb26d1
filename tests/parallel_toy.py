"""A PettingZoo module of our own, found by its name: agents that differ, leave one by one, or are cut off."""

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from pettingzoo import ParallelEnv


class Countdown(ParallelEnv):
    """`quick` terminates after 2 decisions, `slow` is truncated after 4; each earns its action, `slow` costs 1 each."""

    possible_agents = ("quick", "slow")
    metadata = {"name": "countdown_v0"}  # noqa: RUF012

    def observation_space(self, agent):
        return Box(-1, 9, (2,)) if agent == "quick" else Dict({"time": Box(0, 9, (1,)), "seed": Box(0, 1, (3,))})

    def action_space(self, agent):
        return Discrete(2 if agent == "quick" else 3)

    def _obs(self):
        slow = {"time": np.array([self.time], np.float32), "seed": self.drawn}
        seen = {"quick": np.array([self.time, -1], np.float32), "slow": slow}
        return {agent: seen[agent] for agent in self.shown}

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.time, self.agents, self.shown = 0, ["quick", "slow"], ["quick", "slow"]
        self.drawn = self.rng.random(3).astype(np.float32)
        return self._obs(), {agent: {} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.time += 1
        self.shown = list(self.agents)
        dead = {agent: agent == "quick" and self.time == 2 for agent in self.shown}
        cut = {agent: agent == "slow" and self.time == 4 for agent in self.shown}
        infos = {agent: {"cost": 1.0} if agent == "slow" else {} for agent in self.shown}
        self.agents = [agent for agent in self.shown if not dead[agent] and not cut[agent]]
        return self._obs(), {agent: float(actions[agent]) for agent in self.shown}, dead, cut, infos


parallel_env = Countdown


class Echo(ParallelEnv):
    """Agents with any spaces; each earns the sum of its action, which must lie in its space, and is cut off after 3.

    masks: what each agent may choose at each time, `masks[agent][time]`, put into its info, or into its observation
        where that has a place for it.
    received: the actions of each decision.
    """

    metadata = {"name": "echo_v0"}  # noqa: RUF012

    def __init__(self, actions, observations=None, masks=None, common_reward=None):
        self.possible_agents = list(actions)
        self.spaces, self.masks, self.received = actions, masks or {}, []
        self.seen = observations or dict.fromkeys(actions, Box(0, 9, (1,)))
        self.metadata = self.metadata | ({} if common_reward is None else {"common_reward": common_reward})

    def observation_space(self, agent):
        return self.seen[agent]

    def action_space(self, agent):
        return self.spaces[agent]

    def _shown(self):
        seen, infos = {}, {}
        for agent in self.agents:
            self.seen[agent].seed(self.time)
            seen[agent], infos[agent] = self.seen[agent].sample(), {}
            if agent in self.masks:
                holder = seen[agent] if isinstance(seen[agent], dict) else infos[agent]
                holder["action_mask"] = np.array(self.masks[agent][self.time], np.int8)
        return seen, infos

    def reset(self, seed=None, options=None):
        self.time, self.agents = 0, list(self.possible_agents)
        return self._shown()

    def step(self, actions):
        for agent, action in actions.items():
            assert self.spaces[agent].contains(action), (agent, action)
            if agent in self.masks:
                assert self.masks[agent][self.time][action - self.spaces[agent].start], "not available"
        self.received.append(actions)
        self.time += 1
        seen, infos = self._shown()
        gained = {agent: float(np.sum(action)) for agent, action in actions.items()}
        over = self.time == 3
        if over:
            self.agents = []
        return seen, gained, dict.fromkeys(actions, False), dict.fromkeys(actions, over), infos
