"""Utilities, the clip that keeps rare losses finite, and the values that go with it."""

import math

import pytest
import torch
from torch.testing import assert_close

from rqe_mappo.functional import categorical as cat
from rqe_mappo.functional.risk import (
    CVaR,
    Entropic,
    Expectile,
    Neutral,
)
from tests.risk_examples import INF, LOTTERY, MEASURES, REPORTED, WIDE, Z, named, random_logits


def test_reference_bounds_what_a_rare_loss_may_count():
    atoms, log_probs = torch.tensor([-10.0, 0.0]), torch.tensor([0.1, 0.9]).log()
    # the mean is -1, so with tau = 1 and clip 3 the loss counts as -4: -log(0.1 e^4 + 0.9)
    assert float(Entropic(1.0, 3.0).reference(atoms, log_probs)) == pytest.approx(-1.85000, abs=1e-5)
    # unbounded: -log(0.1 e^10 + 0.9)
    for value in (Entropic(1.0, 3.0).value, Entropic(1.0, None).reference):
        assert float(value(atoms, log_probs)) == pytest.approx(-7.69782, abs=1e-5)
    assert float(CVaR(0.1).reference(atoms, log_probs)) == pytest.approx(-10.0)


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


@pytest.mark.parametrize(
    "measure", [Neutral(), Entropic(0.8), Entropic(0.8, None), Entropic(INF), Expectile(0.2)], ids=named
)
def test_utility_of_a_batch_equals_the_loop(measure):
    delta = random_logits(4, 3)
    loop = torch.stack([torch.stack([measure.utility(each) for each in row]) for row in delta])
    assert_close(measure.utility(delta), loop)


def test_utility_is_the_identity_where_risk_is_neutral():
    delta = torch.tensor([-1e6, -1.0, 0.0, 2.0])
    for measure in (Neutral(), Entropic(INF), Expectile(0.5), Expectile(0.1).annealed(0)):
        assert torch.equal(measure.utility(delta), delta)


def test_utility_of_the_expectile_by_hand():
    utility = Expectile(0.25).utility(torch.tensor([-2.0, 0.0, 4.0]))
    assert utility.tolist() == pytest.approx([-3, 0, 2])
    # its mean is zero where it is taken about the value: 0.5 for the lottery
    assert float(Expectile(0.25).utility(Z - 0.5) @ LOTTERY.exp()) == pytest.approx(0, abs=1e-6)


def test_nested_refuses_measures_that_cannot_be_learned_from_samples():
    having = (Neutral, Entropic, Expectile, CVaR)
    for measure in [*MEASURES, *REPORTED]:
        if not isinstance(measure, having):
            with pytest.raises(ValueError, match=r"nested .* --risk neutral, entropic, expectile") as caught:
                measure.identification(torch.zeros(3), torch.zeros(3, 1))
            assert measure.name in str(caught.value)


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
    near = cat.dirac(atoms, torch.tensor([-3.0, -6.0], dtype=torch.float64)).mean(0)
    floored = (1 - 1e-6) * near + 1e-6 / 101
    exact, floored_value = (Entropic(1).value(atoms, probs.log()) for probs in (near, floored))
    assert float(exact) == pytest.approx(-6 + math.log(2 / (1 + math.exp(-3))))
    assert float(floored_value) < -80  # a hundredth of a millionth on -100 and the honest value is there
    clean, dirty = (Entropic(1).influence(atoms, probs.log())[-20:] for probs in (near, floored))
    assert_close(dirty, clean, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("clip", [3.0, 1000.0, None])
@pytest.mark.parametrize("tau", [0.01, 0.3, 3.0, 1e5, INF])
def test_influence_is_finite_whatever_the_critic_deems_impossible(tau, clip):
    log_probs = (60 * random_logits(8, 51, dtype=torch.float32)).log_softmax(-1)
    assert Entropic(tau, clip).influence(WIDE, log_probs).isfinite().all()
    assert Entropic(tau, clip).zero_utility_value(WIDE, log_probs).isfinite().all()


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
