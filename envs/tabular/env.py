"""A finite game in the public single-copy forms: Gymnasium for one player, PettingZoo for several."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from pettingzoo import ParallelEnv

from rqe_mappo.envs.tabular.dynamics import Moved, TabularDynamics
from rqe_mappo.envs.tabular.model import FiniteGame

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def configure(scenarios: Mapping[str, Config], scenario: str, overrides: dict[str, Any]) -> Config:
    """The config of `scenario` with `overrides`; ValueError for an unknown name."""
    if scenario not in scenarios:
        raise ValueError(f"scenario {scenario} is unknown: use {', '.join(scenarios)}")
    known = [field.name for field in fields(scenarios[scenario])]
    for name in overrides:
        if name not in known:
            raise ValueError(f"argument {name} is unknown in scenario {scenario}: use {', '.join(known)}")
    return replace(scenarios[scenario], **overrides)


class TabularEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One play of a game with a single player; observation and actions as the game has them.

    `state()` is what a centralised critic takes, float32 `[1, D']`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (Gymnasium's declaration)

    def __init__(self, game: FiniteGame, observe_time: bool = False):
        self.game, self.dynamics = game, TabularDynamics(game, 1, observe_time)
        self.observation_space = self.dynamics.space(game.obs)
        self.action_space = Discrete(game.n_actions[0])
        self.ended = True

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """A new episode; `options` is not used."""
        super().reset(seed=seed)
        self.dynamics.reset(self.np_random)
        self.ended = False
        return self.dynamics.seen(self.game.obs)[0, 0], {}

    def step(self, action: int | np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One decision; ValueError for an action that does not exist, ResetNeeded after the end of an episode."""
        if not self.action_space.contains(action):
            raise ValueError(f"action must lie in 0 to {self.game.n_actions[0] - 1} (got {action!r})")
        if self.ended:
            raise gymnasium.error.ResetNeeded("call reset() first: no episode is under way")
        moved = self.dynamics.step(np.array([[action]]), self.np_random)
        terminated, truncated = bool(moved.terminated[0]), bool(moved.truncated[0])
        self.ended = terminated or truncated
        return self.dynamics.seen(self.game.obs)[0, 0], float(moved.reward[0, 0]), terminated, truncated, {}

    def state(self) -> np.ndarray:
        """What a centralised critic takes; see the class."""
        return self.dynamics.seen(self.game.state)[0]


class TabularParallelEnv(ParallelEnv):
    """One play of a game with several players, who all act until it is over.

    `state()` is what a centralised critic takes, float32 `[n, D']`, one row a player.
    """

    metadata = {"name": "finite_game_v0", "render_modes": []}  # noqa: RUF012  (as PettingZoo declares it)

    def __init__(self, game: FiniteGame, observe_time: bool = False):
        self.game, self.dynamics = game, TabularDynamics(game, 1, observe_time)
        self.possible_agents = list(game.players)
        self.agents: list[str] = []
        self.render_mode = None
        self.observation_spaces = {agent: self.dynamics.space(game.obs) for agent in game.players}
        self.action_spaces = {agent: Discrete(n) for agent, n in zip(game.players, game.n_actions, strict=True)}
        row = self.dynamics.space(game.state)
        self.state_space = Box(row.low[0], row.high[0], (len(game.players), *row.shape), np.float32)
        self.rng = np.random.default_rng()

    def observation_space(self, agent: str) -> Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode; without a seed the random numbers go on where they are."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.dynamics.reset(self.rng)
        self.agents = self.possible_agents[:]
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """One decision of all agents; ValueError if one is missing or does not exist."""
        acting = self.agents
        missing = set(acting) - set(actions)
        if missing:
            raise ValueError(
                f"step() needs an action for every agent in env.agents (missing: {', '.join(sorted(missing))})"
            )
        moved = self.dynamics.step(np.array([[actions[agent] for agent in acting]]), self.rng)
        observations = self._observations()
        rewards = {agent: float(reward) for agent, reward in zip(acting, moved.reward[0], strict=True)}
        terminated = dict.fromkeys(acting, bool(moved.terminated[0]))
        truncated = dict.fromkeys(acting, bool(moved.truncated[0]))
        infos = dict(zip(acting, self.infos(moved), strict=True))
        if moved.terminated[0] or moved.truncated[0]:
            self.agents = []
        return observations, rewards, terminated, truncated, infos

    def infos(self, moved: Moved) -> list[dict[str, Any]]:
        """What a sub-class reports of the step, one dict a player."""
        return [{} for _ in self.possible_agents]

    def _observations(self) -> dict[str, np.ndarray]:
        return dict(zip(self.possible_agents, self.dynamics.seen(self.game.obs)[0], strict=True))

    def state(self) -> np.ndarray:
        """What a centralised critic takes; see the class."""
        return self.dynamics.seen(self.game.state)[0]
