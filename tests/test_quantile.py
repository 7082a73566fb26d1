"""Quantile distributions, against hand-computed numbers, plain loops and numerical minimisers."""

import math

import pytest
import scipy.optimize
import scipy.stats
import torch
from torch.testing import assert_close

from rqe_mappo.functional import categorical as cat
from rqe_mappo.functional import quantile as qt
from rqe_mappo.functional import returns

FOUR = torch.tensor([-1.0, 0.0, 2.0, 7.0])


def random_numbers(*shape, seed=0, dtype=torch.float64):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_levels(*shape, seed=9):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Levels, moments, lookups


def test_midpoint_levels_by_hand():
    assert qt.midpoint_levels(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert qt.midpoint_levels(1).tolist() == [0.5]
    assert qt.midpoint_levels(3, torch.float64).dtype == torch.float64


def test_midpoint_levels_refuse_no_quantile():
    with pytest.raises(ValueError, match=r"at least 1 quantile \(got 0\)"):
        qt.midpoint_levels(0)


def test_moments_by_hand():
    assert float(qt.mean(FOUR)) == 2
    assert float(qt.variance(FOUR)) == 9.5  # (9 + 4 + 0 + 25) / 4
    assert float(qt.spread(FOUR)) == 8
    assert float(qt.variance(torch.tensor([5.0]))) == 0
    assert float(qt.spread(torch.tensor([3.0, -2.0, 1.0]))) == 5  # in any order


def test_collapsed_quantiles_have_no_spread():
    assert qt.spread(torch.tensor([[4.0, 4.0, 4.0], [0.0, 1.0, 0.0]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("level", "expected"), [(1e-9, -1), (0.25, -1), (0.26, 0), (0.5, 0), (0.51, 2), (0.75, 2), (0.76, 7), (1, 7)]
)
def test_quantile_by_hand(level, expected):
    assert float(qt.quantile(FOUR, level)) == expected


@pytest.mark.parametrize("level", [0, -0.1, 1.1, math.nan])
def test_quantile_refuses_what_is_no_level(level):
    with pytest.raises(ValueError, match="level must lie in"):
        qt.quantile(FOUR, level)


@pytest.mark.parametrize("count", [1, 3, 8, 32, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantile_is_that_of_equally_likely_atoms(count, dtype):
    atoms, log_probs = qt.as_atoms(random_numbers(20, count, dtype=dtype))
    for level in [*(k / count for k in range(1, count + 1)), 0.05, 0.3137, 0.9]:
        assert torch.equal(qt.quantile(atoms, level), cat.quantile(atoms, log_probs.exp(), level))


def test_cdf_by_hand():
    x = torch.tensor([-2.0, -1.0, 1.0, 7.0])
    assert qt.cdf(FOUR.expand(4, 4), x).tolist() == [0, 0.25, 0.5, 1]


def test_cdf_is_the_inverse_of_quantile():
    values = random_numbers(6, 8).sort(-1).values
    for k in range(1, 9):
        assert_close(qt.cdf(values, qt.quantile(values, k / 8)), torch.full((6,), k / 8, dtype=torch.float64))


def test_as_atoms_sorts_and_gives_equal_probabilities():
    atoms, log_probs = qt.as_atoms(torch.tensor([[3.0, -1.0, 2.0, 2.0]]))
    assert atoms.tolist() == [[-1, 2, 2, 3]]
    assert log_probs.exp().tolist() == pytest.approx([0.25] * 4)
    assert log_probs.shape == (4,)


# Distance


def test_wasserstein_by_hand():
    assert float(qt.wasserstein_1(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 1.0]))) == 2  # |0 - 1| and |1 - 4|
    # a half at 0, a half at 3, against a third at each of 0, 1 and 2: 0, 1/6 of 1, 1/6 of 2, 1/3 of 1
    assert float(qt.wasserstein_1(torch.tensor([0.0, 3.0]), torch.tensor([0.0, 1.0, 2.0]))) == pytest.approx(5 / 6)


@pytest.mark.parametrize(("first", "second"), [(8, 8), (8, 32), (7, 5), (1, 6)])
def test_wasserstein_of_a_batch_equals_scipy_row_by_row(first, second):
    x, y = random_numbers(4, 3, first), 1 + random_numbers(4, 3, second, seed=1)
    batch = qt.wasserstein_1(x, y)
    for i in range(4):
        for j in range(3):
            assert float(batch[i, j]) == pytest.approx(scipy.stats.wasserstein_distance(x[i, j], y[i, j]), abs=1e-12)


def test_wasserstein_is_a_distance():
    x, y, z = (random_numbers(50, n, seed=n) for n in (4, 6, 9))
    d = qt.wasserstein_1
    assert_close(d(x, y), d(y, x))
    assert (d(x, y) + d(y, z) >= d(x, z) - 1e-12).all()
    assert_close(d(x, x.flip(-1)), torch.zeros(50, dtype=torch.float64))
    assert_close(d(x, x + 2), torch.full((50,), 2.0, dtype=torch.float64))
    assert_close(d(10 * x, 10 * y), 10 * d(x, y))


# To and from categorical


def test_to_categorical_by_hand():
    atoms = torch.tensor([0.0, 1.0, 2.0, 3.0])
    # 0.25 is three quarters at 0; 9 is at the edge; 2 is an atom
    probs = qt.to_categorical(atoms, torch.tensor([0.25, 9.0, 2.0, 2.0]))
    assert probs.tolist() == pytest.approx([0.1875, 0.0625, 0.5, 0.25])


def test_to_categorical_of_a_batch_equals_the_mean_of_diracs():
    atoms, values = torch.linspace(-5, 7, 25, dtype=torch.float64), random_numbers(4, 3, 8)
    assert_close(qt.to_categorical(atoms, values), cat.dirac(atoms, values).mean(-2), atol=1e-13, rtol=0)


def test_to_categorical_keeps_probability_and_mean_and_little_more_variance():
    atoms, values = torch.linspace(-20, 20, 81, dtype=torch.float64), random_numbers(50, 16)
    probs = qt.to_categorical(atoms, values)
    assert_close(probs.sum(-1), torch.ones(50, dtype=torch.float64))
    assert_close(cat.mean(atoms, probs), qt.mean(values))
    added = cat.variance(atoms, probs) - qt.variance(values)
    assert (added >= -1e-12).all() and (added <= 0.5**2 / 4).all()


def test_from_categorical_by_hand():
    atoms, probs = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    levels = torch.tensor([0.05, 0.1, 0.11, 0.3, 0.31, 0.6, 1.0])
    assert qt.from_categorical(atoms, probs, levels).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert qt.from_categorical(atoms, torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([1.0])).tolist() == [1]


def test_from_categorical_of_a_batch_equals_the_loop():
    probs, levels = random_numbers(4, 3, 9).softmax(-1), qt.midpoint_levels(7, torch.float64)
    shared, own = torch.linspace(-1, 2, 9, dtype=torch.float64), random_numbers(4, 3, 9, seed=2).sort(-1).values
    for atoms in (shared, own):
        rows = atoms.expand(4, 3, 9)
        for at in (levels, random_levels(4, 3, 7)):
            batch = qt.from_categorical(atoms, probs, at)
            for i in range(4):
                for j in range(3):
                    each = [cat.quantile(rows[i, j], probs[i, j], float(level)) for level in at.expand(4, 3, 7)[i, j]]
                    assert torch.equal(batch[i, j], torch.stack(each))


def test_from_categorical_at_midpoints_gives_equally_likely_atoms_back():
    values = random_numbers(5, 8).sort(-1).values
    uniform = torch.full((8,), 1 / 8, dtype=torch.float64)
    assert torch.equal(qt.from_categorical(values, uniform, qt.midpoint_levels(8, torch.float64)), values)


def test_quantiles_at_midpoints_are_closest_in_wasserstein_distance():
    """Moving any of them away does not come closer to the distribution, here of 40 equally likely values."""
    target = random_numbers(40).sort().values
    uniform = torch.full((40,), 1 / 40, dtype=torch.float64)
    best = qt.from_categorical(target, uniform, qt.midpoint_levels(5, torch.float64))
    least = qt.wasserstein_1(best, target)
    for i in range(5):
        for step in (-0.3, -0.01, 0.01, 0.3):
            moved = best.clone()
            moved[i] += step
            assert qt.wasserstein_1(moved, target) >= least - 1e-12


# The loss


@pytest.mark.parametrize(
    ("kappa", "expected"),
    [
        # predicted 0 at level 1/4 and 2 at 3/4, targets 1 and -1 and 2.5: errors 1, -1, 2.5 and -1, -3, 0.5
        (0.0, (0.25 * 1 + 0.75 * 1 + 0.25 * 2.5) / 3 + (0.25 * 1 + 0.25 * 3 + 0.75 * 0.5) / 3),
        (1.0, (0.25 * 0.5 + 0.75 * 0.5 + 0.25 * 2) / 3 + (0.25 * 0.5 + 0.25 * 2.5 + 0.75 * 0.125) / 3),
        (2.0, (0.25 * 0.25 + 0.75 * 0.25 + 0.25 * 1.5) / 3 + (0.25 * 0.25 + 0.25 * 2 + 0.75 * 0.0625) / 3),
    ],
)
def test_loss_by_hand(kappa, expected):
    predicted, target, levels = torch.tensor([0.0, 2.0]), torch.tensor([1.0, -1.0, 2.5]), torch.tensor([0.25, 0.75])
    assert float(qt.huber_quantile_loss(predicted, target, levels, kappa)) == pytest.approx(expected)


def loss_by_loops(predicted, target, levels, kappa):
    """Sum over predicted quantiles of the mean over targets, in plain Python."""
    total = 0.0
    for theta, level in zip(predicted.tolist(), levels.tolist(), strict=True):
        inner = 0.0
        for sample in target.tolist():
            u = sample - theta
            size = abs(u) if kappa == 0 or abs(u) > kappa else u * u / (2 * kappa)
            size -= kappa / 2 if kappa > 0 and abs(u) > kappa else 0
            inner += (level if u >= 0 else 1 - level) * size
        total += inner / target.shape[-1]
    return total


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0, 10.0])
def test_loss_of_a_batch_equals_the_loop(kappa):
    predicted, target = random_numbers(4, 3, 5), random_numbers(4, 3, 7, seed=1)
    for levels in (qt.midpoint_levels(5, torch.float64), random_levels(4, 3, 5)):
        batch = qt.huber_quantile_loss(predicted, target, levels, kappa)
        assert batch.shape == (4, 3)
        for i in range(4):
            for j in range(3):
                row = loss_by_loops(predicted[i, j], target[i, j], levels.expand(4, 3, 5)[i, j], kappa)
                assert float(batch[i, j]) == pytest.approx(row, abs=1e-13)


def test_loss_does_not_grow_with_the_number_of_targets_and_sums_over_quantiles():
    predicted, target, levels = random_numbers(4, 5), random_numbers(4, 7, seed=1), qt.midpoint_levels(5, torch.float64)
    once = qt.huber_quantile_loss(predicted, target, levels, 1.0)
    assert_close(qt.huber_quantile_loss(predicted, target.repeat(1, 3), levels, 1.0), once)
    assert_close(qt.huber_quantile_loss(predicted.repeat(1, 3), target, levels.repeat(3), 1.0), 3 * once)


def test_huber_loss_tends_to_the_pinball_loss():
    predicted, target, levels = random_numbers(4, 5), random_numbers(4, 7, seed=1), qt.midpoint_levels(5, torch.float64)
    pinball, huber = (qt.huber_quantile_loss(predicted, target, levels, kappa) for kappa in (0.0, 1e-4))
    assert (pinball - huber >= 0).all() and (pinball - huber <= 5 * 1e-4 / 2).all()


def test_the_slope_of_the_pinball_loss_is_the_cdf_less_the_level():
    predicted, target = random_numbers(4, 5).requires_grad_(), random_numbers(4, 7, seed=1)
    levels = qt.midpoint_levels(5, torch.float64)
    qt.huber_quantile_loss(predicted, target, levels, 0.0).sum().backward()
    below = (target[:, None, :] <= predicted.detach()[:, :, None]).double().mean(-1)
    assert_close(predicted.grad, below - levels)


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_gradient_of_the_loss_is_finite_where_prediction_and_target_agree(kappa):
    predicted = FOUR.clone().requires_grad_()
    qt.huber_quantile_loss(predicted, FOUR.clone(), qt.midpoint_levels(4), kappa).backward()
    assert predicted.grad.isfinite().all()


def test_no_gradient_flows_into_the_target_so_swapped_arguments_are_noticed():
    """With prediction and target swapped nothing could be learned: backward raises instead."""
    predicted, target = random_numbers(4, 5).requires_grad_(), random_numbers(4, 5, seed=1)
    levels = qt.midpoint_levels(5, torch.float64)
    with pytest.raises(RuntimeError, match="does not require grad"):
        qt.huber_quantile_loss(target, predicted, levels, 1.0).sum().backward()
    both = target.clone().requires_grad_()
    qt.huber_quantile_loss(predicted, both, levels, 1.0).sum().backward()
    assert both.grad is None and predicted.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(7,), (4, 3, 7), (4, 3, 1, 5), (3, 5), (1, 5), (5, 1), (4, 3, 5, 1)])
