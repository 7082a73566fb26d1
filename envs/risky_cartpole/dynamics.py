"""The physics, wind and reward of E carts, in numpy; every form of the environment steps this one class."""

import math
from collections.abc import Callable

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.envs.risky_cartpole.config import RiskyCartPoleConfig

GRAVITY, CART_KG, POLE_KG, HALF_POLE_M = 9.8, 1.0, 0.1, 0.5
TOTAL_KG = CART_KG + POLE_KG
PUSH_N = 10.0
STEP_S = 0.02
X_LIMIT_M = 2.4
THETA_LIMIT_RAD = 12 * 2 * math.pi / 360
FEATURES = {"scaled": 6, "cartpole-v1": 4}


def observation_space(config: RiskyCartPoleConfig) -> Box:
    """The box of one cart's observation: Gymnasium's own for `cartpole-v1`."""
    if config.observation == "cartpole-v1":
        high = np.array([2 * X_LIMIT_M, np.inf, 2 * THETA_LIMIT_RAD, np.inf], np.float32)
        return Box(-high, high)
    largest = np.finfo(np.float32).max  # a gust, and so its effect, has no largest value
    low, high = np.full(6, -largest, np.float32), np.full(6, largest, np.float32)
    low[5], high[5] = 0.0, 1.0
    return Box(low, high)


class CartPoleDynamics:
    """E carts, integrated by Euler steps of 0.02 s as in Gymnasium's CartPole-v1, with a wind force on the cart.

    values: float64 `[7, E]`, all that evolves: x (m), x_dot (m/s), theta (rad), theta_dot (rad/s), wind (N, what blows
        now), steps left in the episode, steps left of the gust. Double precision and Gymnasium's order of operations
        keep trajectories equal to its own bit for bit; for 64 carts single precision would be no faster.
    gust_n: float64 `[E]`, the wind force that acted in the last step.

    Randomness comes from the generator passed in, so its owner seeds and saves it.
    """

    def __init__(self, config: RiskyCartPoleConfig, num_envs: int):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1 (got {num_envs})")
        self.config, self.num_envs = config, num_envs
        self.values = np.zeros((7, num_envs))
        self._name_rows()
        self.gust_n = np.zeros(num_envs)
        self.watch: Callable[[], None] | None = None  # called after each step, to draw it
        self.windy = config.rate0_hz + config.rate1_hz > 0
        scale = [1 / X_LIMIT_M, 1 / 2.0, 1 / THETA_LIMIT_RAD, 1 / 2.0, 1 / PUSH_N, 1 / config.horizon]
        if config.observation == "cartpole-v1":
            scale = [1.0] * 4
        self.scale = np.array(scale)[:, None]

    def _name_rows(self) -> None:
        self.x, self.x_dot, self.theta, self.theta_dot, self.wind, self.steps_left, self.gust_left = self.values

    def __setstate__(self, attributes: dict) -> None:
        """Copied or unpickled, the rows' names must point into the new `values` again."""
        self.__dict__.update(attributes)
        self._name_rows()

    def reset(self, rng: np.random.Generator, which: np.ndarray | slice = slice(None)) -> None:
        """Start new episodes of the carts `which`: position, angle and their velocities uniform on ±0.05, no wind."""
        count = self.x[which].size
        self.values[:4, which] = rng.uniform(-0.05, 0.05, (count, 4)).T
        self.values[4:, which] = [[0.0], [float(self.config.horizon)], [0.0]]

    def step(self, actions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Push every cart left (0) or right (1) for one step.

        actions: int `[E]`. Returns `terminated`, `truncated`, bool `[E]`, never both.
        """
        if self.windy:
            self._start_gusts(rng)
        self.gust_n[:] = self.wind
        force = np.where(actions == 1, PUSH_N, -PUSH_N) + self.wind
        sin, cos = np.sin(self.theta), np.cos(self.theta)
        pole = POLE_KG * HALF_POLE_M
        push = (force + pole * np.square(self.theta_dot) * sin) / TOTAL_KG
        theta_acc = (GRAVITY * sin - cos * push) / (HALF_POLE_M * (4 / 3 - POLE_KG * np.square(cos) / TOTAL_KG))
        x_acc = push - pole * theta_acc * cos / TOTAL_KG
        self.x += STEP_S * self.x_dot
        self.x_dot += STEP_S * x_acc
        self.theta += STEP_S * self.theta_dot
        self.theta_dot += STEP_S * theta_acc

        if self.windy:
            np.maximum(self.gust_left - 1, 0, out=self.gust_left)
            self.wind *= self.gust_left > 0
        self.steps_left -= 1
        terminated = (np.abs(self.x) > X_LIMIT_M) | (np.abs(self.theta) > THETA_LIMIT_RAD)
        if self.watch is not None:
            self.watch()
        return terminated, (self.steps_left <= 0) & ~terminated

    def _start_gusts(self, rng: np.random.Generator) -> None:
        """Let gusts begin: a Poisson process, so an exponential waiting time that ends within this step."""
        config = self.config
        starts = rng.standard_exponential(self.num_envs) < self.gust_rate_hz() * STEP_S
        starts &= self.gust_left == 0
        hit = np.flatnonzero(starts)
        if hit.size:
            force = rng.lognormal(math.log(config.gust_median_n), config.gust_sigma, hit.size)
            self.wind[hit] = force * rng.choice((-1.0, 1.0), hit.size)
            self.gust_left[hit] = config.gust_steps

    def gust_rate_hz(self) -> np.ndarray | float:
        """Gusts per second where each cart stands: rate0 + rate1 max(x, 0) / 2.4 m, or rate0 + rate1 for survival."""
        config = self.config
        if config.reward == "survival":
            return config.rate0_hz + config.rate1_hz
        return config.rate0_hz + config.rate1_hz / X_LIMIT_M * np.maximum(self.x, 0.0)

    def reward(self, terminated: np.ndarray) -> np.ndarray:
        """Reward of the step just made, float64 `[E]`: 1 + bonus x / 2.4 m, 0 on a fall; always 1 for survival."""
        if self.config.reward == "survival":
            return np.ones(self.num_envs)
        reward = 1 + self.config.bonus / X_LIMIT_M * self.x
        reward[terminated] = 0.0
        return reward

    def observe(self) -> np.ndarray:
        """What can be seen now, a new float32 `[E, D]`: D is 6, or 4 for cartpole-v1."""
        count = FEATURES[self.config.observation]
        seen = np.empty((self.num_envs, count), np.float32)
        np.multiply(self.values[:count], self.scale, out=seen.T, casting="same_kind")
        return seen
