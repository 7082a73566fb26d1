"""The contract between environments and the learner: E copies of A agents stepped as one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Box, Discrete

Array = np.ndarray


@dataclass(slots=True)
class Observed:
    """What the agents see before they act.

    obs: float32 `[E, A, D]`, what the actor of each agent may see.
    state: float32 `[E, A, S]`, what the centralised critic sees for each agent: the global state, from its side.
    active: bool `[E, A]`, who acts at the next step. Agents that left, and empty slots, are False; their rows are zero.
    """

    obs: Array
    state: Array
    active: Array


@dataclass(slots=True)
class Step(Observed):
    """What one decision of every active agent led to; `obs`, `state`, `active` are those of the *next* decision.

    Copies whose episode ended are reset within the same step (Gymnasium's SAME_STEP autoreset), so the next
    observation is the first of a new episode; what truncation hides is in `final_state`.

    reward, cost: float32 `[E, A]`, zero for agents that did not act. `cost` is the safety signal, apart from reward.
    terminated: bool `[E, A]`, the agent's return ends here.
    truncated: bool `[E, A]`, the agent's episode was cut from outside; the return goes on and must be bootstrapped.
        Never both. Every agent that acted and does not act next in the same episode has exactly one of the two.
    final_state: float32 `[M, S]`, the critic's view after each truncation, in the order of `np.nonzero(truncated)`.
    episodes: one array per key, all of length F, the number of copies whose episode ended in this step. Always
        `copy` `[F]` int (which copy), `return` `[F, A]`, `cost` `[F, A]`, `length` `[F, A]` (decisions made by each
        agent, 0 for a slot that took no part), and what the environment adds, `[F]` or `[F, A]`.
    sim_crashed: bool `[E]`, the copies whose simulation was lost before it could play this step; None where there is
        none. All their active agents are truncated where they were seen last (`final_state`), with zero reward and
        cost, without a record in `episodes`; what they see next is the start of a new episode. No crash of vehicles.
    """

    reward: Array
    cost: Array
    terminated: Array
    truncated: Array
    final_state: Array
    episodes: dict[str, Array] = field(default_factory=dict)
    sim_crashed: Array | None = None


class PaddedDiscrete(Discrete):
    """`Discrete(max(counts))` for agents of which number i has its first `counts[i]` actions only.

    Policies give the others probability 0; an environment may refuse them.
    """

    def __init__(self, counts: Sequence[int]):
        super().__init__(max(counts))
        self.counts = tuple(int(count) for count in counts)


class BatchedEnv(Protocol):
    """E copies of one environment with A agent slots each.

    Arrays handed out may be overwritten by the next call: copy what must last.

    action_space: the actions of every agent; a `PaddedDiscrete` where some have fewer than others (`action_counts`).
    return_bounds: the lowest and highest undiscounted return an episode can give to one agent, from its start or from
        any later state.
    reward_bounds: the same for the reward of one step.
    reward_step: the grid on which every reward lies (0.5 if all are multiples of 0.5), or None.
    horizon: the largest number of decisions in an episode.
    time_in_observation: whether observation and state say how much time is left, so that the end of the horizon may be
        learned as the end of the task instead of being bootstrapped over.
    """

    num_envs: int
    possible_agents: tuple[str, ...]
    observation_space: Box
    state_space: Box
    action_space: Discrete
    return_bounds: tuple[float, float]
    reward_bounds: tuple[float, float]
    reward_step: float | None
    horizon: int
    time_in_observation: bool

    def reset(self, seed: int) -> Observed:
        """Start every copy anew; the same seed and E give the same trajectories."""
        ...

    def step(self, actions: Array) -> Step:
        """`actions`: int64 `[E, A]`; entries of inactive agents are ignored."""
        ...

    def snapshot(self) -> dict[str, Any] | None:
        """All that is needed to go on exactly (arrays, ints, floats, strings, nested dicts), or None if impossible."""
        ...

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Go on from `snapshot`."""
        ...

    def close(self) -> None:
        """Free what the environment holds; a second call does nothing."""
        ...


def action_counts(env: BatchedEnv) -> tuple[int, ...] | None:
    """How many actions each agent has, or None where all have as many as `env.action_space`."""
    counts = getattr(env.action_space, "counts", None)
    return counts if counts is not None and min(counts) < max(counts) else None
