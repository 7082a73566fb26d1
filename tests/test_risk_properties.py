"""What holds for a risk measure for every distribution: Hypothesis looks for a counterexample; known ones are shown.

Distributions live on small sample spaces: probabilities of the points, and random variables as their values there.
Their atoms are hence unevenly spaced and may coincide.
"""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from rqe_mappo.functional.risk import (
    CPW,
    CVaR,
    DualPower,
    Entropic,
    Expectile,
    Gini,
    MeanStd,
    MeanVariance,
    Neutral,
    Power,
    VaR,
    Wang,
    WorstCase,
)

# Odd levels: at a cumulative probability, or an atom, the derivatives from either side differ.
CONCAVE = [
    Neutral(),
    Entropic(2.0, None),
    MeanVariance(2.0),
    MeanStd(0.7),
    CVaR(0.3137),
    WorstCase(),
    Wang(0.75),
    DualPower(2.5),
    Power(1.5),
    Gini(0.5),
    Gini(1),
    Expectile(0.1137),
]
SEEKING = [MeanStd(-0.4), Wang(-0.5), DualPower(0.6), Power(0.4), Gini(-0.5), Gini(-1), Expectile(0.8137)]
MEASURES = [*CONCAVE, *SEEKING, CPW(), VaR(0.3137)]
TRAINED = [measure for measure in MEASURES if not measure.evaluation_only]
MONOTONE = [measure for measure in MEASURES if not isinstance(measure, MeanVariance | MeanStd)]
HOMOGENEOUS = [measure for measure in MEASURES if not isinstance(measure, Entropic | MeanVariance)]
COMONOTONE = [measure for measure in HOMOGENEOUS if not isinstance(measure, MeanStd | Expectile)]


def of_each(measures):
    return pytest.mark.parametrize("measure", measures, ids=str)


few = settings(derandomize=True, database=None, deadline=None, max_examples=25)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def spaces(draw, variables=1, distinct=False):
    """Probabilities of 2 to 6 points, none below 1/101, and so many random variables on them."""
    points = draw(st.integers(2, 6))
    weights = tensor(draw(st.lists(st.integers(1, 20), min_size=points, max_size=points)))
    values = st.lists(st.integers(-40, 40), min_size=points, max_size=points, unique=distinct)
    return weights / weights.sum(), *(tensor(draw(values)) / 8 for _ in range(variables))


def distribution(probs, x):
    """Atoms and log-probabilities of the random variable x."""
    order = x.argsort()
    return x[order], probs[order].log()


def rho(measure, probs, x):
    return float(measure.value(*distribution(probs, x)))


def even(*values):
    """A random variable with equally likely values."""
    return torch.full((len(values),), 1 / len(values), dtype=torch.float64), tensor(values)


# What Hypothesis cannot refute


@of_each(MEASURES)
@few
@given(spaces(), st.floats(-100, 100))
def test_a_sure_gain_adds_itself(measure, space, gain):
    probs, x = space
    assert rho(measure, probs, x + gain) == pytest.approx(rho(measure, probs, x) + gain, abs=1e-9)


@of_each(MONOTONE)
@few
@given(spaces(variables=2))
def test_monotone(measure, space):
    """First-order dominance: more in every case is not worth less."""
    probs, x, rise = space
    assert rho(measure, probs, x + rise.abs()) >= rho(measure, probs, x) - 1e-9


@of_each(HOMOGENEOUS)
@few
@given(spaces(), st.floats(0.01, 100))
def test_positively_homogeneous(measure, space, factor):
    probs, x = space
    assert rho(measure, probs, factor * x) == pytest.approx(factor * rho(measure, probs, x), abs=1e-9, rel=1e-9)


@of_each(CONCAVE)
@few
@given(spaces(variables=2), st.floats(0, 1))
def test_concave_in_the_random_variable(measure, space, share):
    """Diversification: with X and Y on one sample space, `rho(l X + (1 - l) Y) >= l rho(X) + (1 - l) rho(Y)`."""
    probs, x, y = space
    apart = share * rho(measure, probs, x) + (1 - share) * rho(measure, probs, y)
    assert rho(measure, probs, share * x + (1 - share) * y) >= apart - 1e-9


@of_each(SEEKING)
@few
@given(spaces(variables=2), st.floats(0, 1))
def test_convex_where_risk_is_sought(measure, space, share):
    probs, x, y = space
    apart = share * rho(measure, probs, x) + (1 - share) * rho(measure, probs, y)
    assert rho(measure, probs, share * x + (1 - share) * y) <= apart + 1e-9


@of_each(COMONOTONE)
@few
@given(spaces(variables=2))
def test_distortions_add_up_where_gains_go_together(measure, space):
    probs, x, y = space
    x, y = x.sort().values, y.sort().values
    assert rho(measure, probs, x + y) == pytest.approx(rho(measure, probs, x) + rho(measure, probs, y), abs=1e-9)


