"""Distributions of actions: densities, entropies and draws against integrals, SciPy and torch.distributions."""

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from scipy import integrate, stats
from torch import distributions as td

from rqe_mappo.envs.contract import PaddedBox, PaddedDiscrete
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets import ActionSpec, ActorSpec, PolicyActor
from rqe_mappo.nets.distributions import Categorical, Gaussian

LARGEST_UNIFORM = 1 - 2.0**-24  # of torch.rand, in single precision
MEANS, LOG_STDS = (-3.0, -1.0, 0.0, 0.4, 3.0), (-3.0, -1.0, 0.0, 1.0)
BOX = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32))


def gaussian(mean, log_std, squash="tanh", low=-2.0, high=2.0, dtype=torch.float64) -> Gaussian:
    """Of one number, or of rows of them."""
    mean = torch.atleast_1d(torch.as_tensor(mean, dtype=dtype))
    spec = ActionSpec.of(Box(low, high, (mean.shape[-1],), np.float32), squash)
    return Gaussian(spec, mean, torch.as_tensor(log_std, dtype=dtype).expand_as(mean))


def actor(space, n_agents=1, **settings) -> PolicyActor:
    """An actor with random weights, of decided preferences."""
    torch.manual_seed(0)
    spec = ActorSpec(obs_dim=3, n_agents=n_agents, actions=ActionSpec.of(space), hidden=(8,), **settings)
    found = PolicyActor(spec)
    with torch.no_grad():
        for net in found.nets:
            net[-1].weight.mul_(100)
    return found


@pytest.mark.parametrize("squash", ["tanh", "clip", "none"])
def test_density_of_a_gaussian_is_that_of_torch(squash):
    """Of the action, where it is squashed by tanh; else of the number before it is clipped, in the action's units."""
    torch.manual_seed(0)
    mean, log_std = torch.randn(50, 2, dtype=torch.float64), torch.rand(50, 2, dtype=torch.float64) * 2 - 1.5
    spec = ActionSpec.of(BOX, squash)
    policy = Gaussian(spec, mean, log_std)
    drawn = policy.sample(torch.rand(50, 2, dtype=torch.float64))
    centre, half = torch.tensor([0.0, 2.5]), torch.tensor([2.0, 2.5])
    to_box = [td.AffineTransform(centre.double(), half.double())]
    transforms = {"tanh": [td.TanhTransform(cache_size=1), *to_box], "clip": to_box, "none": []}[squash]
    expected = td.Independent(td.Normal(mean, log_std.exp()), 1)
    if transforms:
        expected = td.TransformedDistribution(expected, transforms)
    action = drawn
    for transform in transforms:
        action = transform(action)
    torch.testing.assert_close(policy.log_prob(drawn), expected.log_prob(action), atol=1e-9, rtol=1e-9)
    if squash != "clip":
        torch.testing.assert_close(policy.action(drawn), action)
    else:
        torch.testing.assert_close(policy.action(drawn), action.clamp(torch.tensor(BOX.low), torch.tensor(BOX.high)))
        assert not torch.equal(policy.action(drawn), action)  # some were beyond the bounds


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.8, -1.0), (-1.5, 0.5), (0.2, 1.0)])
def test_density_of_squashed_actions_integrates_to_one(mean, log_std):
    policy = gaussian(mean, log_std)

    def density(action: float) -> float:
        drawn = torch.atanh(torch.tensor([action / 2], dtype=torch.float64))
        return float(policy.log_prob(drawn).exp())

    total, _ = integrate.quad(density, -2, 2, points=[-1.999, 1.999], limit=400)
    assert abs(total - 1) < 1e-6


@pytest.mark.parametrize(("mean", "log_std"), list(itertools.product(MEANS, LOG_STDS)))
def test_entropy_of_squashed_actions_is_the_integral_of_log_density(mean, log_std):
    """To 1e-3 nats, as `NODES` says, for means within 3 and stds up to 2.7."""
    policy, std = gaussian(mean, log_std), math.exp(log_std)

    def integrand(z: float) -> float:
        return -float(policy.log_prob(torch.tensor([mean + std * z], dtype=torch.float64))) * stats.norm.pdf(z)

    expected, _ = integrate.quad(
        integrand, -9, 9, epsabs=1e-9, limit=200, points=[-mean / std] if abs(mean) < 9 * std else None
    )
    assert abs(float(policy.entropy()) - expected) < 1e-3


