"""Targets and advantages along trajectories: by hand, against plain loops, and where episodes end."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from rqe_mappo.algorithms.rqe_mappo import FINER
from rqe_mappo.functional import categorical as cat
from rqe_mappo.functional.returns import gae, influence_advantage, lambda_targets, traced
from rqe_mappo.functional.risk import Entropic, Neutral

NEVER = torch.tensor([False, False, False])
AT_ONE = torch.tensor([False, True, False])
REWARD, VALUE, NEXT_VALUE = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 1.5]), torch.tensor([1.0, 1.5, 2.0])
FIVE = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])


def random_rollout(seed, t, *batch, atoms, dtype=torch.float64, spread=1.0):
    """Rewards, distributions before and after every step, and where episodes ended; these keep off the support's edges.

    Within an episode the distribution after a step is the one before the next.
    """
    generator = torch.Generator().manual_seed(seed)
    inner = (atoms.abs() < 0.2 * (atoms[-1] - atoms[0])).to(dtype)
    weights = torch.randn(2, t, *batch, len(atoms), generator=generator, dtype=dtype).exp() * inner
    probs, next_probs = weights / weights.sum(-1, keepdim=True)
    reward = spread * (torch.rand(t, *batch, generator=generator, dtype=dtype) - 0.5)
    draw = torch.rand(t, *batch, generator=generator)
    ended = draw < 0.3
    next_probs[:-1] = torch.where(ended[:-1, ..., None], next_probs[:-1], probs[1:])
    return reward, probs, next_probs, draw < 0.15, ended


@pytest.mark.parametrize(
    ("terminated", "ended", "expected"),
    [
        (NEVER, NEVER, [3.12575, 3.835, 3.3]),  # deltas 1.4, 2.35, 3.3, decay 0.45
        (AT_ONE, AT_ONE, [1.85, 1.0, 3.3]),  # the second delta loses its bootstrap and its trace
        (NEVER, AT_ONE, [2.4575, 2.35, 3.3]),  # truncated: only its trace
    ],
    ids=["running", "terminated", "truncated"],
)
def test_gae_by_hand(terminated, ended, expected):
    out = gae(REWARD, VALUE, NEXT_VALUE, terminated, ended, 0.9, 0.5)
    assert out.tolist() == pytest.approx(expected)


def test_the_trace_sums_the_utility_of_each_error():
    delta = REWARD + 0.9 * NEXT_VALUE - VALUE
    out = traced(Entropic(2.0).utility(delta), NEVER, 0.9 * 0.5)
    u = [1.0068293, 1.3823619, 1.6159002]  # 2 (1 - exp(-delta / 2))
    last = u[2]
    middle = u[1] + 0.45 * last
    assert out.tolist() == pytest.approx([u[0] + 0.45 * middle, middle, last])


def test_gae_of_a_batch_equals_the_loop():
    atoms = torch.linspace(-2, 2, 9, dtype=torch.float64)
    reward, probs, next_probs, terminated, ended = random_rollout(0, 7, 4, 3, atoms=atoms)
    value, next_value = cat.mean(atoms, probs), cat.mean(atoms, next_probs)
    batch = gae(reward, value, next_value, terminated, ended, 0.9, 0.8)
    for e in range(4):
        for a in range(3):
            following = 0.0
            for t in reversed(range(7)):
                bootstrap = 0.0 if terminated[t, e, a] else 0.9 * float(next_value[t, e, a])
                trace = 0.0 if ended[t, e, a] else 0.9 * 0.8 * following
                following = float(reward[t, e, a]) + bootstrap - float(value[t, e, a]) + trace
                assert float(batch[t, e, a]) == pytest.approx(following, abs=1e-13)


@pytest.mark.parametrize(
    ("lam", "terminated", "ended", "expected"),
    [
        # Two steps with reward 1; what follows step 0 is 0 or 1, what follows step 1 is 1 or 2, at even odds.
        (0.0, [0, 0], [0, 0], [[0, 0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5, 0]]),
        (1.0, [0, 0], [0, 0], [[0, 0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5, 0]]),
        (0.5, [0, 0], [0, 0], [[0, 0.25, 0.25, 0.25, 0.25], [0, 0, 0.5, 0.5, 0]]),
        (1.0, [0, 1], [0, 1], [[0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]),  # the end: Dirac at the reward
        (1.0, [1, 0], [1, 0], [[0, 1, 0, 0, 0], [0, 0, 0.5, 0.5, 0]]),
        (1.0, [0, 0], [1, 0], [[0, 0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5, 0]]),  # truncated: bootstraps, does not go on
    ],
)
def test_lambda_targets_by_hand(lam, terminated, ended, expected):
    next_probs = torch.tensor([[0.5, 0.5, 0, 0, 0], [0, 0.5, 0.5, 0, 0]])
    terminated, ended = torch.tensor(terminated).bool(), torch.tensor(ended).bool()
    out = lambda_targets(FIVE, torch.ones(2), next_probs, terminated, ended, 1.0, lam)
    assert_close(out, torch.tensor(expected, dtype=torch.float32))


def test_lambda_targets_discount_what_follows():
    next_probs = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0]])
    out = lambda_targets(FIVE, torch.tensor([1.0]), next_probs, torch.tensor([False]), torch.tensor([False]), 0.5, 0.9)
    assert out.tolist() == [[0, 0, 0, 1, 0]]  # 1 + 0.5 * 4


def test_lambda_targets_are_the_mixture_of_n_step_distributions():
    """On an aligned grid with gamma = 1, what follows after n steps is the bootstrap's, moved by the rewards."""
    atoms, t_max, lam = torch.arange(-10.0, 11.0, dtype=torch.float64), 6, 0.7
    reward, _, next_probs, terminated, ended = random_rollout(3, t_max, 20, atoms=atoms, spread=3)
    reward = reward.round()
    targets = lambda_targets(atoms, reward, next_probs, terminated, ended, 1.0, lam)
    for e in range(20):
        for t in range(t_max):
            mixture, weight = torch.zeros(21, dtype=torch.float64), 1.0
            for last in range(t, t_max):
                gained = int(reward[t : last + 1, e].sum())
                stops = bool(ended[last, e]) or last == t_max - 1
                dirac = torch.eye(21, dtype=torch.float64)[10 + gained]
                probs = dirac if terminated[last, e] else next_probs[last, e].roll(gained)
                mixture += (weight if stops else weight * (1 - lam)) * probs
                weight *= lam
                if stops:
                    break
            assert_close(targets[t, e], mixture, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("lowest", "reward"), [(True, 0.3), (True, 0.5), (False, -0.3), (False, -0.9)])
