"""Predator-prey for the learner: E copies stepped as one."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from rqe_mappo.envs.contract import Observed, Step, put_back
from rqe_mappo.envs.predator_prey.config import PredatorPreyConfig
from rqe_mappo.envs.predator_prey.dynamics import ACTIONS, CAPTURE_REWARD, PredatorPreyDynamics
from rqe_mappo.envs.predator_prey.features import Features


class BatchedPredators:
    """A `BatchedEnv` with the agents `predator_0` to `predator_{A-1}`. Array contents as in `PredatorPreyEnv`.

    Who took part in a capture terminates in that step; who remains is truncated at the horizon.
    `cost` is 1 for a predator that tried to catch alone.

    Episode records add `captures`, `lone_catches` and `team_reward` `[F]`, the sum of the team's rewards to the end,
    where the `return` of a predator ends when it leaves.
    """

    common_reward = True

    def __init__(self, config: PredatorPreyConfig, num_envs: int):
        self.config, self.num_envs, self.horizon = config, num_envs, config.horizon
        self.dynamics = PredatorPreyDynamics(config, num_envs)
        self.features = Features(config, self.dynamics)
        self.possible_agents = tuple(f"predator_{i}" for i in range(config.n_predators))
        self.observation_space, self.state_space = self.features.observation_space, self.features.state_space
        self.action_space = Discrete(ACTIONS)
        self.time_in_observation = config.observe_time
        best, worst = CAPTURE_REWARD * config.most_captures, 0.0 - config.punishment * config.n_predators
        self.reward_bounds, self.return_bounds = (worst, best), (worst * config.horizon, best)
        hundredths = round(100 * config.punishment)
        on_grid = abs(100 * config.punishment - hundredths) < 1e-6
        self.reward_step = float(np.gcd(int(100 * CAPTURE_REWARD), hundredths)) / 100 if on_grid else None
        shape = (num_envs, config.n_predators)
        self.totals: dict[str, np.ndarray] = {
            "return": np.zeros(shape), "cost": np.zeros(shape), "length": np.zeros(shape, np.int64),
            "captures": np.zeros(num_envs, np.int64), "team_reward": np.zeros(num_envs),
        }  # fmt: skip

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning; the same seed and E give the same trajectories."""
        self.rng = np.random.default_rng(seed)
        self._begin(np.arange(self.num_envs))
        return self._observed()

    def _begin(self, which: np.ndarray) -> None:
        self.dynamics.reset(self.rng, which)
        for total in self.totals.values():
            total[which] = 0

    def _observed(self) -> Observed:
        world = self.dynamics
        seen, shown = self.features.obs(), self.features.state()
        return Observed(seen, shown, world.hunting.copy(), avail=world.available())

    def step(self, actions: np.ndarray) -> Step:
        """`actions`: int64 `[E, A]`; one that is not available is `stay`. ValueError for one that does not exist."""
        moved = self.dynamics.step(actions, self.rng)
        reward, cost = moved.reward[:, None] * moved.acted, moved.lone.astype(np.float32)
        for name, value in (("return", reward), ("cost", moved.lone), ("length", moved.acted),
                            ("captures", moved.captured.sum(1)), ("team_reward", moved.reward)):  # fmt: skip
            self.totals[name] += value
        cut = np.flatnonzero(
            moved.truncated.any(1)
        )  # few copies, if any: the others' features would be made for nothing
        final_obs, final_state = (rows(cut)[moved.truncated[cut]] for rows in (self.features.obs, self.features.state))
        ended = np.flatnonzero(moved.ended)
        episodes = {"copy": ended, **{name: total[ended] for name, total in self.totals.items()}}
        episodes["lone_catches"] = episodes["cost"].sum(1)
        if len(ended):
            self._begin(ended)
        seen = self._observed()
        return Step(
            obs=seen.obs,
            state=seen.state,
            active=seen.active,
            avail=seen.avail,
            reward=reward.astype(np.float32),
            cost=cost,
            terminated=moved.terminated,
            truncated=moved.truncated,
            final_obs=final_obs,
            final_state=final_state,
            episodes=episodes,
        )

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
