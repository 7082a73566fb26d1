"""How long until CartPole-v1 is solved? `python -m benchmarks.cartpole_v1` writes results/cartpole_v1.csv.

Solved: the mean of the last 50 training episodes reaches 475, Gymnasium's threshold. CPU seconds of collecting and
learning, imports and start-up apart. The policy of that moment is then evaluated over 256 episodes with drawn actions.
"""

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import tables, without_options
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.training.run import Run

RESULT = tables.RESULTS / "cartpole_v1.csv"
THRESHOLD, WINDOW, SEEDS = 475, 50, (1, 2, 3, 4, 5)


def solve(seed: int) -> dict[str, float]:
    """One run: steps and CPU seconds to the threshold, and how the policy then does."""
    config = default_config("cartpole", "cartpole-v1").replace(tau=float("inf"), seed=seed)
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(seed))
    recent: list[float] = []
    began = time.process_time()
    while len(recent) < WINDOW or np.mean(recent) < THRESHOLD:
        chunk, episodes = run.collector.collect()
        run.algorithm.learn(chunk, run.progress)
        run.step += int(chunk.active.sum())
        for record in episodes:
            recent = [*recent, *record["return"].ravel()][-WINDOW:]
    spent = time.process_time() - began

    @torch.no_grad()
    def act(env, observed):
        rows, actor = observed.active.shape, run.algorithm.actor
        policy, _ = actor(torch.from_numpy(observed.obs), torch.zeros(rows, dtype=torch.int64))
        return policy.action(policy.sample(torch.rand(*rows, actor.draws, generator=run.generator))).numpy()

    records, _ = run_episodes(env, act, 4, seed + 100)
    return {
        "seed": seed,
        "steps": run.step,
        "cpu_s": round(spent, 2),
        "evaluated mean": float(records["return"].mean()),
    }


def main() -> None:
    without_options(__doc__)
    torch.set_num_threads(1)
    rows = []
    for seed in SEEDS:
        rows.append(solve(seed))
        print(rows[-1], flush=True)
    tables.write(RESULT, rows)


if __name__ == "__main__":
    main()
