"""Games of fixed length for the learner: E copies stepped as one."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.contract import Observed, Step, put_back
from rqe_mappo.envs.fixed_length.game import Game


class BatchedFixedLength:
    """A `BatchedEnv` of a `Game`: all copies begin together, and all agents are truncated together at the time limit.

    Episode records add what the game counts. With `observe_time` the time left, 1 to 0, is the last feature of
    observation and state.
    """

    def __init__(self, game: Game):
        if game.num_envs < 1:
            raise ValueError(f"num_envs must be at least 1 (got {game.num_envs})")
        self.game, self.num_envs, self.horizon, self.t = game, game.num_envs, game.horizon, 0
        self.possible_agents, self.action_space = game.players, game.action_space
        self.time_in_observation, self.common_reward = game.observe_time, game.common_reward
        self.return_bounds, self.reward_bounds = game.return_bounds, game.reward_bounds
        self.reward_step = game.reward_step
        self.observation_space, self.state_space = self._space(game.observation_space), self._space(game.state_space)
        self.shape = (self.num_envs, len(self.possible_agents))
        self.active, self.ongoing = np.ones(self.shape, bool), np.zeros(self.shape, bool)
        self.totals = {"return": np.zeros(self.shape), "cost": np.zeros(self.shape)}
        self.counts: dict[str, np.ndarray] = {}

    def _space(self, space: Box) -> Box:
        times = np.ones(int(self.time_in_observation), np.float32)
        return Box(np.append(space.low, 0 * times), np.append(space.high, times))

    def reset(self, seed: int | None) -> Observed:
        """Start every copy from the beginning; the same seed and E give the same trajectories."""
        self.rng = np.random.default_rng(seed)
        return self.restart()

    def restart(self) -> Observed:
        """Start every copy; the random numbers go on where they are."""
        self.game.begin(self.rng.random((self.num_envs, self.game.start_draws)))
        self.t, self.counts = 0, {}
        for total in self.totals.values():
            total[...] = 0
        return self._observed()

    def _observed(self) -> Observed:
        return Observed(self._shown(self.game.obs()), self._shown(self.game.state()), self.active)

    def _shown(self, rows: np.ndarray) -> np.ndarray:
        shown = np.empty((*self.shape, rows.shape[2] + self.time_in_observation), np.float32)
        shown[..., : rows.shape[2]] = rows
        shown[..., rows.shape[2] :] = 1 - self.t / self.horizon
        return shown

    def step(self, actions: np.ndarray) -> Step:
        """One decision of all agents; ValueError for actions that do not exist."""
        self._check(actions)
        played = self.game.play(actions, self.rng.random((self.num_envs, self.game.step_draws)))
        self.t += 1
        self.totals["return"] += played.reward
        self.totals["cost"] += played.cost
        self.counts = {name: self.counts.get(name, 0) + count for name, count in played.counts.items()}
        seen, late = self._observed(), self.t >= self.horizon
        final_obs, final_state = (
            rows.reshape(-1, rows.shape[2])[: late * rows.size] for rows in (seen.obs, seen.state)
        )
        episodes = self._episodes(np.arange(self.num_envs * late))
        if late:
            seen = self.restart()
        return Step(
            obs=seen.obs,
            state=seen.state,
            active=seen.active,
            reward=played.reward.astype(np.float32),
            cost=played.cost.astype(np.float32),
            terminated=self.ongoing.copy(),
            truncated=self.active.copy() if late else self.ongoing.copy(),
            final_obs=final_obs,
            final_state=final_state,
            episodes=episodes,
        )

    def _check(self, actions: np.ndarray) -> None:
        space = self.action_space
        if isinstance(space, Discrete):
            if actions.shape != self.shape or actions.min() < 0 or actions.max() >= space.n:
                raise ValueError(f"actions must be {list(self.shape)} numbers from 0 to {space.n - 1}")
        elif actions.shape != (*self.shape, *space.shape) or not np.isfinite(actions).all():
            raise ValueError(f"actions must be {[*self.shape, *space.shape]} finite numbers")

    def _episodes(self, ended: np.ndarray) -> dict[str, np.ndarray]:
        sums = {**self.totals, **self.counts}
        return {
            "copy": ended,
            **{name: total[ended].copy() for name, total in sums.items()},
            "length": np.full((len(ended), self.shape[1]), self.t),
        }

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on exactly."""
        return {
            "rng": self.rng.bit_generator.state,
            "t": self.t,
            "world": {name: array.copy() for name, array in self.game.arrays.items()},
            "totals": {name: total.copy() for name, total in self.totals.items()},
            "counts": {name: count.copy() for name, count in self.counts.items()},
        }

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Go on from `snapshot`."""
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state = snapshot["rng"]
        self.t = snapshot["t"]
        put_back(self.game.arrays, snapshot["world"])
        put_back(self.totals, snapshot["totals"])
        self.counts = {name: count.copy() for name, count in snapshot["counts"].items()}
        return self._observed()

    def close(self) -> None:
        """Nothing is held."""
