"""Worst cases over transitions: inner problems against linear programs and convex solvers."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog, minimize, minimize_scalar
from scipy.special import rel_entr

from rqe_mappo.functional.risk import Entropic
from rqe_mappo.functional.robust import contaminated, kl_ball, kl_penalty, l1_ball, worst_of

RADII = (0.0, 0.01, 0.1, 0.3, 1.0, 2.5)

BALLS = {
    "contamination": lambda radius: functools.partial(contaminated, delta=min(radius, 1.0)),
    "l1": lambda radius: functools.partial(l1_ball, radius=radius),
    "kl": lambda radius: functools.partial(kl_ball, radius=radius),
    "kl-penalty": lambda radius: functools.partial(kl_penalty, tau=1 / radius if radius else math.inf),
}


def rows(seed: int, n: int = 200, atoms: int = 5, sparse: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and probabilities, some of which are 0; float64."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(atoms, 0.5), n)
    if sparse:
        probs = np.where(rng.random(probs.shape) < 0.2, 0.0, probs) + np.eye(atoms)[rng.integers(atoms, size=n)] * 1e-3
    return torch.from_numpy(rng.normal(size=(n, atoms))), torch.from_numpy(probs / probs.sum(-1, keepdims=True))


def divergence(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """KL(q || p) of each row."""
    return torch.from_numpy(rel_entr(q.numpy(), p.numpy())).sum(-1)


# The inner problems


def test_contamination_is_a_mixture_of_the_mean_and_the_least():
    values, probs = rows(0)
    for delta in (0.0, 0.2, 1.0):
        expected = (1 - delta) * (probs * values).sum(-1) + delta * values.amin(-1)
        torch.testing.assert_close(contaminated(values, probs, delta).value, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("radius", RADII)
def test_the_l1_ball_is_a_linear_program(radius):
    values, probs = rows(1, 30)
    found = l1_ball(values, probs, radius).value
    for v, p, value in zip(values.numpy(), probs.numpy(), found.tolist(), strict=True):
        n = len(v)  # q and the distances: q - p <= d, p - q <= d, sum d <= radius
        eye = np.eye(n)
        above = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, n)), np.ones((1, n))]])
        bound = np.concatenate((p, -p, [radius]))
        best = linprog(np.append(v, 0 * v), above, bound, np.append(np.ones(n), 0 * v)[None], [1.0])
        assert value == pytest.approx(best.fun, abs=1e-9)


def by_root(values: np.ndarray, probs: np.ndarray, radius: float) -> float:
    """The KL ball by the root of the tilt's divergence, where the radius can be met."""
    values, probs = values[probs > 0], probs[probs > 0]
    values = values - values.min()
    if radius >= -np.log(probs[values == 0].sum()):
        return 0.0

    def tilted(tilt: float) -> np.ndarray:
        q = probs * np.exp(-tilt * values)
        return q / q.sum()

    def excess(tilt: float) -> float:
        q = tilted(tilt)
        return float((q[q > 0] * np.log(q[q > 0] / probs[q > 0])).sum()) - radius

    return float(tilted(brentq(excess, 1e-9, 1e5, xtol=1e-13)) @ values)


