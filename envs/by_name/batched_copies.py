"""Copies of an environment of another package, stepped one after the other in this process."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict
from pettingzoo import ParallelEnv

from rqe_mappo.envs.by_name import trial
from rqe_mappo.envs.by_name.actions import common_space
from rqe_mappo.envs.by_name.config import ByNameConfig
from rqe_mappo.envs.by_name.global_generators import GlobalGenerators
from rqe_mappo.envs.by_name.one_copy import Copy, Facts, Seen
from rqe_mappo.envs.by_name.own_spaces import spaces_of
from rqe_mappo.envs.contract import ActionSpace, Array, Observed, Step
from rqe_mappo.spaces import MASK, AgentSpaces, own_first, short

LIKE_A_MASK = re.compile(r"mask|legal|avail|valid", re.IGNORECASE)


class BatchedCopies:
    """A `BatchedEnv` of environments `envs` that are copies of one another.

    Observations are flattened as Gymnasium does, and padded with zeros to the longest of any agent. The critic sees the
    observations of all agents side by side, those of agents that left as zeros, its own agent's first. Agents may
    leave. `cost` is what the environment's info gives under that name, else 0. Time limits truncate. `avail` comes from
    `action_mask` in an agent's info or `Dict` observation, which is then no part of what it observes.
    `metadata["common_reward"]` declares that all agents are given the same reward.

    Agents may differ in what they can do: see `common_space`. A `Box` action beyond the bounds is clipped.

    Environments that draw from a global generator see one that follows from the seed of `reset`; those that draw from
    elsewhere are named in a line on standard error, for runs with them cannot be repeated.

    Rewards are bounded by `reward_low` and `reward_high`; where these are not given, rewards and returns are by what
    random actions brought in 20 episodes and half that range more: there the atoms of a categorical critic begin, and
    what an episode has brought so far (`History`) is in units of the largest such return.

    agent_spaces: what each agent observes and does, for the policy file.

    Raises ValueError, in one line, where an agent's observations or actions cannot be handled.
    """

    reward_step: float | None = None
    time_in_observation = False
    action_space: ActionSpace
    observation_space: Box
    state_space: Box

    def __init__(self, envs: Sequence[ParallelEnv], config: ByNameConfig):
        self.config, self.num_envs, self.horizon = config, len(envs), config.max_steps
        first, name = envs[0], f"--env {config.name}"
        if not getattr(first, "possible_agents", None):
            raise ValueError(f"{name} has no possible_agents: list all that can take part")
        self.possible_agents = tuple(first.possible_agents)
        if not all(isinstance(agent, str) for agent in self.possible_agents) or len(set(self.possible_agents)) < len(
            self.possible_agents
        ):
            raise ValueError(f"{name} has agents {short(self.possible_agents)}: give each a name of its own, a str")
        a = len(self.possible_agents)
        self.common_reward = bool((first.metadata or {}).get("common_reward", a == 1))
        self.own_actions = [first.action_space(agent) for agent in self.possible_agents]
        self.action_space = common_space(self.own_actions, name)
        self.facts = Facts(config.name, self.possible_agents, self._spaces(first))
        self.envs = list(envs)
        self.copies = [Copy(env, self.facts) for env in envs]
        self.width = max(spaces.observation.width for spaces in self.agent_spaces)
        self.observation_space = Box(-np.inf, np.inf, (self.width,), np.float32)
        self.state_space = Box(-np.inf, np.inf, (a * self.width,), np.float32)
        shape = (self.num_envs, a)
        self.obs, self.active = np.zeros((*shape, self.width), np.float32), np.zeros(shape, bool)
        self.steps = np.zeros(self.num_envs, np.int64)
        self.totals = {name: np.zeros(shape) for name in ("return", "cost", "length")}
        self.generators = GlobalGenerators(trial.SEED)
        with self.generators:
            self.avail = self._all_available()
        self._check_repeats()
        self.reward_bounds, self.return_bounds = self._bounds()

    @property
    def agent_spaces(self) -> tuple[AgentSpaces, ...]:
        return self.facts.spaces

    def _spaces(self, env: ParallelEnv) -> list[AgentSpaces]:
        found = []
        for agent, does in zip(self.possible_agents, self.own_actions, strict=True):
            try:
                found.append(spaces_of(env.observation_space(agent), does, self.action_space))
            except ValueError as error:
                raise ValueError(f"--env {self.config.name}: {error}") from None
        return found

    def _all_available(self) -> Array | None:
        """Masks `[E, A, actions]` to be filled in, or None where the environment gives none when it is reset."""
        for agent in self.possible_agents:
            space = self.envs[0].observation_space(agent)
            for key in space.spaces if isinstance(space, Dict) else ():
                if key != MASK and LIKE_A_MASK.search(str(key)):
                    self.facts.say(f"{key} is a part of what agents see: name it {MASK} if it says what they can do")
        if not self.copies[0].reset(trial.SEED).masks:
            return None
        most = max(spaces.action.count for spaces in self.agent_spaces)
        return np.ones((*self.active.shape, most), bool)  # masks of other actions than Discrete ones were refused

    def _check_repeats(self) -> None:
        """Say so where the same seed does not give the same episode."""
        traces = []
        for _ in range(2):
            self.generators.seed(trial.SEED)
            with self.generators:
                traces.append(trial.first_steps(self.copies[0], self.own_actions, self.horizon))
        if not trial.same(*traces):
            self.facts.say("the same seed and actions give other episodes: its runs cannot be repeated")

    def _bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Bounds of rewards, given or measured, and of returns."""
        low, high = self.config.reward_low, self.config.reward_high
        if low is not None and high is not None:
            return (low, high), (min(low * self.horizon, low), max(high * self.horizon, high))
        with self.generators:
            of_steps, of_episodes = trial.rewards(self.copies[0], self.own_actions, self.horizon)
        return trial.widened(of_steps), trial.widened(of_episodes)

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning, each with a seed of its own."""
        seeds = np.random.SeedSequence(seed).generate_state(self.num_envs)
        self.generators.seed(seed)
        with self.generators:
            for copy, own in enumerate(seeds.tolist()):
                self._begin(copy, own >> 1)
        return self._observed()

    def _begin(self, copy: int, seed: int | None = None) -> None:
        self.active[copy] = False
        self._see(copy, self.copies[copy].reset(seed))
        self.steps[copy] = 0
        for total in self.totals.values():
            total[copy] = 0

    def _see(self, copy: int, seen: Seen) -> None:
        """Keep what the agents of a copy see, who will act, and what each can do then."""
        self.obs[copy, ~self.active[copy]] = 0  # an agent that is cut off unseen keeps what it saw last
        self.active[copy] = False
        self.active[copy, seen.acting] = True
        for index, flat in seen.obs.items():
            self.obs[copy, index, : len(flat)] = flat
        if self.avail is None:
            for index in seen.masks:
                agent = self.possible_agents[index]
                raise self.facts.error(f"{agent} has an {MASK} now and had none at first: give it in reset()")
            return
        self.avail[copy] = True
        for index in seen.acting:
            own = self.agent_spaces[index].action.count
            self.avail[copy, index, :own] = seen.masks.get(index, True)
            self.avail[copy, index, own:] = False

    def _observed(self) -> Observed:
        obs = np.where(self.active[..., None], self.obs, np.float32(0))
        avail = None if self.avail is None else self.avail.copy()
        state = np.where(self.active[..., None], own_first(obs), np.float32(0))
        return Observed(obs, state, self.active.copy(), avail=avail)

    def step(self, actions: Array) -> Step:
        """`actions`: `[E, A]` or `[E, A, U]`, elements of `action_space`."""
        acted, shape = self.active.copy(), self.active.shape
        reward, cost = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        final_obs, final_state = [self.obs[0, :0]], [own_first(self.obs[0])[:0]]
        with self.generators:
            ended = []
            for copy, env in enumerate(self.copies):
                who = np.flatnonzero(acted[copy]).tolist()
                seen, earned = env.step({i: self.agent_spaces[i].action.own(actions[copy, i]) for i in who})
                self.steps[copy] += 1
                cut = self.steps[copy] >= self.horizon
                if self.common_reward and len(set(earned.reward.values())) > 1:
                    paid = " and ".join(f"{given:g}" for given in list(earned.reward.values())[:2])
                    raise self.facts.error(
                        'metadata["common_reward"] says that all agents are given the same reward, and they are given '
                        f"{paid} in one step: take it out of metadata"
                    )
                for i in who:
                    reward[copy, i], cost[copy, i] = earned.reward[i], earned.cost[i]
                    terminated[copy, i] = i in earned.terminated
                    truncated[copy, i] = not terminated[copy, i] and (cut or i in earned.left)
                self._see(copy, seen)
                if truncated[copy].any():
                    stay = (self.active[copy] | truncated[copy])[:, None]  # who terminated would not be seen any more
                    last = np.where(stay, self.obs[copy], np.float32(0))
                    final_obs.append(last[truncated[copy]])
                    final_state.append(own_first(last)[truncated[copy]])
                if cut or not seen.acting:
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
        self.envs, self.copies = [], []
