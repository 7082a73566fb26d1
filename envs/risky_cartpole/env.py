"""Risky CartPole in Gymnasium's two forms: one cart, and a vector of carts."""

from dataclasses import fields, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rqe_mappo.envs.risky_cartpole.config import SCENARIOS, RiskyCartPoleConfig
from rqe_mappo.envs.risky_cartpole.dynamics import CartPoleDynamics, observation_space


def configure(scenario: str, overrides: dict[str, Any]) -> RiskyCartPoleConfig:
    """The config of `scenario` with `overrides`; ValueError for an unknown name."""
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario {scenario} is unknown: use {', '.join(SCENARIOS)}")
    known = [field.name for field in fields(RiskyCartPoleConfig)]
    for name in overrides:
        if name not in known:
            raise ValueError(f"argument {name} is unknown: use {', '.join(known)}")
    return replace(SCENARIOS[scenario], **overrides)


class RiskyCartPoleEnv(gymnasium.Env[np.ndarray, np.int64]):
    """
    ## Description
    Gymnasium's CartPole-v1 with gusts of wind, on a track whose right side pays more and is windier. A risk-neutral
    agent goes right and falls often; a risk-averse one stays in the calm middle. Physics, push (±10 N), time step
    (0.02 s) and limits are those of CartPole-v1.

    ## Action space
    `Discrete(2)`: 0 pushes the cart to the left, 1 to the right.

    ## Observation space
    `Box` of six float32:

    | index | quantity                           | unit        | range                                  |
    |-------|------------------------------------|-------------|----------------------------------------|
    | 0     | cart position                      | 2.4 m       | ±1 within an episode                   |
    | 1     | cart velocity                      | 2 m/s       | about ±1                               |
    | 2     | pole angle                         | 12°         | ±1 within an episode                   |
    | 3     | pole angular velocity              | 2 rad/s     | about ±1                               |
    | 4     | wind force that blows now          | 10 N        | 0, or ±0.3 to ±4 (95 % of the gusts)   |
    | 5     | time left                          | the horizon | 1 to 0                                 |

    A gust is first seen in the observation after the step in which it begins. How long it will last is not shown. With
    `observation="cartpole-v1"` there are only the first four, unscaled, in Gymnasium's own space.

    ## Wind
    While no gust blows, one begins at the rate `rate0_hz + rate1_hz * max(x, 0) / 2.4 m`. Its force is lognormal
    (median `gust_median_n`, log-std `gust_sigma`), to the left or right with equal chance, and pushes the cart
    unchanged for `gust_steps` steps. With `reward="survival"` the rate is `rate0_hz + rate1_hz` everywhere.

    ## Reward
    `windy-side`: `1 + bonus * x / 2.4 m` a step, 0 on the step that falls. `survival`: 1 a step, the falling one too.

    ## Starting state
    Position, velocity, angle and angular velocity uniform on ±0.05; no wind.

    ## Episode end
    Terminated when the cart is beyond ±2.4 m or the pole beyond ±12°. Truncated after `horizon` steps, never both. The
    time limit is the environment's own, since it is observed: no `TimeLimit` wrapper is involved.

    ## Info
    `step` gives `cost`, 1.0 on the step that falls and else 0.0, and `gust`, the wind force in N that acted in it.

    ## Arguments
    `scenario` is one of `calm`, `default`, `storm`, `cartpole-v1`; every field of `RiskyCartPoleConfig` may be given on
    top of it. `cartpole-v1` has neither wind nor bonus and gives the trajectories of Gymnasium's environment for the
    same seed and actions.

    ```python
    >>> import gymnasium, rqe_mappo.envs.risky_cartpole
    >>> env = gymnasium.make("rqe/RiskyCartPole-v0", scenario="storm", bonus=0.5)
    >>> envs = gymnasium.make_vec("rqe/RiskyCartPole-v0", 64, vectorization_mode="vector_entry_point")

    ```

    ## Version history
    * v0: first version.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  (Gymnasium's declaration)

    def __init__(self, scenario: str = "default", render_mode: None = None, **overrides: Any):
        self.config = configure(scenario, overrides)
        self.render_mode = render_mode
        self.observation_space = observation_space(self.config)
        self.action_space = Discrete(2)
        self.dynamics = CartPoleDynamics(self.config, 1)
        self.ended = True

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """A new episode; `options` is not used."""
        super().reset(seed=seed)
        self.dynamics.reset(self.np_random)
        self.ended = False
        return self.dynamics.observe()[0], {}

    def step(self, action: int | np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        """One push; ValueError for an action other than 0 and 1, ResetNeeded after the end of an episode."""
        if not self.action_space.contains(action):
            raise ValueError(f"action must be 0 (left) or 1 (right) (got {action!r})")
        if self.ended:
            raise gymnasium.error.ResetNeeded("call reset() first: no episode is under way")
        terminated, truncated = self.dynamics.step(np.array([action]), self.np_random)
        reward = self.dynamics.reward(terminated)
        self.ended = bool(terminated[0] | truncated[0])
        info = {"cost": float(terminated[0]), "gust": float(self.dynamics.gust_n[0])}
        return self.dynamics.observe()[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def state(self) -> np.ndarray:
        """What a centralised critic takes, float32 `[1, features]`: the observation."""
        return self.dynamics.observe()


class RiskyCartPoleVectorEnv(VectorEnv):
    """`num_envs` carts stepped as one array, reset within the step that ends them; see `RiskyCartPoleEnv` for the rest.

    As with Gymnasium's vector environments in SAME_STEP mode, the observation after an end is the next episode's first;
    the last one is in `infos["final_obs"]`, its info in `infos["final_info"]`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, scenario: str = "default", render_mode: None = None, **overrides: Any):
        self.config = configure(scenario, overrides)
        self.dynamics = CartPoleDynamics(self.config, num_envs)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space, self.single_action_space = observation_space(self.config), Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """New episodes everywhere; one generator serves all carts."""
        super().reset(seed=seed)
        self.dynamics.reset(self.np_random)
        return self.dynamics.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """One push each, `actions` int `[E]`; ValueError for an action other than 0 and 1."""
        if not self.action_space.contains(actions):
            raise ValueError(f"actions must be {self.num_envs} numbers, each 0 (left) or 1 (right) (got {actions!r})")
        dynamics = self.dynamics
        terminated, truncated = dynamics.step(actions, self.np_random)
        reward, seen = dynamics.reward(terminated), dynamics.observe()
        info = {"cost": terminated.astype(np.float64), "gust": dynamics.gust_n.copy()}
        ended = terminated | truncated
        infos = {}
        if ended.any():
            which = np.flatnonzero(ended)
            final_obs = np.full(self.num_envs, None)
            for index in which:
                final_obs[index] = seen[index].copy()
            infos = {"final_obs": final_obs, "_final_obs": ended.copy()}
            infos |= {"final_info": _masked(info, ended), "_final_info": ended.copy()}
            dynamics.reset(self.np_random, which)
            seen[which] = dynamics.observe()[which]
        return seen, reward, terminated, truncated, infos | _masked(info, ~ended)


def _masked(info: dict[str, np.ndarray], where: np.ndarray) -> dict[str, np.ndarray]:
    """Gymnasium's form of infos that only some copies have: zeros elsewhere, and a mask `_key` beside each key."""
    return {key: value * where for key, value in info.items()} | {f"_{key}": where.copy() for key in info}
