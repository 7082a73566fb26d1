"""MAPPO: each of its factors by itself, against numpy or by hand."""

import math

import numpy as np
import pytest
import torch

from rqe_mappo import registry
from rqe_mappo.algorithms.ppo import Minibatch
from rqe_mappo.algorithms.value_critic import huber, unmasked, value_loss
from rqe_mappo.data.trajectory import flat
from rqe_mappo.nets.value_norm import ValueNorm
from tests.wide_toy import BEGIN, ENTRY, collected, toy_config


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", ENTRY)


# --- value normalisation, in one place ---------------------------------------------------------------------------


def test_value_norm_against_numpy():
    rng, norm = np.random.default_rng(0), ValueNorm(2)
    memory, first, second, weight = ValueNorm.MEMORY, np.zeros(2), np.zeros(2), 0.0
    x = torch.tensor([[3.0, -1.0]])
    assert torch.equal(norm.normalise(x), x) and torch.equal(norm.restore(x), x)
    for n in (5, 50, 500):
        batch = rng.normal([100.0, -3e-3], [20.0, 1e-3], (n, 2))  # of any size
        norm.update(torch.tensor(batch))
        first = memory * first + (1 - memory) * batch.mean(0)
        second = memory * second + (1 - memory) * (batch**2).mean(0)
        weight = memory * weight + (1 - memory)
    mean = first / weight
    std = np.sqrt(second / weight - mean**2)
    assert np.allclose(norm.normalise(x), (x.numpy() - mean) / std, rtol=1e-5)
    assert torch.allclose(norm.restore(norm.normalise(x)), x, atol=1e-5)
    constant = ValueNorm(1)  # whose variance is what rounding leaves
    constant.update(torch.full((7, 1), 0.1))
    assert constant.normalise(torch.full((1, 1), 0.1)).abs() < 1e-3
    constant.update(torch.zeros(7, 1))
    assert constant.normalise(torch.full((1, 1), 0.1)) == pytest.approx(1.0, rel=0.01)


def test_whatever_reads_the_critic_reads_units_of_the_return():
    """The advantages' values, those after a truncation, the policy's: none misses the denormalisation."""
    rival, chunk = collected(toy_config("mappo", gae_lambda=0.0, gamma=0.9, norm_adv=False))
    norm = rival.critic.norm
    norm.update(torch.tensor([[50.0], [150.0]]))
    rival.value.started = True
    agent = torch.arange(3).expand(4, 3)
    raw = rival.critic.normalised(chunk.state[3], agent)
    value = rival.critic(chunk.state[3], agent)
    assert torch.allclose(value, raw * 50 + 100) and (value > 20).all()
    assert torch.equal(rival.returns.mean(chunk.state[3], agent), value[..., 0])
    known = rival.value.predict(chunk)
    assert torch.allclose(known.value[3], value) and torch.allclose(known.raw[3], raw)
    assert chunk.truncated.any() and (known.next_value[chunk.truncated] > 20).all()
    expected = chunk.reward + 0.9 * known.next_value[..., 0] * ~chunk.terminated
    batch, _, _ = rival.targets(chunk)
    assert torch.allclose(norm.restore(batch.target)[:, 0], expected[chunk.active], atol=1e-4)
    assert torch.allclose(batch.advantage, (expected - known.value[..., 0])[chunk.active], atol=1e-4)


@pytest.mark.parametrize("on", [True, False])
def test_value_norm_switch(on):
    rival, chunk = collected(toy_config("mappo", {"value_norm": on}))
    chunk.reward += 50
    batch, _, _ = rival.targets(chunk)
    assert (rival.critic.norm.weight > 0) == on
    assert (abs(float(batch.target.mean())) < 1.0) == on
    assert float(rival.critic.norm.restore(batch.target).mean()) > 40


# --- value clipping and the Huber loss ---------------------------------------------------------------------------


def test_huber_by_hand():
    error = torch.tensor([0.5, -2.0, 3.0])
    assert torch.allclose(huber(error, 2.0), torch.tensor([0.125, 2.0, 4.0]))
    assert torch.allclose(huber(error, math.inf), error**2 / 2)


def test_value_clip_by_hand():
    """A value that has moved further than the clip towards its target earns nothing more, and has no gradient."""
    value = torch.tensor([0.1, 0.5, -0.5], requires_grad=True)
    target, old = torch.ones(3), torch.zeros(3)
    loss = value_loss(value, target, old, clip=0.2, delta=10.0)
    assert torch.allclose(loss, torch.tensor([0.9**2, 0.8**2, 1.5**2]) / 2)
    loss.sum().backward()
    assert torch.allclose(value.grad, torch.tensor([-0.9, 0.0, -1.5]))


