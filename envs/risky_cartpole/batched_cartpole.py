"""Risky CartPole for the learner: E copies of one cart."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.contract import ActionSpace, Observed, Step, put_back
from rqe_mappo.envs.risky_cartpole.config import RiskyCartPoleConfig
from rqe_mappo.envs.risky_cartpole.dynamics import CartPoleDynamics, observation_space


class BatchedRiskyCartPole:
    """A `BatchedEnv` with the single agent `cart`, whose state is its observation.

    Episode records add `fell` `[F, 1]` and `mean_x_m` `[F, 1]`, the cart's mean position in metres. `cost` is 1 on the
    step that falls. Array contents as in `RiskyCartPoleEnv`.
    """

    possible_agents: tuple[str, ...] = ("cart",)
    action_space: ActionSpace = Discrete(2)
    observation_space: Box
    state_space: Box
    reward_step: float | None
    common_reward = True

    def __init__(self, config: RiskyCartPoleConfig, num_envs: int):
        self.dynamics = CartPoleDynamics(config, num_envs)
        self.config, self.num_envs, self.horizon = config, num_envs, config.horizon
        self.observation_space = self.state_space = observation_space(config)
        self.time_in_observation = config.observation == "scaled"
        if config.reward == "survival":
            self.reward_bounds, self.return_bounds = (1.0, 1.0), (1.0, float(config.horizon))
            self.reward_step = 1.0
        else:
            self.reward_bounds = low, high = min(0.0, 1 - config.bonus), 1 + config.bonus
            self.return_bounds = low * config.horizon, high * config.horizon
            self.reward_step = None
        self.returns, self.x_sum_m = np.zeros(num_envs), np.zeros(num_envs)
        self.active = np.ones((num_envs, 1), bool)

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning; the same seed and E give the same trajectories."""
        self.rng = np.random.default_rng(seed)
        self.dynamics.reset(self.rng)
        self.returns[:] = self.x_sum_m[:] = 0.0
        return self._observed()

    def _observed(self) -> Observed:
        seen = self.dynamics.observe()[:, None]
        return Observed(seen, seen, self.active)

    def step(self, actions: np.ndarray) -> Step:
        """`actions`: int64 `[E, 1]`, 0 pushes left, 1 pushes right."""
        dynamics = self.dynamics
        terminated, truncated = dynamics.step(actions[:, 0], self.rng)
        reward = dynamics.reward(terminated)
        self.returns += reward
        self.x_sum_m += dynamics.x
        seen = dynamics.observe()
        final = seen[truncated]
        ended = np.flatnonzero(terminated | truncated)
        episodes = self._episodes(ended, terminated)
        if ended.size:
            dynamics.reset(self.rng, ended)
            self.returns[ended] = self.x_sum_m[ended] = 0.0
            seen[ended] = dynamics.observe()[ended]
        return Step(
            obs=seen[:, None],
            state=seen[:, None],
            active=self.active,
            reward=reward.astype(np.float32)[:, None],
            cost=terminated.astype(np.float32)[:, None],
            terminated=terminated[:, None],
            truncated=truncated[:, None],
            final_obs=final,
            final_state=final,
            episodes=episodes,
        )

    def _episodes(self, ended: np.ndarray, terminated: np.ndarray) -> dict[str, np.ndarray]:
        fell = terminated[ended, None]
        length = self.horizon - self.dynamics.steps_left[ended, None]
        return {
            "copy": ended,
            "return": self.returns[ended, None],
            "cost": fell.astype(np.float64),
            "length": length.astype(np.int64),
            "fell": fell,
            "mean_x_m": self.x_sum_m[ended, None] / length,
        }

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on exactly."""
        return {
            "rng": self.rng.bit_generator.state,
            "values": self.dynamics.values.copy(),
            "returns": self.returns.copy(),
            "x_sum_m": self.x_sum_m.copy(),
        }

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Go on from `snapshot`."""
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state = snapshot["rng"]
        put_back({"values": self.dynamics.values, "returns": self.returns, "x_sum_m": self.x_sum_m}, snapshot)
        return self._observed()

    def close(self) -> None:
        """Nothing is held."""