@of_each(MEASURES)
@few
@given(spaces(), st.integers(0, 5), st.floats(0.1, 0.9), st.floats(-9, 9))
def test_only_the_distribution_counts(measure, space, point, share, impossible):
    """Neither how a probability is divided among equal atoms nor atoms without probability."""
    probs, x = space
    point %= len(x)
    split = torch.cat((probs, probs[point : point + 1] * (1 - share), tensor([0.0])))
    split[point] *= share
    longer = torch.cat((x, x[point : point + 1], tensor([impossible])))
    assert rho(measure, split, longer) == pytest.approx(rho(measure, probs, x), abs=1e-9)


@of_each(TRAINED)
@few
@given(spaces(distinct=True))
def test_influence_integrates_to_zero(measure, space):
    atoms, log_probs = distribution(*space)
    assert float(log_probs.exp() @ measure.influence(atoms, log_probs)) == pytest.approx(0, abs=1e-9)


@of_each([measure for measure in TRAINED if measure in MONOTONE])
@few
@given(spaces())
def test_influence_of_a_monotone_measure_never_falls(measure, space):
    assert (measure.influence(*distribution(*space)).diff() >= -1e-9).all()


@of_each(TRAINED)
@few
@given(spaces(distinct=True))
def test_influence_is_the_finite_difference_towards_a_dirac(measure, space):
    atoms, log_probs = distribution(*space)
    if isinstance(measure, Expectile):  # not differentiable with an atom at the value
        assume(float((atoms - measure.value(atoms, log_probs)).abs().min()) > 1e-3)
    if isinstance(measure, CVaR):  # nor with the level at a cumulative probability
        assume(float((log_probs.exp().cumsum(-1) - measure.level).abs().min()) > 1e-3)
    step, diracs = 1e-6, torch.eye(len(atoms), dtype=torch.float64)
    ahead, behind = (measure.value(atoms, ((1 - e) * log_probs.exp() + e * diracs).log()) for e in (step, -step))
    psi = measure.influence(atoms, log_probs)
    assert_close(psi, (ahead - behind) / (2 * step), atol=1e-6 * (1 + float(psi.abs().max())), rtol=1e-6)


TOLERANCES = {
    "entropic": [Entropic(tau) for tau in (0.05, 0.5, 2, 30, 1e3, math.inf)],
    "mean-variance": [MeanVariance(tau) for tau in (0.5, 2, 30, math.inf)],
    "mean-std": [MeanStd(-kappa) for kappa in (-2, -0.3, 0, 0.3, 2)],
    "cvar": [CVaR(level) for level in (0.001, 0.1, 0.5, 0.9, 1)],
    "var": [VaR(level) for level in (0.001, 0.1, 0.5, 0.9, 1)],
    "wang": [Wang(-eta) for eta in (-3, -0.3, 0, 0.3, 3)],
    "dual-power": [DualPower(k) for k in (30, 3, 1, 0.3, 0.03)],
    "power": [Power(k) for k in (30, 3, 1, 0.3, 0.03)],
    "gini": [Gini(-eta) for eta in (-1, -0.3, 0, 0.3, 1)],
    "expectile": [Expectile(level) for level in (0.001, 0.1, 0.5, 0.9, 0.999)],
}


@pytest.mark.parametrize("measures", TOLERANCES.values(), ids=TOLERANCES)
@few
@given(spaces())
def test_value_never_falls_as_tolerance_grows(measures, space):
    values = [rho(measure, *space) for measure in measures]
    assert all(more >= less - 1e-9 for less, more in itertools.pairwise(values))


@of_each(TRAINED)
@few
@given(spaces())
def test_annealed_to_nothing_is_the_mean(measure, space):
    probs, x = space
    assert rho(measure.annealed(0), probs, x) == pytest.approx(float(probs @ x), abs=1e-9)


@of_each([Entropic(1e-4), CVaR(1e-3), VaR(1e-3), WorstCase(), Wang(12), DualPower(1e4), Power(1e7), Expectile(1e-7)])
@few
@given(spaces())
def test_the_averse_limit_is_the_worst_case(measure, space):
    assert rho(measure, *space) == pytest.approx(float(space[1].min()), abs=1e-3)


@of_each([VaR(1), Wang(-12), DualPower(1e-6), Power(1e-4), Expectile(1 - 1e-7)])
@few
@given(spaces())
def test_the_seeking_limit_is_the_best_case(measure, space):
    assert rho(measure, *space) == pytest.approx(float(space[1].max()), abs=1e-3)


