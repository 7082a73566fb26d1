"""Adversaries, best responses and derivatives against numerical optimisation and differences."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from rqe_mappo.equilibrium import RiskGame
from rqe_mappo.equilibrium.adversary import PENALTIES, adversary
from rqe_mappo.equilibrium.game import FORMS
from rqe_mappo.equilibrium.response import REGULARISERS
from rqe_mappo.equilibrium.systems import AdversarySystem, ValueSystem
from rqe_mappo.equilibrium.two_by_two import ResponseGap

KINDS = list(product(FORMS, PENALTIES, REGULARISERS))


def divergence(penalty: str, p: np.ndarray, q: np.ndarray) -> float:
    return float(p @ np.log(p / q) if penalty == "kl" else q @ np.log(q / p))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("tau", [0.2, 1.0, 30.0])
def test_adversary_minimises(penalty, tau):
    rng = np.random.default_rng(1)
    for _ in range(5):
        payoff, q = rng.normal(size=4) * 2, rng.dirichlet(np.ones(4))
        found = adversary(payoff, np.log(q), tau, penalty)

        def objective(x, payoff=payoff, q=q):
            p = softmax(x)
            return p @ payoff + tau * divergence(penalty, p, q)

        best = minimize(objective, np.log(q), method="BFGS", options={"gtol": 1e-9})
        assert found.value <= best.fun + 1e-12
        assert found.value == pytest.approx(best.fun, abs=1e-6)
        assert found.value == pytest.approx(objective(np.log(found.probs)), abs=1e-12)
        np.testing.assert_allclose(found.probs, softmax(best.x), atol=1e-3)
        one_by_one = [adversary(u, np.log(q), tau, penalty).value for u in (payoff, payoff + 3)]
        np.testing.assert_allclose(adversary(np.stack([payoff, payoff + 3]), np.log(q), tau, penalty).value, one_by_one)
        assert one_by_one[1] - one_by_one[0] == pytest.approx(3, abs=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_adversary_limits(penalty):
    payoff, q = np.array([1.0, -2.0, 4.0]), np.array([0.2, 0.3, 0.5])
    mean, variance = q @ payoff, q @ payoff**2 - (q @ payoff) ** 2
    assert adversary(payoff, np.log(q), np.inf, penalty).value == pytest.approx(mean, abs=1e-15)
    assert adversary(payoff, np.log(q), 1e9, penalty).value == pytest.approx(mean - variance / 2e9, abs=1e-14)
    assert adversary(payoff, np.log(q), 1e-9, penalty).value == pytest.approx(-2, abs=1e-7)
    with np.errstate(divide="ignore"):
        never = adversary(payoff, np.log([0.4, 0.0, 0.6]), 1e-9, penalty)
    assert never.value == pytest.approx(1 if penalty == "kl" else -2, abs=1e-7)


@pytest.mark.parametrize(("form", "penalty", "regulariser"), KINDS)
def test_best_response_maximises(form, penalty, regulariser):
    rng = np.random.default_rng(2)
    for size in (2, 3, 4):
        game = RiskGame.of(rng.normal(size=(2, size, 3)), 0.4, 0.3, form, penalty, regulariser)
        pi = [rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(3))]
        log_q = np.log(pi[1])
        best = game.best_response(pi, 0)
        top = game.utility(0, np.log(best), log_q, regularised=True)

        def cost(x, game=game, log_q=log_q):
            return -game.utility(0, np.log(softmax(x)), log_q, regularised=True)

        found = minimize(cost, np.log(pi[0]), method="BFGS", options={"gtol": 1e-9})
        assert top >= -found.fun - 1e-12
        assert top == pytest.approx(-found.fun, abs=1e-8)
        np.testing.assert_allclose(best, softmax(found.x), atol=1e-4)
        assert game.exploitability(pi)[0] == pytest.approx(top - game.utility(0, np.log(pi[0]), log_q, True), abs=1e-12)


@pytest.mark.parametrize(("form", "penalty", "regulariser"), KINDS)
def test_the_scan_responds_as_newton_does(form, penalty, regulariser):
    game = RiskGame.of(
        np.random.default_rng(3).normal(size=(2, 2, 2)), (1.0, 0.05), (1.0, 0.02), form, penalty, regulariser
    )
    share = np.linspace(0.01, 0.99, 21)
    first = np.stack([share, 1 - share], -1)
    second = np.exp(ResponseGap(game).second(np.log(first)))
    for pi, response in zip(first, second, strict=True):
        np.testing.assert_allclose(response, game.best_response([pi, [0.5, 0.5]], 1), atol=1e-12)


@pytest.mark.parametrize(("form", "penalty", "regulariser"), KINDS)
@pytest.mark.parametrize("tau", [0.3, np.inf])
def test_jacobians_of_the_equations(form, penalty, regulariser, tau):
    rng = np.random.default_rng(4)
    game = RiskGame.of(rng.normal(size=(3, 2, 3, 2)), tau, 0.5, form, penalty, regulariser)
    system = ValueSystem(game)
    check_jacobians(system, system.place([np.log(rng.dirichlet(np.ones(size))) for size in (2, 3, 2)]))
    if form == "aggregate" and penalty == "reverse-kl":
        for system in (AdversarySystem(game), AdversarySystem(game, 1, np.log(rng.dirichlet(np.ones(4))))):
            check_jacobians(system, system.origin() + 0.1 * rng.random(len(system.origin())))


def check_jacobians(system, point: np.ndarray) -> None:
    _, jacobian, pull = system.equations(point, 0.7)
    steps = 1e-6 * np.eye(len(point))
    numerical = [(system.equations(point + d, 0.7)[0] - system.equations(point - d, 0.7)[0]) / 2e-6 for d in steps]
    np.testing.assert_allclose(jacobian, np.stack(numerical, -1), atol=1e-7)
    ahead, behind = (system.equations(point, level)[0] for level in (0.7 + 1e-6, 0.7 - 1e-6))
    np.testing.assert_allclose(pull, (ahead - behind) / 2e-6, atol=1e-7)


def test_best_response_at_a_kink():
    """Two actions that the opponent hardly ever takes decide: the best strategy balances their payoffs."""
    payoffs = np.random.default_rng(12).normal(size=(2, 3, 4)) * 4
    for rare in (1e-9, 1e-17, 1e-40):
        game = RiskGame.of(payoffs, (0.1, 1), (0.2, 1), "aggregate", "reverse-kl")
        log_q = np.log([1.0, rare, rare**2, 2 * rare])
        best = game.respond_to(0, log_q)
        top = game.utility(0, best, log_q, regularised=True)
        start = np.log(np.maximum(np.exp(best), 1e-6))

        def cost(x, game=game, log_q=log_q):
            return -game.utility(0, np.log(softmax(x)), log_q, regularised=True)

        found = minimize(cost, start, method="Nelder-Mead")
        assert np.isfinite(top) and top >= -found.fun - 1e-12
