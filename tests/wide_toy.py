"""The toy with a state of its own and a cost, for rivals; runs of it at their beginning."""

from pathlib import Path

import numpy as np

from rqe_mappo import registry
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.training.run import Run
from tests import toy

ENTRY = registry.Environment("tests.wide_toy:Wide", "tests.toy:SCENARIOS", "tests.toy:recipe")
BEGIN = Progress(0, 1)


class Wide(toy.Toy):
    """The toy whose state says one thing more than observations do, and where every step costs 1."""

    state_space = toy.Box(0, 1, (3,), np.float32)

    @staticmethod
    def wider(view: np.ndarray) -> np.ndarray:
        return np.concatenate((view, np.full_like(view[..., :1], 0.5)), -1)

    def _observed(self) -> toy.Observed:
        seen = super()._observed()
        return toy.Observed(seen.obs, self.wider(seen.state) * seen.active[..., None], seen.active)

    def step(self, actions: np.ndarray) -> toy.Step:
        acted = self.active.copy()
        step = super().step(actions)
        step.final_state, step.cost = self.wider(step.final_state), acted.astype(np.float32)
        return step


def toy_config(algo, own=None, leave_probability=0.1, **changes):
    return default_config("toy", algo=algo).replace(leave_probability=leave_probability, **(own or {}), **changes)


def collected(config):
    """An algorithm at its beginning, and the first trajectory."""
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(config.seed))
    return run.algorithm, run.collector.collect()[0]
