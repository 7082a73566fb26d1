"""The exact solver: tabulated equilibria, limits, properties."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import softmax

from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium import (
    HUMAN_GAMES,
    RiskGame,
    all_equilibria_2x2,
    condition,
    solve,
)
from rqe_mappo.equilibrium.adversary import PENALTIES
from rqe_mappo.equilibrium.game import FORMS
from rqe_mappo.equilibrium.human_games import BARRIER, ENTROPY
from rqe_mappo.equilibrium.response import REGULARISERS

KINDS = list(product(FORMS, PENALTIES, REGULARISERS))
FITTED = [(name, pair) for name in HUMAN_GAMES for pair in (BARRIER, ENTROPY)]
STAG, FREE_RIDER = GAMES["stag-hunt"], GAMES["free-rider"]


def first_actions(equilibrium) -> np.ndarray:
    return np.array([pi[0] for pi in equilibrium.strategies])


# --- tabulated equilibria ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pair"), FITTED)
def test_human_games_have_the_tabulated_equilibrium_alone(name, pair):
    fit = HUMAN_GAMES[name].fits[pair]
    settings = {"form": "aggregate", "penalty": pair[0], "regulariser": pair[1]}
    found = all_equilibria_2x2(GAMES[name], fit.tau, fit.eps, **settings)
    assert len(found) == 1 and found[0].residual < 1e-12
    np.testing.assert_allclose(first_actions(found[0]), fit.rqe, atol=1e-3)
    np.testing.assert_allclose(
        first_actions(solve(GAMES[name], fit.tau, fit.eps, **settings)), first_actions(found[0]), atol=1e-9
    )
    assert condition(fit.tau, fit.eps, "aggregate", *pair).tractable
    if pair == BARRIER:
        np.testing.assert_allclose(fit.rqe, HUMAN_GAMES[name].observed, atol=0.0151)


@pytest.mark.parametrize(
    ("tau", "expected"),
    [(np.inf, [0.0003, 0.7650, 0.9762]), (10, [0.0003, 0.8431, 0.9731]), (5, [0.0003, 0.9121, 0.9648]), (3, [0.0003])],
)
def test_stag_hunt_equilibria(tau, expected):
    found = all_equilibria_2x2(STAG, tau, 0.25)
    np.testing.assert_allclose([e.strategies[0][0] for e in found], expected, atol=5.1e-5)
    np.testing.assert_allclose([e.strategies[1][0] for e in found], expected, atol=5.1e-5)
    assert max(e.residual for e in found) < 1e-12


def bisect(holds, low: float, high: float, steps: int = 12) -> float:
    """The edge of `holds`, true at high and false at low."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return (low + high) / 2


def test_the_stag_survives_from_tau_4_240():
    edge = bisect(lambda tau: len(all_equilibria_2x2(STAG, tau, 0.25)) == 3, 4.0, 4.5)
    assert edge == pytest.approx(4.240, abs=5e-4)


@pytest.mark.parametrize(
    ("aversion", "expected"),
    [(1e-9, [0.195, 0.555, 0.883]), (0.5, [0.280, 0.584, 0.843]), (1.0, [0.608]), (10.0, [0.794])],
)
def test_free_rider_equilibria(aversion, expected):
    found = all_equilibria_2x2(FREE_RIDER, 1 / aversion, 0.2, form="aggregate")
    np.testing.assert_allclose([e.strategies[0][0] for e in found], expected, atol=1e-3)
    np.testing.assert_allclose([e.strategies[1][0] for e in found], expected[::-1], atol=1e-3)


def test_free_riding_ends_below_tau_1_207():
    edge = bisect(lambda tau: len(all_equilibria_2x2(FREE_RIDER, tau, 0.2, form="aggregate")) == 3, 1.1, 1.3, 10)
    assert edge == pytest.approx(1.207, abs=1e-3)
    assert 1 / edge == pytest.approx(0.829, abs=1e-3)


def test_nearly_tangent_roots_are_both_found():
    edge = brentq(_lift, 4.2, 4.3, xtol=1e-13)
    near = all_equilibria_2x2(STAG, edge + 1e-9, 0.25)
    assert len(near) == 3 and near[2].strategies[0][0] - near[1].strategies[0][0] < 1e-3
    assert len(all_equilibria_2x2(STAG, edge - 1e-9, 0.25)) == 1


def _lift(tau: float) -> float:
    """How far the symmetric response curve of the stag hunt rises above the diagonal near the stag."""
    p = np.linspace(0.93, 0.96, 30001)
    stag = -tau * np.log(p * np.exp(-4 / tau) + (1 - p))
    hare = -tau * np.log(p * np.exp(-3 / tau) + (1 - p) * np.exp(-2 / tau))
    return float(((stag - hare) - 0.25 * np.log(p / (1 - p))).max())