def test_levels_that_do_not_belong_to_the_predicted_quantiles_are_refused(shape):
    """7 is the number of targets; (4, 3, 1, 5) is how the released code of RiskQ puts levels along the targets."""
    predicted, target = random_numbers(4, 3, 5), random_numbers(4, 3, 7, seed=1)
    with pytest.raises(ValueError, match="levels of a quantile loss belong to the predicted quantiles"):
        qt.huber_quantile_loss(predicted, target, torch.full(shape, 0.5, dtype=torch.float64), 1.0)


def test_rows_of_targets_that_are_not_those_of_the_predictions_are_refused():
    predicted, levels = random_numbers(4, 3, 5), qt.midpoint_levels(5, torch.float64)
    for shape in ((3, 7), (4, 1, 7), (7,), (1, 4, 3, 7)):
        with pytest.raises(ValueError, match=r"needs predicted \[\*batch, N\] and target \[\*batch, M\]"):
            qt.huber_quantile_loss(predicted, random_numbers(*shape), levels, 1.0)


def test_a_kappa_too_small_to_be_seen_is_none():
    predicted, target, levels = FOUR + 0.5, FOUR.flip(0), qt.midpoint_levels(4)
    least = qt.huber_quantile_loss(predicted, target, levels, 1e-300)
    assert float(least) == float(qt.huber_quantile_loss(predicted, target, levels, 0.0))


