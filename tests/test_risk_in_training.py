"""Does training end where theory says? A fast part of `benchmarks.gambles` and `benchmarks.exact_rqe`, which hold all
of it, with the learner, the critic and the environments that users train."""

import math

import pytest

from benchmarks import exact_rqe, gambles
from benchmarks.exact_rqe import Case as Game
from rqe_mappo.equilibrium import HUMAN_GAMES

HALF, TWICE = 0.5, 2.0


def chosen(scenario, family, factor, advantage, lam, actor):
    spell, _, _ = gambles.FAMILIES[family]
    risk = spell(factor * gambles.threshold(scenario, family))
    found = [
        case
        for case in gambles.cases((scenario,), (family,))
        if case.risk == risk and (case.advantage, case.lam, case.actor) == (advantage, lam, actor)
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "family", "factor", "advantage", "lam", "actor"),
    [
        ("m1", "entropic", HALF, "influence", 0.95, "table"),
        ("m1", "entropic", TWICE, "influence", 0.95, "network"),
        ("m1", "entropic", HALF, "value", 0.95, "table"),
        ("m1", "cvar", HALF, "influence", 0.95, "table"),
        ("m1", "wang", TWICE, "influence", 0.95, "table"),
        ("m1", "gini", HALF, "influence", 0.95, "table"),
        ("m1", "expectile", TWICE, "influence", 0.95, "table"),
        ("m2", "entropic", HALF, "influence", 0.0, "table"),
        ("m2", "entropic", HALF, "influence", 1.0, "network"),
        ("m2", "entropic", HALF, "value", 0.0, "table"),
        ("m2", "entropic", HALF, "value", 1.0, "table"),
        ("m2", "mean-std", TWICE, "influence", 0.5, "table"),
        ("m2", "dual-power", HALF, "influence", 0.95, "table"),
    ],
)
def test_gamble_ends_on_the_predicted_side(scenario, family, factor, advantage, lam, actor):
    row = gambles.learn(chosen(scenario, family, factor, advantage, lam, actor))
    assert row["as foretold"] and row["decided"], row


def test_value_is_predicted_to_be_wrong_where_the_influence_is_right():
    at_once = chosen("m1", "entropic", HALF, "value", 0.95, "table")
    late = [chosen("m2", "entropic", HALF, "value", lam, "table") for lam in gambles.LAMBDAS]
    assert at_once.note and [bool(case.note) for case in late] == [False, True, True, True]  # from lambda = 0.473 on


STATIC = [case for case in gambles.cases(("m3", "m3b", "m4")) if (case.lam, case.actor) == (0.95, "table")]


@pytest.mark.slow
@pytest.mark.parametrize("case", STATIC, ids=lambda case: f"{case.scenario}-{case.advantage}-{case.risk[0]}")
def test_static_and_per_state_risk_differ_where_predicted(case):
    row = gambles.learn(case)
    assert row["as foretold"] and row["decided"], row


@pytest.mark.slow
@pytest.mark.parametrize(
    "game",
    [
        Game(
            "sc6", (fit := HUMAN_GAMES["sc6"].fits["kl", "log-barrier"]).tau, fit.eps, "aggregate", "kl", "log-barrier"
        ),
        Game("stag-hunt", (10.0, 10.0), (0.25, 0.25), "action", "kl", "entropy", start=0.95),
        Game("stag-hunt", (3.0, 3.0), (0.25, 0.25), "action", "kl", "entropy", start=0.95),
        Game("free-rider", (1.0, 1.0), (0.2, 0.2), "aggregate", "kl", "entropy"),
    ],
    ids=lambda game: f"{game.game}-{game.tau[0]:g}",
)
def test_exact_mode_trains_to_the_equilibrium(game):
    row = exact_rqe.solve(game, seed=1, total_timesteps=200_000, learning_rate=0.01)
    assert row["difference"] < 0.02, row


@pytest.mark.slow
def test_stag_is_hunted_only_above_its_threshold():
    """Trained from P(stag) = 0.95: at tau = 10 there is an equilibrium at .973, at tau = 3 only hare."""
    for tau, low, high in ((10.0, 0.95, 0.99), (3.0, 0.0, 0.02)):
        game = Game("stag-hunt", (tau, tau), (0.25, 0.25), "action", "kl", "entropy", 0.95)
        row = exact_rqe.solve(game, seed=2, total_timesteps=200_000, learning_rate=0.01)
        assert low <= row["trained 1"] <= high and math.isclose(row["trained 1"], row["trained 2"], abs_tol=0.02)