def test_what_lies_on_an_outermost_atom_is_not_moved_inwards_by_a_trace(lowest, reward):
    atoms, none = torch.arange(-10.0, 11.0, dtype=torch.float64), torch.zeros(20, dtype=torch.bool)
    place = 0 if lowest else 20
    next_probs = torch.eye(21, dtype=torch.float64)[place].repeat(20, 1)
    targets = lambda_targets(atoms, torch.full((20,), reward, dtype=torch.float64), next_probs, none, none, 1.0, 0.9)
    expected = float(atoms[place])
    for target in targets.flip(0):
        expected = reward + 0.1 * float(atoms[place]) + 0.9 * expected
        assert float(cat.mean(atoms, target)) == pytest.approx(expected, abs=0.02)  # of a spacing of 1; it was 0.5


def test_discounted_lambda_targets_of_a_batch_equal_the_loop():
    atoms = torch.linspace(-4, 4, 33, dtype=torch.float64)
    fine = torch.linspace(-4, 4, 32 * FINER + 1, dtype=torch.float64)
    refine, coarsen = cat.dirac(fine, atoms), cat.dirac(atoms, fine)  # a row for each atom
    reward, _, next_probs, terminated, ended = random_rollout(1, 6, 4, 3, atoms=atoms)
    batch = lambda_targets(atoms, reward, next_probs, terminated, ended, 0.95, 0.8, finer=FINER)
    for e in range(4):
        for a in range(3):
            q = None
            for t in reversed(range(6)):
                p = next_probs[t, e, a] @ refine
                mixture = p if q is None or ended[t, e, a] else 0.2 * p + 0.8 * q
                discount = torch.tensor(0.0 if terminated[t, e, a] else 0.95, dtype=torch.float64)
                q = cat.project(fine, mixture, reward[t, e, a], discount)
                assert_close(batch[t, e, a], q @ coarsen, atol=1e-13, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "largest"), [(0.9, 0.55), (0.97, 0.75), (0.99, 1.1)])