@pytest.mark.parametrize(
    ("averse", "seeking"),
    [
        (MeanStd(0.7), MeanStd(-0.7)),
        (Wang(0.75), Wang(-0.75)),
        (DualPower(2.5), Power(1 / 2.5)),
        (Power(1.5), DualPower(1 / 1.5)),
        (Gini(0.3), Gini(-0.3)),
        (Expectile(0.2), Expectile(0.8)),
    ],
    ids=str,
)
@few
@given(spaces())
def test_seeking_risk_in_gains_is_avoiding_it_in_losses(averse, seeking, space):
    probs, x = space
    assert rho(seeking, probs, x) == pytest.approx(-rho(averse, probs, -x), abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other"),
    [(Gini(1), DualPower(2)), (Gini(-1), Power(0.5)), (WorstCase(), VaR(1e-4)), (Expectile(0.5), Neutral())],
    ids=str,
)
@few
@given(spaces())
def test_measures_that_meet(one, other, space):
    # 1e-5: what a D that is straight over the outermost shares makes of D(u) = u^2
    assert rho(one, *space) == pytest.approx(rho(other, *space), abs=1e-5)


@few
@given(spaces(), st.floats(0.01, 0.99))
def test_utility_of_the_expectile_has_mean_zero_about_the_value(space, level):
    probs, x = space
    measure = Expectile(level)
    assert float(probs @ measure.utility(x - rho(measure, probs, x))) == pytest.approx(0, abs=1e-9)


# What does not hold


@pytest.mark.parametrize(
    ("measure", "less", "more"),
    [
        (MeanVariance(1), (0, 0), (0, 10)),  # 0 and 5 - 25 / 2
        (MeanStd(2), (0, 0), (0, 10)),  # 0 and 5 - 2 * 5
        (MeanStd(-2), (-10, 0), (0, 0)),  # -5 + 2 * 5 and 0
    ],
    ids=str,
)
def test_moments_are_not_monotone(measure, less, more):
    assert all(x <= y for x, y in zip(less, more, strict=True))
    assert rho(measure, *even(*less)) > rho(measure, *even(*more)) + 1


@pytest.mark.parametrize(
    ("measure", "one", "five"),
    [
        (Entropic(1), -0.12011, -1.81357),  # -log cosh(1/2) and -log cosh(5/2)
        (MeanVariance(1), -0.125, -3.125),
    ],
    ids=["entropic", "mean-variance"],
)
def test_a_measure_with_a_tolerance_is_not_homogeneous(measure, one, five):
    assert rho(measure, *even(-0.5, 0.5)) == pytest.approx(one, abs=1e-5)
    assert rho(measure, *even(-2.5, 2.5)) == pytest.approx(five, abs=1e-5)


@of_each([*SEEKING, CPW()])
def test_not_concave_where_risk_is_sought(measure):
    """Half of each of two opposite bets is a sure 1, and worth less than either. So it is for CPW, at even odds."""
    assert rho(measure, *even(1, 1)) == pytest.approx(1)
    assert rho(measure, *even(0, 2)) == rho(measure, *even(2, 0)) > 1.05


def test_var_is_not_concave():
    """Either loss alone is too improbable to count; half of both is not."""
    first, second = (-1, 0, 0, 0), (0, -1, 0, 0)
    assert rho(VaR(0.3), *even(*first)) == rho(VaR(0.3), *even(*second)) == 0
    assert rho(VaR(0.3), *even(*(a / 2 + b / 2 for a, b in zip(first, second, strict=True)))) == -0.5


@pytest.mark.parametrize(("eta", "loss", "gain"), [(0.5, -0.08340, 0.17015), (0.8, -0.02459, 0.02882)])
def test_cpw_is_neither_averse_nor_seeking(eta, loss, gain):
    """A loss and a gain of 1, each with probability 0.01, count for more than that, the more so the smaller eta is."""
    rare = tensor([0.01, 0.99])
    assert rho(CPW(eta), rare, tensor([-1, 0])) == pytest.approx(loss, abs=1e-5)
    assert rho(CPW(eta), rare, tensor([1, 0])) == pytest.approx(gain, abs=1e-5)


def test_expectile_does_not_add_up_where_gains_go_together():
    x, y = (0, 0, 1), (0, 1, 1)
    measure = Expectile(0.25)
    together = rho(measure, *even(*(a + b for a, b in zip(x, y, strict=True))))
    assert together > rho(measure, *even(*x)) + rho(measure, *even(*y)) + 0.01


@pytest.mark.parametrize("measure", [MeanVariance(1), MeanStd(2)], ids=str)
def test_influence_of_the_moments_punishes_surprising_success(measure):
    assert measure.influence(*distribution(tensor([0.8, 0.1, 0.1]), tensor([0, 1, 9]))).diff()[-1] < 0
