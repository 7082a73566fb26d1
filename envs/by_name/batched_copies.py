"""Copies of an environment of another package, stepped one after the other in this process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, flatdim, flatten
from pettingzoo import ParallelEnv

from rqe_mappo.envs.by_name.actions import AgentActions
from rqe_mappo.envs.by_name.config import ByNameConfig
from rqe_mappo.envs.contract import LARGEST, ActionSpace, Array, Observed, Step

TRIAL_EPISODES, TRIAL_SEED = 20, 0
MARGIN = 0.5  # of the range of rewards that random actions brought, added at either end
MASK = "action_mask"  # PettingZoo's name for the actions that are available, in an info or an observation


class BatchedCopies:
    """A `BatchedEnv` of environments `envs` that are copies of one another.

    Observations are flattened as Gymnasium does, and padded with zeros to the longest of any agent. The critic sees the
    observations of all agents side by side, those of agents that left as zeros, its own agent's first. Agents may
    leave. `cost` is what the environment's info gives under that name, else 0. Time limits truncate. `avail` comes from
    `action_mask` in an agent's info or `Dict` observation, which is then no part of what it observes.
    `metadata["common_reward"]` declares that all agents are given the same reward.

    Agents may differ in what they can do: see `AgentActions`. A `Box` action beyond the bounds is clipped.

    Rewards are bounded by `reward_low` and `reward_high`; where these are not given, by what random actions brought in
    20 episodes and half that range more: rewards beyond lie on the edge atoms of a categorical critic, which is logged.

    Raises ValueError, in one line, where an agent's observations or actions cannot be handled.
    """

    reward_step: float | None = None
    time_in_observation = False
    action_space: ActionSpace
    observation_space: Box
    state_space: Box

    def __init__(self, envs: Sequence[ParallelEnv], config: ByNameConfig):
        self.config, self.envs = config, list(envs)
        self.num_envs, self.horizon = len(self.envs), config.max_steps
        first = self.envs[0]
        self.possible_agents = tuple(first.possible_agents)
        a = len(self.possible_agents)
        self.common_reward = bool((first.metadata or {}).get("common_reward", a == 1))
        self.actions = AgentActions(
            [first.action_space(agent) for agent in self.possible_agents], f"--env {config.name}"
        )
        self.action_space = self.actions.space
        self.spaces = [self._observed_space(first.observation_space(agent)) for agent in self.possible_agents]
        self.width = max(flatdim(space) for space in self.spaces)
        self.observation_space = Box(-np.inf, np.inf, (self.width,), np.float32)
        self.state_space = Box(-np.inf, np.inf, (a * self.width,), np.float32)
        self.order = np.array([[i, *(j for j in range(a) if j != i)] for i in range(a)])
        shape = (self.num_envs, a)
        self.obs, self.active = np.zeros((*shape, self.width), np.float32), np.zeros(shape, bool)
        self.steps = np.zeros(self.num_envs, np.int64)
        self.totals = {name: np.zeros(shape) for name in ("return", "cost", "length")}
        self.avail = self._all_available()
        self.reward_bounds = self._reward_bounds()
        low, high = self.reward_bounds
        self.return_bounds = min(low * self.horizon, low), max(high * self.horizon, high)

    def _observed_space(self, space: Space) -> Space:
        """What of an agent's observations is observed: all but the mask."""
        if isinstance(space, Dict) and MASK in space.spaces:
            space = Dict({key: part for key, part in space.spaces.items() if key != MASK})
        if not space.is_np_flattenable:
            raise ValueError(
                f"--env {self.config.name}: observations of {space} have no fixed length: "
                "wrap the environment so that they are a Box"
            )
        return space

    def _all_available(self) -> Array | None:
        """Masks `[E, A, actions]` to be filled in, or None where the environment gives none when it is reset."""
        seen, infos = self.envs[0].reset(seed=TRIAL_SEED)
        if not any(_has_mask(part) for part in (*seen.values(), *infos.values())):
            return None
        if not isinstance(self.action_space, Discrete):
            raise ValueError(f"--env {self.config.name}: an {MASK} needs Discrete actions (got {self.action_space})")
        return np.ones((*self.active.shape, int(self.action_space.n)), bool)

    def _reward_bounds(self) -> tuple[float, float]:
        """Given, or measured."""
        if self.config.reward_low is not None and self.config.reward_high is not None:
            return self.config.reward_low, self.config.reward_high
        rng, env, rewards = np.random.default_rng(TRIAL_SEED), self.envs[0], []
        number = {agent: index for index, agent in enumerate(self.possible_agents)}
        for episode in range(TRIAL_EPISODES):
            seen, infos = env.reset(seed=TRIAL_SEED + episode)
            for _ in range(self.horizon):
                masks = {agent: self._mask(agent, seen, infos) for agent in env.agents}
                drawn = {agent: self.actions.random(number[agent], rng, mask) for agent, mask in masks.items()}
                seen, gained, _, _, infos = env.step(drawn)
                self._check_rewards(gained)
                rewards += gained.values()
                if not env.agents:
                    break
        low, high = float(min(rewards)), float(max(rewards))
        margin = MARGIN * (high - low)
        low, high = min(low - margin, 0.0), max(high + margin, 0.0)
        return (low, high) if low < high else (-1.0, 1.0)  # no reward at all was seen

    def _check_rewards(self, gained: dict[str, Any]) -> None:
        """ValueError for a reward of which no bounds could be made."""
        for agent, reward in gained.items():
            if not abs(reward) <= LARGEST:
                raise ValueError(
                    f"--env {self.config.name}: {agent} was given the reward {reward:g} for random actions: "
                    f"rewards must be finite and at most {LARGEST:g} in size"
                )

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning, each with a seed of its own."""
        seeds = np.random.SeedSequence(seed).generate_state(self.num_envs)
        for copy, own in enumerate(seeds.tolist()):
            self._begin(copy, own >> 1)
        return self._observed()

    def _begin(self, copy: int, seed: int | None = None) -> None:
        self.active[copy] = False
        self._see(copy, *self.envs[copy].reset(seed=seed))
        self.steps[copy] = 0
        for total in self.totals.values():
            total[copy] = 0

    def _see(self, copy: int, seen: dict[str, Any], infos: dict[str, Any]) -> None:
        """Keep what the agents of a copy see, who will act, and what each can do then."""
        self.obs[copy, ~self.active[copy]] = 0  # an agent that is cut off unseen keeps what it saw last
        self.active[copy] = False
        if self.avail is not None:
            self.avail[copy] = True
        acting = set(self.envs[copy].agents)
        for index, agent in enumerate(self.possible_agents):
            if agent in seen:
                flat = np.asarray(flatten(self.spaces[index], seen[agent]), np.float32)
                self.obs[copy, index, : len(flat)] = flat
                if agent in acting:
                    self.active[copy, index] = True
                    self._allow(copy, index, self._mask(agent, seen, infos))

    def _allow(self, copy: int, index: int, mask: Array | None) -> None:
        """Keep which actions an acting agent can choose."""
        if self.avail is not None:
            count = self.actions.counts[index]
            self.avail[copy, index, :count] = True if mask is None else mask
            self.avail[copy, index, count:] = False
        elif mask is not None:
            agent = self.possible_agents[index]
            raise ValueError(
                f"--env {self.config.name}: {agent} has an {MASK} now and had none at first: give it in reset()"
            )

    def _mask(self, agent: str, seen: dict[str, Any], infos: dict[str, Any]) -> Array | None:
        """Which actions an acting agent can choose, `[actions]`, by its info or observation; None by neither."""
        holder = next((part[agent] for part in (infos, seen) if _has_mask(part.get(agent))), None)
        if holder is None:
            return None
        if not np.isin(holder[MASK], (0, 1)).all():  # nan would count as True
            raise ValueError(f"--env {self.config.name}: the {MASK} of {agent} must hold 0 and 1 (got {holder[MASK]})")
        mask = np.asarray(holder[MASK], bool)
        if not mask.any():
            raise ValueError(
                f"--env {self.config.name}: the {MASK} of {agent} allows nothing: allow an action that does nothing"
            )
        return mask

    def _state(self, obs: Array) -> Array:
        """`[..., A, A * D]` from observations `[..., A, D]`."""
        return obs[..., self.order, :].reshape(*obs.shape[:-1], -1)

    def _observed(self) -> Observed:
        obs = self.obs * self.active[..., None]
        avail = None if self.avail is None else self.avail.copy()
        return Observed(obs, self._state(obs) * self.active[..., None], self.active.copy(), avail=avail)

    def step(self, actions: Array) -> Step:
        """`actions`: `[E, A]` or `[E, A, U]`, elements of `action_space`."""
        acted, shape = self.active.copy(), self.active.shape
        reward, cost = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        final_obs, final_state = [self.obs[0, :0]], [self._state(self.obs[0])[:0]]
        ended = []
        for copy, env in enumerate(self.envs):
            chosen = {
                agent: self.actions.native(i, actions[copy, i])
                for i, agent in enumerate(self.possible_agents)
                if acted[copy, i]
            }
            seen, *parts = env.step(chosen)
            self.steps[copy] += 1
            cut = self.steps[copy] >= self.horizon
            for i, agent in enumerate(self.possible_agents):
                if acted[copy, i]:
                    gain, dead, over, info = (part.get(agent) for part in parts)
                    reward[copy, i], cost[copy, i] = gain, info.get("cost", 0.0) if isinstance(info, dict) else 0.0
                    terminated[copy, i] = dead
                    truncated[copy, i] = not dead and (over or cut or agent not in env.agents)
            self._see(copy, seen, parts[-1])
            final_obs.append(self.obs[copy][truncated[copy]])
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
        return Step(
            shown.obs, shown.state, shown.active, reward=reward, cost=cost, terminated=terminated, truncated=truncated,
            final_obs=np.concatenate(final_obs), final_state=np.concatenate(final_state), episodes=episodes,
            avail=shown.avail,
        )  # fmt: skip

    def snapshot(self) -> None:
        """None: other packages' environments cannot be saved; a resumed run starts new episodes."""
        return None

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Never possible, see `snapshot`."""
        raise RuntimeError("an environment of another package cannot be restored: reset it")

    def close(self) -> None:
        for env in self.envs:
            env.close()
        self.envs = []


def _has_mask(part: Any) -> bool:
    return isinstance(part, dict) and MASK in part