def test_entropy_without_squashing_is_the_normal_one_in_the_actions_units():
    for squash, unit in (("none", 1.0), ("clip", 2.0)):
        found = float(gaussian(0.3, -0.5, squash).entropy())
        assert found == pytest.approx(stats.norm(scale=unit * math.exp(-0.5)).entropy(), abs=1e-9)


def test_entropy_of_squashed_actions_in_single_precision_with_gradients_as_in_double():
    mean, log_std = (torch.tensor(side) for side in zip(*itertools.product(MEANS, LOG_STDS), strict=True))
    grads = {}
    for dtype in (torch.float32, torch.float64):
        parts = [part.to(dtype)[:, None].requires_grad_() for part in (mean, log_std)]
        found = gaussian(0.0, 0.0).spec, *parts
        entropy = Gaussian(*found).entropy()
        entropy.sum().backward()
        grads[dtype] = (entropy.detach().double(), *(part.grad.double() for part in parts))
    for single, double in zip(grads[torch.float32], grads[torch.float64], strict=True):
        torch.testing.assert_close(single, double, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("squash", ["tanh", "clip", "none"])
@pytest.mark.parametrize(("low", "high"), [(-1.3, -0.9), (0.8, 1.2)])  # which centre and half width miss, if rounded
def test_extreme_draws_have_finite_densities_and_gradients_and_stay_in_the_box(squash, low, high):
    mean = torch.tensor([-30.0, -3.0, 0.0, 3.0, 30.0]).repeat(4, 1).reshape(-1, 1)
    log_std = torch.tensor([-3.0, -1.0, 1.0, 2.0]).repeat_interleave(5)[:, None]
    for u in (0.0, 2.0**-24, 0.5, LARGEST_UNIFORM):
        parts = [part.clone().requires_grad_() for part in (mean, log_std)]
        policy = Gaussian(gaussian(0.0, 0.0, squash, low, high).spec, *parts)
        drawn = policy.sample(torch.full_like(mean, u)).detach()
        loss = policy.log_prob(drawn).sum() + policy.entropy().sum()
        loss.backward()
        assert torch.isfinite(drawn).all() and torch.isfinite(loss)
        assert all(torch.isfinite(part.grad).all() for part in parts)
        if squash != "none":
            space, actions = Box(low, high, (1,), np.float32), policy.action(drawn).detach().numpy()
            assert all(space.contains(action) for action in actions)


def test_log_density_at_the_bounds_loses_no_digits():
    """Where tanh is 1 in single precision, `log(1 - tanh^2)` would be minus infinity; it is about `-2 |x|`."""
    drawn = torch.tensor([[12.0], [-25.0]])
    found = gaussian([[12.0], [-25.0]], 0.0, dtype=torch.float32).log_prob(drawn)
    x = np.array([12.0, 25.0])
    slope = 2 * (math.log(2) - x - np.log1p(np.exp(-2 * x)))
    expected = -0.5 * math.log(2 * math.pi) - slope - math.log(2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("squash", "mean", "log_std"), [("tanh", 0.5, -0.5), ("none", -1.0, 0.7)])
def test_draws_by_inversion_follow_the_distribution(squash, mean, log_std):
    policy = gaussian(torch.full((4000, 1), mean), log_std, squash, dtype=torch.float32)
    uniform = torch.rand(4000, 1, generator=torch.Generator().manual_seed(3))
    actions = policy.action(policy.sample(uniform)).numpy()[:, 0]
    before = np.arctanh(actions / 2) if squash == "tanh" else actions
    assert stats.kstest(before, stats.norm(mean, math.exp(log_std)).cdf).pvalue > 0.01
    assert stats.kstest(before, stats.norm(mean + 0.15, math.exp(log_std)).cdf).pvalue < 0.01  # would be noticed


def test_draws_by_inversion_rise_with_their_uniform_number():
    uniform = torch.linspace(0, LARGEST_UNIFORM, 1000)[:, None]
    drawn = gaussian(torch.zeros(1000, 1), 0.3, dtype=torch.float32).sample(uniform)
    assert (drawn.diff(dim=0) > 0).all()


def test_several_choices_are_independent_ones():
    torch.manual_seed(1)
    space = MultiDiscrete([3, 2, 4], start=[0, 5, -1])
    spec, logits = ActionSpec.of(space), torch.randn(6, 9)
    policy, uniform = Categorical(spec, logits), torch.rand(6, 3)
    alone = [
        Categorical(ActionSpec.of(Discrete(len(part[0]))), part)
        for part in (logits[:, :3], logits[:, 3:5], logits[:, 5:])
    ]
    drawn = policy.sample(uniform)
    each = [one.sample(uniform[:, [index]]) for index, one in enumerate(alone)]
    assert torch.equal(drawn, torch.cat(each, -1))
    assert torch.equal(policy.action(drawn), drawn + torch.tensor([0, 5, -1]))
    assert all(space.contains(action) for action in policy.action(drawn).numpy())
    parts = list(zip(alone, each, strict=True))
    torch.testing.assert_close(policy.log_prob(drawn), sum(one.log_prob(index) for one, index in parts))
    torch.testing.assert_close(policy.entropy(), sum(one.entropy() for one in alone))
    torch.testing.assert_close(policy.log_barrier(), sum(one.log_barrier() for one in alone))
    torch.testing.assert_close(policy.probs, torch.cat([one.probs for one in alone], -1))
    assert torch.equal(policy.mode(), torch.cat([one.mode() for one in alone], -1))


def test_choices_follow_their_probabilities():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0])
    policy = Categorical(ActionSpec.of(Discrete(4)), logits.expand(8000, 4))
    uniform = torch.rand(8000, 1, generator=torch.Generator().manual_seed(1))
    counts = policy.action(policy.sample(uniform)).bincount(minlength=4).numpy()
    assert stats.chisquare(counts, 8000 * logits.double().softmax(0).numpy()).pvalue > 0.01


