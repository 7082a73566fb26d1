"""What does turning alpha cost? `python -m benchmarks.interpolation SAFE NEUTRAL` (two run folders).

A decision for all agents by the neutral policy alone, and by mixtures of each kind, with alpha left alone or set anew
before every decision; calls alternate, medians. Writes results/interpolation.csv.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from benchmarks import tables
from benchmarks.tables import RESULTS
from rqe_mappo.deploy.interpolation import Kind, Mixture, interpolate
from rqe_mappo.deploy.policy import Policy


def turned(mixture: Mixture) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Decisions of `mixture`, alpha set before each."""

    def act(obs: np.ndarray, agents: np.ndarray) -> np.ndarray:
        mixture.alpha = 0.25 + 0.5 * float(obs[0, 0] > 0)
        return mixture.act(obs, agents)

    return act


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("safe", type=Path)
    parser.add_argument("neutral", type=Path)
    parser.add_argument("--decisions", type=int, default=5000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    safe, neutral = Policy.load(args.safe), Policy.load(args.neutral)
    acts = {"one policy": neutral.act}
    for kind in get_args(Kind):
        mixture = interpolate(safe, neutral, 0.5, kind)
        mixture.begin()
        acts[f"{kind}, alpha left alone"] = mixture.act
        acts[f"{kind}, alpha set each time"] = turned(mixture)
    rng, agents = np.random.default_rng(0), np.arange(len(neutral.agents))
    seconds = {name: np.empty(args.decisions) for name in acts}
    for index in range(args.decisions):
        obs = rng.standard_normal((len(agents), neutral.spec.obs_dim), np.float32)
        for name, act in acts.items():
            began = time.perf_counter()
            act(obs, agents)
            seconds[name][index] = time.perf_counter() - began
    alone = np.median(seconds["one policy"])
    rows = [
        {"what": name, "agents": len(agents), "microseconds": np.median(taken) * 1e6, "ratio": np.median(taken) / alone}
        for name, taken in seconds.items()
    ]
    tables.write(RESULTS / "interpolation.csv", rows)
    for row in rows:
        print(f"{row['what']:<32} {row['microseconds']:7.1f} us {row['ratio']:6.2f}")


if __name__ == "__main__":
    main()
