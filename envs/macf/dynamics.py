"""E roads with two cars each, stepped as one; every form of the environment steps this one class."""

from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.envs.contract import put_back
from rqe_mappo.envs.macf.config import CarFollowingConfig

CARS = 2
ACTIONS = 21
ACCELERATIONS = -1 + 2 * np.arange(ACTIONS) / ACTIONS
STEP_S = 0.1
GOAL, WITHIN = 2.5, 0.01
SPEED_LIMIT, TOP_SPEED = 1.0, 1.8
CRASH_RATE = 0.4  # probability of a crash in a step, for each unit of speed beyond the limit
NEAR = 0.3
ROUNDING = 1e-9  # of a speed: sums of actions that make the limit are not beyond it
ARRIVAL_REWARD, BOTH_REWARD, NEAR_REWARD = 5.0, 10.0, 1.0


@dataclass(frozen=True, slots=True)
class Moved:
    """What one step did in every copy.

    crashed, speeding: bool `[E, 2]`, who crashed, and who is faster than the limit.
    reward: float64 `[E]`, of both cars.
    terminated, truncated: bool `[E]`, never both.
    """

    crashed: np.ndarray
    speeding: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class CarFollowingDynamics:
    """E copies of two cars on a line.

    x, v: float64 `[E, 2]`, position and speed.
    arrived: bool `[E, 2]`, who has been at the goal; from the step that follows on it stands there.
    t: int64 `[E]`, decisions made in the episode.

    Randomness comes from the generator passed in, so its owner seeds and saves it.
    """

    def __init__(self, config: CarFollowingConfig, num_envs: int):
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1 (got {num_envs})")
        self.config, self.num_envs = config, num_envs
        shape = (num_envs, CARS)
        self.x, self.v, self.arrived = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
        self.t = np.zeros(num_envs, np.int64)
        (*_, lowest), (*_, highest) = reach(config)
        low, high = [lowest, -STEP_S * config.horizon] * CARS, [highest, TOP_SPEED] * CARS
        if config.observe_time:
            low, high = [*low, 0.0], [*high, 1.0]
        self.space = Box(np.array(low, np.float32), np.array(high, np.float32))

    def reset(self, which: np.ndarray | slice = slice(None)) -> None:
        """Start new episodes of the copies `which`: both cars stand at 0."""
        self.x[which], self.v[which], self.arrived[which], self.t[which] = 0, 0, False, 0

    def step(self, actions: np.ndarray, rng: np.random.Generator) -> Moved:
        """One decision of both cars, `actions` int `[E, 2]`; ValueError for one that does not exist.

        One uniform number a car is drawn, whether or not it can crash, so that copies do not depend on each other.
        """
        if actions.shape != self.x.shape or actions.min() < 0 or actions.max() >= ACTIONS:
            raise ValueError(f"actions must be {list(self.x.shape)} numbers from 0 to {ACTIONS - 1}")
        uniform = rng.random(self.x.shape)
        self._drive(ACCELERATIONS[actions])
        distance = np.abs(self.x - GOAL)
        there = (distance < WITHIN) & ~self.arrived
        self.arrived |= there
        beyond = self.v - SPEED_LIMIT
        crashed = uniform < CRASH_RATE * beyond
        both = self.arrived.all(1)
        reward = NEAR_REWARD * self.near() - 1 - distance.sum(1) + ARRIVAL_REWARD * there.sum(1) + BOTH_REWARD * both
        reward -= self.config.crash_cost * crashed.sum(1)
        self.t += 1
        over = np.logical_or(both, crashed.any(1) & self.config.crash_ends)
        return Moved(crashed, beyond > ROUNDING, reward, over, ~over & (self.t >= self.config.horizon))

    def _drive(self, acceleration: np.ndarray) -> None:
        """Constant acceleration, and none from the top speed on; the time until then is rounded to 0.01 s."""
        v, reached = self.v, self.v + acceleration * STEP_S
        time = np.where(reached >= TOP_SPEED, np.round((TOP_SPEED - v) / acceleration * 100) / 100, STEP_S)
        self.x += v * time + 0.5 * acceleration * time * time + TOP_SPEED * (STEP_S - time)
        self.v = np.minimum(reached, TOP_SPEED)
        self.x[self.arrived], self.v[self.arrived] = GOAL, 0

    def near(self) -> np.ndarray:
        """Whether the cars see each other, bool `[E]`."""
        return np.abs(self.x[:, 0] - self.x[:, 1]) <= NEAR

    def obs(self) -> np.ndarray:
        """What each car sees, float32 `[E, 2, D]`: x and v of both, zeros for the other where it is not near."""
        rows = self.state()
        far = ~self.near()
        rows[far, 0, 2:4], rows[far, 1, :2] = 0, 0
        return rows

    def state(self) -> np.ndarray:
        """float32 `[E, 2, D]`: x and v of both and, where it is observed, the time left; the same for each."""
        rows = np.empty((self.num_envs, CARS, *self.space.shape), np.float32)
        rows[..., 0:4:2], rows[..., 1:4:2] = self.x[:, None], self.v[:, None]
        if self.config.observe_time:
            rows[..., 4] = (1 - self.t / self.config.horizon)[:, None]
        return rows

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that changes, by name."""
        return {name: getattr(self, name) for name in ("x", "v", "arrived", "t")}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Go on from a copy of `arrays`."""
        put_back(self.arrays, kept)


def reach(config: CarFollowingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Between which positions every car is after each step, `[horizon]` both: it has braked, or raced, throughout."""
    time_s = STEP_S * np.arange(1, config.horizon + 1)
    return ACCELERATIONS[0] * time_s**2 / 2, TOP_SPEED * time_s


def reward_bounds(config: CarFollowingConfig) -> tuple[float, float]:
    """The lowest and highest reward of a step."""
    return float(_lowest_rewards(config).min()), ARRIVAL_REWARD * CARS + BOTH_REWARD


def return_bounds(config: CarFollowingConfig) -> tuple[float, float]:
    """The lowest and highest return from any step on: what is above 0 is only paid for arriving."""
    return float(_lowest_rewards(config).sum()), ARRIVAL_REWARD * CARS + BOTH_REWARD


def _lowest_rewards(config: CarFollowingConfig) -> np.ndarray:
    """At most the reward of each step, `[horizon]`: each car as far back as can be, or crashing as far ahead."""
    lowest, highest = reach(config)
    return -1 - CARS * np.maximum(GOAL - lowest, np.maximum(highest - GOAL, GOAL) + config.crash_cost)
