"""Risk measures where every row has atoms of its own, as the values of a quantile critic do."""

import pytest
import torch
from torch.testing import assert_close

from rqe_mappo.functional import categorical as cat
from rqe_mappo.functional import quantile as qt
from rqe_mappo.functional.risk import (
    CVaR,
    Distortion,
    DualPower,
    Entropic,
    Expectile,
    Gini,
    MeanStd,
    MeanVariance,
    Neutral,
    VaR,
    WorstCase,
)
from tests.risk_examples import INF, MEASURES, REPORTED, UNCLIPPED, documented_family, named, random_logits

ALL = [*MEASURES, *REPORTED]
CLIPPED = [Entropic(tau, clip) for tau in (0.8, 4.0) for clip in (1.0, 3.0, 5.0, 20.0)]
HOMOGENEOUS = [measure for measure in ALL if not isinstance(measure, Entropic | MeanVariance)]


def of_each(measures):
    return pytest.mark.parametrize("measure", measures, ids=named)


def random_atoms(*shape, seed=5, dtype=torch.float64):
    """Ascending within each row, unevenly spaced; rows lie at different places and differ in width."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(*shape, generator=generator, dtype=torch.float64).sort(-1).values
    width, place = (torch.randn(*shape[:-1], 1, generator=generator, dtype=torch.float64) for _ in range(2))
    return (width.exp() * rows + 3 * place).to(dtype)


def functions(measure):
    influence = [] if measure.evaluation_only else [measure.influence]
    return [measure.value, measure.reference, measure.zero_utility_value, *influence]


# Against numbers, for the equally likely values -1, 0, 2 and 7 in one row, 0, 0, 0 and 8 in the other


@pytest.mark.parametrize(
    ("measure", "first", "second"),
    [
        (Neutral(), 2, 2),
        (CVaR(0.5), -0.5, 0),
        (CVaR(0.375), -2 / 3, 0),  # (-1 * 0.25 + 0 * 0.125) / 0.375
        (CVaR(0.875), 9 / 7, 8 / 7),  # (-1 + 0 + 2 + 7 / 2) / 3.5 and (0 + 0 + 0 + 8 / 2) / 3.5
        (VaR(0.5), 0, 0),
        (VaR(0.75), 2, 0),
        (VaR(0.76), 7, 8),
        (WorstCase(), -1, 0),
        (MeanVariance(1), -2.75, -4),  # variances 9.5 and 12
        (MeanStd(0.5), 0.458896, 0.267949),
        (DualPower(2), 0.375, 0.5),  # the worse of two: weights 7, 5, 3 and 1 sixteenths
        (Gini(1), 0.375, 0.5),
        (Gini(-1), 3.625, 3.5),  # the better of two
        (Expectile(0.25), 0.75, 0.8),  # 1/4 (9 - 2 e) = 3/4 (1 + 2 e), 1/4 (8 - e) = 3/4 * 3 e
        (Entropic(2, None), 0.544407, 0.563180),  # -2 log((e^0.5 + 1 + e^-1 + e^-3.5) / 4), -2 log((3 + e^-4) / 4)
        (Entropic(INF), 2, 2),
    ],
    ids=lambda x: x.name if hasattr(x, "name") else None,
)
def test_value_of_equally_likely_values_by_hand(measure, first, second):
    values = torch.tensor([[7.0, -1.0, 2.0, 0.0], [0.0, 8.0, 0.0, 0.0]])
    assert measure.value(*qt.as_atoms(values)).tolist() == pytest.approx([first, second], abs=2e-5)


@of_each([measure for measure in MEASURES if isinstance(measure, Distortion)])
@pytest.mark.parametrize("count", [4, 32])
def test_a_distortion_weighs_the_quantiles_by_steps_of_d_that_sum_to_one(measure, count):
    """`w_j = D(j / N) - D((j - 1) / N)`, nothing clamped: RiskQ's released weights sum to less than 1."""
    edges = torch.arange(count + 1, dtype=torch.float64)[1:-1] / count
    steps = torch.cat((torch.zeros(1), measure.distort(edges, 1 - edges), torch.ones(1))).double().diff()
    values = random_atoms(6, count)
    assert_close(measure.value(*qt.as_atoms(values)), values @ steps)


