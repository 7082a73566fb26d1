"""Trajectories in which a group of agents, or nearly everybody, does not act: nothing breaks, nothing turns to nan."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rqe_mappo import cli, registry
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import default_config
from rqe_mappo.data import finite, vector
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.training.run import Run
from tests import toy

QUICK = ["--total-timesteps", "600", "--eval-episodes", "0", "--return-scale", "5", "--warmup-fraction", "0"]
AVERSE = dict(return_scale=1.0, warmup_fraction=0.0, risk_anneal_fraction=0.0)
KINDS = {
    **{advantage: ("rqe-mappo", {"advantage": advantage}) for advantage in ("influence", "static", "nested", "value")},
    "discounted tau": ("rqe-mappo", {"discount_tau": True}),
    "recurrent": ("rqe-mappo", {"recurrent": True, "gru_size": 4}),
    "cvar": ("rqe-mappo", {"risk": "cvar:0.25"}),
    "c51-cvar": ("c51-cvar", {}),
    "exact-rqe": ("exact-rqe", {"time_limit": "terminal"}),
    "mean-variance": ("mean-variance", {}),
    "mappo": ("mappo", {}),
    "reward-shaped": ("reward-shaped", {}),
    "ippo": ("ippo", {}),
}


def acting(chunk: Trajectory, who: str) -> Trajectory:
    """The trajectory with fewer acts."""
    keep = torch.zeros_like(chunk.active)
    first = chunk.active.flatten().nonzero()[0]
    if who == "one row":
        keep.view(-1)[first] = True
    elif who == "one group":
        keep[..., keep.shape[-1] // 2 :] = True
    elif who == "one row of a group":
        keep[..., keep.shape[-1] // 2 :] = True
        keep[0, 0, 0] = True
    elif who == "not at first":
        keep[1:] = True
    keep &= chunk.active
    cut = chunk.truncated & keep
    at = chunk.truncated.nonzero()
    kept = torch.tensor([bool(cut[tuple(place)]) for place in at.tolist()], dtype=torch.bool)
    return replace(
        chunk, active=keep, terminated=chunk.terminated & keep, truncated=cut, lost=chunk.lost & keep,
        final_obs=chunk.final_obs[kept], final_state=chunk.final_state[kept],
    )  # fmt: skip


@pytest.mark.parametrize("who", ["one row", "one group", "one row of a group", "not at first"])
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_leave_weights_and_state_finite(kind, who, monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
    algo, own = KINDS[kind]
    config = default_config("matrix" if algo == "exact-rqe" else "toy", algo=algo).replace(num_envs=2, num_steps=6)
    if algo != "exact-rqe":
        config = config.replace(n_agents=4)
    tau = (0.3, 0.3, math.inf, math.inf) if algo != "exact-rqe" else (0.3, math.inf)
    eps = (0.01, 0.01, 0.02, 0.02) if algo != "exact-rqe" else 0.01
    known = {"eps": eps, "tau": tau} | AVERSE if "return_scale" in config.flat() else {"eps": eps}
    config = config.replace(**own, **known)
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(0))
    for _ in range(3):
        chunk, _ = run.collector.collect(run.algorithm.explore)
        run.algorithm.learn(acting(chunk, who), Progress(50, 100))
    finite.check_weights(run.algorithm.modules)
    finite.check_state(run.algorithm.state_dict(), "the algorithm's")


@pytest.mark.slow
def test_groups_of_one_copy_train_in_short_rollouts(tmp_path):
    flags = ["--env", "sumo", "--tau", "0.3,0.3,inf,inf", "--num-envs", "1", "--num-steps", "16", *QUICK]
    cli.train([*flags, "--out", str(tmp_path / "run")])
    assert Policy.load(tmp_path / "run").timesteps >= 600
