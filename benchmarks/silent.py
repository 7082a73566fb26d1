"""Training without a folder, a log or an evaluation: for tables of many small runs."""

from collections.abc import Callable
from pathlib import Path

import torch

from rqe_mappo.config import TrainConfig
from rqe_mappo.data import vector
from rqe_mappo.nets import Actor
from rqe_mappo.training.loop import Run, build


def trained(config: TrainConfig, prepare: Callable[[Actor], None] = lambda actor: None) -> Run:
    """A finished run of `config`, whose actors were first given to `prepare`."""
    torch.set_num_threads(1)
    env = vector.make(config, config.num_envs)
    run = build(config, Path(), env)
    with torch.no_grad():
        prepare(run.learner.actor)
    run.collector.start(env.reset(config.seed))
    while run.step < config.total_timesteps:
        rollout, _ = run.collector.collect(run.learner.actor)
        progress = config.progress(run.step)
        run.learner.update(rollout, run.schedule.measures(progress), progress)
        run.step += int(rollout.active.sum())
    env.close()
    return run
