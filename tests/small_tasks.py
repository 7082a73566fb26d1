"""Small environments for actors with memory and with continuous actions, all with snapshots."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.config import TrainConfig, default_config
from rqe_mappo.envs.contract import Observed, PaddedBox, Step
from rqe_mappo.registry import Environment
from tests.toy import Losing, Toy

SMALL: dict[str, Any] = dict(num_envs=4, num_steps=5, actor_hidden=(8,), critic_hidden=(8,), gru_size=6, n_atoms=31,
                             num_minibatches=3, update_epochs=2, critic_epochs=2)  # fmt: skip


def recipe(scenario: str) -> dict[str, Any]:
    return SMALL


class ToyOfNumbers(Toy):
    """The toy, in which the first of an agent's numbers earns if it is positive; the last agent has two, others one."""

    def __init__(self, config: Any, num_envs: int):
        super().__init__(config, num_envs)
        widths = [1] * (config.n_agents - 1) + [2]
        self.action_space = PaddedBox([Box(-1, 1, (width,), np.float32) for width in widths])

    def step(self, actions: np.ndarray) -> Step:
        assert actions.dtype == np.float32 and (np.abs(actions) <= 1).all()
        return super().step((actions[..., 0] > 0).astype(np.int64))


TOY = Environment(Toy, "tests.toy:SCENARIOS", recipe)
LOSING = Environment(Losing, "tests.toy:SCENARIOS", recipe)
NUMBERS = Environment(ToyOfNumbers, "tests.toy:SCENARIOS", recipe)


class Bandit:
    """One step: of a context c, -1 or 1, the action `1 + c / 2` in [-1, 3] is best; a miss by x costs x^2."""

    possible_agents = ("agent",)
    observation_space = state_space = Box(-1, 1, (1,), np.float32)
    action_space = Box(-1, 3, (1,), np.float32)
    return_bounds = reward_bounds = (-6.25, 0.0)
    reward_step = None
    common_reward = time_in_observation = True
    horizon = 1

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self, seed: int) -> Observed:
        self.rng = np.random.default_rng(seed)
        return self._begin()

    def _begin(self) -> Observed:
        self.context = self.rng.integers(2, size=(self.num_envs, 1, 1)) * np.float32(2) - 1
        return self._observed()

    def _observed(self) -> Observed:
        return Observed(self.context, self.context.copy(), np.ones((self.num_envs, 1), bool))

    def step(self, actions: np.ndarray) -> Step:
        reward = -((actions - 1 - self.context / 2) ** 2)[..., 0]
        seen, over, nothing = self._begin(), np.ones((self.num_envs, 1), bool), np.zeros((0, 1), np.float32)
        episodes = {"copy": np.arange(self.num_envs), "return": reward.astype(float), "cost": 0.0 * reward,
                    "length": over.astype(np.int64)}  # fmt: skip
        return Step(seen.obs, seen.state, seen.active, reward=reward, cost=0 * reward, terminated=over,
                    truncated=~over, final_obs=nothing, final_state=nothing, episodes=episodes)  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state, "context": self.context.copy()}

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state, self.context = snapshot["rng"], snapshot["context"].copy()
        return self._observed()

    def close(self) -> None:
        pass


def bandit(num_envs: int) -> Bandit:
    return Bandit(num_envs)


def unbounded(num_envs: int) -> Bandit:
    """A bandit whose actions have no bounds."""
    env = Bandit(num_envs)
    env.action_space = Box(-np.inf, np.inf, (1,), np.float32)
    return env


def small_config(env: str, algo: str, **changes: Any) -> TrainConfig:
    """Settings of a run that takes a second; `env` is a name in this module."""
    default = default_config(f"tests.small_tasks:{env}", algo=algo)
    known = {name: value for name, value in SMALL.items() if name in default.flat()}
    return default.replace(**known | {"eval_episodes": 0} | changes)
