"""Risk measures against hand-computed numbers, 50-digit arithmetic, finite differences and their limits."""

import dataclasses
import math
import re
from pathlib import Path

import mpmath
import pytest
import torch
from torch.testing import assert_close

from rqe_mappo.functional import categorical as cat
from rqe_mappo.functional.risk import (
    CPW,
    GRAMMAR,
    NEGLIGIBLE,
    OUTERMOST,
    SHIFTED_UPTO,
    CVaR,
    DualPower,
    Entropic,
    Expectile,
    Gini,
    MeanStd,
    MeanVariance,
    Neutral,
    Power,
    RiskMeasure,
    VaR,
    Wang,
    WorstCase,
    parse_risk,
)

INF = math.inf
WIDE = torch.linspace(-10, 100, 51)

# The lottery {-2: 1/4, 1: 1/4, 4: 1/2}: mean 1.75, variance 6.1875.
Z = torch.tensor([-2.0, 1.0, 4.0])
LOTTERY = torch.tensor([0.25, 0.25, 0.5]).log()
# The gamble {4, -2} at even odds, on a support of its own.
GAMBLE = torch.tensor([0.5, 0.0, 0.5]).log()

# One number, free of units.
NUMBERED = [
    CVaR(0.3),
    MeanStd(0.7),
    MeanStd(-0.4),
    Wang(0.75),
    Wang(-0.5),
    CPW(),
    DualPower(2.5),
    DualPower(0.6),
    Power(1.5),
    Power(0.4),
    Gini(0.5),
    Gini(-1),
    Expectile(0.1),
    Expectile(0.8),
]
MEASURES = [Neutral(), *map(Entropic, (0.8, 3.0, INF)), Entropic(0.8, None), MeanVariance(2.0), *NUMBERED]
UNCLIPPED = [Neutral(), *(Entropic(tau, None) for tau in (1.0, 6.0, 1e6)), MeanVariance(2.0), *NUMBERED]
REPORTED = [VaR(0.3), WorstCase()]


def random_logits(*shape, seed=0, dtype=torch.float64):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def named(measure):
    return "-".join(str(value) for value in (measure.name, *dataclasses.astuple(measure)))


