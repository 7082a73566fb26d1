"""Copies of somebody else's environment, stepped one after the other in this process."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, flatdim, flatten

from rqe_mappo.envs.by_name.config import ByNameConfig
from rqe_mappo.envs.by_name.sources import open_env
from rqe_mappo.envs.contract import Observed, PaddedDiscrete, Step

TRIAL_EPISODES, TRIAL_SEED = 20, 0
MARGIN = 0.5  # of the range of rewards that random actions brought, added at either end


class BatchedByName:
    """A `BatchedEnv` of E copies of one environment, found by its name.

    Observations are flattened, and padded with zeros to the longest of any agent. The critic sees the observations of
    all agents side by side, those of agents that left as zeros, its own agent's first. Agents may leave. `cost` is what
    the environment's info says under that name, else 0. Time limits truncate.

    Rewards are bounded by `reward_low` and `reward_high`; where these are not given, by what random actions brought in
    20 episodes and half that range more: rewards beyond lie on the edge atoms of a categorical critic, which is logged.

    Raises ValueError where the actions of an agent are not discrete.
    """

    reward_step = None
    time_in_observation = False

    def __init__(self, config: ByNameConfig, num_envs: int):
        self.config, self.num_envs, self.horizon = config, num_envs, config.max_steps
        self.envs = [open_env(config) for _ in range(num_envs)]
        first = self.envs[0]
        self.possible_agents = tuple(first.possible_agents)
        spaces = [first.action_space(agent) for agent in self.possible_agents]
        for space in spaces:
            if not isinstance(space, Discrete) or space.start != 0:
                raise ValueError(f"--env {config.name}: agents must have discrete actions, from 0 on (got {space})")
        counts = [int(space.n) for space in spaces]
        self.action_space = Discrete(counts[0]) if len(set(counts)) == 1 else PaddedDiscrete(counts)
        self.spaces = [first.observation_space(agent) for agent in self.possible_agents]
        self.width = max(flatdim(space) for space in self.spaces)
        a = len(self.possible_agents)
        self.observation_space = Box(-np.inf, np.inf, (self.width,), np.float32)
        self.state_space = Box(-np.inf, np.inf, (a * self.width,), np.float32)
        self.order = np.array([[i, *(j for j in range(a) if j != i)] for i in range(a)])
        self.obs = np.zeros((num_envs, a, self.width), np.float32)
        self.active = np.zeros((num_envs, a), bool)
        self.steps = np.zeros(num_envs, np.int64)
        self.totals = {name: np.zeros((num_envs, a)) for name in ("return", "cost", "length")}
        self.reward_bounds = self._reward_bounds(counts)
        low, high = self.reward_bounds
        self.return_bounds = min(low * self.horizon, low), max(high * self.horizon, high)

    def _reward_bounds(self, counts: list[int]) -> tuple[float, float]:
        """Given, or measured."""
        if self.config.reward_low is not None:
            return self.config.reward_low, self.config.reward_high
        rng, env, rewards = np.random.default_rng(TRIAL_SEED), self.envs[0], []
        number = dict(zip(self.possible_agents, counts, strict=True))
        for episode in range(TRIAL_EPISODES):
            env.reset(seed=TRIAL_SEED + episode)
            for _ in range(self.horizon):
                step = env.step({agent: int(rng.integers(number[agent])) for agent in env.agents})
                rewards += step[1].values()
                if not env.agents:
                    break
        low, high = float(min(rewards)), float(max(rewards))
        margin = MARGIN * (high - low)
        low, high = min(low - margin, 0.0), max(high + margin, 0.0)
        return (low, high) if low < high else (-1.0, 1.0)  # no reward at all was seen

    def reset(self, seed: int) -> Observed:
        """Start every copy anew, each with a seed of its own."""
        seeds = np.random.SeedSequence(seed).generate_state(self.num_envs)
        for copy, own in enumerate(seeds.tolist()):
            self._begin(copy, own >> 1)
        return self._observed()

    def _begin(self, copy: int, seed: int | None = None) -> None:
        seen, _ = self.envs[copy].reset(seed=seed)
        self._see(copy, seen)
        self.steps[copy] = 0
        for total in self.totals.values():
            total[copy] = 0

    def _see(self, copy: int, seen: dict[str, Any]) -> None:
        """Keep what the agents of a copy see, and who will act."""
        self.obs[copy], self.active[copy] = 0, False
        acting = set(self.envs[copy].agents)
        for index, agent in enumerate(self.possible_agents):
            if agent in seen:
                flat = flatten(self.spaces[index], seen[agent])
                self.obs[copy, index, : len(flat)] = flat
                self.active[copy, index] = agent in acting

    def _state(self, obs: np.ndarray) -> np.ndarray:
        """`[..., A, A * D]` from observations `[..., A, D]`."""
        return obs[..., self.order, :].reshape(*obs.shape[:-1], -1)

    def _observed(self) -> Observed:
        obs = self.obs * self.active[..., None]
        return Observed(obs, self._state(obs) * self.active[..., None], self.active.copy())

    def step(self, actions: np.ndarray) -> Step:
        """`actions`: int64 `[E, A]`."""
        acted, shape = self.active.copy(), self.active.shape
        reward, cost = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        final_state, ended = [], []
        for copy, env in enumerate(self.envs):
            choices = {agent: int(actions[copy, i]) for i, agent in enumerate(self.possible_agents) if acted[copy, i]}
            seen, *parts = env.step(choices)
            self.steps[copy] += 1
            cut = self.steps[copy] >= self.horizon
            for i, agent in enumerate(self.possible_agents):
                if acted[copy, i]:
                    gain, dead, over, info = (part.get(agent) for part in parts)
                    reward[copy, i], cost[copy, i] = gain, (info or {}).get("cost", 0.0)
                    terminated[copy, i] = dead
                    truncated[copy, i] = not dead and (over or cut or agent not in env.agents)
            self._see(copy, seen)
            if truncated[copy].any():
                final_state.append(self._state(self.obs[copy])[truncated[copy]])
            if cut or not env.agents:
                ended.append(copy)
        for name, value in (("return", reward), ("cost", cost), ("length", acted)):
            self.totals[name] += value
        which = np.array(ended, np.int64)
        episodes = {"copy": which, "return": self.totals["return"][which], "cost": self.totals["cost"][which],
                    "length": self.totals["length"][which].astype(np.int64)}  # fmt: skip
        for copy in ended:
            self._begin(copy)
        shown = self._observed()
        none = np.zeros((0, self.state_space.shape[0]), np.float32)
        return Step(
            shown.obs, shown.state, shown.active, reward=reward, cost=cost, terminated=terminated, truncated=truncated,
            final_state=np.concatenate(final_state) if final_state else none, episodes=episodes,
        )  # fmt: skip

    def snapshot(self) -> None:
        """None: what others wrote cannot be saved; a resumed run starts new episodes."""
        return None

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Never possible, see `snapshot`."""
        raise RuntimeError("an environment of another package cannot be restored: reset it")

    def close(self) -> None:
        for env in self.envs:
            env.close()
        self.envs = []
