"""Training without a folder, a log or an evaluation: for tables of many small runs."""

from collections.abc import Callable
from pathlib import Path

import torch

from rqe_mappo.config import TrainConfig
from rqe_mappo.data import vector
from rqe_mappo.nets import PolicyActor
from rqe_mappo.training.run import Run


def trained(config: TrainConfig, prepare: Callable[[PolicyActor], None] = lambda actor: None) -> Run:
    """A finished run of `config`, whose actors were first given to `prepare`."""
    torch.set_num_threads(1)
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path(), env)
    with torch.no_grad():
        prepare(run.algorithm.actor)
    run.collector.start(env.reset(config.seed))
    while run.step < config.total_timesteps:
        chunk, _ = run.collector.collect()
        run.algorithm.learn(chunk, run.progress)
        run.step += int(chunk.active.sum())
    env.close()
    return run
