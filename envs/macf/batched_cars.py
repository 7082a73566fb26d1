"""Multi-agent car following for the learner: E copies stepped as one."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from rqe_mappo.envs.contract import Observed, Step, put_back
from rqe_mappo.envs.macf.config import CarFollowingConfig
from rqe_mappo.envs.macf.dynamics import ACTIONS, CARS, CarFollowingDynamics, return_bounds, reward_bounds


class BatchedCars:
    """A `BatchedEnv` with the agents `car_0` and `car_1`. Array contents as in `CarFollowingEnv`.

    Both act to the end of the episode, also who has arrived. `cost` is 1 for a car that crashed in the step.

    Episode records add `crashes` (of both cars), `arrived` (how many cars) and `speeding` (steps of a car beyond the
    limit), each `[F]`.
    """

    common_reward = True
    reward_step = None  # distances are paid

    def __init__(self, config: CarFollowingConfig, num_envs: int):
        self.config, self.num_envs, self.horizon = config, num_envs, config.horizon
        self.dynamics = CarFollowingDynamics(config, num_envs)
        self.possible_agents = tuple(f"car_{i}" for i in range(CARS))
        self.observation_space = self.state_space = self.dynamics.space
        self.action_space = Discrete(ACTIONS)
        self.time_in_observation = config.observe_time
        self.reward_bounds, self.return_bounds = reward_bounds(config), return_bounds(config)
        self.active = np.ones((num_envs, CARS), bool)
        self.totals: dict[str, np.ndarray] = {
            "return": np.zeros((num_envs, CARS)), "cost": np.zeros((num_envs, CARS)),
            "speeding": np.zeros(num_envs, np.int64),
        }  # fmt: skip

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning; the same seed and E give the same trajectories."""
        self.rng = np.random.default_rng(seed)
        self._begin(np.arange(self.num_envs))
        return self._observed()

    def _begin(self, which: np.ndarray) -> None:
        self.dynamics.reset(which)
        for total in self.totals.values():
            total[which] = 0

    def _observed(self) -> Observed:
        return Observed(self.dynamics.obs(), self.dynamics.state(), self.active)

    def step(self, actions: np.ndarray) -> Step:
        """`actions`: int64 `[E, 2]`, of which those of a car that has arrived do nothing."""
        moved = self.dynamics.step(actions, self.rng)
        reward = np.repeat(moved.reward[:, None], CARS, axis=1)
        self.totals["return"] += reward
        self.totals["cost"] += moved.crashed
        self.totals["speeding"] += moved.speeding.sum(1)
        ended = np.flatnonzero(moved.terminated | moved.truncated)
        seen, episodes = self._observed(), self._episodes(ended)
        final_obs, final_state = (rows[moved.truncated].reshape(-1, rows.shape[2]) for rows in (seen.obs, seen.state))
        if len(ended):
            self._begin(ended)
            seen = self._observed()
        return Step(
            obs=seen.obs,
            state=seen.state,
            active=seen.active,
            reward=reward.astype(np.float32),
            cost=moved.crashed.astype(np.float32),
            terminated=np.repeat(moved.terminated[:, None], CARS, axis=1),
            truncated=np.repeat(moved.truncated[:, None], CARS, axis=1),
            final_obs=final_obs,
            final_state=final_state,
            episodes=episodes,
        )

    def _episodes(self, ended: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "copy": ended,
            **{name: total[ended] for name, total in self.totals.items()},
            "length": np.repeat(self.dynamics.t[ended, None], CARS, axis=1),
            "crashes": self.totals["cost"][ended].sum(1),
            "arrived": self.dynamics.arrived[ended].sum(1),
        }

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on exactly."""
        return {
            "rng": self.rng.bit_generator.state,
            "world": {name: array.copy() for name, array in self.dynamics.arrays.items()},
            "totals": {name: total.copy() for name, total in self.totals.items()},
        }

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Go on from `snapshot`."""
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state = snapshot["rng"]
        self.dynamics.restore(snapshot["world"])
        put_back(self.totals, snapshot["totals"])
        return self._observed()

    def close(self) -> None:
        """Nothing is held."""