@pytest.mark.parametrize(
    ("measure", "log_probs", "expected"),
    [
        (Neutral(), LOTTERY, 1.75),
        (Entropic(3), LOTTERY, 0.67743),  # -3 log 0.797865
        (Entropic(INF), LOTTERY, 1.75),
        (CVaR(0.5), LOTTERY, -0.5),  # (-2 + 1) / 2
        (CVaR(0.375), LOTTERY, -1),  # (-2 * 0.25 + 1 * 0.125) / 0.375: the atom astride the level counts in part
        (CVaR(1), LOTTERY, 1.75),
        (MeanVariance(1), LOTTERY, -1.34375),  # 1.75 - 6.1875 / 2
        (Entropic(1), GAMBLE, -1.30933),
        (Entropic(3), GAMBLE, -0.30134),
        (Entropic(8.8321), GAMBLE, 0.5),
        (CVaR(6 / 7), GAMBLE, 0.5),
        (MeanVariance(9), GAMBLE, 0.5),
        (CVaR(13 / 14), GAMBLE, 10 / 13),
        (Entropic(0.3), GAMBLE, -1.79206),
        (Entropic(1 / 3), GAMBLE, -1.76895),
        (Entropic(10 / 3), GAMBLE, -0.19943),
        (Entropic(20), GAMBLE, 0.77584),
        (Entropic(100), GAMBLE, 0.95501),
        (MeanStd(0.5), LOTTERY, 0.50627),  # 1.75 - 2.48747 / 2
        (MeanStd(-0.5), LOTTERY, 2.99373),
        (VaR(0.25), LOTTERY, -2),
        (VaR(0.5), LOTTERY, 1),
        (VaR(0.51), LOTTERY, 4),
        (VaR(1), LOTTERY, 4),
        (WorstCase(), LOTTERY, -2),
        (Wang(0.75), LOTTERY, 0.08960),  # 4 - 3 (Phi(-0.67449 + 0.75) + Phi(0.75)) = 4 - 3 (0.53010 + 0.77337)
        (Wang(-0.75), LOTTERY, 3.08866),  # 4 - 3 (0.07715 + 0.22663)
        (CPW(), LOTTERY, 1.73965),  # 4 - 3 (0.29286 + 0.46059)
        (CPW(0.5), LOTTERY, 2.13549),  # 4 - 3 (0.5 / 1.36603^2 + 0.70711 / 1.41421^2)
        (DualPower(2), LOTTERY, 0.4375),  # the worse of two: -2 * 7/16 + 1 * 5/16 + 4 * 4/16
        (DualPower(3), LOTTERY, -0.359375),  # the worst of three: -2 * 37/64 + 1 * 19/64 + 4 * 8/64
        (Power(2), LOTTERY, 0.37868),  # 4 - 3 (sqrt(1/4) + sqrt(1/2))
        (Power(1 / 2), LOTTERY, 3.0625),  # the better of two: -2 * 1/16 + 1 * 3/16 + 4 * 12/16
        (Gini(0.5), LOTTERY, 1.09375),  # E|Z - Z'| / 2 = (3/16 + 6/8 + 3/8) = 1.3125
        (Gini(1), LOTTERY, 0.4375),
        (Gini(-1), LOTTERY, 3.0625),
        (Expectile(0.25), LOTTERY, 0.5),  # 1/4 (0.5 * 1/4 + 3.5 * 1/2) = 3/4 * 2.5 * 1/4
        (Expectile(0.1), LOTTERY, -0.75),  # 0.1 (1.75 * 1/4 + 4.75 * 1/2) = 0.9 * 1.25 * 1/4
        (Expectile(0.75), LOTTERY, 2.875),  # 3/4 * 1.125 * 1/2 = 1/4 (1.875 + 4.875) * 1/4
        # Where a sure 0.5 is as good as the gamble: D(1/2) = 7/12, and alike.
        (MeanStd(1 / 6), GAMBLE, 0.5),
        (Wang(0.210428), GAMBLE, 0.5),
        (DualPower(1.263034), GAMBLE, 0.5),  # log(12/5) / log 2
        (Power(1.285996), GAMBLE, 0.5),  # log 2 / log(12/7)
        (Gini(1 / 3), GAMBLE, 0.5),
        (Expectile(5 / 12), GAMBLE, 0.5),
        (CPW(), GAMBLE, 1.23647),  # worth more than its mean: D(1/2) = 0.46059
        (VaR(0.5), GAMBLE, -2),
        (VaR(0.51), GAMBLE, 4),
        (WorstCase(), GAMBLE, -2),
    ],
)
def test_value_by_hand(measure, log_probs, expected):
    assert float(measure.value(Z, log_probs)) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (Neutral(), [-3.75, -0.75, 2.25]),
        (Entropic(3), [-4.32355, 0.30582, 2.00887]),  # 3 (1 - exp(-x / 3) / 0.797865)
        (CVaR(0.5), [-4.5, 1.5, 1.5]),  # nu = 1: flat above
        (MeanVariance(1), [-7.6875, 2.0625, 2.8125]),
        (MeanStd(0.5), [-4.54147, -0.18467, 2.36307]),  # x - (x^2 - 6.1875) / 9.94987 for x = -3.75, -0.75, 2.25
        (Wang(0.75), [-3.94891, -0.19338, 2.07114]),  # rises 3 exp(0.75 * 0.67449 - 0.28125) and 3 exp(-0.28125)
        (CPW(), [-2.62641, -0.43260, 1.52951]),  # rises 3 * 0.73127 and 3 * 0.65404
        (DualPower(2), [-4.875, -0.375, 2.625]),  # rises 3 * 2 * 3/4 and 3 * 2 * 1/2
        (Power(2), [-3.31066, -0.31066, 1.81066]),  # rises 3 / (2 sqrt(1/4)) and 3 / (2 sqrt(1/2))
        (Power(1 / 2), [-2.625, -1.125, 1.875]),  # rises 3 * 2 * 1/4 and 3 * 2 * 1/2
        (Gini(0.5), [-4.3125, -0.5625, 2.4375]),  # rises 3 * 1.25 and 3 * 1
        (Expectile(0.25), [-5, 1 / 3, 7 / 3]),  # x - 0.5, by 2 below and 2/3 above: 3/8 = 1/4 * 3/4 + 3/4 * 1/4
        (Expectile(0.75), [-2.4375, -0.9375, 1.6875]),  # x - 2.875, by 1/2 below and 3/2 above
    ],
)
def test_influence_by_hand(measure, expected):
    assert measure.influence(Z, LOTTERY).tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(("tau", "lean"), [(1, -0.71856), (20, 0.13792)])
def test_influence_of_gambling_at_even_odds_by_hand(tau, lean):
    """The policy gambles, for +4 or -2, half the time and else has 0.5: docs/risk.md."""
    atoms, log_probs = torch.tensor([-2.0, 0.5, 4.0]), torch.tensor([0.25, 0.5, 0.25]).log()
    low, sure, high = Entropic(tau).influence(atoms, log_probs)
    assert float(low + high) / 2 == pytest.approx(lean, abs=1e-5)
    assert float(sure) == pytest.approx(-lean, abs=1e-5)


def certainty_equivalent(atoms, logits, tau):
    """The entropic value of softmax(logits) in 50 digits."""
    with mpmath.workdps(50):
        weights = [mpmath.exp(float(logit)) for logit in logits]
        total = sum(w * mpmath.exp(-mpmath.mpf(float(z)) / tau) for w, z in zip(weights, atoms, strict=True))
        return float(-tau * mpmath.log(total / sum(weights)))


