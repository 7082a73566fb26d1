"""C51: its atoms, where they are too few or end too soon, and what the entropic measure makes of them."""

import contextlib
import math
from typing import Any

import pytest
import torch

import rqe_mappo
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.data import vector
from rqe_mappo.data.replay import Episodes
from rqe_mappo.functional import categorical
from rqe_mappo.nets import ActionSpec
from rqe_mappo.nets.distributional_utilities import CategoricalUtilities, DistributionalSpec
from tests.test_quantile_methods import collector, learner


def that_has_seen_episodes(config: Any) -> Any:
    """A C51 that is to learn next."""
    with contextlib.closing(vector.make(config, 4)) as env:
        model = learner("c51", env, config)
        play = collector(env, model, 64)
        while len(model.replay) < 8:
            model.replay.add(play.collect(1.0)[0])
    model.measure()
    return model


@pytest.mark.parametrize(("sure", "best"), [(-1.5, 0), (-3.5, 1)])
def test_what_a_softmax_leaves_on_far_atoms_does_not_decide_what_c51_takes(sure, best):
    """Beside even odds of -4 and 2, worth -3.31 by the entropic measure at tau 1, on atoms down to -20."""
    torch.manual_seed(0)
    atoms = torch.linspace(-20, 15, 141)
    actor = CategoricalUtilities(
        DistributionalSpec(obs_dim=1, n_agents=1, actions=ActionSpec("discrete", (2,)), hidden=(4,), size=141,
                           risk="entropic", tau=1.0)
    )  # fmt: skip
    actor.lay(atoms, 0.0, 1.0)
    probs = torch.stack([(atoms == sure).float(), ((atoms == -4) | (atoms == 2)) / 2])
    found = actor.worth((probs + math.exp(-13) * torch.rand(50, 2, 141)).log().log_softmax(-1))
    assert (found.argmax(-1) == best).all()
    torch.testing.assert_close(found, torch.tensor([sure, -3.309]).expand(50, 2), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"risk": "cvar:0.2"}, True), ({}, False), ({"risk": "cvar:0.2", "n_atoms": 801}, False)],
    ids=["coarse", "of the mean", "fine"],
)
def test_c51_says_where_atoms_lie_too_far_apart_for_risks(changes, said):
    config = rqe_mappo.default_config("cartpole", algo="c51").replace(
        num_envs=4, batch_episodes=8, eval_episodes=0, return_low=-100.0, return_high=300.0, **changes
    )
    model = that_has_seen_episodes(config)
    assert any("atoms" in line for line in model.warnings()) == said


@pytest.mark.parametrize(("tau", "said"), [(1.0, True), (4.0, False), (float("inf"), False)])
def test_c51_says_where_atoms_lie_too_far_apart_for_the_entropic_measure(tau, said):
    """401 atoms over 1600: 4 apart."""
    config = rqe_mappo.default_config("cartpole", algo="c51").replace(
        num_envs=4, batch_episodes=8, eval_episodes=0, return_low=-800.0, return_high=800.0, n_atoms=401,
        risk="entropic", tau=tau, return_scale=1.0,
    )  # fmt: skip
    found = [line for line in that_has_seen_episodes(config).warnings() if "tau (" in line]
    assert len(found) == said and all("atoms lie 4.02 apart, and beyond 1.3 tau" in line for line in found)


def test_c51_says_where_returns_lie_beyond_its_atoms_and_keeps_that_when_resumed():
    """Steps pay some 1 each, and the highest atom is at 2."""
    config = rqe_mappo.default_config("cartpole", algo="c51").replace(
        num_envs=4, batch_episodes=8, eval_episodes=0, return_low=0.0, return_high=2.0, replay_ratio=0.25
    )
    with contextlib.closing(vector.make(config, 4)) as env:
        model = learner("c51", env, config)
        play = collector(env, model, 64)
        for _ in range(12):
            model.learn(play.collect(1.0)[0], Progress(0, 10_000))
        again = learner("c51", env, config)
        again.load_state_dict(model.state_dict())
    assert model.edges == again.edges
    said = [line for line in model.warnings() if "beyond" in line]
    assert len(said) == 1 and "beyond the atoms' end at 2." in said[0] and "wider --return-low" in said[0]


def test_targets_of_several_steps_of_c51_are_hardly_wider_than_of_one(monkeypatch):
    """Of a sure return: with a projection in each of ten discounted steps their std is over 1 atom, with one 0.5."""
    config = rqe_mappo.default_config("cartpole", algo="c51").replace(
        gamma=0.99, window=10, td_lambda=1.0, return_low=0.0, return_high=100.0, value_unit=1.0, batch_episodes=64
    )
    model = that_has_seen_episodes(config)
    atoms, targets = model.actor.atoms, []

    def sure(batch: Episodes) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (*batch.active.shape, len(atoms))
        return torch.zeros(shape), categorical.dirac(atoms, torch.tensor(37.3)).log().expand(shape)

    monkeypatch.setattr(model, "predicted", sure)
    monkeypatch.setattr(categorical, "cross_entropy", lambda target, _: targets.append(target) or target.sum(-1))
    batch = model.batch()
    model.loss(batch)
    whole = batch.filled.all(0) & ~batch.ended.any(0)
    widths = categorical.variance(atoms, targets[0][0, whole]).sqrt() / (atoms[1] - atoms[0])
    assert whole.sum() > 5 and widths.max() < 0.75
