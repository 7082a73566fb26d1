"""Settings of distributional value methods: what is refused, and what a run notes."""

import contextlib

import numpy as np
import pytest

import rqe_mappo
from rqe_mappo import config as configs
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import ConfigError
from rqe_mappo.data import vector
from tests.test_quantile_methods import collector, learner, small


@pytest.mark.parametrize(
    ("algo", "changes", "said"),
    [
        ("riskq", {"risk": "cvar:2"}, "--risk cvar:2 must be"),
        ("ddn", {"tau": -1.0}, "--tau must be > 0"),
        ("ddn", {"kappa": -1.0}, "--kappa must be"),
        ("rmix", {"level": 0.0}, "--level must be in"),
        ("drima", {"agent_level": 1.0}, "--agent-level must be in"),
        ("drima", {"actor_hidden": ()}, "--actor-hidden must have a layer"),
        ("qr-dqn", {"window": 0}, "--window must be"),
        ("c51", {"return_low": 1.0}, "--return-low must go with --return-high"),
        ("qr-dqn", {"recurrent": True}, "--recurrent must be left out"),
        ("ddn", {"kappa": 1e-300}, "--kappa must be 0, or in"),
        ("ddn", {"kappa": 1e300}, "--kappa must be 0, or in"),
        ("rmix", {"level": 0.01}, r"--level must be in \[1 / --quantiles = 0.03125, 1\]"),
        ("rmix", {"quantiles": 1}, "--quantiles must be at least 2"),
        ("qr-dqn", {"quantiles": 1, "risk": "cvar:0.25"}, "--quantiles must be at least 2 with --risk cvar:0.25"),
        ("riskq", {"quantiles": 1, "risk": "mean-variance", "tau": 1.0}, "--quantiles must be at least 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(algo, changes, said):
    with pytest.raises(ConfigError, match=said):
        small(algo, **changes)


@pytest.mark.parametrize(
    ("algo", "risk", "noted"),
    [("ddn", "cvar:0.2", ""), ("riskq", "wang:0.75", ""), ("riskq", "expectile:0.3", "with ddn and riskq cvar"),
     ("dmix", "cvar:0.2", "use ddn or riskq"), ("dmix", "neutral", ""), ("dmix", "cvar:1", ""),
     ("ddn", "expectile:0.5", ""), ("dmix", "expectile:0.3", "with ddn and riskq cvar")],
    ids=["sum", "weighed", "expectile", "dmix", "mean", "all", "half", "neither"],
)  # fmt: skip
def test_a_run_notes_where_agents_cannot_find_the_best_apart(algo, risk, noted):
    config = small(algo, risk=risk)
    with contextlib.closing(vector.make(config, 2)) as env:
        said = [line for line in config.algorithm.notes(env) if "need not be the team's" in line]
    assert len(said) == bool(noted) and all(noted in line for line in said)


@pytest.mark.parametrize(
    ("algo", "risk", "noted"),
    [("qr-dqn", "cvar:0.01", 1), ("ddn", "var:0.03", 1), ("ddn", "cvar:0.04", 0), ("qr-dqn", "wang:5", 0)],
)
def test_a_level_below_that_of_one_quantile_is_noted(algo, risk, noted):
    config = rqe_mappo.default_config("gamble", algo=algo, risk=risk)
    with contextlib.closing(vector.make(config, 2)) as env:
        assert sum("lowest of --quantiles 32" in line for line in config.algorithm.notes(env)) == noted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"levels": "Sampled"}, "--levels must be fixed or sampled"), ({"recurrent": "no"}, "--recurrent must be"),
        ({"window": 2.5}, "--window must be"), ({"quantiles": "8"}, "--quantiles must be"),
        ({"tau": "1"}, "--tau must be"), ({"risk": 0.3}, "--risk must be"), ({"seed": 1.5}, "--seed must be"),
        ({"actor_hidden": 64}, "--actor-hidden must be"), ({"time_limit": "x"}, "--time-limit must be"),
    ],
)  # fmt: skip
def test_a_setting_of_another_type_is_refused_before_anything_is_trained(changes, said):
    with pytest.raises(ConfigError, match=said):
        small("ddn", **changes)


def test_numbers_of_numpy_and_lists_are_taken_as_pythons():
    config = small("ddn", quantiles=np.int64(8), kappa=np.float32(0.5), actor_hidden=[32, 32], tau=1)
    assert config == small("ddn", quantiles=8, kappa=0.5, actor_hidden=(32, 32), tau=1.0)
    assert configs.from_json(configs.to_json(config)) == config


def test_one_quantile_is_enough_for_the_mean():
    assert small("qr-dqn", quantiles=1, risk="entropic").algorithm.quantiles == 1
    assert small("rmix", quantiles=1, level=1.0).algorithm.quantiles == 1


@pytest.mark.parametrize("changes", [{"risk": "mean-variance", "tau": 1e-300}, {"tau": 1.0, "return_scale": 1e-300}])
def test_the_least_tau_is_the_worst_case(changes):
    config = small("ddn", **changes)
    with contextlib.closing(vector.make(config, 4)) as env:
        model = learner("ddn", env, config)
        model.learn(collector(env, model, 40).collect(1.0)[0], Progress(0, 512))
    assert model.unit is not None and 0 < float(model.actor.tau) < 1e-5


@pytest.mark.parametrize(
    ("algo", "risk", "noted"),
    [("ddn", "entropic", 0), ("ddn", "cvar:0.4", 0), ("riskq", "entropic", 1), ("riskq", "mean-variance", 1),
     ("riskq", "expectile:0.3", 0), ("riskq", "cvar:0.4", 0), ("dmix", "cvar:0.4", 1), ("dmix", "neutral", 0)],
)  # fmt: skip
def test_one_agent_is_noted_where_its_return_is_learned_mixed(algo, risk, noted):
    config = rqe_mappo.default_config("gamble", algo=algo, risk=risk, tau=1.0)
    with contextlib.closing(vector.make(config, 2)) as env:
        said = [line for line in config.algorithm.notes(env) if "need not be by the return that is learned" in line]
    assert len(said) == noted