@pytest.mark.parametrize("tau", [0.01, 0.3, 1, 3, 10, 10.9, 11.1, 40, 110, 1e3, 1e5, 1e7, 1e30])
def test_entropic_value_in_float32_against_50_digits(tau):
    logits = random_logits(8, 51, dtype=torch.float32)
    values = Entropic(tau).value(WIDE, logits.log_softmax(-1))
    for value, row in zip(values, logits, strict=True):
        # One rounding of a number as large as the support is wide: sums of atoms cannot be better than that.
        bound = torch.finfo(torch.float32).eps * 110
        assert float(value) == pytest.approx(certainty_equivalent(WIDE, row, tau), abs=bound, rel=0)


@pytest.mark.parametrize("tau", [0.01, 0.3, 10, 1e3, 1e5, 1e7, INF])
def test_float32_gradients_and_influences_agree_with_float64(tau):
    logits = random_logits(8, 51)
    results = []
    for dtype in (torch.float32, torch.float64):
        at = logits.to(dtype).requires_grad_()
        measure, atoms = Entropic(tau), WIDE.to(dtype)
        measure.value(atoms, at.log_softmax(-1)).sum().backward()
        results.append((at.grad.double(), measure.influence(atoms, at.detach().log_softmax(-1)).double()))
    (gradient32, influence32), (gradient64, influence64) = results
    assert_close(gradient32, gradient64, atol=1e-4, rtol=1e-5)
    # Relative to the largest entry: at small tau the line below the clip is steep (e^3) and hundreds of tau long.
    assert ((influence32 - influence64).abs() <= 1e-6 * influence64.abs().amax(-1, keepdim=True) + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_two_forms_of_the_entropic_value_join(dtype):
    logits, atoms = random_logits(6, 51, dtype=dtype), WIDE.to(dtype)
    below, above = (110 / SHIFTED_UPTO * (1 + side * 1e-6) for side in (-1, 1))
    results = []
    for tau in (below, above):
        at = logits.clone().requires_grad_()
        value = Entropic(tau).value(atoms, at.log_softmax(-1))
        value.sum().backward()
        results.append((value.detach(), at.grad))
    assert_close(results[0][0], results[1][0], atol=5e-5, rtol=0)
    assert_close(results[0][1], results[1][1], atol=5e-5, rtol=0)


@pytest.mark.parametrize("measure", UNCLIPPED, ids=named)
def test_influence_is_the_derivative_towards_a_dirac(measure):
    atoms, probs, step = torch.linspace(-4, 5, 13, dtype=torch.float64), random_logits(13).softmax(-1), 1e-6
    diracs = torch.eye(13, dtype=torch.float64)
    ahead, behind = ((1 - e) * probs + e * diracs for e in (step, -step))
    difference = (measure.value(atoms, ahead.log()) - measure.value(atoms, behind.log())) / (2 * step)
    # The central difference errs by step^2 psi'' (largest for small tau) and by rounding, 1e-15 / step.
    assert_close(measure.influence(atoms, probs.log()), difference, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("measure", UNCLIPPED, ids=named)
def test_gradient_of_the_value_through_a_softmax_is_probability_times_influence(measure):
    atoms, logits = torch.linspace(-4, 5, 13, dtype=torch.float64), random_logits(5, 13).requires_grad_()
    measure.value(atoms, logits.log_softmax(-1)).sum().backward()
    log_probs = logits.detach().log_softmax(-1)
    assert_close(logits.grad, log_probs.exp() * measure.influence(atoms, log_probs), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("measure", MEASURES, ids=named)
def test_influence_is_centred(measure):
    atoms, log_probs = torch.linspace(-4, 5, 13, dtype=torch.float64), random_logits(5, 13).log_softmax(-1)
    psi = measure.influence(atoms, log_probs)
    assert_close((log_probs.exp() * psi).sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("measure", [*MEASURES, *REPORTED], ids=named)
def test_batch_equals_loop(measure):
    atoms, log_probs = torch.linspace(-4, 5, 13, dtype=torch.float64), random_logits(4, 3, 13).log_softmax(-1)
    for function in (measure.value, measure.reference, *([] if measure.evaluation_only else [measure.influence])):
        loop = torch.stack([torch.stack([function(atoms, row) for row in rows]) for rows in log_probs])
        assert_close(function(atoms, log_probs), loop, atol=1e-12, rtol=1e-12)


def test_reference_bounds_what_a_rare_loss_may_count():
    atoms, log_probs = torch.tensor([-10.0, 0.0]), torch.tensor([0.1, 0.9]).log()
    # the mean is -1, so with tau = 1 and clip 3 the loss counts as -4: -log(0.1 e^4 + 0.9)
    assert float(Entropic(1.0, 3.0).reference(atoms, log_probs)) == pytest.approx(-1.85000, abs=1e-5)
    # unbounded: -log(0.1 e^10 + 0.9)
    for value in (Entropic(1.0, 3.0).value, Entropic(1.0, None).reference):
        assert float(value(atoms, log_probs)) == pytest.approx(-7.69782, abs=1e-5)
    assert float(CVaR(0.1).reference(atoms, log_probs)) == pytest.approx(-10.0)


def test_zero_utility_value_by_hand():
    atoms, log_probs = torch.tensor([-10.0, 0.0], dtype=torch.float64), torch.tensor([0.001, 0.999]).double().log()
    # 0.999 (1 - e^v) = 0.001 (e^3 (7 + v) + e^3 - 1)
    assert float(Entropic(1.0, 3.0).zero_utility_value(atoms, log_probs)) == pytest.approx(-0.170105, abs=1e-6)
    # unbounded: -log(0.001 e^10 + 0.999)
    assert float(Entropic(1.0, None).zero_utility_value(atoms, log_probs)) == pytest.approx(-3.13660, abs=1e-5)


@pytest.mark.parametrize(
    "measure", [Neutral(), Entropic(0.8), Entropic(40.0), Entropic(0.8, 5.0), Entropic(INF), Expectile(0.2)], ids=named
)
def test_zero_utility_value_is_where_the_mean_utility_is_zero(measure):
    atoms, logits = torch.linspace(-30, 9, 79, dtype=torch.float64), random_logits(200, 79)
    log_probs = (logits * torch.linspace(0.1, 10, 200)[:, None]).log_softmax(-1)
    value = measure.zero_utility_value(atoms, log_probs)
    mean_utility = (log_probs.exp() * measure.utility(atoms - value[:, None])).sum(-1)
    assert_close(mean_utility, torch.zeros(200, dtype=torch.float64), atol=1e-4, rtol=0)


def test_zero_utility_value_of_a_sure_return_is_that_return():
    log_probs = torch.eye(51, dtype=torch.float64).clamp_min(1e-300).log()
    assert_close(Entropic(2.0).zero_utility_value(WIDE.double(), log_probs), WIDE.double(), atol=1e-4, rtol=0)


def test_zero_utility_value_falls_with_tau_where_the_bounded_value_returns_to_the_mean():
    atoms, even = torch.linspace(-40, 0, 81), torch.zeros(81).log_softmax(-1)
    taus = [300.0, 30.0, 10.0, 3.0, 1.0, 0.5]
    falling = [float(Entropic(tau).zero_utility_value(atoms, even)) for tau in taus]
    assert falling == sorted(falling, reverse=True) and falling[0] > -21 and falling[-1] < -37
    assert Entropic(0.5).reference(atoms, even) > Entropic(10.0).reference(atoms, even) + 3


@pytest.mark.parametrize(
    "measure", [Neutral(), Entropic(0.8), Entropic(0.8, None), Entropic(INF), Expectile(0.2)], ids=named
)
def test_utility_of_a_batch_equals_the_loop(measure):
    delta = random_logits(4, 3)
    loop = torch.stack([torch.stack([measure.utility(each) for each in row]) for row in delta])
    assert_close(measure.utility(delta), loop)


@pytest.mark.parametrize("measure", MEASURES, ids=named)
def test_adding_a_constant_moves_the_value_by_it_and_the_influence_not_at_all(measure):
    atoms, log_probs = torch.linspace(-4, 5, 13, dtype=torch.float64), random_logits(5, 13).log_softmax(-1)
    assert_close(measure.value(atoms + 7, log_probs), measure.value(atoms, log_probs) + 7)
    assert_close(measure.influence(atoms + 7, log_probs), measure.influence(atoms, log_probs))


@pytest.mark.parametrize("measure", MEASURES, ids=named)
def test_a_sure_return_has_its_own_value(measure):
    assert float(measure.value(Z, torch.tensor([0.0, 1.0, 0.0]).log())) == pytest.approx(1)
    assert measure.influence(Z, torch.tensor([0.0, 1.0, 0.0]).log()).isfinite().all()


@pytest.mark.parametrize("family", [Entropic, MeanVariance])
def test_large_tau_is_the_mean(family):
    log_probs = random_logits(8, 51, dtype=torch.float32).log_softmax(-1)
    assert_close(family(INF).value(WIDE, log_probs), Neutral().value(WIDE, log_probs))
    assert_close(family(INF).influence(WIDE, log_probs), Neutral().influence(WIDE, log_probs), atol=2e-5, rtol=0)
    # rho = m - Var / (2 tau) to first order, and the next order is far below float32 at tau = 1e4.
    variance = cat.variance(WIDE, log_probs.exp())
    expected = Neutral().value(WIDE, log_probs) - variance / 2e4
    assert_close(family(1e4).value(WIDE, log_probs), expected, atol=5e-4, rtol=0)
    assert_close(family(1e7).influence(WIDE, log_probs), Neutral().influence(WIDE, log_probs), atol=2e-3, rtol=0)


def test_small_tau_is_the_worst_case():
    assert float(Entropic(1e-3).value(Z, LOTTERY)) == pytest.approx(-2, abs=2e-3)
    assert float(CVaR(1e-3).value(Z, LOTTERY)) == pytest.approx(-2, abs=1e-5)


def test_cvar_at_level_one_is_the_mean_also_beyond_what_the_critic_deems_possible():
    log_probs = torch.tensor([[0.0, -1.0, -30.0], [0.0, -200.0, -200.0]]).log_softmax(-1)
    assert_close(CVaR(1).influence(Z, log_probs), Neutral().influence(Z, log_probs))


@pytest.mark.parametrize(
    "measures",
    [
        [Entropic(tau) for tau in (0.1, 0.3, 1, 3, 10, 11, 12, 30, 100, 1e3, INF)],
        [MeanVariance(tau) for tau in (1, 3, 10, 100, INF)],
        [CVaR(level) for level in (0.05, 0.1, 0.3, 0.7, 0.95, 1)],
        [MeanStd(-kappa) for kappa in (-3, -0.5, -0.1, 0, 0.1, 0.5, 3)],
        [Wang(-eta) for eta in (-3, -0.75, -0.1, 0, 0.1, 0.75, 3)],
        [DualPower(1 / k) for k in (0.1, 0.5, 0.9, 1, 1.1, 3, 10)],
        [Power(1 / k) for k in (0.1, 0.5, 0.9, 1, 1.1, 3, 10)],
        [Gini(-eta) for eta in (-1, -0.5, -0.1, 0, 0.1, 0.5, 1)],
        [Expectile(level) for level in (0.001, 0.1, 0.4, 0.5, 0.6, 0.9, 0.999)],
    ],
    ids=lambda measures: measures[0].name.partition(":")[0],
)
def test_value_grows_with_tolerance(measures):
    atoms, log_probs = WIDE.double(), random_logits(8, 51).log_softmax(-1)
    values = torch.stack([measure.value(atoms, log_probs) for measure in measures])
    assert (values.diff(dim=0) > 0).all()


def test_clip_continues_the_exponential_by_its_tangent():
    tau, clip = 2.0, 3.0
    measure, join = Entropic(tau, clip), -tau * clip
    delta = torch.tensor([join - 1e-9, join + 1e-9, -50.0, -60.0, -70.0, -1.0, 0.0, 4.0], dtype=torch.float64)
    delta.requires_grad_()
    utility = measure.utility(delta)
    (slope,) = torch.autograd.grad(utility.sum(), delta)
    utility = utility.detach()
    assert_close(utility[0], utility[1], atol=1e-7, rtol=0)
    assert slope[:5].tolist() == pytest.approx([math.exp(clip)] * 5)
    assert float(utility[2]) == pytest.approx(tau * (1 - math.exp(3)) + math.exp(3) * (-50 - join))
    assert float(utility[2] - utility[3]) == pytest.approx(10 * math.exp(clip))
    assert utility[5:].tolist() == pytest.approx([2 * (1 - math.exp(0.5)), 0, 2 * (1 - math.exp(-2))])


def test_clipped_utility_by_hand():
    delta = torch.tensor([2.0, 0.0, -1.0, -3.0, -4.0, -10.0])
    expected = [0.86466, 0, -1.71828, -19.08554, -39.17107, -159.6843]
    assert Entropic(1).utility(delta).tolist() == pytest.approx(expected, rel=1e-5)


def test_clip_does_not_touch_returns_that_are_near():
    near = Z.double(), LOTTERY.double()  # the support is 2 tau wide
    assert_close(Entropic(3).influence(*near), Entropic(3, None).influence(*near))


def test_clip_leaves_the_value_exact():
    log_probs = random_logits(8, 51, dtype=torch.float32).log_softmax(-1)
    assert torch.equal(Entropic(1, 3).value(WIDE, log_probs), Entropic(1, None).value(WIDE, log_probs))


def test_clipped_influence_is_increasing_and_straight_below():
    atoms = torch.linspace(-100, 0, 101, dtype=torch.float64)
    bell = (-0.5 * ((atoms + 20) / 5) ** 2).log_softmax(-1)  # rho near -22, the line from there - 15 down
    slope = Entropic(5).influence(atoms, bell).diff()
    assert (slope > 0).all()
    assert_close(slope[:60], torch.full_like(slope[:60], math.exp(3)))
    assert (slope.diff()[65:] < 0).all()


def test_a_softmax_floor_on_the_lowest_atoms_does_not_decide_the_clipped_influence():
    atoms = torch.linspace(-100, 0, 101, dtype=torch.float64)
    law = cat.dirac(atoms, torch.tensor([-3.0, -6.0], dtype=torch.float64)).mean(0)
    floored = (1 - 1e-6) * law + 1e-6 / 101
    exact, floored_value = (Entropic(1).value(atoms, probs.log()) for probs in (law, floored))
    assert float(exact) == pytest.approx(-6 + math.log(2 / (1 + math.exp(-3))))
    assert float(floored_value) < -80  # a hundredth of a millionth on -100 and the honest value is there
    clean, dirty = (Entropic(1).influence(atoms, probs.log())[-20:] for probs in (law, floored))
    assert_close(dirty, clean, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("clip", [3.0, 1000.0, None])
@pytest.mark.parametrize("tau", [0.01, 0.3, 3.0, 1e5, INF])
def test_influence_is_finite_whatever_the_critic_deems_impossible(tau, clip):
    log_probs = (60 * random_logits(8, 51, dtype=torch.float32)).log_softmax(-1)
    assert Entropic(tau, clip).influence(WIDE, log_probs).isfinite().all()
    assert Entropic(tau, clip).zero_utility_value(WIDE, log_probs).isfinite().all()


def test_annealing_goes_from_the_mean_to_the_measure():
    assert Entropic(2.0).annealed(0) == Entropic(INF)
    assert Entropic(2.0).annealed(0.25) == Entropic(8.0)
    assert MeanVariance(2.0).annealed(0.25) == MeanVariance(8.0)
    assert CVaR(0.2).annealed(0.5) == CVaR(0.6)
    assert Wang(0.5).annealed(0.5) == Wang(0.25)
    assert CPW(0.5).annealed(0.5) == CPW(0.75)
    assert DualPower(3).annealed(0.5) == DualPower(2)
    assert Power(0.5).annealed(0.5) == Power(0.75)
    assert Gini(-1).annealed(0.5) == Gini(-0.5)
    assert MeanStd(1).annealed(0.5) == MeanStd(0.5)
    assert Expectile(0.25).annealed(0.5) == Expectile(0.375)
    for measure in MEASURES:
        assert measure.annealed(1) == measure
        start = measure.annealed(0).influence(Z, LOTTERY)
        assert_close(start, Neutral().influence(Z, LOTTERY))


def test_tau_is_quoted_in_units_of_return():
    assert Entropic(0.3, 5.0).scaled(10) == Entropic(3.0, 5.0)
    assert MeanVariance(0.5).scaled(4) == MeanVariance(2.0)
    for measure in (Neutral(), *NUMBERED, *REPORTED):
        assert measure.scaled(10) == measure


@pytest.mark.parametrize("measure", [*MEASURES, *REPORTED], ids=named)
def test_value_scales_with_return_and_tau_together(measure):
    assert_close(measure.scaled(10).value(10 * Z, LOTTERY), 10 * measure.value(Z, LOTTERY))


def test_nested_refuses_measures_without_a_utility():
    having = (Neutral, Entropic, Expectile)
    for measure in [*MEASURES, *REPORTED]:
        if not isinstance(measure, having):
            with pytest.raises(ValueError, match=r"--advantage nested .* --risk neutral, entropic or expec") as caught:
                measure.utility(torch.zeros(3))
            assert measure.name in str(caught.value)


def test_utility_is_the_identity_where_risk_is_neutral():
    delta = torch.tensor([-1e6, -1.0, 0.0, 2.0])
    for measure in (Neutral(), Entropic(INF), Expectile(0.5), Expectile(0.1).annealed(0)):
        assert torch.equal(measure.utility(delta), delta)


def test_utility_of_the_expectile_by_hand():
    utility = Expectile(0.25).utility(torch.tensor([-2.0, 0.0, 4.0]))
    assert utility.tolist() == pytest.approx([-3, 0, 2])
    # its mean is zero where it is taken about the value: 0.5 for the lottery
    assert float(Expectile(0.25).utility(Z - 0.5) @ LOTTERY.exp()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("measure", "line"),
    [
        (VaR(0.1), "its influence needs a density, which atoms lack; use --risk cvar:0.1 (or rqe-eval to report it)"),
        (
            WorstCase(),
            "its influence is 0 or minus infinity; use --risk dual-power:10 or cvar:0.05 (or rqe-eval to report it)",
        ),
    ],
    ids=["var", "worst-case"],
)
def test_measures_without_a_usable_influence_say_what_to_use(measure, line):
    assert measure.evaluation_only == f"--risk {measure.name} cannot be trained on: {line}"
    for refused in (lambda: measure.influence(Z, LOTTERY), lambda: measure.annealed(0.5)):
        with pytest.raises(ValueError) as caught:
            refused()
        assert str(caught.value) == measure.evaluation_only


@pytest.mark.parametrize("measure", MEASURES, ids=named)
def test_all_others_can_be_trained_on(measure):
    assert measure.evaluation_only is None


def test_worst_case_overlooks_what_a_softmax_leaves_everywhere():
    atoms = torch.linspace(-10, 0, 11)
    leftover = torch.full((11,), NEGLIGIBLE / 20)
    for crash, worst in ((0.0, -2.0), (0.001, -7.0)):
        probs = leftover.clone()
        probs[3] += crash
        probs[8:] += (1 - probs.sum()) / 3
        assert float(WorstCase().value(atoms, probs.log())) == worst


def test_a_distortion_is_straight_over_the_outermost_share():
    """Wang's D at a share of u = 1e-8 is u D(1e-6) / 1e-6 = 31.2 u, not 0.0000004; the same line carries psi."""
    measure, atoms = Wang(0.75), torch.tensor([0.0, 1.0], dtype=torch.float64)
    for u, bent in ((1e-8, 3.12161e-7), (OUTERMOST, 3.12161e-5)):
        log_probs = torch.tensor([u, 1 - u], dtype=torch.float64).log()
        assert float(1 - measure.value(atoms, log_probs)) == pytest.approx(bent, rel=1e-5)
    low, high = measure.influence(atoms, torch.tensor([1e-8, 1 - 1e-8], dtype=torch.float64).log())
    assert float(high - low) == pytest.approx(31.2161, rel=1e-5)
    # the slopes at either end
    for measure, slopes in (
        (Power(2), (1000, 0.5)),
        (CPW(), (54.9499, 77.1051)),
        (DualPower(0.5), (0.5, 1000)),
        (DualPower(2), (2, 1e-6)),
        (Gini(0.5), (1.5, 0.5)),
    ):
        for log_probs, slope in zip(([-INF, 0.0], [0.0, -INF]), slopes, strict=True):
            low, high = measure.influence(atoms, torch.tensor(log_probs, dtype=torch.float64))
            assert float(high - low) == pytest.approx(slope, rel=1e-4)


def test_mean_std_of_a_sure_return_divides_by_a_hundredth_of_the_width():
    # x - x^2 / (2 * 0.06), centred at the sure 1
    psi = MeanStd(1).influence(Z, torch.tensor([-INF, 0.0, -INF]))
    assert psi.tolist() == pytest.approx([-78, 0, -72])


def test_expectile_of_a_sure_return_counts_it_half_on_either_side():
    measure, sure = Expectile(0.1), torch.tensor([-INF, 0.0, -INF])
    assert measure.influence(Z, sure).tolist() == pytest.approx([-5.4, 0, 0.6])  # twice 0.9 * -3 and 0.1 * 3
    assert_close(measure.influence(Z, sure), measure.utility(Z - 1))
    # towards a lower return rho falls at the rate 3 * 0.9 / 0.1, towards a higher it rises at 3 * 0.1 / 0.9
    for laws, slope in (([1e-6, 1 - 1e-6, 0], -27), ([0, 1 - 1e-6, 1e-6], 1 / 3)):
        change = measure.value(Z.double(), torch.tensor(laws, dtype=torch.float64).log()) - 1
        assert float(change) / 1e-6 == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("measure", NUMBERED, ids=named)
@pytest.mark.parametrize("spread", [1, 8, 60])
def test_in_float32_as_in_float64(measure, spread):
    """From flat to all but sure: with 60 the log-probabilities span some hundreds."""
    log_probs = (spread * random_logits(16, 51)).log_softmax(-1)
    results = []
    for dtype in (torch.float32, torch.float64):
        at, atoms = log_probs.to(dtype).requires_grad_(), WIDE.to(dtype)
        value = measure.value(atoms, at)
        value.sum().backward()
        results.append((value.detach().double(), measure.influence(atoms, at.detach()).double(), at.grad.double()))
    (value32, influence32, gradient32), (value64, influence64, gradient64) = results
    assert_close(value32, value64, atol=1e-4, rtol=0)
    scale = influence64.abs().amax(-1, keepdim=True)
    assert ((influence32 - influence64).abs() <= 1e-3 * scale).all()
    assert ((gradient32 - gradient64).abs() <= 1e-3 * scale).all()


@pytest.mark.parametrize("measure", MEASURES, ids=named)
def test_gradient_of_a_sure_return_is_finite(measure):
    log_probs = torch.tensor([-200.0, 0.0, -200.0]).requires_grad_()
    measure.value(Z, log_probs).backward()
    assert log_probs.grad.isfinite().all()


@pytest.mark.parametrize("measure", [*NUMBERED, *REPORTED, Neutral(), CVaR(6 / 7), Wang(1e-9)], ids=named)
def test_a_name_parses_back_to_the_measure(measure):
    assert parse_risk(measure.name, math.nan) == measure


@pytest.mark.parametrize(
    "text", ["neutral", "entropic", "mean-variance", "worst-case", "cvar:0.1", "cvar:1", "wang:-0.5"]
)
def test_risk_is_named_as_it_is_parsed(text):
    assert parse_risk(text, 2.0).name == text


def test_the_grammar_is_what_can_be_parsed():
    parts = GRAMMAR.split(" | ")
    for part in parts:
        text = part.replace("[", "").partition(":")[0] + ":0.5" * (":" in part)
        assert parse_risk(text, 1.0).name == text
    kinds = {re.match("[a-z-]+", part)[0] for part in parts}
    assert kinds == {measure.name.partition(":")[0] for measure in [*MEASURES, *REPORTED]}
    assert "\n" not in GRAMMAR


def test_parsed_measures():
    assert parse_risk("neutral", -1) == Neutral()  # tau does not count
    assert parse_risk("entropic", 0.3) == Entropic(0.3, 3.0)
    assert parse_risk("entropic", INF, clip=None) == Entropic(INF, None)
    assert parse_risk("cvar:0.1", math.nan) == CVaR(0.1)
    assert parse_risk("mean-variance", 2) == MeanVariance(2)
    assert parse_risk("worst-case", 1) == WorstCase()
    assert parse_risk("mean-std:-0.5", 1) == MeanStd(-0.5)
    assert parse_risk("var:0.05", 1) == VaR(0.05)
    assert parse_risk("wang:.75", 1) == Wang(0.75)
    assert parse_risk("cpw", 1) == parse_risk("cpw:0.71", 1) == CPW(0.71)
    assert parse_risk("dual-power:2", 1) == DualPower(2)
    assert parse_risk("power:1.5", 1) == Power(1.5)
    assert parse_risk("gini:1", 1) == Gini(1)
    assert parse_risk("expectile:1e-3", 1) == Expectile(0.001)


@pytest.mark.parametrize("text", ["foo", "", "Neutral", "entropic:2", "worst-case:", "gini0.5", ":0.1"])
def test_unknown_risk_gives_one_line_with_the_mend(text):
    with pytest.raises(ValueError) as caught:
        parse_risk(text, 1.0)
    assert str(caught.value) == f"--risk {text} is unknown: use {GRAMMAR}, for example --risk cvar:0.1"


@pytest.mark.parametrize(
    ("kind", "numbers", "mend"),
    [
        ("cvar", ["0", "1.5", "-1"], "cvar:LEVEL with 0 < LEVEL <= 1, as in --risk cvar:0.1; cvar:1 is risk-neutral"),
        ("var", ["0", "1.5", "-1"], "var:LEVEL with 0 < LEVEL <= 1, as in --risk var:0.1"),
        ("wang", [], "wang:ETA with -inf < ETA < inf, as in --risk wang:0.75; wang:0 is risk-neutral"),
        ("cpw", ["0.27", "1.01"], "cpw[:ETA] with 0.28 <= ETA <= 1, as in --risk cpw:0.71; cpw:1 is risk-neutral"),
        ("power", ["0", "-1"], "power:K with 0 < K < inf, as in --risk power:1.5; power:1 is risk-neutral"),
        ("gini", ["-1.1", "2"], "gini:ETA with -1 <= ETA <= 1, as in --risk gini:0.5; gini:0 is risk-neutral"),
        (
            "expectile",
            ["0", "1"],
            "expectile:LEVEL with 0 < LEVEL < 1, as in --risk expectile:0.1; expectile:0.5 is risk-neutral",
        ),
    ],
)
def test_a_bad_number_gives_one_line_with_the_mend(kind, numbers, mend):
    missing = [] if kind == "cpw" else [kind]
    for text in [*missing, *(f"{kind}:{number}" for number in ["", "x", "nan", "inf", "-inf", *numbers])]:
        with pytest.raises(ValueError) as caught:
            parse_risk(text, 1.0)
        assert str(caught.value) == f"--risk {text} must be {mend}"


@pytest.mark.parametrize("risk", ["entropic", "mean-variance"])
@pytest.mark.parametrize(("tau", "shown"), [(0, "0"), (-1, "-1"), (math.nan, "nan"), (-INF, "-inf")])
def test_bad_tau_gives_one_line_with_the_mend(risk, tau, shown):
    with pytest.raises(ValueError) as caught:
        parse_risk(risk, tau)
    assert str(caught.value) == f"--tau must be > 0 (got {shown}); use inf for risk-neutral"


def test_bad_level_and_clip_are_refused():
    with pytest.raises(ValueError, match=r"--risk cvar:0 must be cvar:LEVEL with 0 < LEVEL <= 1"):
        CVaR(0)
    with pytest.raises(ValueError, match="--risk-clip must be > 0"):
        Entropic(1.0, clip=0)


def test_the_measure_worked_out_in_the_docs_is_right():
    page = (Path(__file__).parent.parent / "docs/adding-a-risk-measure.md").read_text(encoding="utf-8")
    namespace = {"__name__": "semideviation"}
    exec(compile(page.split("```python\n")[1].split("```")[0], "adding-a-risk-measure.md", "exec"), namespace)
    family = namespace["Semideviation"]
    measure = family(0.5)
    assert isinstance(measure, RiskMeasure)
    assert float(measure.value(Z, LOTTERY)) == pytest.approx(1.1875)
    assert measure.influence(Z, LOTTERY).tolist() == pytest.approx([-4.125, -0.375, 2.25])
    assert float(family(1 / 3).value(Z, GAMBLE)) == pytest.approx(0.5)
    for law in (
        test_influence_is_the_derivative_towards_a_dirac,
        test_gradient_of_the_value_through_a_softmax_is_probability_times_influence,
        test_influence_is_centred,
        test_batch_equals_loop,
        test_adding_a_constant_moves_the_value_by_it_and_the_influence_not_at_all,
        test_a_sure_return_has_its_own_value,
        test_value_scales_with_return_and_tau_together,
    ):
        law(measure)
    assert measure.annealed(1) == measure
    assert_close(measure.annealed(0).influence(Z, LOTTERY), Neutral().influence(Z, LOTTERY))
    assert measure.name == "semideviation:0.5"
    with pytest.raises(ValueError, match="--risk semideviation:2 must be semideviation:W with 0 <= W <= 1"):
        family(2)
