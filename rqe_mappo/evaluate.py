"""Episodes with a fixed policy: their records, and how well the critic foretold them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from rqe_mappo import vector
from rqe_mappo.config import TrainConfig, from_json
from rqe_mappo.envs.batched import BatchedEnv, Observed
from rqe_mappo.policy import Policy

MOST_COPIES = 64
Chooser = Callable[[BatchedEnv, Observed], np.ndarray]
"""Actions `[E, A]` for what the environment shows."""


@dataclass(frozen=True)
class Calibration:
    """How the critic's distribution at the start of episodes compares with the returns that followed.

    pit: where each return fell in the distribution foretold for it; uniform on [0, 1] for a critic that knows.
    ks: the Kolmogorov-Smirnov distance of `pit` from uniform.
    predicted_mean, realised_mean: the average return foretold, and had.
    """

    pit: np.ndarray
    ks: float
    predicted_mean: float
    realised_mean: float


def copies_for(episodes: int) -> tuple[int, int]:
    """How many copies, and how many episodes each, make up `episodes` (rounded up where they do not divide)."""
    divisors = [n for n in range(MOST_COPIES // 2, MOST_COPIES + 1) if episodes % n == 0]
    copies = divisors[-1] if divisors else min(MOST_COPIES, episodes)
    return copies, -(-episodes // copies)


def play(
    env: BatchedEnv, choose: Chooser, each: int, seed: int, gamma: float = 1.0
) -> tuple[dict[str, np.ndarray], list[Observed]]:
    """The first `each` episodes of every copy: their records, and what was seen when each began.

    A fixed number per copy: whatever ends within a time window would count short episodes too often. The records
    gain `discounted` `[F, A]`, the return discounted by `gamma`.
    """
    observed = env.reset(seed)
    first = [_copy(observed, slice(None))]
    began = [[(0, copy)] for copy in range(env.num_envs)]
    done = np.zeros(env.num_envs, dtype=int)
    discounted = np.zeros(observed.active.shape)
    weight = np.ones(env.num_envs)
    records, starts = [], []
    while (done < each).any():
        step = env.step(choose(env, observed))
        discounted += weight[:, None] * step.reward
        weight *= gamma
        ended = step.episodes["copy"]
        if len(ended):
            keep = done[ended] < each
            records.append({key: value[keep] for key, value in step.episodes.items()})
            records[-1]["discounted"] = discounted[ended[keep]]
            starts += [began[copy][-1] for copy in ended[keep]]
            done[ended] += 1
            discounted[ended], weight[ended] = 0.0, 1.0
            first.append(_copy(step, ended))
            for row, copy in enumerate(ended):
                began[copy].append((len(first) - 1, row))
        observed = step
    joined = {key: np.concatenate([record[key] for record in records]) for key in records[0]}
    return joined, [_copy(first[index], row) for index, row in starts]


def _copy(observed: Observed, rows: slice | np.ndarray | int) -> Observed:
    return Observed(*(getattr(observed, name)[rows].copy() for name in ("obs", "state", "active")))


def chooser(policy: Policy, deterministic: bool = False) -> Chooser:
    """The policy as a `Chooser`."""
    agents = np.arange(len(policy.agents))

    def choose(env: BatchedEnv, observed: Observed) -> np.ndarray:
        return policy.act(observed.obs, np.broadcast_to(agents, observed.active.shape), deterministic)

    return choose


def calibration(policy: Policy, starts: list[Observed], returns: np.ndarray, seed: int) -> Calibration:
    """Compare the critic at the episodes' starts with the (discounted) returns `[F, A]` that followed.

    The distribution is read as a histogram with one bin an atom; a return within a bin is placed at random in it,
    which keeps the PIT uniform for a discrete law too.
    """
    state = np.stack([start.state for start in starts])
    took_part = np.stack([start.active for start in starts])
    agents = np.broadcast_to(np.arange(state.shape[1]), took_part.shape)
    known = policy.distribution(state[took_part], torch.from_numpy(agents[took_part].copy()))
    atoms, probs = known.atoms.cpu().numpy(), known.probs.cpu().numpy()
    realised = returns[took_part]
    width = atoms[1] - atoms[0]
    jitter = np.random.default_rng(seed).uniform(-0.5, 0.5, len(realised)) * width
    edges = np.append(atoms - width / 2, atoms[-1] + width / 2)
    cdf = np.concatenate((np.zeros((len(probs), 1)), probs.cumsum(-1)), axis=-1)
    pit = np.array([np.interp(x, edges, row) for x, row in zip(realised + jitter, cdf, strict=True)])
    ordered, grid = np.sort(pit), np.arange(len(pit) + 1) / len(pit)
    ks = max((grid[1:] - ordered).max(), (ordered - grid[:-1]).max())
    return Calibration(pit, float(ks), float(known.mean.mean()), float(realised.mean()))


def evaluate(
    policy: Policy, episodes: int, seed: int, deterministic: bool = False
) -> tuple[dict[str, np.ndarray], Calibration | None]:
    """Play `episodes` of the policy's own environment; the critic is judged where its return is the episode's."""
    config: TrainConfig = from_json(policy.config_json)
    copies, each = copies_for(episodes)
    policy.seed(seed)
    env = vector.make(config.env, config.knobs, copies)
    try:
        records, starts = play(env, chooser(policy, deterministic), each, seed, config.gamma)
    finally:
        env.close()
    foretold = config.time_limit == "terminal" and not deterministic
    return records, calibration(policy, starts, records["discounted"], seed) if foretold else None
