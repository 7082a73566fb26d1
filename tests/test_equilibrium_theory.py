"""What theory promises: its conditions, its algorithm, and a game outside them."""

import numpy as np
import pytest

from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium import (
    HUMAN_GAMES,
    all_equilibria_2x2,
    condition,
    monotonicity_margin,
    no_regret_play,
    solve,
    tractability_margin,
    xi_star,
)
from rqe_mappo.equilibrium.human_games import BARRIER, ENTROPY


def test_conditions():
    assert xi_star(2.0, *BARRIER) == xi_star(2.0, *ENTROPY) == 2.0
    assert np.isinf(xi_star(2.0, "kl", "entropy"))
    assert tractability_margin((1, 2), (0.5, 1)) == pytest.approx(4)
    assert monotonicity_margin((1, 2), (0.5, 1)) == pytest.approx(4)
    assert tractability_margin((np.inf, 1), 1) == monotonicity_margin((np.inf, 1), 1) == 0
    assert tractability_margin((1, 2, 4), 1) == pytest.approx(16 / 8)
    assert monotonicity_margin((1, 1, 1), 1) == pytest.approx(1.0)  # 16 pair by pair: three players need more
    edge = condition((1, 2), (1, 2), "aggregate", *ENTROPY)
    assert edge.covered and edge.tractable and edge.unique
    above = condition(1, 0.26, "aggregate", *ENTROPY)
    assert above.unique and not above.tractable
    assert not condition(1, 0.25, "aggregate", *ENTROPY).unique
    uncovered = condition(1, 100, "aggregate", "kl", "entropy")
    assert not uncovered.covered and not uncovered.unique and "not covered" in uncovered.words
    assert not condition(1, 100, "action", *ENTROPY).covered
    assert "3 players" in condition((1, 1, 1), 1.0, "aggregate", *ENTROPY).words


def test_the_uncovered_pair_can_have_three_equilibria_where_the_condition_holds():
    """KL with entropy at eps_1 eps_2 = 1.2 tau_1 tau_2, each equilibrium checked from its first-order condition."""
    payoffs = np.array([[[8.0, 7.0], [5.0, 10.0]], [[9.0, 0.0], [6.0, 9.0]]])
    tau, eps = np.array([0.2, 0.5]), np.array([0.1, 1.2])
    assert eps.prod() >= tau.prod()
    found = all_equilibria_2x2(payoffs, tau, eps, form="aggregate", penalty="kl", regulariser="entropy")
    np.testing.assert_allclose([e.strategies[0][0] for e in found], [0.8862, 0.9993, 1.0], atol=1e-4)
    np.testing.assert_allclose([e.strategies[1][0] for e in found], [0.8486, 0.9958, 0.9994], atol=1e-4)
    for equilibrium in found:
        for i, table in enumerate((payoffs[0], payoffs[1].T)):
            pi, q = equilibrium.strategies[i], equilibrium.strategies[1 - i]
            p = q * np.exp(-(pi @ table) / tau[i])
            values = table @ (p / p.sum())
            np.testing.assert_allclose(np.log(pi[0] / pi[1]), (values[0] - values[1]) / eps[i], rtol=1e-6)
    for penalty, regulariser in (BARRIER, ENTROPY):
        assert (
            len(all_equilibria_2x2(payoffs, tau, eps, form="aggregate", penalty=penalty, regulariser=regulariser)) == 1
        )


@pytest.mark.slow
@pytest.mark.parametrize("pair", [BARRIER, ENTROPY])
def test_no_regret_play_finds_the_equilibrium_of_a_covered_game(pair):
    fit = HUMAN_GAMES["sc5"].fits[pair]
    exact = solve(GAMES["sc5"], fit.tau, fit.eps, form="aggregate", penalty=pair[0], regulariser=pair[1])
    keywords = {"penalty": pair[0], "regulariser": pair[1]}
    learned = no_regret_play(GAMES["sc5"], fit.tau, fit.eps, rounds=2000, **keywords)
    short = no_regret_play(GAMES["sc5"], fit.tau, fit.eps, rounds=200, **keywords)
    assert 0 <= learned.regret.max() < 0.3 * short.regret.max()
    gradient = no_regret_play(GAMES["sc5"], fit.tau, fit.eps, rounds=1500, step=0.05, **keywords)
    for i in range(2):
        np.testing.assert_allclose(learned.average[i], exact.strategies[i], atol=5e-3)
        np.testing.assert_allclose(gradient.last[i], exact.strategies[i], atol=1e-9)


def test_no_regret_play_with_three_players():
    payoffs = np.random.default_rng(8).normal(size=(3, 2, 2, 2))
    exact = solve(payoffs, 1.0, 1.1, form="aggregate", penalty="reverse-kl")
    assert condition((1, 1, 1), 1.1, "aggregate", *ENTROPY).unique
    learned = no_regret_play(payoffs, 1.0, 1.1, rounds=1500, step=0.05)
    for i in range(3):
        np.testing.assert_allclose(learned.last[i], exact.strategies[i], atol=1e-9)


def test_a_neutral_player_has_no_adversary():
    with pytest.raises(ValueError, match="tau must be finite"):
        no_regret_play(GAMES["stag-hunt"], np.inf, 1.0)
