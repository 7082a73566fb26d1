"""Which weights a run ends with: returns of episodes by hand, the choice by risk, lengthened and resumed runs."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rqe_mappo.algorithms.stretches import Stretches
from rqe_mappo.config import default_config
from rqe_mappo.functional.risk import Entropic, Neutral
from rqe_mappo.training.loop import train
from tests.test_support import trajectory
from tests.test_training import assert_equal, interrupt_after, weights

BEST = {"settle": 0.25, "average": 0.25, "average_of": "best"}


def net(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, -value)
    return layer


def episodes_of(returns: list[list[float]]):
    """A trajectory in which each copy's one agent has episodes of one step that bring `returns`."""
    reward = torch.tensor(returns).T[..., None]
    return replace(
        trajectory(torch.zeros(len(reward) + 1, reward.shape[1], 1, 1), reward=reward),
        terminated=torch.ones_like(reward, dtype=torch.bool),
        begins=torch.ones(reward.shape[:2], dtype=torch.bool),
    )


def test_returns_of_episodes_by_hand():
    stretches = Stretches(0.5, [Neutral(), Neutral()], copies=1)
    one = torch.arange(1.0, 7.0)[:, None, None] * torch.tensor([1.0, 10.0])  # 1 to 6, and ten times as much
    chunk = trajectory(torch.zeros(7, 1, 2, 1), reward=one)
    chunk.begins = torch.tensor([1, 0, 0, 0, 0, 0]).bool()[:, None]
    chunk.terminated, chunk.truncated, chunk.active, chunk.lost = (
        getattr(chunk, name).clone() for name in ("terminated", "truncated", "active", "lost")
    )
    chunk.terminated[1, 0, 0] = True  # after 1 + 2; the next begins at once
    chunk.truncated[4, 0, 0] = True  # after 3 + 4 + 5, whatever would have followed
    chunk.active[2, 0, 1] = False  # gone: its 10 + 20 had no end
    chunk.lost[5, 0, 1] = chunk.terminated[5, 0, 1] = True  # a simulation that was lost counts for nothing
    found = stretches._ended(chunk)
    assert [each.tolist() for each in found] == [[3.0, 12.0], []]
    following = trajectory(torch.zeros(3, 1, 2, 1), reward=one[:2])
    following.terminated = torch.tensor([[[1, 1]], [[1, 0]]]).bool()
    assert [each.tolist() for each in stretches._ended(following)] == [[6.0 + 1.0, 2.0], []], (
        "6 was carried over; of the other no beginning was seen"
    )
    following.begins = torch.tensor([[True], [False]])
    stretches.brought[:], stretches.going[:] = 100.0, True
    assert stretches._ended(following)[0].tolist() == [1.0, 2.0], "a copy that begins anew carries nothing over"


@pytest.mark.parametrize("measure, best", [(Neutral(), 3.0), (Entropic(0.3), 2.0)])
def test_the_stretch_is_the_best_by_the_agents_own_risk(measure, best):
    stretches = Stretches(0.25, [measure], copies=1)
    found = {1.0: [[9.0, 9.5, 9.0, 9.5]], 2.0: [[10.0, 10.5, 10.0, 10.5]], 3.0: [[13.0, 13.0, 13.0, 3.0]]}
    for share, value in ((0.3, 1.0), (0.5, 2.0), (0.8, 3.0)):
        for later, weight in ((0.0, value - 0.1), (0.1, value + 0.1)):
            stretches.look(net(weight), episodes_of(found[value]), share + later, ripe=True)
    ends = net(0.0)
    stretches.give(ends)
    assert ends.weight.item() == pytest.approx(best) and ends.bias.item() == pytest.approx(-best)
    assert stretches.best is None and stretches.chosen == best - 3, "all else is forgotten"


def test_a_better_policy_of_fewer_episodes_is_not_chosen_for_their_number():
    stretches = Stretches(0.5, [Entropic(0.3)], copies=1)
    stretches.look(net(1.0), episodes_of([[5.0, 6.0] * 50]), 0.3, ripe=True)
    stretches.look(net(2.0), episodes_of([[7.0, 8.0]]), 0.8, ripe=True)
    first, last = stretches.scores()
    assert last - first == pytest.approx(2.0)


