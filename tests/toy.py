"""The smallest environment with everything the contract knows: agents that leave, terminate, or are cut off."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.contract import ActionSpace, Observed, Step, action_dtype
from rqe_mappo.registry import Environment


@dataclass(frozen=True)
class ToyConfig:
    """Agents earn half a point for action 1 and leave by chance."""

    n_agents: int = 3
    """Agent slots."""
    leave_probability: float = 0.1
    """Chance that an agent's episode terminates, per step."""


SCENARIOS = {"default": ToyConfig()}
ENTRY = Environment("tests.toy:Toy", "tests.toy:SCENARIOS", "tests.toy:recipe")


def recipe(scenario: str) -> dict[str, Any]:
    return dict(
        total_timesteps=2_000, num_envs=4, num_steps=16, eval_episodes=0,
        n_atoms=31, actor_hidden=(8,), critic_hidden=(8,), log_interval=1, save_interval=2,
    )  # fmt: skip


class Toy:
    """obs and state of agent i: steps since the start over the horizon, and a number that names the agent."""

    horizon = 12
    observation_space = Box(0, 1, (2,), np.float32)
    state_space = Box(0, 1, (2,), np.float32)
    action_space = Discrete(2)
    return_bounds = (0.0, 6.0)
    reward_bounds = (0.0, 0.5)
    reward_step = 0.5
    time_in_observation = False
    common_reward = False

    def __init__(self, config: ToyConfig, num_envs: int):
        self.config, self.num_envs = config, num_envs
        self.possible_agents = tuple(f"agent_{i}" for i in range(config.n_agents))

    def reset(self, seed: int) -> Observed:
        self.rng = np.random.default_rng(seed)
        shape = (self.num_envs, self.config.n_agents)
        self.t = np.zeros(self.num_envs, int)
        self.active = np.ones(shape, bool)
        self.total, self.length = np.zeros(shape), np.zeros(shape, int)
        return self._observed()

    def _view(self) -> np.ndarray:
        a = self.config.n_agents
        name = np.broadcast_to(np.arange(a) / a, self.active.shape)
        return np.stack(((self.t / self.horizon)[:, None] + 0 * name, name), -1).astype(np.float32)

    def _observed(self) -> Observed:
        view = self._view() * self.active[..., None]
        return Observed(view, view.copy(), self.active.copy())

    def step(self, actions: np.ndarray) -> Step:
        acted = self.active.copy()
        self.t += 1
        reward = np.where(acted, 0.5 * actions, 0.0)
        self.total += reward
        self.length += acted
        terminated = acted & (self.rng.random(acted.shape) < self.config.leave_probability)
        truncated = acted & ~terminated & (self.t == self.horizon)[:, None]
        self.active &= ~(terminated | truncated)
        final = self._view()[truncated]
        ended = np.flatnonzero(~self.active.any(1))
        episodes = {
            "copy": ended,
            "return": self.total[ended],
            "cost": 0 * self.total[ended],
            "length": self.length[ended],
        }
        self.t[ended], self.active[ended], self.total[ended], self.length[ended] = 0, True, 0.0, 0
        seen = self._observed()
        return Step(
            seen.obs, seen.state, seen.active, reward.astype(np.float32), np.zeros_like(reward, np.float32),
            terminated, truncated, final, final, episodes,
        )  # fmt: skip

    def snapshot(self) -> dict:
        names = ("t", "active", "total", "length")
        return {"rng": self.rng.bit_generator.state, **{name: getattr(self, name).copy() for name in names}}

    def restore(self, snapshot: dict) -> Observed:
        self.reset(0)
        self.rng.bit_generator.state = snapshot["rng"]
        for name in ("t", "active", "total", "length"):
            setattr(self, name, snapshot[name].copy())
        return self._observed()

    def close(self) -> None:
        pass


class Choosing(Toy):
    """A toy with any action space, in which every agent earns the sum of its action and observes its state plus 1.

    With `masks`, for a `Discrete` space, the action of number t modulo n is not available at time t.
    """

    observation_space = Box(1, 2, (2,), np.float32)

    def __init__(self, config: ToyConfig, num_envs: int, action_space: ActionSpace, masks: bool = False):
        super().__init__(config, num_envs)
        self.action_space, self.masks = action_space, masks

    def _observed(self) -> Observed:
        seen = super()._observed()
        return Observed((seen.obs + 1) * seen.active[..., None], seen.state, seen.active, avail=self._avail())

    def _avail(self) -> np.ndarray | None:
        if not self.masks:
            return None
        n = int(self.action_space.n)
        return (np.arange(n) != self.t[:, None, None] % n) | ~self.active[..., None]

    def step(self, actions: np.ndarray) -> Step:
        shape = (*self.active.shape, *self.action_space.shape)
        if actions.shape != shape or actions.dtype != action_dtype(self.action_space):
            raise ValueError(f"actions are {actions.dtype} {actions.shape}")
        earned = actions.reshape(*self.active.shape, -1).sum(-1) * self.active
        step = super().step(np.zeros(self.active.shape, np.int64))
        step.reward, step.final_obs, step.avail = earned.astype(np.float32), step.final_state + 1, self._avail()
        return step


def batched(num_envs: int) -> Toy:
    """A factory of the whole."""
    return Toy(ToyConfig(), num_envs)


EXCEPTION, SEGFAULT, HANG = 101, 102, 103


class Faulty(Toy):
    """A toy on which certain actions have consequences for the whole process."""

    def step(self, actions: np.ndarray) -> Step:
        if (actions == EXCEPTION).any():
            raise ZeroDivisionError("the toy broke")
        if (actions == SEGFAULT).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (actions == HANG).any():
            time.sleep(1000)
        return super().step(actions)


class Losing(Toy):
    """A toy that loses the simulation of its last copy at every `lose_every`-th step."""

    lose_every = 7
    steps = 0

    def step(self, actions: np.ndarray) -> Step:
        self.steps += 1
        active, view = self.active[-1].copy(), self._view()[-1]
        step = super().step(actions)
        if self.steps % self.lose_every:
            return step
        others = step.final_state[np.nonzero(step.truncated)[0] < self.num_envs - 1]
        kept = step.episodes["copy"] < self.num_envs - 1
        self.t[-1], self.active[-1], self.total[-1], self.length[-1] = 0, True, 0.0, 0
        seen = self._observed()
        step.obs, step.state, step.active = seen.obs, seen.state, seen.active
        step.reward[-1], step.terminated[-1], step.truncated[-1] = 0.0, False, active
        step.final_obs = step.final_state = np.concatenate((others, view[active]))
        step.episodes = {key: rows[kept] for key, rows in step.episodes.items()}
        step.sim_crashed = np.arange(self.num_envs) == self.num_envs - 1
        return step