@pytest.mark.parametrize("kappa", [-1.0, math.nan, math.inf])
def test_a_bad_kappa_is_refused_with_the_fix(kappa):
    with pytest.raises(ValueError, match=r"kappa >= 0 \(got .*\); use 0 for the pinball loss"):
        qt.huber_quantile_loss(FOUR, FOUR, qt.midpoint_levels(4), kappa)


NORMAL, STEPS = scipy.stats.norm(scale=3), 500


def regress(loss, count, start):
    """Quantiles after descent on the N(0, 3) population, seen as its 1001 midpoint quantiles."""
    target = torch.tensor(NORMAL.ppf((torch.arange(1001) + 0.5) / 1001), dtype=torch.float64)
    predicted = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([predicted], lr=0.2, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.01, total_iters=STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss(predicted, target).backward()
        optimiser.step()
        schedule.step()
    return predicted.detach()


def population_minimiser(level, kappa):
    """Where the slope of `E |level - 1{u < 0}| H(u)`, u = N(0, 3) - x, is zero: its root, found numerically."""

    def excess(x):  # E (Z - x)^+
        return 9 * NORMAL.pdf(x) - x * NORMAL.sf(x)

    def slope(x):  # E min((x - Z)^+, kappa) and E min((Z - x)^+, kappa), by symmetry
        below, above = excess(-x) - excess(kappa - x), excess(x) - excess(x + kappa)
        return (1 - level) * below - level * above

    return scipy.optimize.brentq(slope, -20, 20)


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 32])
@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.parametrize("start", ["flat", "spread"])
def test_regression_finds_the_quantiles_of_a_normal(count, kappa, start):
    levels = qt.midpoint_levels(count, torch.float64)
    begin = torch.zeros(count, dtype=torch.float64) if start == "flat" else torch.linspace(-1, 1, count).double()
    found = regress(lambda x, y: qt.huber_quantile_loss(x, y, levels, kappa), count, begin)
    exact = [float(NORMAL.ppf(level)) if kappa == 0 else population_minimiser(float(level), kappa) for level in levels]
    assert found.tolist() == pytest.approx(exact, abs=0.15)
    assert float(qt.spread(found)) > 8  # 9.2 for 8 quantiles, 12.9 for 32


