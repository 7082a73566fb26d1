"""How long until CartPole-v1 is solved? `python -m benchmarks.cartpole_v1` writes results/cartpole_v1.csv.

Solved: the mean of the last 50 training episodes reaches 475, Gymnasium's threshold. CPU seconds of collecting and
learning, imports and start-up apart. The policy of that moment is then evaluated over 256 episodes with drawn actions.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import tables
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.evaluation.episodes import play
from rqe_mappo.nets import sample
from rqe_mappo.training.loop import build

RESULT = tables.RESULTS / "cartpole_v1.csv"
THRESHOLD, WINDOW, SEEDS = 475, 50, (1, 2, 3, 4, 5)


def solve(seed: int) -> dict[str, float]:
    """One run: steps and CPU seconds to the threshold, and how the policy then does."""
    config = replace(default_config("cartpole", "cartpole-v1"), tau=float("inf"), seed=seed)
    env = vector.make(config, config.num_envs)
    run = build(config, Path("unused"), env)
    run.collector.start(env.reset(seed))
    recent: list[float] = []
    began, steps = time.process_time(), 0
    while len(recent) < WINDOW or np.mean(recent) < THRESHOLD:
        rollout, episodes = run.collector.collect(run.learner.actor)
        run.learner.update(rollout, run.schedule.measures(0.0), steps / config.total_timesteps)
        steps += int(rollout.active.sum())
        for record in episodes:
            recent = [*recent, *record["return"].ravel()][-WINDOW:]
    spent = time.process_time() - began

    @torch.no_grad()
    def act(env, observed):
        logits = run.learner.actor(
            torch.from_numpy(observed.obs), torch.zeros(observed.active.shape, dtype=torch.int64)
        )
        return sample(logits, torch.rand(observed.active.shape, generator=run.generator)).numpy()

    records, _ = play(env, act, 4, seed + 100)
    return {"seed": seed, "steps": steps, "cpu_s": round(spent, 2), "evaluated mean": float(records["return"].mean())}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for seed in SEEDS:
        rows.append(solve(seed))
        print(rows[-1], flush=True)
    tables.write(RESULT, rows)


if __name__ == "__main__":
    main()
