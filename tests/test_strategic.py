"""Strategic values against the exact package, which computes them in numpy by other means, and what training makes of
them."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rqe_mappo.equilibrium import RiskGame
from rqe_mappo.functional import strategic


def random_game(players, actions, seed):
    rng = np.random.default_rng(seed)
    payoffs = rng.normal(size=(players, *(actions,) * players)) * 2
    return payoffs, rng.dirichlet(np.ones(actions), size=players)


@pytest.mark.parametrize("tau", [0.05, 1.0, 30.0, math.inf])
@pytest.mark.parametrize("penalty", ["kl", "reverse-kl"])
@pytest.mark.parametrize("form", ["action", "aggregate"])
@pytest.mark.parametrize(("players", "actions"), [(2, 2), (2, 4), (3, 3)])
def test_value_is_that_of_the_exact_game(players, actions, form, penalty, tau):
    payoffs, policies = random_game(players, actions, seed=players)
    game = RiskGame.of(payoffs, tau, 0.1, form, penalty, "entropy")
    exact = game.utilities(policies)
    pi = torch.from_numpy(policies)
    for player in range(players):
        cube = strategic.from_own_side(torch.from_numpy(payoffs[player].ravel()), player, players)
        found = strategic.value(cube, pi[player], strategic.others_joint(pi, player), tau, form, penalty)
        assert float(found) == pytest.approx(exact[player], abs=1e-8)


@pytest.mark.parametrize("penalty", ["kl", "reverse-kl"])
@pytest.mark.parametrize("form", ["action", "aggregate"])
def test_gradient_is_the_finite_difference(form, penalty):
    payoffs, policies = random_game(2, 3, seed=5)
    cube, others = torch.from_numpy(payoffs[0]), torch.from_numpy(policies[1])
    logits = torch.from_numpy(np.log(policies[0])).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: strategic.value(cube, x.softmax(-1), others, 0.7, form, penalty), (logits,), atol=1e-6
    )


def test_batch_equals_loop():
    payoff = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own, others = torch.full((5, 3), 1 / 3, dtype=torch.float64), torch.full((5, 4), 0.25, dtype=torch.float64)
    for form in ("action", "aggregate"):
        for penalty in ("kl", "reverse-kl"):
            whole = strategic.value(payoff, own, others, 0.5, form, penalty)
            each = [strategic.value(payoff[i], own[i], others[i], 0.5, form, penalty) for i in range(5)]
            assert_close(whole, torch.stack(each))


def test_an_adversary_that_sees_the_action_costs_more():
    for seed in range(20):
        payoffs, policies = random_game(2, 3, seed)
        cube, (own, others) = torch.from_numpy(payoffs[0]), torch.from_numpy(policies)
        seeing, blind = (strategic.value(cube, own, others, 0.5, form, "kl") for form in ("action", "aggregate"))
        assert seeing <= blind + 1e-12


def test_entropic_worst_case_by_hand():
    """Payoffs 0 and 1 at even odds, tau = 1: -log((1 + 1/e) / 2) = 0.3799."""
    payoff, others = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5])
    assert float(strategic.worst_case(payoff, others, 1.0, "kl")) == pytest.approx(0.37989, abs=1e-5)


def test_reverse_kl_adversary_by_hand():
    """p = (0.5 / c, 0.5 / (1 + c)) sums to 1 at c^2 = 1/2."""
    found = strategic.reverse_kl_adversary(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]), 1.0)
    c = math.sqrt(0.5)
    assert found.tolist() == pytest.approx([0.5 / c, 0.5 / (1 + c)], abs=1e-6)


@pytest.mark.parametrize("tau", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("least", [0.0, 1e-12, 1e-20])
def test_reverse_kl_is_over_what_the_others_may_do(tau, least):
    """What they never do counts for nothing, however bad; what they hardly do counts as it should."""
    others = torch.tensor([least, 0.5 - least, 0.5], dtype=torch.float64)
    payoff = torch.tensor([-100.0, 0.0, 1.0], dtype=torch.float64)
    found = float(strategic.worst_case(payoff, others, tau, "reverse-kl"))
    if least == 0:
        assert found == pytest.approx(float(strategic.worst_case(payoff[1:], others[1:], tau, "reverse-kl")), abs=1e-9)
    else:  # nearly all the adversary's weight at a cost of tau sum_o others_o log(others_o / p_o)
        weights = strategic.reverse_kl_adversary(payoff, others, tau)
        slack = tau * others / weights - payoff
        assert float(weights.sum()) == pytest.approx(1, abs=1e-9)
        assert slack.max() - slack.min() < 1e-6  # stationary: payoff - tau others / p is the same for all