def test_levels_along_the_targets_would_collapse_all_quantiles():
    """Why the loss refuses other shapes: the same loss with its levels on the other axis, as in the code that was
    released with RiskQ, sends 8 different quantiles to one number."""
    levels = qt.midpoint_levels(8, torch.float64)
    samples = torch.tensor(NORMAL.ppf(levels), dtype=torch.float64)

    def wrong(predicted, _):
        error = samples[None, :] - predicted[:, None]
        huber = torch.where(error.abs() <= 1, error**2 / 2, error.abs() - 0.5)
        return ((levels[None, :] - (error < 0).double()).abs() * huber).mean(-1).sum(-1)

    def right(predicted, _):
        return qt.huber_quantile_loss(predicted, samples, levels, 1.0)

    begin = torch.linspace(-4, 4, 8).double()
    assert float(qt.spread(regress(wrong, 8, begin))) < 0.05
    assert float(qt.spread(regress(right, 8, begin))) > 7


# Targets along a trajectory

NEVER = torch.tensor([False, False])
REWARD = torch.tensor([1.0, 2.0])
NEXT = torch.tensor([[0.0, 4.0], [2.0, 8.0]])


@pytest.mark.parametrize(
    ("lam", "terminated", "ended", "expected"),
    [
        (0.0, [0, 0], [0, 0], [[1, 3], [3, 6]]),
        (1.0, [0, 0], [0, 0], [[2.5, 4], [3, 6]]),  # 1 + 0.5 * (3, 6)
        (0.5, [0, 0], [0, 0], [[1.75, 3.5], [3, 6]]),
        (1.0, [0, 1], [0, 1], [[2, 2], [2, 2]]),  # the end: the reward, surely
        (1.0, [0, 0], [1, 0], [[1, 3], [3, 6]]),  # truncated: bootstraps, and does not go on
        (1.0, [1, 0], [1, 0], [[1, 1], [3, 6]]),
    ],
)
def test_lambda_targets_by_hand(lam, terminated, ended, expected):
    ends = torch.tensor(terminated).bool(), torch.tensor(ended).bool()
    assert qt.lambda_targets(REWARD, NEXT, *ends, 0.5, lam).tolist() == expected


