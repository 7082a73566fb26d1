"""What a deployer relies on: load, act, look at the distribution; and settings that survive the round trip."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rqe_mappo import checkpoint, registry
from rqe_mappo.config import ConfigError, default_config, from_json, to_json
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.functional.risk import Entropic, Neutral
from rqe_mappo.training.loop import train
from tests import toy


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A short run of the toy environment with two agents that have an actor each."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
        config = default_config("toy").replace(n_agents=2, shared_actor=False, tau=2.0)
        return train(config.replace(total_timesteps=2000, out=str(out)))


def test_run_folder_and_file_load_the_same_policy(run):
    folder, file = Policy.load(run), Policy.load(checkpoint.newest(run)[0])
    obs = np.array([0.5, 0.0], np.float32)
    assert np.array_equal(folder.probabilities(obs), file.probabilities(obs))
    assert folder.timesteps >= 2000 and folder.agents == ("agent_0", "agent_1")


def test_rows_dicts_and_single_observations_act_alike(run):
    policy = Policy.load(run)
    rows = np.array([[0.1, 0.0], [0.7, 0.5]], np.float32)
    best = policy.act(rows, np.array([0, 1]), deterministic=True)
    assert best.dtype == np.int64 and best.shape == (2,)
    assert policy.act({"agent_0": rows[0], "agent_1": rows[1]}, deterministic=True) == {
        "agent_0": best[0],
        "agent_1": best[1],
    }
    assert policy.act({"agent_1": rows[1]}, deterministic=True) == {"agent_1": best[1]}
    assert policy.act(rows[1], 1, deterministic=True) == best[1]
    assert policy.act({}) == {}


def test_each_agent_has_its_own_actor(run):
    policy = Policy.load(run)
    obs = np.array([0.5, 0.25], np.float32)
    assert not np.allclose(policy.probabilities(obs, 0), policy.probabilities(obs, 1))


def test_draws_follow_the_probabilities_and_the_seed(run):
    policy = Policy.load(run)
    rows = np.full((20_000, 2), 0.5, np.float32)
    policy.seed(3)
    drawn = policy.act(rows)
    probability = policy.probabilities(rows[0])[1]
    assert drawn.mean() == pytest.approx(probability, abs=4 * math.sqrt(0.25 / len(rows)))
    policy.seed(3)
    assert np.array_equal(drawn, policy.act(rows))


def test_distribution_is_the_critics_and_its_values_order(run):
    policy = Policy.load(run)
    known = policy.distribution(np.array([[0.0, 0.0], [0.9, 0.0]], np.float32))
    assert known.probs.shape == (2, len(known.atoms))
    assert torch.allclose(known.probs.sum(-1), torch.ones(2))
    assert torch.allclose(known.value(Neutral()), known.mean)
    assert (known.value(Entropic(0.5, clip=None)) < known.value(Entropic(5.0, clip=None))).all()
    assert (known.quantile(0.05) <= known.quantile(0.95)).all()
    assert (policy.value(np.array([0.0, 0.0], np.float32)) <= known.mean[0]).all()
    assert policy.measure.tau == 2.0 and policy.return_scale > 0


@pytest.mark.parametrize("env", list(registry.ENVIRONMENTS))
def test_settings_survive_json(env):
    config = default_config(env).replace(tau=math.inf, actor_hidden=(32,), return_scale=2.5)
    assert from_json(to_json(config)) == config


def test_settings_of_another_version_are_refused(run):
    with pytest.raises(ConfigError, match="momentum"):
        from_json(to_json(default_config("cartpole")).replace('"gamma"', '"momentum"'))
