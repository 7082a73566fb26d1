"""Return distributions on a support, against hand-computed numbers and plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqe_mappo.functional import categorical as cat

ATOMS = torch.tensor([0.0, 1.0, 2.0, 3.0])
HALVES = torch.tensor([0.5, 0.0, 0.5, 0.0])


def random_probs(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator, dtype=dtype)).softmax(-1)


def random_numbers(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_support_is_evenly_spaced():
    assert cat.support(-1, 2, 4).tolist() == [-1, 0, 1, 2]


@pytest.mark.parametrize(
    ("low", "high", "atoms"), [(1, 1, 5), (2, 1, 5), (-math.inf, 0, 5), (0, math.nan, 5), (0, 1, 1)]
)
def test_support_refuses_what_is_no_interval(low, high, atoms):
    with pytest.raises(ValueError, match="a support needs"):
        cat.support(low, high, atoms)


@pytest.mark.parametrize(
    ("low", "high", "step", "max_atoms", "first", "last", "spacing"),
    [
        (-76, 0, 0.5, 153, -76, 0, 0.5),  # just fits
        (-76, 0, 0.5, 152, -76, 0, 1.0),  # one atom short: the spacing doubles
        (-3.2, 4, 1.0, 51, -4, 4, 1.0),  # bounds off the grid are covered
        (2, 5, 1.0, 51, 2, 5, 1.0),  # 0 need not be an atom
        (-10, 3, 1.0, 6, -12, 3, 3.0),  # a multiple that divides neither bound
        (-1.1, 0.7, 0.1, 51, -1.1, 0.7, 0.1),  # 1.1 / 0.1 is 11 and not a rounding more
    ],
)
def test_aligned_support_by_hand(low, high, step, max_atoms, first, last, spacing):
    atoms = cat.aligned_support(low, high, step, max_atoms)
    assert atoms[0].item() == pytest.approx(first)
    assert atoms[-1].item() == pytest.approx(last)
    assert atoms.diff().allclose(torch.tensor(float(spacing)))


@given(
    st.floats(-1000, 1000), st.floats(0.01, 1000), st.sampled_from([0.1, 0.5, 1.0, 3.0]), st.integers(3, 201)
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_aligned_support_covers_with_the_least_spacing(low, width, step, max_atoms):
    high = low + width
    atoms = cat.aligned_support(low, high, step, max_atoms)
    slack = 1e-5 * (abs(low) + abs(high) + step)
    assert 2 <= len(atoms) <= max_atoms
    assert atoms[0] <= low + slack
    assert atoms[-1] >= high - slack
    multiple = round(float(atoms[1] - atoms[0]) / step)
    assert (atoms / step - (atoms / step).round()).abs().max() < 1e-2
    if multiple > 1:
        finer = (multiple - 1) * step
        assert math.ceil(high / finer) - math.floor(low / finer) + 1 > max_atoms


@pytest.mark.parametrize(("step", "max_atoms", "named"), [(0, 51, "step"), (math.nan, 51, "step"), (1, 2, "max_atoms")])
def test_aligned_support_refuses_what_cannot_be(step, max_atoms, named):
    with pytest.raises(ValueError, match=named):
        cat.aligned_support(-1, 1, step, max_atoms)


@pytest.mark.parametrize(
    ("reward", "discount", "expected"),
    [
        (0.0, 1.0, [0.5, 0, 0.5, 0]),
        (0.25, 1.0, [0.375, 0.125, 0.375, 0.125]),
        (1.0, 1.0, [0, 0.5, 0, 0.5]),
        (-1.0, 1.0, [0.5, 0.5, 0, 0]),  # 0 - 1 is below the support and moves to its edge
        (9.0, 1.0, [0, 0, 0, 1]),
        (0.0, 0.5, [0.5, 0.5, 0, 0]),
        (1.5, 0.0, [0, 0.5, 0.5, 0]),  # the Dirac at the reward
        (3.0, 0.0, [0, 0, 0, 1]),
    ],
)
def test_projection_by_hand(reward, discount, expected):
    out = cat.project(ATOMS, HALVES, torch.tensor(reward), torch.tensor(discount))
    assert out.tolist() == pytest.approx(expected)


def project_atom_by_atom(atoms, probs, reward, discount):
    out, spacing = [0.0] * len(atoms), float(atoms[1] - atoms[0])
    for atom, prob in zip(atoms.tolist(), probs.tolist(), strict=True):
        position = (min(max(reward + discount * atom, float(atoms[0])), float(atoms[-1])) - float(atoms[0])) / spacing
        below = min(int(position), len(atoms) - 2)
        out[below] += prob * (1 - (position - below))
        out[below + 1] += prob * (position - below)
    return torch.tensor(out, dtype=atoms.dtype)


def test_projection_of_a_batch_equals_the_loop():
    atoms = torch.linspace(-3, 4, 15, dtype=torch.float64)
    probs, reward = random_probs(4, 3, 15), 3 * random_numbers(4, 3)
    discount = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    batch = cat.project(atoms, probs, reward, discount)
    for i in range(4):
        for j in range(3):
            loop = project_atom_by_atom(atoms, probs[i, j], float(reward[i, j]), float(discount[i, j]))
            assert torch.allclose(batch[i, j], loop, atol=1e-14)


@given(st.integers(0, 10**6), st.integers(2, 60), st.floats(0, 1), st.floats(-1, 1))
@settings(deadline=None, max_examples=100)
def test_projection_keeps_probability_and_the_mean_within_the_support(seed, n, discount, reward):
    atoms = torch.linspace(-5, 7, n, dtype=torch.float64)
    inner = torch.where((atoms > -4 + 1e-9) & (atoms < 6 - 1e-9), random_probs(n, seed=seed), 0)
    if inner.sum() == 0:
        return
    probs = inner / inner.sum()
    reward, discount = torch.tensor(reward, dtype=torch.float64), torch.tensor(discount, dtype=torch.float64)
    out = cat.project(atoms, probs, reward, discount)
    assert (out >= 0).all()
    assert float(out.sum()) == pytest.approx(1, abs=1e-12)
    assert float(cat.mean(atoms, out)) == pytest.approx(float(reward + discount * cat.mean(atoms, probs)), abs=1e-12)


def test_projection_is_exact_on_an_aligned_grid():
    atoms = cat.aligned_support(-76, 0, 0.5, 153)
    probs = random_probs(5, 153, dtype=torch.float32)
    probs[:, :20] = 0  # nothing leaves the support
    for steps in (1, 3, 20):
        out = cat.project(atoms, probs, torch.full((5,), -0.5 * steps), torch.ones(5))
        assert torch.equal(out, probs.roll(-steps, -1))


def test_repeated_projection_off_the_grid_widens_but_keeps_the_mean():
    atoms = cat.support(-10, 10, 41).double()
    probs, shift = cat.dirac(atoms, torch.zeros((), dtype=torch.float64)), torch.tensor(0.25, dtype=torch.float64)
    for _ in range(8):
        probs = cat.project(atoms, probs, shift, torch.ones((), dtype=torch.float64))
    assert float(cat.mean(atoms, probs)) == pytest.approx(2, abs=1e-12)
    assert float(cat.variance(atoms, probs)) == pytest.approx(8 * 0.5**2 / 4, abs=1e-12)  # f (1 - f) spacing^2 a step


def test_dirac_by_hand():
    out = cat.dirac(ATOMS, torch.tensor([0.0, 1.25, 3.0, -7.0, 8.0]))
    expected = [[1, 0, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert out.tolist() == expected


def test_dirac_is_the_projection_with_discount_zero():
    atoms, value = torch.linspace(-3, 4, 15, dtype=torch.float64), 3 * random_numbers(20)
    projected = cat.project(atoms, random_probs(20, 15), value, torch.zeros_like(value))
    assert torch.allclose(cat.dirac(atoms, value), projected, atol=1e-13)


def test_moments_by_hand():
    probs = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0]])
    assert cat.mean(ATOMS, probs).tolist() == pytest.approx([1, 2, 2])
    assert cat.variance(ATOMS, probs).tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert cat.cdf(probs)[1].tolist() == pytest.approx([0.1, 0.3, 0.6, 1.0])
    low, high = cat.edge_mass(probs)
    assert low.tolist() == pytest.approx([0.5, 0.1, 0])
    assert high.tolist() == pytest.approx([0, 0.4, 0])


@pytest.mark.parametrize(("level", "expected"), [(0.05, 0), (0.1, 0), (0.11, 1), (0.3, 1), (0.31, 2), (0.6, 2), (1, 3)])
def test_quantile_by_hand(level, expected):
    assert cat.quantile(ATOMS, torch.tensor([0.1, 0.2, 0.3, 0.4]), level) == expected


def test_quantile_at_one_is_the_highest_atom_with_probability():
    assert cat.quantile(ATOMS, torch.tensor([0.1, 0.2, 0.7, 0.0]), 1) == 2


@pytest.mark.parametrize("level", [0, -0.1, 1.1, math.nan])
def test_quantile_refuses_what_is_no_level(level):
    with pytest.raises(ValueError, match="level"):
        cat.quantile(ATOMS, HALVES, level)


def test_cross_entropy_by_hand():
    logits = torch.tensor([0.25, 0.75]).log() + 5  # a constant in the logits does not count
    out = cat.cross_entropy(torch.tensor([0.5, 0.5]), logits)
    assert float(out) == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)


def test_cross_entropy_pulls_the_softmax_to_the_target():
    target, logits = random_probs(3, 7), random_numbers(3, 7).requires_grad_()
    cat.cross_entropy(target, logits).sum().backward()
    assert torch.allclose(logits.grad, (logits.softmax(-1) - target).detach())


@pytest.mark.parametrize(
    "function",
    [
        lambda p: cat.mean(torch.linspace(-1, 2, 9, dtype=p.dtype), p),
        lambda p: cat.variance(torch.linspace(-1, 2, 9, dtype=p.dtype), p),
        lambda p: cat.quantile(torch.linspace(-1, 2, 9, dtype=p.dtype), p, 0.3),
        lambda p: cat.dirac(torch.linspace(-1, 2, 9, dtype=p.dtype), p[..., 0]),
        lambda p: cat.cross_entropy(p, p.flip(-1)),
        lambda p: torch.stack(cat.edge_mass(p), -1),
        cat.cdf,
    ],
    ids=["mean", "variance", "quantile", "dirac", "cross_entropy", "edge_mass", "cdf"],
)
def test_batch_equals_loop(function):
    probs = random_probs(4, 3, 9)
    loop = torch.stack([torch.stack([function(row) for row in rows]) for rows in probs])
    assert torch.allclose(function(probs), loop, atol=1e-15)


def test_projection_of_points_by_hand():
    # 0.25 is three quarters at 0, 9 is at the edge, 2 is an atom
    out = cat.project_points(ATOMS, torch.tensor([0.25, 9.0, 2.0]), torch.tensor([0.4, 0.1, 0.5]))
    assert out.tolist() == pytest.approx([0.3, 0.1, 0.5, 0.1])


@pytest.mark.parametrize(
    "function",
    [
        cat.mean,
        cat.variance,
        lambda atoms, probs: cat.quantile(atoms, probs, 0.3),
        lambda atoms, probs: cat.weighted_sum(atoms, probs - 0.5),
        lambda atoms, probs: cat.pick(atoms, (9 * probs[..., 0]).long()),
    ],
    ids=["mean", "variance", "quantile", "weighted_sum", "pick"],
)
def test_rows_may_have_atoms_of_their_own(function):
    atoms, probs = random_numbers(4, 3, 9).sort(-1).values, random_probs(4, 3, 9)
    loop = torch.stack([torch.stack([function(atoms[i, j], probs[i, j]) for j in range(3)]) for i in range(4)])
    assert torch.allclose(function(atoms, probs), loop, atol=1e-15)
    # batch axes broadcast, either way
    across = function(atoms[:, :1].expand(4, 3, 9), probs[:1].expand(4, 3, 9))
    assert torch.allclose(function(atoms[:, :1], probs[0]), across, atol=1e-15)
    assert torch.allclose(function(atoms[0, 0].expand(4, 3, 9), probs), function(atoms[0, 0], probs), atol=1e-14)