def test_of_equal_stretches_the_last_is_taken_and_shifted_and_scaled_rewards_choose_alike():
    rng = np.random.default_rng(0)
    returns = [rng.normal(size=(1, 40)), rng.normal(0.3, 2.0, size=(1, 40))]
    chosen = set()
    for shift, scale in ((0.0, 1.0), (1e4, 1e3), (-7.0, 1e-3)):
        stretches = Stretches(0.5, [Entropic(0.5)], copies=1)
        for share, found in ((0.3, returns[0]), (0.8, returns[1])):
            stretches.look(net(share), episodes_of((shift + scale * found).tolist()), share, ripe=True)
        chosen.add(stretches.best.number)
    assert len(chosen) == 1
    stretches = Stretches(0.5, [Entropic(0.5)], copies=1)
    for share in (0.3, 0.8):
        stretches.look(net(share), episodes_of([[1.0, 1.0]]), share, ripe=True)
    assert stretches.best.number == 0


def test_stretches_before_all_aversion_acts_do_not_count_unless_there_are_no_others():
    stretches = Stretches(0.25, [Neutral()], copies=1)
    for share, ripe, value in ((0.3, False, 9.0), (0.6, True, 1.0), (0.9, True, 2.0)):
        stretches.look(net(value), episodes_of([[value]]), share, ripe)
    assert [stretch.number for stretch in stretches.kept] == [-1, 0] and stretches.best.number == 0
    late = Stretches(0.25, [Neutral()], copies=1)
    for share in (0.3, 0.6, 0.9):
        late.look(net(share), episodes_of([[1.0]]), share, ripe=False)
    assert [stretch.number for stretch in late.kept] == [0]


def test_a_lengthened_run_forgets_its_stretches():
    stretches = Stretches(0.25, [Neutral()], copies=1)
    for share in (0.6, 0.9):
        stretches.look(net(9.0), episodes_of([[9.0]]), share, ripe=True)
    stretches.look(net(1.0), episodes_of([[1.0]]), 0.45, ripe=True)
    assert [stretch.number for stretch in stretches.kept] == [-2] and stretches.scores() == [1.0]


def test_a_stretch_in_which_nothing_ended_is_the_worst():
    stretches = Stretches(0.5, [Neutral()], copies=2)
    stretches.look(net(1.0), episodes_of([[-5.0], [-5.0]]), 0.4, ripe=True)
    stretches.look(net(2.0), trajectory(torch.zeros(2, 2, 1, 1)), 0.9, ripe=True)
    assert stretches.scores() == [-5.0, float("-inf")] and stretches.best.number == -1


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["rqe-mappo", "ippo", "mean-variance", "c51-cvar"])
def test_a_run_ends_with_the_mean_weights_of_its_best_stretch(algo, tmp_path, monkeypatch):
    seen, look = [], Stretches.look

    def noted(self, actor, chunk, share, ripe):
        seen.append((share, [weight.detach().clone() for weight in actor.parameters()]))
        return look(self, actor, chunk, share, True)

    monkeypatch.setattr(Stretches, "look", noted)
    monkeypatch.setattr(Stretches, "scores", lambda self: [-abs(stretch.number + 2) for stretch in self.kept])
    config = default_config("cartpole", algo=algo).replace(
        total_timesteps=16 * 256, num_envs=8, num_steps=32, eval_episodes=0, out=str(tmp_path / "run"), **BEST
    )
    ended = weights(train(config, quiet=True))
    wanted = [found for share, found in seen if 0.25 <= share < 0.5]
    assert len(seen) == 12 and len(wanted) == 3
    means = [torch.stack(each).mean(0) for each in zip(*wanted, strict=True)]
    actor = [value for name, value in ended.items() if name.startswith("actor")]
    assert actor and all(
        any(own.shape == mean.shape and torch.allclose(own, mean, atol=1e-6) for own in actor) for mean in means
    )


@pytest.mark.slow
def test_a_resumed_run_ends_as_the_unbroken_one(tmp_path):
    whole = default_config("cartpole").replace(
        total_timesteps=12 * 256, num_envs=8, num_steps=32, save_interval=1, log_interval=1, eval_episodes=0, tau=0.5,
        return_scale=1.0, warmup_fraction=0.0, risk_anneal_fraction=0.1, out=str(tmp_path / "whole"), **BEST,
    )  # fmt: skip
    unbroken = weights(train(whole, quiet=True))
    stopped = whole.replace(out=str(tmp_path / "stopped"))
    interrupt_after(stopped, updates=6)
    assert_equal(unbroken, weights(train(stopped, resume=Path(stopped.out), quiet=True)))
    with open(tmp_path / "stopped" / "metrics.csv", newline="") as file:
        told = [row["policy/stretch"] for row in csv.DictReader(file)]
    assert told[-1] in ("-2", "-1", "0") and told[0] in ("", "nan"), "which it was is logged once it is chosen"
