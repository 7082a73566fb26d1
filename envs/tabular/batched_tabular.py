"""Finite games for the learner: E copies of one `FiniteGame`."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.contract import ActionSpace, Observed, PaddedDiscrete, Step, put_back
from rqe_mappo.envs.tabular import exact
from rqe_mappo.envs.tabular.dynamics import Moved, TabularDynamics
from rqe_mappo.envs.tabular.model import FiniteGame


class BatchedTabular:
    """A `BatchedEnv` whose agents are the players of `game`, who all act until the game is over.

    Terminated on arrival in a terminal state, otherwise truncated at the horizon. `cost` is 0. Players may have unequal
    numbers of actions.

    observe_time: append the time left, 1 to 0, to observation and state, so that the horizon may be learned as an end.
        Where no play reaches the horizon (`exact.horizon_binds`), `time_in_observation` holds without it.

    A sub-class may add to the episode records: an array `[E, A]` in `self.totals`, zero when an episode begins,
    updated in `watch`, becomes a record of that name.
    """

    action_space: ActionSpace
    observation_space: Box
    state_space: Box

    def __init__(self, game: FiniteGame, num_envs: int, observe_time: bool = False):
        self.game, self.num_envs, self.horizon = game, num_envs, game.horizon
        self.dynamics = TabularDynamics(game, num_envs, observe_time)
        self.possible_agents = game.players
        self.observation_space, self.state_space = (self.dynamics.space(table) for table in (game.obs, game.state))
        unequal = len(set(game.n_actions)) > 1
        self.action_space = PaddedDiscrete(game.n_actions) if unequal else Discrete(game.n_actions[0])
        bounds = exact.return_bounds(game)
        self.return_bounds = float(bounds[:, 0].min()), float(bounds[:, 1].max())
        self.reward_bounds, self.reward_step = exact.reward_bounds(game), exact.reward_step(game)
        self.common_reward = exact.common_reward(game)
        self.time_in_observation = observe_time or not exact.horizon_binds(game)
        self.shape = (num_envs, len(game.players))
        self.active = np.ones(self.shape, bool)
        self.totals: dict[str, np.ndarray] = {"return": np.zeros(self.shape), "cost": np.zeros(self.shape)}

    def watch(self, moved: Moved) -> np.ndarray:
        """Update the sub-class's totals after a step; gives the step's cost, `[E, A]`."""
        return np.zeros(self.shape)

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning; the same seed and E give the same trajectories."""
        self.rng = np.random.default_rng(seed)
        self._begin(slice(None))
        return self._observed()

    def _begin(self, which: np.ndarray | slice) -> None:
        self.dynamics.reset(self.rng, which)
        for total in self.totals.values():
            total[which] = 0

    def _observed(self) -> Observed:
        return Observed(self.dynamics.seen(self.game.obs), self.dynamics.seen(self.game.state), self.active)

    def step(self, actions: np.ndarray) -> Step:
        """`actions`: int64 `[E, A]`; ValueError for one that does not exist."""
        moved = self.dynamics.step(actions, self.rng)
        cost = self.watch(moved)
        self.totals["return"] += moved.reward
        self.totals["cost"] += cost
        cut = moved.truncated
        final_obs = self.dynamics.seen(self.game.obs)[cut].reshape(-1, *self.observation_space.shape)
        final_state = self.dynamics.seen(self.game.state)[cut].reshape(-1, *self.state_space.shape)
        ended = np.flatnonzero(moved.terminated | moved.truncated)
        length = np.broadcast_to(self.dynamics.t[ended, None], (len(ended), self.shape[1])).copy()
        episodes = {"copy": ended, "length": length, **{name: total[ended] for name, total in self.totals.items()}}
        self._begin(ended)
        seen = self._observed()
        return Step(
            obs=seen.obs,
            state=seen.state,
            active=seen.active,
            reward=moved.reward.astype(np.float32),
            cost=cost.astype(np.float32),
            terminated=np.repeat(moved.terminated[:, None], self.shape[1], axis=1),
            truncated=np.repeat(moved.truncated[:, None], self.shape[1], axis=1),
            final_obs=final_obs,
            final_state=final_state,
            episodes=episodes,
        )

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on exactly."""
        return {
            "rng": self.rng.bit_generator.state,
            "state": self.dynamics.state.copy(),
            "t": self.dynamics.t.copy(),
            "totals": {name: total.copy() for name, total in self.totals.items()},
        }

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Go on from `snapshot`."""
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state = snapshot["rng"]
        put_back({"state": self.dynamics.state, "t": self.dynamics.t}, snapshot)
        put_back(self.totals, snapshot["totals"])
        return self._observed()

    def close(self) -> None:
        """Nothing is held."""