@pytest.mark.parametrize(
    ("measure", "first", "second"),
    [
        (Neutral(), [-3, -2, 0, 5], [-2, -2, -2, 6]),
        (CVaR(0.3), [-2.5, 5 / 6, 5 / 6, 5 / 6], [0, 0, 0, 0]),  # nu = 0: -1 / 0.3 minus the mean; nothing is below 0
        (Gini(0.5), [-2.875, -1.625, 0.375, 4.125], [-1.5, -1.5, -1.5, 4.5]),  # slopes 1.25, 1 and 0.75
        (MeanVariance(1), [-2.75, 0.75, 4.75, -2.75], [2, 2, 2, -6]),  # x - x^2 / 2, centred
        (Expectile(0.25), [-2.625, -1.125, 0.625, 3.125], [-0.96, -0.96, -0.96, 2.88]),  # divided by 1/2 and 5/8
    ],
    ids=lambda x: x.name if hasattr(x, "name") else None,
)
def test_influence_of_equally_likely_values_by_hand(measure, first, second):
    values = torch.tensor([[7.0, -1.0, 2.0, 0.0], [0.0, 8.0, 0.0, 0.0]])
    assert_close(measure.influence(*qt.as_atoms(values)), torch.tensor([first, second], dtype=torch.float32))


# Rows, shapes and order


@of_each([*ALL, *CLIPPED])
def test_batch_equals_loop(measure):
    """The loop takes every row's atoms as shared ones, `[N]`."""
    atoms, log_probs = random_atoms(4, 3, 13), random_logits(4, 3, 13).log_softmax(-1)
    for function in functions(measure):
        tolerance = 1e-11
        if function == measure.zero_utility_value and isinstance(measure, Entropic) and measure.clip:
            # with shared atoms it is found to 1e-4 tau only, where atoms are no more than 1.3 tau apart
            tolerance = 1e-4 * min(measure.tau, 1)
            atoms = atoms * min(1, 1.3 * measure.tau / float(atoms.diff().max()))
        loop = torch.stack([torch.stack([function(atoms[i, j], log_probs[i, j]) for j in range(3)]) for i in range(4)])
        assert_close(function(atoms, log_probs), loop, atol=tolerance, rtol=1e-11)


@of_each([*ALL, *CLIPPED])
def test_a_row_does_not_depend_on_the_others(measure):
    """Narrow rows, wide rows and rows far from 0 in one batch: each has what it has alone."""
    atoms, log_probs = random_atoms(5, 13), random_logits(5, 13).log_softmax(-1)
    atoms = atoms * torch.tensor([1, 1e-3, 300, 1, 1e-6])[:, None] + torch.tensor([0, 0, 0, 1e4, 1])[:, None]
    for function in functions(measure):
        alone = torch.cat([function(atoms[i : i + 1], log_probs[i : i + 1]) for i in range(5)])
        assert_close(function(atoms, log_probs), alone, atol=0, rtol=1e-13)


@of_each([*ALL, *CLIPPED])
def test_shared_atoms_are_the_same_atoms_in_every_row(measure):
    atoms, log_probs = random_atoms(13).mul(0.3), random_logits(4, 3, 13).log_softmax(-1)
    for function in functions(measure):
        rough = isinstance(measure, Entropic) and function == measure.zero_utility_value
        tolerance = 1e-4 * min(measure.tau, 1) if rough else 1e-11
        for rows in (atoms.expand(4, 3, 13), atoms[None, None], atoms[None].expand(3, 13)):
            assert_close(function(rows, log_probs), function(atoms, log_probs), atol=tolerance, rtol=1e-11)


@of_each([*ALL, *CLIPPED])
def test_batch_axes_broadcast(measure):
    atoms, log_probs = random_atoms(4, 1, 13), random_logits(3, 13).log_softmax(-1)
    for function in functions(measure):
        spread = function(atoms.expand(4, 3, 13), log_probs.expand(4, 3, 13))
        assert_close(function(atoms, log_probs), spread, atol=0, rtol=1e-13)
        one = function(atoms[:, 0], log_probs[0])  # probabilities shared by rows of atoms
        assert_close(one, spread[:, 0], atol=0, rtol=1e-13)