def test_actions_that_start_elsewhere_are_counted_from_there():
    space = Discrete(3, start=5)
    policy = Categorical(ActionSpec.of(space), torch.tensor([[0.0, 1.0, 2.0]] * 3))
    drawn = policy.sample(torch.tensor([[0.0], [0.2], [LARGEST_UNIFORM]]))
    assert policy.action(drawn).tolist() == [5, 6, 7]
    torch.testing.assert_close(policy.log_prob(drawn), policy.logits[0].log_softmax(-1))


def masks(actions: int):
    """All masks with something available."""
    return [torch.tensor(mask) for mask in itertools.product((False, True), repeat=actions) if any(mask)]


@pytest.mark.parametrize("scale", [0.0, 1.0, 60.0])
def test_unavailable_actions_are_never_drawn_whatever_the_uniform_number(scale):
    torch.manual_seed(0)
    there = torch.stack(masks(5))
    logits = scale * torch.randn(len(there), 5)
    policy = Categorical(ActionSpec.of(Discrete(5)), logits.masked_fill(~there, NO_ACTION), masked=True)
    sums = policy.probs.cumsum(-1)  # where a draw passes from one action to the next
    for u in (0.0, 2.0**-24, 0.5, LARGEST_UNIFORM, *(sums[:, index] for index in range(5))):
        uniform = torch.as_tensor(u).expand(len(there))[:, None].clamp(max=LARGEST_UNIFORM)
        drawn = policy.sample(uniform)
        assert there.gather(-1, drawn).all()
        assert (policy.log_prob(drawn) <= 0).all()
    assert there.gather(-1, policy.mode()).all()
    assert (policy.probs[~there] == 0).all()
    alone = there.sum(-1) == 1
    assert torch.equal(policy.log_prob(policy.mode())[alone], torch.zeros(5))
    assert torch.equal(policy.entropy()[alone], torch.zeros(5))


