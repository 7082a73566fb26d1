"""Which policy a run ends with: the mean of its late weights, or that of the best of several stretches."""

import copy
import math
from pathlib import Path

import pytest
import torch

from rqe_mappo import registry
from rqe_mappo.algorithms.averages import BestWeights
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.ppo import Batch
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.data import vector
from rqe_mappo.training.run import Run
from tests import toy


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)


def prepared(config):
    """A run at its beginning, and a trajectory."""
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(config.seed))
    return run, run.collector.collect()[0]


def test_the_final_policy_has_the_mean_weights_of_the_last_updates():
    run, chunk = prepared(default_config("toy").replace(settle=0.2, average=0.3, return_scale=1.0))

    def after(share):
        """The actors' weights after an update at a share of the time before they rest, 0.8 of the run."""
        run.algorithm.learn(chunk, Progress(round(800 * share), 1000))
        return [parameter.detach().clone() for parameter in run.algorithm.actor.parameters()]

    after(0.69)  # the mean looks at the actors from 0.7 on
    looked_at = [after(share) for share in (0.71, 0.8, 0.99)]
    mean = [sum(moments) / 3 for moments in zip(*looked_at, strict=True)]
    for share in (1.0, 1.1):
        for found, wanted in zip(after(share), mean, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("worths", "kept"), [((1.0, 3.0, 2.0), 1), ((2.0, 1.0, 2.0), 2), ((-1.0, -5.0, -9.0), 0)])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_final_policy_is_that_of_the_stretch_whose_returns_were_worth_most(worths, kept, resumed, monkeypatch):
    """Of three stretches of two updates each, which fill the last three tenths; of equals the last."""
    run, chunk = prepared(default_config("toy").replace(settle=0.2, average=0.1, best_of=3, return_scale=1.0))
    algorithm = run.algorithm
    monkeypatch.setattr(algorithm, "_worth", lambda batch: worths[min(2, len(looked_at) // 2)])
    looked_at = []

    def after(share):
        """The actors' weights after an update at a share of the time before they rest, 0.8 of the run."""
        algorithm.learn(chunk, Progress(round(800 * share), 1000))
        return [parameter.detach().clone() for parameter in algorithm.actor.parameters()]

    after(0.69)
    for share in (0.71, 0.78, 0.81, 0.88, 0.91, 0.98):
        looked_at.append(after(share))
        if resumed:
            state = copy.deepcopy(algorithm.policy.mean_weights.state_dict())
            algorithm.policy.mean_weights = BestWeights()
            algorithm.policy.mean_weights.load_state_dict(state, algorithm.actor)
    wanted = [sum(moments) / 2 for moments in zip(*looked_at[2 * kept : 2 * kept + 2], strict=True)]
    for found, mean in zip(after(1.0), wanted, strict=True):
        torch.testing.assert_close(found, mean)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"best_of": 2}, "1 without --average"),
        ({"best_of": 0}, "at least 1"),
        ({"average": 0.3, "best_of": 4}, "at most 3"),
    ],
)
def test_stretches_must_lie_within_the_learning(settings, rule):
    with pytest.raises(ConfigError, match=rule):
        default_config("toy").replace(**{"settle": 0.1, "average": 0.0} | settings)


def test_a_fall_in_a_hundred_weighs_as_the_measure_says():
    """Two trajectories, one with the better mean and rare losses: neutral agents are worth more there, averse less."""

    def worth(tau, rare):
        run, chunk = prepared(
            default_config("toy").replace(settle=0.2, average=0.1, best_of=2, return_scale=1.0, tau=tau)
        )
        atoms, count = run.algorithm.critic.atoms, 400
        target = torch.zeros(count, len(atoms))
        high = len(atoms) // 2 + (2 if rare else 0)
        target[:, high] = 1.0
        if rare:
            target[:4, high], target[:4, 0] = 0.0, 1.0
        agent = torch.zeros(count, dtype=torch.long)
        batch = Batch(chunk, torch.arange(count), agent, torch.zeros(count), target, None)
        return run.algorithm._worth(batch), float((target.mean(0) * atoms).sum())

    (bold, bold_mean), (calm, calm_mean) = worth(math.inf, True), worth(math.inf, False)
    assert bold == pytest.approx(bold_mean, rel=1e-5) and calm == pytest.approx(calm_mean, rel=1e-5) and bold > calm
    assert worth(0.1, True)[0] < worth(0.1, False)[0]