@of_each([*ALL, *CLIPPED])
def test_leading_axes_can_be_permuted(measure):
    atoms, log_probs = random_atoms(4, 3, 2, 13), random_logits(4, 3, 2, 13).log_softmax(-1)
    for function in functions(measure):
        out = function(atoms.movedim(0, 2), log_probs.movedim(0, 2))
        assert_close(out, function(atoms, log_probs).movedim(0, 2), atol=0, rtol=1e-13)


# What holds by row


@of_each([*ALL, *CLIPPED])
def test_a_constant_per_row_moves_the_values_by_it_and_the_influences_not_at_all(measure):
    atoms, log_probs, gain = random_atoms(50, 13), random_logits(50, 13).log_softmax(-1), 20 * random_logits(50)
    *values, influence = functions(measure) if not measure.evaluation_only else (*functions(measure), None)
    for function in values:
        moved = function(atoms + gain[:, None], log_probs)
        assert_close(moved, function(atoms, log_probs) + gain, atol=1e-10, rtol=0)
    if influence:
        assert_close(influence(atoms + gain[:, None], log_probs), influence(atoms, log_probs), atol=1e-9, rtol=1e-9)


@of_each(HOMOGENEOUS)
def test_a_factor_per_row_scales_what_has_no_tolerance(measure):
    atoms, log_probs, factor = random_atoms(50, 13), random_logits(50, 13).log_softmax(-1), random_logits(50).exp()
    assert_close(measure.value(factor[:, None] * atoms, log_probs), factor * measure.value(atoms, log_probs))
    if not measure.evaluation_only:
        scaled = measure.influence(factor[:, None] * atoms, log_probs)
        assert_close(scaled, factor[:, None] * measure.influence(atoms, log_probs), atol=1e-9, rtol=1e-9)


@of_each([*ALL, *CLIPPED])
def test_atoms_and_tau_scale_together(measure):
    atoms, log_probs = random_atoms(50, 13), random_logits(50, 13).log_softmax(-1)
    for before, after in zip(functions(measure), functions(measure.scaled(7)), strict=True):
        assert_close(after(7 * atoms, log_probs), 7 * before(atoms, log_probs), atol=1e-9, rtol=1e-9)


@of_each(UNCLIPPED)
def test_gradient_of_the_value_through_a_softmax_is_probability_times_influence(measure):
    atoms, logits = random_atoms(50, 13), random_logits(50, 13).requires_grad_()
    measure.value(atoms, logits.log_softmax(-1)).sum().backward()
    log_probs = logits.detach().log_softmax(-1)
    expected = log_probs.exp() * measure.influence(atoms, log_probs)
    assert_close(logits.grad, expected, atol=1e-9, rtol=1e-9)


@of_each(MEASURES)
def test_influence_is_centred(measure):
    atoms, log_probs = random_atoms(50, 13), random_logits(50, 13).log_softmax(-1)
    psi = measure.influence(atoms, log_probs)
    assert ((log_probs.exp() * psi).sum(-1).abs() <= 1e-13 * psi.abs().amax(-1)).all()