@pytest.mark.parametrize("radius", RADII[1:])
def test_the_kl_ball_is_the_root_of_the_tilt(radius):
    values, probs = rows(2, 100)
    found = kl_ball(values, probs, radius).value
    least = values.masked_fill(probs == 0, torch.inf).amin(-1)
    expected = [by_root(v, p, radius) for v, p in zip(values.numpy(), probs.numpy(), strict=True)]
    torch.testing.assert_close(found, least + torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("radius", [0.05, 0.4])
def test_the_kl_ball_is_the_convex_program(radius):
    values, probs = rows(3, 10, sparse=False)
    found = kl_ball(values, probs, radius).value
    for v, p, value in zip(values.numpy(), probs.numpy(), found.tolist(), strict=True):
        inside = {"type": "ineq", "fun": lambda q, p=p: radius - (q * np.log(q / p)).sum()}
        whole = {"type": "eq", "fun": lambda q: q.sum() - 1}
        best = minimize(
            lambda q, v=v: q @ v, p, bounds=[(1e-12, 1)] * len(p), constraints=[inside, whole], method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        assert value == pytest.approx(best.fun, abs=1e-6)


@pytest.mark.parametrize("radius", [1e-6, 0.01, 0.2, 1.0])
def test_the_ball_is_the_dual_of_the_penalty(radius):
    """It is the greatest entropic value at any tau, less tau times the radius."""
    for v, p in zip(*rows(4, 6), strict=True):

        def lack(log_tau: float, v=v, p=p) -> float:
            return math.exp(log_tau) * radius - float(kl_penalty(v, p, math.exp(log_tau)).value)

        best = minimize_scalar(lack, bounds=(-30, 12), method="bounded", options={"xatol": 1e-9})
        assert kl_ball(v, p, radius).value.item() == pytest.approx(-best.fun, abs=1e-8)
        assert kl_ball(v, p, radius).value.item() >= -best.fun - 1e-12


@pytest.mark.parametrize("tau", [1e-3, 0.5, 20.0, 1e6, math.inf])
def test_the_penalty_is_the_entropic_measure(tau):
    values, probs = rows(5)
    found = kl_penalty(values, probs, tau)
    order = values.argsort(-1)
    log_probs = probs.log().gather(-1, order)
    expected = Entropic(tau).value(values.gather(-1, order), log_probs)
    torch.testing.assert_close(found.value, expected, rtol=1e-10, atol=1e-10)
    if math.isfinite(tau):
        price = tau * divergence(found.probs, probs)
        torch.testing.assert_close((found.probs * values).sum(-1) + price, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", BALLS)
def test_worst_distributions_lie_in_their_sets(name):
    values, probs = rows(6)
    for radius in RADII:
        q = BALLS[name](radius)(values, probs).probs
        assert (q >= -1e-15).all()
        torch.testing.assert_close(q.sum(-1), torch.ones(len(q), dtype=q.dtype), rtol=0, atol=1e-12)
        if name == "contamination":
            assert (q >= (1 - min(radius, 1.0)) * probs - 1e-15).all()
        elif name == "l1":
            assert ((q - probs).abs().sum(-1) <= radius + 1e-12).all()
        else:
            assert torch.isfinite(divergence(q, probs)).all()
            assert name == "kl-penalty" or (divergence(q, probs) <= radius + 1e-9).all()


@pytest.mark.parametrize("name", BALLS)
def test_values_fall_with_the_radius_from_the_mean_to_the_least(name):
    values, probs = rows(7)
    found = torch.stack([BALLS[name](radius)(values, probs).value for radius in (*RADII, 1e9)])
    assert (found.diff(dim=0) <= 1e-12).all()
    torch.testing.assert_close(found[0], (probs * values).sum(-1), rtol=0, atol=1e-12)
    least = values if name in ("contamination", "l1") else values.masked_fill(probs == 0, torch.inf)
    torch.testing.assert_close(found[-1], least.amin(-1), rtol=0, atol=1e-6 if name == "kl-penalty" else 1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6), st.sampled_from(sorted(BALLS)), st.sampled_from(RADII),
    st.sampled_from([1e-9, 1e-3, 1.0, 1e9]), st.sampled_from([0.0, 1.0, -1e6, 1e6]),
)  # fmt: skip
def test_shifts_and_scales_pass_through(seed, name, radius, scale, shift):
    """The unit of values is theirs alone; a shift is meant in that unit."""
    values, probs = rows(seed, 3)
    found = BALLS[name](radius)(values, probs)
    ball = functools.partial(kl_penalty, tau=scale / radius) if name == "kl-penalty" and radius else BALLS[name](radius)
    moved = ball(scale * (values + shift), probs).value
    rounding = 1e-10 * (1 + 10 * abs(shift))
    torch.testing.assert_close(moved / scale - shift, found.value, rtol=0, atol=rounding)


@pytest.mark.parametrize("radius", [0.0, 1e-300, 1e-20, 1e-9, 0.5, 50.0, math.inf])
def test_degenerate_rows_of_the_kl_ball(radius):
    """One atom has all probability; all values are equal; two least ones; a least one with hardly any probability."""
    tiny = 1e-30
    values = torch.tensor([[3.0, -9, 5], [2, 2, 2], [0, 0, 1], [0, 1, 1], [0, 1e-14, 1]], dtype=torch.float64)
    mixed = [0.2, 0.3, 0.5]
    probs = torch.tensor([[1, 0, 0], mixed, mixed, [tiny, 0.5, 0.5], mixed], dtype=torch.float64)
    found = kl_ball(values, probs, radius)
    assert torch.isfinite(found.probs).all()
    assert found.value[0] == 3 and found.value[1] == pytest.approx(2, abs=1e-15)
    if radius == 0:
        assert found.value.tolist() == pytest.approx([3, 2, 0.5, 1, 0.5])
    if radius >= 70:
        assert found.value[2:].tolist() == [0, 0, 0]
    if radius == 0.5:  # lam of two atoms: KL(q || 1/2) = 1/2, and the tilt of one that is hardly there moves nothing
        q = brentq(lambda q: q * math.log(q / 0.5) + (1 - q) * math.log((1 - q) / 0.5) - 0.5, 1e-9, 0.5)
        assert found.value[[2, 4]].tolist() == pytest.approx([q, q], abs=1e-9)
        assert found.value[3] == pytest.approx(by_root(values[3].numpy(), probs[3].numpy(), 0.5), abs=1e-9)


def test_the_worst_of_some_distributions_is_their_least_mean():
    values, probs = rows(8)
    kernels = torch.stack([probs, probs.flip(0), torch.full_like(probs, 1 / probs.shape[-1])])
    found = worst_of(values, kernels)
    torch.testing.assert_close(found.value, (kernels * values).sum(-1).amin(0), rtol=0, atol=1e-14)
    torch.testing.assert_close((found.probs * values).sum(-1), found.value, rtol=0, atol=1e-14)


def test_the_worst_distribution_of_a_penalty_does_not_depend_on_where_values_lie():
    probs = torch.tensor([0.2, 0.3, 0.5])
    for shift, tau in ((1e4, 1e-3), (-1e6, 1e-1), (0.0, 1e-6)):
        found = kl_penalty(torch.tensor([0.0, 0.0, 1.0]) + shift, probs, tau)
        torch.testing.assert_close(found.probs, torch.tensor([0.4, 0.6, 0.0]), rtol=0, atol=1e-4)


def test_each_row_has_the_worst_of_distributions_that_all_rows_share():
    values = torch.tensor([[0.0, 1.0, 2.0], [10.0, 0.0, 0.0]])
    kernels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert worst_of(values, kernels).value.tolist() == [0, 0]
    assert worst_of(values[0], kernels).value == 0
    with pytest.raises(ValueError, match="at least one"):
        worst_of(values, kernels[:0])


@pytest.mark.parametrize("name", ["contamination", "l1", "kl", "kl-penalty"])
def test_the_slope_in_the_values_is_the_worst_distribution(name):
    values, probs = rows(9, 20, sparse=False)
    values.requires_grad_()
    found = BALLS[name](0.3)(values, probs)
    (slope,) = torch.autograd.grad(found.value.sum(), values)
    torch.testing.assert_close(slope, found.probs.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BALLS)
def test_float32_and_broadcasting(name):
    values, probs = rows(10, 12, sparse=False)
    ball = BALLS[name](0.3)
    found = ball(values.float(), probs.float())
    assert found.value.dtype == found.probs.dtype == torch.float32
    torch.testing.assert_close(found.value.double(), ball(values, probs).value, rtol=0, atol=1e-5)
    each = torch.stack([ball(values[0], p).value for p in probs])
    torch.testing.assert_close(ball(values[0], probs).value, each, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (functools.partial(contaminated, delta=1.1), "delta must be in"),
        (functools.partial(contaminated, delta=math.nan), "delta must be in"),
        (functools.partial(l1_ball, radius=-0.1), "radius must be >= 0"),
        (functools.partial(kl_ball, radius=math.nan), "radius must be >= 0"),
        (functools.partial(kl_penalty, tau=0.0), "tau must be > 0"),
    ],
)
def test_what_is_no_set_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(*rows(11, 2))