# --- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES)
def test_aggregate_utility_is_at_least_the_action_dependent_one(penalty):
    rng = np.random.default_rng(5)
    for n in (2, 3):
        for _ in range(20):
            payoffs = rng.normal(size=(n, *[3] * n))
            pi = [rng.dirichlet(np.ones(3)) for _ in range(n)]
            tau = np.exp(rng.uniform(-3, 3))
            aggregate, action = (
                RiskGame.of(payoffs, tau, 1.0, form, penalty).utilities(pi) for form in reversed(FORMS)
            )
            assert np.all(aggregate >= action - 1e-12)
            assert np.all(RiskGame.of(payoffs, tau, 1.0).means(pi) >= aggregate - 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
def test_random_games_are_solved(n):
    rng = np.random.default_rng(n)
    for draw in range(30):
        payoffs = rng.normal(size=(n, *rng.integers(2, 6 - n, size=n))) * np.exp(rng.uniform(-1, 2))
        tau, eps = np.exp(rng.uniform(-2, 4, n)), np.exp(rng.uniform(-5, 1, n))
        form, penalty, regulariser = KINDS[draw % len(KINDS)]
        found = solve(payoffs, tau, eps, form=form, penalty=penalty, regulariser=regulariser)
        assert found.converged and found.residual < 1e-8 and found.exploitability.max() < 1e-8
        game = RiskGame.of(payoffs, tau, eps, form, penalty, regulariser)
        assert game.residual(found.strategies) < 1e-6


def test_four_players():
    found = solve(np.random.default_rng(6).normal(size=(4, 2, 2, 2, 2)), 1.0, 0.1)
    assert found.converged and found.residual < 1e-12


def test_a_missed_tolerance_is_reported():
    found = solve(STAG, 5, 0.25, tolerance=-1.0)
    assert not found.converged and found.residual < 1e-12


@pytest.mark.parametrize(("start", "expected"), [(0.95, 0.9648), (0.9, 0.9121), (0.01, 0.0003), (None, 0.0003)])
def test_a_start_selects_and_the_principal_branch_is_the_default(start, expected):
    profile = None if start is None else [[start, 1 - start]] * 2
    found = solve(STAG, 5, 0.25, start=profile)
    np.testing.assert_allclose(first_actions(found), expected, atol=1e-4)
    assert found.method == ("branch" if start is None else "newton")


def test_limits_are_qre_nash_and_security():
    payoffs = GAMES["sc1"].payoffs
    for penalty, form in product(PENALTIES, FORMS):
        neutral = solve(payoffs, np.inf, 0.7, penalty=penalty, form=form).strategies
        np.testing.assert_allclose(neutral[0], softmax(payoffs[0] @ neutral[1] / 0.7), atol=1e-12)
        np.testing.assert_allclose(neutral[1], softmax(payoffs[1].T @ neutral[0] / 0.7), atol=1e-12)
    for regulariser in REGULARISERS:
        nash = solve(payoffs, np.inf, 1e-5, regulariser=regulariser)
        np.testing.assert_allclose(first_actions(nash), (1 / 11, 10 / 11), atol=1e-3)
        # its own payoffs alone: maximin mixes 1/4, 3/4 for [[3, 0], [0, 1]]
        own = np.array([[[3.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 1.0]]])
        secure = solve(own, 1e-6, 1e-2, form="aggregate", regulariser=regulariser)
        assert secure.converged
        np.testing.assert_allclose(first_actions(secure), 0.25, atol=1e-3)


def test_one_player_chooses_by_certainty_equivalents():
    """Risky +4 or -2 at even odds against a sure 0.5, against nobody: the lottery's worth is a payoff."""
    worth = -3 * np.log(0.5 * np.exp(-4 / 3) + 0.5 * np.exp(2 / 3))
    found = solve(np.array([[worth, 0.5]]), 3, 0.5)
    assert found.strategies[0][0] == pytest.approx(0.1676, abs=1e-4)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"tau": 0}, "tau must be > 0"),
        ({"eps": np.inf}, "eps must be > 0 and finite"),
        ({"eps": 1e-15}, "eps must be at least"),
        ({"tau": (1, 2, 3)}, "tau takes 1 number or 2"),
        ({"form": "both"}, "form must be one of"),
        ({"start": [[0.5, 0.5]]}, "strategies must have"),
        ({"start": [[0.5, 0.6], [1, 0]]}, "add to 1"),
        ({"game": np.zeros((2, 2))}, "payoffs must be"),
        ({"game": np.full((2, 2, 2), np.nan)}, "finite"),
    ],
)
def test_errors_name_the_argument(keywords, words):
    with pytest.raises(ValueError, match=words):
        solve(**{"game": STAG, "tau": 1, "eps": 1, **keywords})


def test_the_solver_needs_no_torch():
    code = "import sys, rqe_mappo.equilibrium; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- what float64 cannot hold -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_strategies_have_the_residual_that_is_said_of_them(form):
    """Probabilities below 1e-308 are 0 in `strategies`; the equilibrium is that of the logarithms."""
    apart = 0
    for name, tau, eps in (("ghp4", 0.1, 0.01), ("stag-hunt", 0.1, 0.01), ("stag-hunt", 1, 0.1)):
        problem = RiskGame.of(GAMES[name], tau, eps, form)
        found = solve(GAMES[name], tau, eps, form=form)
        assert found.strategies_residual == pytest.approx(problem.residual(found.strategies), abs=1e-9)
        assert found.residual == pytest.approx(problem.distance(found.log_strategies)[0], abs=1e-12)
        apart += found.converged and found.strategies_residual > 0.1
    assert apart or form == "aggregate"
