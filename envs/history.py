"""What an episode has earned so far, for objectives that depend on the whole episode."""

from typing import Any, TypeVar

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo.envs.contract import BatchedEnv, Observed, Step, agent_spaces, put_back

Seen = TypeVar("Seen", bound=Observed)


class History:
    """A `BatchedEnv` that keeps, for each copy, what was earned since its episode began.

    past: float32 `[E, A]`, the return so far, `sum_{k < t} gamma^k r_k`.
    discount: float32 `[E]`, `gamma^t`, the weight of the next reward in the episode's return.
    start: float32 `[E, A, S]`, the critic's view when the episode began.

    With `shown`, `past` (in units of the largest return) and, where gamma < 1, `discount` are further features of
    observation and state: the best policy for a static risk measure needs them (Baeuerle & Ott, 'Markov Decision
    Processes with Average-Value-at-Risk Criteria', 2011).
    """

    def __init__(self, env: BatchedEnv, gamma: float, shown: bool):
        self.env, self.gamma, self.shown = env, gamma, shown
        self.num_envs, self.possible_agents, self.horizon = env.num_envs, env.possible_agents, env.horizon
        self.return_bounds, self.reward_bounds, self.reward_step = env.return_bounds, env.reward_bounds, env.reward_step
        self.common_reward, self.time_in_observation = env.common_reward, env.time_in_observation
        self.action_space, self.agent_spaces = env.action_space, agent_spaces(env)
        self.unit = max(abs(bound) for bound in self.return_bounds) or 1.0
        features = 0 if not shown else 2 if gamma < 1 else 1
        self.observation_space = _wider(env.observation_space, features)
        self.state_space = _wider(env.state_space, features)

    def reset(self, seed: int) -> Observed:
        return self._begin(self.env.reset(seed))

    def _begin(self, observed: Observed) -> Observed:
        self.past = np.zeros(observed.active.shape, np.float32)
        self.discount = np.ones(len(observed.active), np.float32)
        observed = self._show(observed)
        self.start = observed.state.copy()
        return observed

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        lost = np.zeros(len(self.discount), bool) if step.sim_crashed is None else step.sim_crashed
        self.past = self.past + self.discount[:, None] * step.reward
        self.discount = self.discount * np.where(lost, np.float32(1), np.float32(self.gamma))
        if self.shown:
            copy, agent = np.nonzero(step.truncated)
            past, discount = self.past[copy, agent], self.discount[copy]
            step.final_obs = self._extended(step.final_obs, past, discount)
            step.final_state = self._extended(step.final_state, past, discount)
        ended = np.concatenate((step.episodes["copy"], np.flatnonzero(lost)))
        if len(ended):
            self.past, self.discount = self.past.copy(), self.discount.copy()
            self.past[ended], self.discount[ended] = 0.0, 1.0
        shown = self._show(step)
        if len(ended):
            self.start = self.start.copy()
            self.start[ended] = shown.state[ended]
        return shown

    def _show(self, observed: Seen) -> Seen:
        if self.shown:
            discount = np.broadcast_to(self.discount[:, None], self.past.shape)
            for name in ("obs", "state"):
                seen = self._extended(getattr(observed, name), self.past, discount)
                setattr(observed, name, seen * observed.active[..., None])
        return observed

    def _extended(self, rows: np.ndarray, past: np.ndarray, discount: np.ndarray) -> np.ndarray:
        more = [past / np.float32(self.unit), discount] if self.gamma < 1 else [past / np.float32(self.unit)]
        return np.concatenate((rows, np.stack(more, -1)), -1, dtype=np.float32)

    def snapshot(self) -> dict[str, Any] | None:
        inner = self.env.snapshot()
        if inner is None:
            return None
        return {"env": inner, **{name: getattr(self, name).copy() for name in ("past", "discount", "start")}}

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        observed = self.env.restore(snapshot["env"])
        copies, agents = observed.active.shape
        self.past, self.discount = np.zeros((copies, agents), np.float32), np.zeros(copies, np.float32)
        self.start = np.zeros((copies, agents, *self.state_space.shape), np.float32)
        put_back({"past": self.past, "discount": self.discount, "start": self.start}, snapshot)
        return self._show(observed)

    def close(self) -> None:
        self.env.close()


def _wider(space: Box, features: int) -> Box:
    """`space` with so many unbounded features more."""
    if features == 0:
        return space
    more = np.full(features, np.inf, np.float32)
    return Box(np.concatenate((space.low, -more)), np.concatenate((space.high, more)), dtype=np.float32)
