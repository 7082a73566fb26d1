"""The clipped policy gradient, against hand-computed numbers and plain loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from rqe_mappo.functional import policy_gradient as pg


def random_numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # gained enough
        (0.5, 2.0, -1.0, -2.0),  # a good action made rare: full gradient
        (1.5, -2.0, 3.0, 2.0),  # a bad action made frequent: full gradient
        (0.5, -2.0, 1.6, 0.0),
        (0.9, -2.0, 1.8, 2.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, slope):
    log_ratio = torch.tensor(math.log(ratio), requires_grad=True)
    out = pg.clipped_surrogate(log_ratio, torch.tensor(advantage), 0.2)
    out.backward()
    assert out.item() == pytest.approx(loss)
    assert log_ratio.grad.item() == pytest.approx(ratio * slope)  # d/d log r = r d/dr


def test_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(1), math.log(3), -99.0, -99.0], [500.0, 0.0, 0.0, 0.0]])
    expected = [math.log(4), 0.25 * math.log(4) + 0.75 * math.log(4 / 3), 0.0]
    assert pg.entropy(logits).tolist() == pytest.approx(expected, abs=1e-6)
    assert pg.entropy(logits + 7).tolist() == pytest.approx(expected, abs=1e-6)


def test_approx_kl_by_hand():
    out = pg.approx_kl(torch.tensor([0.0, math.log(2), math.log(0.5)]))
    assert out.tolist() == pytest.approx([0, 1 - math.log(2), math.log(2) - 0.5])


def test_approx_kl_averages_to_the_divergence():
    old, new = random_numbers(6).log_softmax(-1), random_numbers(6, seed=1).log_softmax(-1)
    divergence = (old.exp() * (old - new)).sum()
    assert_close((old.exp() * pg.approx_kl(new - old)).sum(), divergence)
    assert (pg.approx_kl(new - old) >= 0).all()


def test_normalise_by_hand():
    assert pg.normalise(torch.tensor([[1.0, 3.0], [3.0, 1.0]]), 0.5).tolist() == [[-2, 2], [2, -2]]
    assert pg.normalise(torch.tensor([5.0, 5.0]), 0.0).tolist() == [0, 0]
    assert pg.normalise(torch.tensor([5.0]), 1.0).tolist() == [0]


def test_normalise_of_a_batch_equals_the_loop():
    x = random_numbers(5, 3)
    entries = [float(each) for row in x for each in row]
    mean = sum(entries) / 15
    assert pg.normalise(x, 3.0).flatten().tolist() == pytest.approx([(each - mean) / 3 for each in entries], rel=1e-6)


def test_mixture_by_hand():
    safe, bold = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.2, 0.8], [0.5, 0.5]])
    assert_close(pg.mixture([safe, bold], [0.75, 0.25]), torch.tensor([[0.8, 0.2], [0.5, 0.5]]))
    assert torch.equal(pg.mixture([safe, bold], [1.0, 0.0]), safe)
    assert torch.equal(pg.mixture([safe, bold], [0.0, 1.0]), bold)


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.6], [1.5, -0.5], [0.5, 0.25, 0.25], [math.nan, 1.0]])
def test_mixture_refuses_what_is_no_lottery(weights):
    probs = torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match="mixture"):
        pg.mixture([probs, probs], weights)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: pg.clipped_surrogate(x[..., 0], x[..., 1], 0.2),
        lambda x: pg.approx_kl(x[..., 0]),
        lambda x: pg.mixture([x.softmax(-1), x.flip(-1).softmax(-1)], [0.3, 0.7]),
        pg.entropy,
    ],
    ids=["clipped_surrogate", "approx_kl", "mixture", "entropy"],
)
def test_batch_equals_loop(function):
    x = random_numbers(4, 3, 5)
    loop = torch.stack([torch.stack([function(row) for row in rows]) for rows in x])
    assert_close(function(x), loop)