def test_projection_adds_little_spread_to_what_is_certain(gamma, largest):
    """A loop of 64 states without chance: the critic's fixed point would be a Dirac in each. Its std is in atoms; it
    would be 0.9, 1.7 and 2.8 if every step of the trace were projected onto the atoms."""
    atoms = torch.linspace(-2, 2 + 1 / (1 - gamma), 101, dtype=torch.float64)
    spacing = float(atoms[1] - atoms[0])
    reward = torch.rand(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probs, none = torch.full((64, 1, 101), 1 / 101, dtype=torch.float64), torch.zeros(128, 1, dtype=torch.bool)
    for _ in range(40):
        probs = lambda_targets(
            atoms, reward.repeat(2, 1), probs.roll(-1, 0).repeat(2, 1, 1), none, none, gamma, 0.95, finer=FINER
        )[:64]
    loop = float((reward[:, 0] * gamma ** torch.arange(64)).sum() / (1 - gamma**64))
    assert float(cat.mean(atoms, probs[0])) == pytest.approx(loop, rel=1e-3)
    assert float(cat.variance(atoms, probs).mean()) ** 0.5 / spacing < largest


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 0.95, 1.0])
def test_lambda_targets_are_probabilities(lam):
    atoms = torch.linspace(-2, 2, 31)
    reward, _, next_probs, terminated, ended = random_rollout(2, 40, 8, atoms=atoms, dtype=torch.float32, spread=2)
    targets = lambda_targets(atoms, reward, next_probs, terminated, ended, 0.99, lam)
    assert (targets >= 0).all()
    assert_close(targets.sum(-1), torch.ones(40, 8), atol=1e-5, rtol=0)


def neutral_and_scalar_advantage(seed, t, e, gamma, lam, dtype):
    # Wide enough for the sum of all rewards: clipping would be a difference of the critic, not of the estimator.
    atoms = torch.linspace(-10, 10, 81, dtype=dtype)
    reward, probs, next_probs, terminated, ended = random_rollout(seed, t, e, atoms=atoms, dtype=dtype)
    target = lambda_targets(atoms, reward, next_probs, terminated, ended, gamma, lam)
    influence = Neutral().influence(atoms, probs.log())
    value, next_value = cat.mean(atoms, probs), cat.mean(atoms, next_probs)
    scalar = gae(reward, value, next_value, terminated, ended, gamma, lam)
    return influence_advantage(influence, target, probs), scalar


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=100)
def test_neutral_influence_advantage_is_gae(seed, t, e, gamma, lam):
    influence, scalar = neutral_and_scalar_advantage(seed, t, e, gamma, lam, torch.float64)
    assert_close(influence, scalar, atol=1e-10, rtol=0)
    influence, scalar = neutral_and_scalar_advantage(seed, t, e, gamma, lam, torch.float32)
    assert_close(influence, scalar, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_nothing_crosses_the_end_of_an_episode(kind):
    atoms = torch.linspace(-5, 5, 41, dtype=torch.float64)
    reward, probs, next_probs, terminated, ended = random_rollout(4, 10, 3, atoms=atoms)
    end = 5
    terminated[end], ended[end] = kind == "terminated", True
    changed = [x.clone() for x in (reward, probs, next_probs, terminated, ended)]
    other = random_rollout(5, 10, 3, atoms=atoms)
    for new, replacement in zip(changed, other, strict=True):
        new[end + 1 :] = replacement[end + 1 :]

    def advantages_and_targets(reward, probs, next_probs, terminated, ended):
        value, next_value = cat.mean(atoms, probs), cat.mean(atoms, next_probs)
        targets = lambda_targets(atoms, reward, next_probs, terminated, ended, 0.99, 0.95)
        return targets, gae(reward, value, next_value, terminated, ended, 0.99, 0.95)

    before = advantages_and_targets(reward, probs, next_probs, terminated, ended)
    after = advantages_and_targets(*changed)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[: end + 1], new[: end + 1])
        assert not torch.allclose(old[end + 1 :], new[end + 1 :])


