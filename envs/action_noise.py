"""Agents whose hands slip: actions that are replaced by others at random, to ask what partners make of that."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete

from rqe_mappo.envs.contract import Array, BatchedEnv, Observed, Step, action_counts


class NoisyActions:
    """A `BatchedEnv` in which each action is replaced by a uniform one with a probability.

    Uniform is as in `uniform_actions`; continuous actions must be bounded. The replaced action may be the one that was
    chosen. Everything else is the environment's own.

    probability: of a replacement, for each decision, independent: one for all agents, one for each `[A]`, or for each
        agent of each copy `[E, A]`.
    """

    def __init__(self, env: BatchedEnv, probability: float | Sequence[float] | Array):
        of_each = np.asarray(probability, dtype=float)
        if not ((of_each >= 0) & (of_each <= 1)).all():
            raise ValueError(f"probability must be in [0, 1] (got {probability})")
        if of_each.shape not in ((), (agents := len(env.possible_agents),), (env.num_envs, agents)):
            raise ValueError(f"probability must be one number, or one for each of {agents} agents (got {probability})")
        require_uniform(env)
        self.env, self.num_envs = env, env.num_envs
        self.probability = of_each
        self.avail: Array | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # before it is set, as while unpickling, there is nothing to ask
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, seed: int) -> Observed:
        """Start every copy; the environment's own numbers are those that it has without noise."""
        self.rng = np.random.default_rng([seed, 1])
        return self._seen(self.env.reset(seed))

    def _seen(self, observed: Observed) -> Observed:
        self.avail = observed.avail
        return observed

    def step(self, actions: Array) -> Step:
        """Let every agent do what it chose, or something else."""
        shape = actions.shape[:2]
        slips = self.rng.random(shape) < self.probability
        slips = slips.reshape(*shape, *[1] * (actions.ndim - 2))
        step = self.env.step(
            np.where(slips, uniform_actions(self.env, self.avail, self.rng), actions).astype(actions.dtype)
        )
        self._seen(step)
        return step

    def snapshot(self) -> dict[str, Any] | None:
        """All that is needed to go on exactly, or None where the environment has no such."""
        inner = self.env.snapshot()
        return None if inner is None else {"noise": self.rng.bit_generator.state, "env": inner}

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Go on from `snapshot`."""
        self.rng = np.random.default_rng()
        self.rng.bit_generator.state = snapshot["noise"]
        return self._seen(self.env.restore(snapshot["env"]))

    def close(self) -> None:
        self.env.close()


def require_uniform(env: BatchedEnv) -> None:
    """ValueError where there is no uniform distribution of actions."""
    if isinstance(env.action_space, Box) and not env.action_space.is_bounded():
        raise ValueError("actions without bounds have no uniform distribution")


def uniform_actions(env: BatchedEnv, avail: Array | None, rng: np.random.Generator) -> Array:
    """A uniform action of every agent, `[E, A]` or `[E, A, choices]`: among those that `avail` allows, where there is
    a mask, among the agent's own, where agents have different numbers of them, and over the box of continuous ones."""
    space, shape = env.action_space, (env.num_envs, len(env.possible_agents))
    if isinstance(space, Box):
        require_uniform(env)
        return (space.low + rng.random((*shape, *space.shape)) * (space.high - space.low)).astype(np.float32)
    if isinstance(space, MultiDiscrete):
        return space.start + (rng.random((*shape, len(space.nvec))) * space.nvec).astype(np.int64)
    uniform = rng.random(shape)
    if avail is None:
        counts = np.array(action_counts(env) or space.n)
        return space.start + (uniform * counts).astype(np.int64)
    place = avail.cumsum(-1)  # the k-th available action, k drawn from 1 to their number
    return space.start + (place > (uniform * place[..., -1]).astype(np.int64)[..., None]).argmax(-1)
