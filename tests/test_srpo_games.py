"""SRPO's paper: its games in exact equilibrium, by `rqe_mappo.equilibrium`, and in trained play."""

import math

import numpy as np
import pytest

from benchmarks import srpo_games
from benchmarks.srpo_games import COST, EPS, contributions, quadratic_response, robots_exact, shared_reward
from rqe_mappo.equilibrium import RiskGame

GRID = (0.05, 0.3, 0.5, 0.7, 0.9, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0)  # the paper's tau
PITCHFORK = 0.8288


def test_one_symmetric_equilibrium_behind_the_pitchfork_and_two_free_riders_before_it():
    """At a tolerance of 1.207, an aversion of 0.829."""
    for aversion, count in ((PITCHFORK - 0.01, 3), (PITCHFORK + 0.01, 1)):
        assert len(contributions(aversion)) == count
    assert np.allclose(contributions(0.5)[0], [0.280, 0.843], atol=1e-3)
    assert np.allclose([contributions(aversion)[0] for aversion in (1.0, 10.0)], [[0.608] * 2, [0.794] * 2], atol=1e-3)


def test_free_riding_stays_below_the_theorems_bound():
    """No equilibrium has a degree above delta where tau > C / delta^2, C = 2 (eps log n + v) (range of costs)^2 / eps.

    By either reading of the degree: how much less one contributes than the other, or the chance that one leaves it to
    the other.
    """
    constant = 2 * (EPS * math.log(2) + 1) * COST**2 / EPS
    for aversion in GRID:
        for chances in contributions(aversion):
            alone = max((1 - chances[0]) * chances[1], (1 - chances[1]) * chances[0])
            assert max(np.ptp(chances), alone) <= math.sqrt(constant / aversion)
    degree = [max(np.ptp(chances) for chances in contributions(aversion)) for aversion in GRID]
    assert all(np.diff(degree) <= 1e-9) and degree[0] > 0.6 and degree[-1] < 1e-9


def test_shared_reward_rises_with_aversion_where_both_contribute_alike():
    """Not along the free riders, from 0.905 down to 0.84 at the pitchfork: one of them contributes nearly always."""
    alike = [
        next(shared_reward(chances) for chances in contributions(aversion) if np.ptp(chances) < 1e-6)
        for aversion in GRID
    ]
    assert all(np.diff(alike) > 0)
    apart = [shared_reward(contributions(aversion)[0]) for aversion in GRID if aversion < PITCHFORK]
    assert all(np.diff(apart) < 0)


def test_equilibria_have_interior_support():
    """Every action has at least the chance that eps leaves it, however averse: payoffs differ by at most 0.6."""
    least = 1 / (1 + math.exp(0.6 / EPS))
    for aversion in GRID:
        for chances in contributions(aversion):
            assert least <= chances.min() and chances.max() <= 1 - least


def test_best_responses_of_quadratic_games_are_the_closed_form():
    rng = np.random.default_rng(0)
    points = np.linspace(-6, 6, 161)
    a, b = np.meshgrid(points, points, indexing="ij")
    for _ in range(20):
        own, tau, eps = rng.uniform((0.6, 0.5, 0.2), (1.5, 2.0, 0.5))
        cross, slope, other, tilt = rng.uniform(-0.5, 0.5, 4)
        mean, variance = rng.uniform((-0.5, 0.1), (0.5, 0.3))
        payoff = -own * a**2 / 2 + cross * a * b + slope * a - other * b**2 / 2 + tilt * b
        game = RiskGame.of(np.stack([payoff, payoff.T]), tau, eps, "aggregate")
        log_q = -((points - mean) ** 2) / (2 * variance)
        best = np.exp(game.respond_to(0, log_q - np.log(np.exp(log_q).sum())))
        found = best @ points, best @ (points - best @ points) ** 2
        expected = quadratic_response(own, cross, slope, other, tilt, (mean, variance), tau, eps)
        assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("aversion", [0.5, 2.0], ids=["tolerant", "averse"])
def test_two_robots_in_exact_equilibrium(aversion):
    """On a grid: mean `target / (3 - tau eps / 2)`, variance `eps / 2`; the shared reward rises with aversion."""
    points = np.linspace(-2, 4, 101)
    a, b = np.meshgrid(points, points, indexing="ij")
    shared, eps = -((srpo_games.TARGET - a - b) ** 2) / 2, 0.4
    game = RiskGame.of(np.stack([shared - a**2 / 2, shared - b**2 / 2]), 1 / aversion, eps, "aggregate")
    mean, variance = robots_exact(aversion, eps)
    log_pi = -((points - mean) ** 2) / (2 * variance)
    pi = np.exp(log_pi) / np.exp(log_pi).sum()
    assert game.residual([pi, pi]) < 1e-6
    other, more = robots_exact(2 * aversion, eps)[0], robots_exact(aversion, 1.1 * eps)
    assert 2 * mean < 2 * other < srpo_games.TARGET  # nearer to the target, at the same variance
    off = [np.exp(-((points - more[0]) ** 2) / (2 * variance)), np.exp(-((points - mean) ** 2) / (2 * more[1]))]
    assert min(game.residual([one / one.sum()] * 2) for one in off) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("aversion", srpo_games.SIDES, ids=["free-riders", "alike"])
def test_trained_play_is_the_equilibrium_on_either_side_of_the_pitchfork(aversion):
    """One seed, a third of the steps; `python -m benchmarks.srpo_games` has five seeds, and all."""
    steps = srpo_games.SETTINGS["total_timesteps"] // 3
    found = srpo_games.free_rider(aversion, seed=1, total_timesteps=steps)
    assert min(np.abs(found - exact).max() for exact in contributions(aversion)) < 0.02


@pytest.mark.slow
def test_trained_robots_are_those_of_the_closed_form():
    mean, variance = srpo_games.robots(2.0, 1, total_timesteps=400 * 8192)
    exact = robots_exact(2.0, srpo_games.ROBOT_EPS)
    assert np.abs(mean / exact[0] - 1).max() < 0.02 and np.abs(variance / exact[1] - 1).max() < 0.02