def test_what_follows_a_termination_does_not_count_and_what_follows_a_truncation_does():
    atoms = torch.linspace(-5, 5, 41, dtype=torch.float64)
    reward, _, next_probs, _, _ = random_rollout(6, 4, 2, atoms=atoms)
    ended = torch.tensor([[False, False], [True, True], [False, False], [True, True]])
    terminated = ended & torch.tensor([True, False])  # the first copy terminates, the second is truncated
    targets = lambda_targets(atoms, reward, next_probs, terminated, ended, 1.0, 0.95)
    moved = next_probs.roll(2, -1)
    moved_targets = lambda_targets(atoms, reward, moved, terminated, ended, 1.0, 0.95)
    assert torch.equal(targets[1, 0], moved_targets[1, 0])
    assert_close(targets[1, 0], cat.dirac(atoms, reward[1, 0]))
    assert_close(cat.mean(atoms, moved_targets[1, 1] - targets[1, 1]), torch.tensor(0.5, dtype=torch.float64))


def test_influence_advantage_by_hand():
    influence, q, p = (torch.tensor(x) for x in ([-3.0, 1.0, 2.0], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5]))
    assert float(influence_advantage(influence, q, p)) == pytest.approx(1.0)  # -3 * -0.25 + 1 * 0.25
    assert float(influence_advantage(influence + 9, q, p)) == pytest.approx(1.0)  # a constant cancels


def test_influence_advantage_of_a_batch_equals_the_loop():
    influence, q, p = torch.randn(3, 4, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loop = torch.tensor(
        [
            [sum(float(influence[i, j, k] * (q[i, j, k] - p[i, j, k])) for k in range(7)) for j in range(2)]
            for i in range(4)
        ],
        dtype=torch.float64,
    )
    assert_close(influence_advantage(influence, q, p), loop)


def test_without_discount_a_law_is_widened_by_two_projections_however_long_the_trace():
    atoms, steps = torch.arange(-5.0, 41.0), 30
    end = torch.arange(steps) == steps - 1
    probs = torch.full((steps, len(atoms)), 1 / len(atoms))
    target = lambda_targets(atoms, torch.full((steps,), 0.37), probs, end, end, 1.0, 1.0)
    expected = 0.37 * torch.arange(steps, 0, -1)
    assert_close(cat.mean(atoms, target), expected, atol=1e-4, rtol=0)
    fraction = expected - expected.floor()
    assert_close(cat.variance(atoms, target), fraction * (1 - fraction), atol=1e-3, rtol=0)


def test_undiscounted_targets_off_the_grid_have_the_mean_of_the_lambda_return():
    generator = torch.Generator().manual_seed(3)
    atoms, shape = torch.linspace(-60, 60, 241, dtype=torch.float64), (40, 3)
    reward = torch.rand(shape, generator=generator, dtype=torch.float64)
    centre = 20 * torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
    probs = torch.softmax(-((atoms - centre) ** 2), -1)
    terminated = torch.rand(shape, generator=generator) < 0.1
    ended = terminated | (torch.rand(shape, generator=generator) < 0.1)
    found = cat.mean(atoms, lambda_targets(atoms, reward, probs, terminated, ended, 1.0, 0.9))
    next_value, expected = cat.mean(atoms, probs), torch.empty_like(found)
    for t in reversed(range(shape[0])):
        last = ended[t] if t < shape[0] - 1 else torch.ones_like(ended[t])
        mixed = next_value[t] if t == shape[0] - 1 else 0.1 * next_value[t] + 0.9 * expected[t + 1]
        expected[t] = reward[t] + torch.where(last, next_value[t], mixed) * ~terminated[t]
    assert_close(found, expected, atol=1e-9, rtol=0)