def test_masks_take_nothing_from_the_ratio_of_the_others():
    policy_actor, obs = actor(Discrete(4)), torch.randn(6, 3)
    agent, avail = torch.zeros(6, dtype=torch.int64), torch.tensor([[True, False, True, True]]).expand(6, 4)
    free, _ = policy_actor(obs, agent)
    masked, _ = policy_actor(obs, agent, avail=avail)
    expected = free.probs * avail
    torch.testing.assert_close(masked.probs, expected / expected.sum(-1, keepdim=True))
    torch.testing.assert_close(masked.entropy(), td.Categorical(masked.probs).entropy())
    acted = policy_actor.act(obs, agent, torch.zeros(6, 0), uniform=torch.full((6, 1), LARGEST_UNIFORM), avail=avail)
    assert (acted.action == 3).all()


def test_agents_with_fewer_actions_never_draw_those_of_others():
    padded, obs = actor(PaddedDiscrete((2, 4)), n_agents=2), torch.randn(500, 2, 3)
    agent = torch.arange(2).expand(500, 2)
    policy, _ = padded(obs, agent)
    assert (policy.probs[:, 0, 2:] == 0).all() and (policy.probs[:, 1, 2:] > 0).any()
    torch.testing.assert_close(policy.entropy()[:, 0], td.Categorical(policy.probs[:, 0, :2]).entropy())
    avail = torch.ones(500, 2, 4, dtype=torch.bool)
    avail[:, :, 0] = False
    uniform = torch.rand(500, 2, 1, generator=torch.Generator().manual_seed(0))
    drawn = padded.act(obs, agent, torch.zeros(500, 2, 0), uniform=uniform, avail=avail).action
    assert (drawn[:, 0] == 1).all() and set(drawn[:, 1].tolist()) <= {1, 2, 3}


@pytest.mark.parametrize("squash", ["tanh", "clip"])
def test_numbers_that_an_agent_lacks_count_for_nothing(squash):
    space = PaddedBox([Box(-1, 1, (1,), np.float32), Box(-2, 2, (3,), np.float32)])
    spec = ActionSpec.of(space, squash)
    assert spec.counts == (1, 3) and spec.outputs == spec.draws == 3
    torch.manual_seed(0)
    policy_actor = PolicyActor(ActorSpec(obs_dim=3, n_agents=2, actions=spec, hidden=(8,)))
    obs, agent = torch.randn(20, 2, 3), torch.arange(2).expand(20, 2)
    policy, _ = policy_actor(obs, agent)
    drawn = policy.sample(torch.rand(20, 2, 3))
    action, log_prob, entropy = policy.action(drawn), policy.log_prob(drawn), policy.entropy()
    assert (action[:, 0, 1:] == 0).all() and (action[:, 1] != 0).all()
    alone = ActionSpec.of(Box(-2, 2, (1,), np.float32), squash)  # of which the bounds are the widest of any agent
    one = Gaussian(alone, policy.mean[:, 0, :1], policy.log_std[:, 0, :1])
    torch.testing.assert_close(log_prob[:, 0], one.log_prob(drawn[:, 0, :1]))
    torch.testing.assert_close(entropy[:, 0], one.entropy())
    (log_prob[:, 0].sum() + entropy[:, 0].sum()).backward()
    assert (policy_actor.log_std.grad[0, 1:] == 0).all() and (policy_actor.log_std.grad[0, 0] != 0).all()


def test_spaces_that_no_policy_acts_in_are_refused_with_the_fix():
    unbounded = Box(-np.inf, np.inf, (2,), np.float32)
    with pytest.raises(ValueError, match=r"--squash tanh needs actions with bounds.*use none"):
        ActionSpec.of(unbounded)
    assert ActionSpec.of(unbounded, "none").squash == "none"
    with pytest.raises(ValueError, match="above their lower"):
        ActionSpec.of(Box(np.float32([0, 1]), np.float32([1, 1])))
    for space in (Box(-1, 1, (2, 2), np.float32), Dict({"a": Discrete(2)}), MultiDiscrete([[2, 2], [3, 3]])):
        with pytest.raises(ValueError, match="no policy here acts in"):
            ActionSpec.of(space)
