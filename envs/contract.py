"""The contract between environments and the learner: E copies of A agents stepped as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rqe_mappo.spaces import AgentSpaces

Array = np.ndarray
ActionSpace = Discrete | MultiDiscrete | Box
LARGEST = 1e15  # size of any number that an environment gives: a million of its squares still add up in float32
WITHIN = f"lie within {-LARGEST:g} and {LARGEST:g}"


@dataclass(slots=True)
class Observed:
    """What the agents see before they act.

    obs: float32 `[E, A, D]`, what the actor of each agent may see.
    state: float32 `[E, A, S]`, what the centralised critic sees for each agent: the global state, from its side.
    active: bool `[E, A]`, who acts at the next step. Agents that left, and empty slots, are False; their rows are zero.
    avail: bool `[E, A, actions]`, which actions each agent may choose now, in the order of a `Discrete` action space;
        True throughout for agents that do not act. None where every action is always available; an environment gives
        it always or never.
    """

    obs: Array
    state: Array
    active: Array
    avail: Array | None = field(default=None, kw_only=True)


@dataclass(slots=True)
class Step(Observed):
    """What one decision of every active agent led to; `obs`, `state`, `active` are those of the *next* decision.

    Copies whose episode ended are reset within the same step (Gymnasium's SAME_STEP autoreset), so the next
    observation is the first of a new episode; what truncation hides is in `final_obs` and `final_state`.

    reward, cost: float32 `[E, A]`, zero for agents that did not act. `cost` is the safety signal, apart from reward.
    terminated: bool `[E, A]`, the agent's return ends here.
    truncated: bool `[E, A]`, the agent's episode was cut from outside; the return goes on and must be bootstrapped.
        Never both. Every agent that acted and does not act next in the same episode has exactly one of the two.
    final_obs: float32 `[M, D]`, what each truncated agent would have observed next, in the order of
        `np.nonzero(truncated)`.
    final_state: float32 `[M, S]`, the critic's view after each truncation, in the same order.
    episodes: one array per key, all of length F, the number of copies whose episode ended in this step. Always
        `copy` `[F]` int (which copy), `return` `[F, A]`, `cost` `[F, A]`, `length` `[F, A]` (decisions made by each
        agent, 0 for a slot that took no part), and what the environment adds, `[F]` or `[F, A]`.
    sim_crashed: bool `[E]`, the copies whose simulation was lost before it could play this step; None where there is
        none. All their active agents are truncated where they were seen last (`final_obs`, `final_state`), with zero
        reward and cost, without a record in `episodes`; what they see next is the start of a new episode. No crash of
        vehicles.
    """

    reward: Array
    cost: Array
    terminated: Array
    truncated: Array
    final_obs: Array
    final_state: Array
    episodes: dict[str, Array] = field(default_factory=dict)
    sim_crashed: Array | None = None


class PaddedDiscrete(Discrete):
    """`Discrete(max(counts))` for agents of which number i has its first `counts[i]` actions only.

    Policies give the others probability 0; an environment may refuse them.
    """

    def __init__(self, counts: Sequence[int], start: int = 0):
        super().__init__(max(counts), start=start)
        self.counts = tuple(int(count) for count in counts)


class PaddedBox(Box):
    """A flat box for agents of which number i uses the first `widths[i]` components of an action only.

    The environment ignores the others. Each component has the widest bounds that any agent has for it; the environment
    clips to the agent's own, `boxes[i]`.
    """

    def __init__(self, boxes: Sequence[Box]):
        self.boxes = tuple(boxes)
        self.widths = tuple(int(np.prod(box.shape)) for box in boxes)
        low, high = np.full(max(self.widths), np.inf, np.float32), np.full(max(self.widths), -np.inf, np.float32)
        for box, width in zip(boxes, self.widths, strict=True):
            low[:width] = np.minimum(low[:width], box.low.ravel())
            high[:width] = np.maximum(high[:width], box.high.ravel())
        super().__init__(low, high, dtype=np.float32)


class BatchedEnv(Protocol):
    """E copies of one environment with A agent slots each.

    Arrays handed out may be overwritten by the next call: copy what must last. Every number is finite and at most
    `LARGEST` in size, and an agent that acts has an action to choose: what gives anything else ends a run.

    action_space: the actions of every agent: `Discrete` or `MultiDiscrete` with any `start`, or `Box`, bounded or not.
        A `PaddedDiscrete` where some agents have fewer actions than others (`action_counts`), a `PaddedBox` where some
        have fewer components.
    return_bounds: the lowest and highest undiscounted return an episode can give to one agent, from its start or from
        any later state.
    reward_bounds: the same for the reward of one step.
    reward_step: the grid on which every reward lies (0.5 if all are multiples of 0.5), or None.
    common_reward: whether every agent is always given the same reward; True for a single agent. Off-policy team methods
        learn from it, and from the sum over agents where it is False.
    horizon: the largest number of decisions in an episode.
    time_in_observation: whether observation and state show how much time is left, so that the end of the horizon may be
        learned as the end of the task instead of being bootstrapped over.
    """

    num_envs: int
    possible_agents: tuple[str, ...]
    observation_space: Box
    state_space: Box
    action_space: ActionSpace
    return_bounds: tuple[float, float]
    reward_bounds: tuple[float, float]
    reward_step: float | None
    common_reward: bool
    horizon: int
    time_in_observation: bool

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning; the same seed and E give the same trajectories."""
        ...

    def step(self, actions: Array) -> Step:
        """Let every active agent act; entries of inactive agents are ignored.

        `actions` holds elements of `action_space`: int64 `[E, A]` for `Discrete`, int64 `[E, A, U]` for
        `MultiDiscrete`, float32 `[E, A, U]` for `Box`. With a `start` of 5 the first action is 5.
        """
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


def put_back(arrays: Mapping[str, np.ndarray], snapshot: Mapping[str, Any]) -> None:
    """Write what a snapshot holds into arrays of the same names; ValueError for one of another shape or kind."""
    for name, array in arrays.items():
        kept = snapshot[name]
        if not isinstance(kept, np.ndarray) or (kept.shape, kept.dtype) != (array.shape, array.dtype):
            raise ValueError(f"a snapshot's {name} must be {array.dtype} of shape {array.shape}")
        array[...] = kept


def action_counts(env: BatchedEnv) -> tuple[int, ...] | None:
    """How many actions each agent has, or None where all have as many as `env.action_space`."""
    counts = getattr(env.action_space, "counts", None)
    return counts if counts is not None and min(counts) < max(counts) else None


def agent_spaces(env: BatchedEnv) -> tuple[AgentSpaces, ...] | None:
    """What each agent observes and does by itself, where `env` flattens and pads that for networks; else None."""
    return getattr(env, "agent_spaces", None)


def action_dtype(space: ActionSpace) -> type[np.float32] | type[np.int64]:
    """What `step` takes: `[E, A, *space.shape]` of float32 for a `Box`, of int64 otherwise."""
    return np.float32 if isinstance(space, Box) else np.int64


def begun(observed: Observed) -> Array:
    """The copies in which an episode has just begun: after a reset all, after a step those that ended or were lost."""
    if not isinstance(observed, Step):
        return np.arange(len(observed.active))
    ended = observed.episodes["copy"]
    return ended if observed.sim_crashed is None else np.union1d(ended, np.flatnonzero(observed.sim_crashed))
