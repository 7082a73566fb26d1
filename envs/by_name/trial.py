"""What random actions show of an environment before anything is learned in it."""

from collections.abc import Iterator, Sequence

import numpy as np
from gymnasium import Space

from rqe_mappo.envs.by_name.actions import random_action
from rqe_mappo.envs.by_name.one_copy import Copy, Earned, Seen
from rqe_mappo.envs.contract import LARGEST, Array

SEED = 0
EPISODES = 20
MARGIN = 0.5  # of the range of rewards that random actions brought, added at either end
FIRST = 50  # decisions of an episode that is played twice
LONGEST = 1_000  # decisions of an episode; what it would bring after them is taken to be in proportion


def rewards(copy: Copy, spaces: Sequence[Space], most: int) -> tuple[list[float], list[float]]:
    """What agents were given for each decision, and in each episode of at most so many."""
    rng, single, whole = np.random.default_rng(SEED), list[float](), list[float]()
    for seed in range(EPISODES):
        given, goes_on = dict[int, list[float]](), list[int]()
        for seen, earned in _episode(copy, spaces, rng, SEED + seed, min(most, LONGEST)):
            goes_on = seen.acting
            for agent, reward in earned.reward.items():
                if not abs(reward) <= LARGEST:
                    raise copy.facts.error(
                        f"{copy.facts.agents[agent]} was given the reward {reward:g} for random actions: "
                        f"rewards must be finite and at most {LARGEST:g} in size"
                    )
                given.setdefault(agent, []).append(reward)
        for agent, of_agent in given.items():
            single += of_agent
            whole.append(sum(of_agent) * (max(1.0, most / LONGEST) if agent in goes_on else 1.0))
    return single, whole


def widened(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of values, of 0, and of half their range more at either end."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    margin = MARGIN * (high - low)
    low, high = min(low - margin, 0.0), max(high + margin, 0.0)
    return (low, high) if low < high else (-1.0, 1.0)  # nothing at all was seen


def first_steps(copy: Copy, spaces: Sequence[Space], most: int) -> list[Array]:
    """What was seen and earned, step after step, as an episode began."""
    trace: list[Array] = []
    for seen, earned in _episode(copy, spaces, np.random.default_rng(SEED), SEED, min(most, FIRST)):
        trace += [np.array([*earned.reward.values()]), *(flat.copy() for flat in seen.obs.values())]
    return trace


def same(one: list[Array], other: list[Array]) -> bool:
    """Whether two traces are equal."""
    return len(one) == len(other) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def _episode(
    copy: Copy, spaces: Sequence[Space], rng: np.random.Generator, seed: int, most: int
) -> Iterator[tuple[Seen, Earned]]:
    """The steps of an episode, and what was seen before the first."""
    seen = copy.reset(seed)
    yield seen, Earned()
    for _ in range(most):
        seen, earned = copy.step({i: random_action(spaces[i], rng, seen.masks.get(i)) for i in seen.acting})
        yield seen, earned
        if not seen.acting:
            break
