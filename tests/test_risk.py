"""Risk measures against hand-computed numbers, 50-digit arithmetic, finite differences and their limits."""

import mpmath
import pytest
import torch
from torch.testing import assert_close

from rqe_mappo.functional import categorical as cat
from rqe_mappo.functional.risk import (
    CPW,
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
)
from tests.risk_examples import (
    GAMBLE,
    INF,
    LOTTERY,
    MEASURES,
    NUMBERED,
    REPORTED,
    UNCLIPPED,
    WIDE,
    Z,
    documented_family,
    named,
    random_logits,
)


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
    for probs, slope in (([1e-6, 1 - 1e-6, 0], -27), ([0, 1 - 1e-6, 1e-6], 1 / 3)):
        change = measure.value(Z.double(), torch.tensor(probs, dtype=torch.float64).log()) - 1
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


def test_the_measure_worked_out_in_the_docs_is_right():
    family = documented_family()
    measure = family(0.5)
    assert isinstance(measure, RiskMeasure)
    assert float(measure.value(Z, LOTTERY)) == pytest.approx(1.1875)
    assert measure.influence(Z, LOTTERY).tolist() == pytest.approx([-4.125, -0.375, 2.25])
    assert float(family(1 / 3).value(Z, GAMBLE)) == pytest.approx(0.5)
    for test in (
        test_influence_is_the_derivative_towards_a_dirac,
        test_gradient_of_the_value_through_a_softmax_is_probability_times_influence,
        test_influence_is_centred,
        test_batch_equals_loop,
        test_adding_a_constant_moves_the_value_by_it_and_the_influence_not_at_all,
        test_a_sure_return_has_its_own_value,
        test_value_scales_with_return_and_tau_together,
    ):
        test(measure)
    assert measure.annealed(1) == measure
    assert_close(measure.annealed(0).influence(Z, LOTTERY), Neutral().influence(Z, LOTTERY))
    assert measure.name == "semideviation:0.5"
    with pytest.raises(ValueError, match="--risk semideviation:2 must be semideviation:W with 0 <= W <= 1"):
        family(2)