@of_each([*UNCLIPPED, *REPORTED])
def test_the_value_is_differentiable_in_the_atoms(measure):
    """Which trains a quantile critic through its risk; a constant added to all atoms is worth itself."""
    atoms = random_atoms(6, 9, seed=3).requires_grad_()
    log_probs = random_logits(6, 9).log_softmax(-1)
    (slope,) = torch.autograd.grad(measure.value(atoms, log_probs).sum(), atoms)
    assert_close(slope.sum(-1), torch.ones(6, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: measure.value(x, log_probs), (atoms,), eps=1e-7, atol=1e-5)


# A distortion's influence has a kink at every atom; its slopes in the atoms are the weights tested above.
@of_each([measure for measure in UNCLIPPED if not isinstance(measure, CVaR | Distortion)])
def test_slope_in_an_atom_is_its_probability_times_the_slope_of_the_influence(measure):
    """`d rho / d z_i = p_i psi'(z_i)`, psi' between two neighbours without probability."""
    centre, probs = 2 * random_atoms(6, 5), random_logits(6, 5).softmax(-1)
    atoms = (centre[..., None] + torch.tensor([-1e-5, 0, 1e-5])).flatten(-2).requires_grad_()
    spaced = (probs[..., None] * torch.tensor([0.0, 1.0, 0.0])).flatten(-2)
    (slope,) = torch.autograd.grad(measure.value(atoms, spaced.log()).sum(), atoms)
    psi = measure.influence(atoms.detach(), spaced.log()).unflatten(-1, (5, 3))
    expected = probs * (psi[..., 2] - psi[..., 0]) / 2e-5
    assert_close(slope.unflatten(-1, (5, 3))[..., 1], expected, atol=1e-6, rtol=1e-5)


@of_each([*ALL, *CLIPPED])
def test_repeated_atoms_are_one_atom_with_their_probabilities(measure):
    """Quantiles that coincide, in the middle and at either end."""
    atoms, probs = random_atoms(20, 7), random_logits(20, 7).softmax(-1)
    times = torch.tensor([3, 1, 2, 1, 4, 1, 2])
    share = torch.cat([random_logits(n, seed=n).softmax(-1) for n in times.tolist()])
    repeated = atoms.repeat_interleave(times, -1)
    split = probs.repeat_interleave(times, -1) * share
    for function in functions(measure):
        once, often = function(atoms, probs.log()), function(repeated, split.log())
        if once.shape == atoms.shape:
            once = once.repeat_interleave(times, -1)
        assert_close(often, once, atol=1e-9, rtol=1e-7)


@of_each([*ALL, *CLIPPED])
@pytest.mark.parametrize("place", [0.0, -3.7, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_collapsed_quantiles_are_a_sure_return(measure, place, dtype):
    atoms, log_probs = qt.as_atoms(torch.full((3, 8), place, dtype=dtype, requires_grad=True))
    value = measure.value(atoms, log_probs)
    close = {"atol": 1e-6 * max(abs(place), 1), "rtol": 0}
    assert_close(value, torch.full_like(value, place), **close)
    assert_close(measure.zero_utility_value(atoms, log_probs), value, **close)
    assert torch.autograd.grad(value.sum(), atoms)[0].isfinite().all()
    if not measure.evaluation_only:
        assert (measure.influence(atoms.detach(), log_probs) == 0).all()


# Magnitudes


@of_each(ALL)
@pytest.mark.parametrize("count", [8, 51])
def test_in_float32_far_from_zero_as_in_float64_at_zero(measure, count):
    """Rows at a million: the value has the rounding of numbers of that size, and the influence that of the width."""
    atoms = (random_atoms(50, count) + 1e6).float()  # exact from here on
    log_probs = random_logits(50, count, dtype=torch.float32).log_softmax(-1)
    near = atoms.double() - 1e6
    exact = measure.value(near, log_probs.double())
    assert_close(measure.value(atoms, log_probs).double() - 1e6, exact, atol=0.3, rtol=0)  # 5 roundings of 0.0625
    if not measure.evaluation_only:
        psi, expected = measure.influence(atoms, log_probs).double(), measure.influence(near, log_probs.double())
        assert ((psi - expected).abs() <= 1e-5 * expected.abs().amax(-1, keepdim=True) + 1e-6).all()


@of_each([*ALL, *CLIPPED])
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 2e-4), (torch.float64, 1e-9)])
def test_rows_a_millionth_wide(measure, dtype, relative):
    atoms, log_probs = random_atoms(50, 13) * 1e-6, random_logits(50, 13).log_softmax(-1)
    results = [[f(atoms.to(d), log_probs.to(d)).double() for f in functions(measure)] for d in (dtype, torch.float64)]
    for found, exact in zip(*results, strict=True):
        assert found.isfinite().all()
        assert ((found - exact).abs() <= relative * exact.abs().amax()).all()
    if isinstance(measure, Entropic):  # every tolerance is large here: m - Var / (2 tau), and the rest is below 1e-17
        probs = log_probs.exp()
        expected = cat.mean(atoms, probs) - cat.variance(atoms, probs) / (2 * measure.tau)
        assert_close(results[0][0], expected, atol=relative * 1e-6, rtol=0)