@pytest.mark.parametrize(("own", "delta", "clip"), [
    ({}, 10.0, 0.2), ({"value_clip": False}, 10.0, math.inf), ({"huber_delta": 0.1}, 0.1, 0.2),
])  # fmt: skip
def test_loss_follows_its_switches(own, delta, clip):
    rival, chunk = collected(toy_config("mappo", own))
    batch, predicted, _ = rival.targets(chunk)
    old = flat(predicted.raw)[batch.rows] - 0.5  # as if the critic had moved since
    rows = torch.arange(len(batch.agent))
    value = rival.critic.normalised(flat(chunk.state)[batch.rows], batch.agent)
    expected = value_loss(value, batch.target, old, clip, delta).mean()
    assert torch.equal(rival.value.step(batch, old, Minibatch(rows))["losses/critic_value"], expected)
    assert not torch.equal(expected, value_loss(value, batch.target, old, 0.3, 0.2).mean())


# --- what the critic sees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algo", "own", "sees"), [
    ("mappo", {}, "state"), ("mappo", {"critic_input": "obs"}, "obs"), ("ippo", {}, "obs"),
])  # fmt: skip
def test_critic_input(algo, own, sees):
    config = toy_config(algo, own)
    results = []
    for name in (None, "state", "obs"):
        rival, chunk = collected(config)
        if name is not None:
            for part in (name, f"final_{name}"):
                getattr(chunk, part)[:] = 0.9
        rival.learn(chunk, BEGIN)
        results.append(rival.critic.state_dict()["nets.0.0.weight"])
    assert (rival.critic.view, rival.critic.view_dim) == (sees, 3 if sees == "state" else 2)
    assert torch.equal(results[0], results[1]) == (sees == "obs")
    assert torch.equal(results[0], results[2]) == (sees == "state")


@pytest.mark.parametrize(("algo", "view"), [("ippo", "obs"), ("mappo", "state")])
def test_critics_bootstrap_from_what_is_seen_last_and_no_step_is_dropped(algo, view):
    rival, chunk = collected(toy_config(algo, gae_lambda=0.0, gamma=0.9, leave_probability=0.0, value_norm=False))
    cut = chunk.truncated
    assert cut[1:-1].any()
    batch, _, _ = rival.targets(chunk)
    assert len(batch.rows) == int(chunk.active.sum())  # the last step before a time limit among them
    target = torch.zeros_like(chunk.reward)
    target[chunk.active] = batch.target[:, 0]
    last = rival.critic(chunk.final_view(view), cut.nonzero()[:, 2])[:, 0]
    assert torch.allclose(target[cut], chunk.reward[cut] + 0.9 * last, atol=1e-6)
    t, e, a = (cut[1:] & chunk.active[:-1]).nonzero()[0]  # the step after t is the episode's last
    expected = chunk.reward[t, e, a] + 0.9 * rival.critic(chunk.view(view)[t + 1, e, a], a)[0]
    assert torch.isclose(target[t, e, a], expected, atol=1e-6)
    known = rival.value.predict(chunk)
    assert torch.equal(known.ended, cut) and not known.terminated.any()


# --- masks and the scale of advantages ---------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_active_masks(masks):
    rival, chunk = collected(toy_config("mappo", {"active_masks": masks}, leave_probability=0.4))
    empty = ~chunk.active
    assert empty.any()
    batch, _, _ = rival.targets(chunk)
    assert len(batch.agent) == (int(chunk.active.sum()) if masks else chunk.active.numel())
    if not masks:
        absent = (flat(chunk.state)[batch.rows] == 0).all(-1)
        assert int(absent.sum()) == int(empty.sum())
        worth = rival.critic.norm.restore(batch.target[absent])
        assert torch.allclose(worth, torch.zeros_like(worth), atol=1e-5)
    lost = chunk.active & (chunk.state[:-1] != 0).any(-1)
    chunk.active[lost] = False  # rows of a simulation that was lost are no empty places
    assert not unmasked(chunk).active[lost].any()


def test_advantages_are_normalised_over_the_rows_in_which_agents_acted():
    rival, chunk = collected(toy_config("mappo", leave_probability=0.4))
    chunk.reward[~chunk.active] = 1e6
    batch, _, scalars = rival.targets(chunk)
    assert float(batch.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(batch.advantage.std()) == pytest.approx(1, abs=1e-5)
    assert scalars["advantage/scale"] == pytest.approx(scalars["advantage/std"])
    rival, chunk = collected(toy_config("mappo", norm_adv=False))
    batch, _, scalars = rival.targets(chunk)
    assert float(batch.advantage.std()) == pytest.approx(scalars["advantage/std"])


def test_adv_memory_averages_the_scale_over_trajectories():
    rival, chunk = collected(toy_config("mappo", {"adv_memory": 0.5}))
    first = rival.targets(chunk)[2]["advantage/std"]
    chunk.reward *= 10
    second = rival.targets(chunk)[2]
    expected = math.sqrt((0.25 * first**2 + 0.5 * second["advantage/std"] ** 2) / 0.75)
    assert second["advantage/scale"] == pytest.approx(expected, rel=1e-4)