def test_lambda_targets_of_a_batch_equal_the_loop_and_their_mean_is_the_scalar_return():
    generator = torch.Generator().manual_seed(3)
    reward, values = random_numbers(6, 4, 3), random_numbers(7, 4, 3, 5, seed=1)
    draw = torch.rand(6, 4, 3, generator=generator)
    terminated, ended = draw < 0.15, draw < 0.3
    batch = qt.lambda_targets(reward, values[1:], terminated, ended, 0.9, 0.7)
    for e in range(4):
        for a in range(3):
            one = [x[:, e, a] for x in (reward, values[1:], terminated, ended)]
            assert_close(batch[:, e, a], qt.lambda_targets(*one, 0.9, 0.7))
    value, next_value = qt.mean(values[:-1]), qt.mean(values[1:])
    advantage = returns.gae(reward, value, next_value, terminated, ended, 0.9, 0.7)
    assert_close(qt.mean(batch), value + advantage)


def test_lambda_targets_agree_with_the_mixture_where_it_has_one_component():
    atoms = torch.arange(-20.0, 21.0, dtype=torch.float64)
    next_probs = qt.to_categorical(atoms, NEXT.double())
    for lam in (0.0, 1.0):
        quantiles = qt.lambda_targets(REWARD.double(), NEXT.double(), NEVER, NEVER, 1.0, lam)
        mixture = returns.lambda_targets(atoms, REWARD.double(), next_probs, NEVER, NEVER, 1.0, lam)
        assert_close(qt.to_categorical(atoms, quantiles), mixture)


@pytest.mark.parametrize(
    "function",
    [
        qt.mean,
        qt.variance,
        qt.spread,
        lambda x: qt.quantile(x, 0.3),
        lambda x: qt.cdf(x, x[..., 2]),
        lambda x: qt.as_atoms(x)[0],
    ],
    ids=["mean", "variance", "spread", "quantile", "cdf", "as_atoms"],
)
def test_batch_equals_loop(function):
    values = random_numbers(4, 3, 8)
    loop = torch.stack([torch.stack([function(row) for row in rows]) for rows in values])
    assert_close(function(values), loop, atol=1e-14, rtol=0)


@pytest.mark.parametrize("kappa", [0.0, 0.3])
@pytest.mark.parametrize("shared", [True, False])
def test_the_gradient_of_the_loss_is_that_of_finite_differences(kappa, shared):
    predicted, target = random_numbers(3, 2, 5).requires_grad_(), random_numbers(3, 2, 7, seed=1)
    levels = qt.midpoint_levels(5, torch.float64)
    if not shared:
        levels = levels + 0.1 * random_numbers(3, 2, 5, seed=2).tanh()
    weight = random_numbers(3, 2, seed=3)  # so that rows pass on gradients of their own

    def loss(values: torch.Tensor) -> torch.Tensor:
        return (weight * qt.huber_quantile_loss(values, target, levels, kappa)).sum()

    assert torch.autograd.gradcheck(loss, predicted)


def test_ascending_is_the_sort_of_pytorch_with_its_gradient():
    values = random_numbers(6, 4, 9).float()
    values[0, 0, 3], values[1, 1, 2], values[2, 2, 5] = math.nan, math.inf, -math.inf
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    weight = random_numbers(6, 4, 9, seed=1).float()
    found, known = qt.ascending(ours), theirs.sort(-1).values
    assert torch.equal(found.nan_to_num(), known.nan_to_num())
    with torch.no_grad():
        assert torch.equal(qt.ascending(ours).nan_to_num(), known.nan_to_num())
    for result in (found, known):
        (result.nan_to_num() * weight).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)
    assert qt.ascending(values.transpose(0, 1)).shape == (4, 6, 9)