# Without a clip the exponent is bounded by what the dtype can hold.
@of_each([measure for measure in MEASURES if measure != Entropic(0.8, None)])
@pytest.mark.parametrize("spread", [1, 8, 60])
def test_in_float32_as_in_float64(measure, spread):
    """From flat to all but sure, as with shared atoms."""
    log_probs = (spread * random_logits(16, 51)).log_softmax(-1)
    single_atoms = (10 * random_atoms(16, 51)).float()
    results = []
    for dtype in (torch.float32, torch.float64):
        at, atoms = log_probs.to(dtype).requires_grad_(), single_atoms.to(dtype)
        value = measure.value(atoms, at)
        value.sum().backward()
        results.append([x.double() for x in (value.detach()[:, None], measure.influence(atoms, at.detach()), at.grad)])
    (value32, influence32, gradient32), (value64, influence64, gradient64) = results
    size = single_atoms.abs().amax(-1, keepdim=True).double()
    assert ((value32 - value64).abs() <= 1e-6 * size).all()
    scale = influence64.abs().amax(-1, keepdim=True)
    assert ((influence32 - influence64).abs() <= 1e-3 * scale).all()
    assert ((gradient32 - gradient64).abs() <= 1e-3 * scale).all()


@pytest.mark.parametrize("tau", [1e-3, 0.3, 10.0, 1e5])
def test_gradients_of_the_entropic_value_are_finite_in_wide_and_narrow_rows(tau):
    atoms = torch.tensor([[0.0, 1e-3, 2e-3], [-1e5, 0.0, 1e5], [5.0, 5.0, 5.0]], requires_grad=True)
    logits = torch.tensor([[0.0, -200.0, 1.0], [-200.0, 0.0, -200.0], [0.0, 0.0, -90.0]], requires_grad=True)
    Entropic(tau).value(atoms, logits.log_softmax(-1)).sum().backward()
    assert atoms.grad.isfinite().all() and logits.grad.isfinite().all()
    assert_close(atoms.grad.sum(-1), torch.ones(3))


@of_each(CLIPPED)
@pytest.mark.parametrize("gap", [0.1, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("count", [2, 5, 32])
def test_mean_utility_about_the_zero_utility_value_is_zero_however_far_apart_atoms_are(measure, gap, count):
    atoms = gap * measure.tau * random_atoms(300, count)
    log_probs = (random_logits(300, count) * torch.linspace(0.1, 10, 300)[:, None]).log_softmax(-1)
    value = measure.zero_utility_value(atoms, log_probs)
    x = atoms - value[:, None]
    error = (log_probs.exp() * measure.utility(x)).sum(-1)
    # in units of value: by the mean slope of the utility, as Newton's method would step
    slope = (log_probs.exp() * torch.exp((-x / measure.tau).clamp(max=measure.clip))).sum(-1)
    assert ((error / slope).abs() <= 1e-4 * measure.tau + 1e-12 * atoms.abs().amax()).all()


def test_the_measure_worked_out_in_the_docs_takes_rows():
    measure = documented_family()(0.5)
    for test in (
        test_batch_equals_loop,
        test_shared_atoms_are_the_same_atoms_in_every_row,
        test_a_row_does_not_depend_on_the_others,
        test_batch_axes_broadcast,
        test_a_constant_per_row_moves_the_values_by_it_and_the_influences_not_at_all,
        test_a_factor_per_row_scales_what_has_no_tolerance,
        test_gradient_of_the_value_through_a_softmax_is_probability_times_influence,
        test_influence_is_centred,
        test_repeated_atoms_are_one_atom_with_their_probabilities,
    ):
        test(measure)
    test_collapsed_quantiles_are_a_sure_return(measure, 1e6, torch.float32)
    test_in_float32_far_from_zero_as_in_float64_at_zero(measure, 51)
