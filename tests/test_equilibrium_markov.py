"""Backward recursion in small Markov games."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium import RiskGame, all_equilibria_2x2, solve, solve_markov

STAG = GAMES["stag-hunt"]


@dataclass(frozen=True)
class Model:
    """The arrays of a finite Markov game that the solver reads."""

    n_actions: tuple[int, ...]
    next_state: np.ndarray
    prob: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray
    start: np.ndarray
    horizon: int


def repeated(payoffs: np.ndarray, horizon: int) -> Model:
    """One state, played `horizon` times."""
    n, joint = len(payoffs), payoffs[0].size
    return Model(
        payoffs.shape[1:], np.zeros((1, joint, 1), int), np.ones((1, joint, 1)), payoffs.reshape(n, 1, joint, 1),
        np.array([False]), np.ones(1), horizon,
    )  # fmt: skip


def random_model(rng: np.random.Generator, n: int, horizon: int) -> Model:
    n_states, joint, outcomes = 4, 2**n, 3
    prob = rng.dirichlet(np.ones(outcomes), size=(n_states, joint))
    prob[:, :, -1] = 0  # padding
    prob /= prob.sum(-1, keepdims=True)
    return Model(
        (2,) * n, rng.integers(0, n_states, size=prob.shape), prob, rng.normal(size=(n, *prob.shape)),
        np.array([False, False, False, True]), np.array([0.5, 0.5, 0.0, 0.0]), horizon,
    )  # fmt: skip


def test_one_stage_is_the_matrix_game():
    found, exact = solve_markov(repeated(STAG.payoffs, 1), 5, 0.25), solve(STAG, 5, 0.25)
    for policy, pi in zip(found.policies, exact.strategies, strict=True):
        np.testing.assert_allclose(policy[0, 0], pi, atol=1e-14)
    np.testing.assert_allclose(found.values[0, :, 0], exact.utilities, atol=1e-14)
    assert found.converged and found.values.shape == (2, 2, 1)


def test_a_repeated_game_adds_a_constant():
    found = solve_markov(repeated(STAG.payoffs, 3), 5, 0.25)
    np.testing.assert_allclose(found.values[:, 0, 0], found.values[2, 0, 0] * np.array([3, 2, 1, 0]), atol=1e-9)
    np.testing.assert_allclose(found.policies[0][0], found.policies[0][2], atol=1e-9)


def test_a_gamble_is_judged_by_its_certainty_equivalent_however_late_it_resolves():
    """One player: risky (+4 or -2) or a sure 0.5 after a step of waiting."""
    next_state = np.array([[[1, 1], [1, 1]], [[2, 2], [2, 2]], [[2, 2], [2, 2]]])
    prob = np.full((3, 2, 2), 0.5)
    reward = np.zeros((1, 3, 2, 2))
    reward[0, 1] = [[4, -2], [0.5, 0.5]]
    model = Model((2,), next_state, prob, reward, np.array([False, False, True]), np.array([1.0, 0.0, 0.0]), 2)
    found = solve_markov(model, 3, 0.5)
    assert found.policies[0][1, 1, 0] == pytest.approx(0.1676, abs=1e-4)
    worth = -3 * np.log(0.5 * np.exp(-4 / 3) + 0.5 * np.exp(2 / 3))
    expected = found.policies[0][1, 1] @ [worth, 0.5]
    assert found.start_values[0] == pytest.approx(expected, abs=1e-12)
    assert found.values[0, 0, 2] == 0


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("form", ["action", "aggregate"])
def test_every_stage_is_an_equilibrium_of_the_nested_values(n, form):
    model = random_model(np.random.default_rng(n), n, horizon=3)
    tau = np.linspace(0.5, 2, n)
    found = solve_markov(model, tau, 0.2, form=form)
    assert found.converged and found.residuals.max() == found.residual < 1e-8
    for h, s in ((0, 0), (1, 2), (2, 1)):
        ahead = np.where(model.terminal, 0, found.values[h + 1])[:, model.next_state[s]]
        q = np.stack([-t * logsumexp(-(r[s] + v) / t, axis=-1, b=model.prob[s])
                      for t, r, v in zip(tau, model.reward, ahead, strict=True)])  # fmt: skip
        game = RiskGame.of(q.reshape(n, *model.n_actions), tau, 0.2, form)
        pi = [policy[h, s] for policy in found.policies]
        assert game.residual(pi) < 1e-8
        np.testing.assert_allclose(found.values[h, :, s], game.utilities(pi), atol=1e-12)
    warm = solve_markov(model, tau, 0.2, form=form, warm_start=True)
    assert warm.converged
    np.testing.assert_allclose(warm.values, found.values, atol=1e-8)
    assert np.all(found.policies[0][:, 3] == 0.5) and np.all(found.values[:, :, 3] == 0)


def test_neutral_values_are_means():
    model = random_model(np.random.default_rng(9), 2, horizon=2)
    found = solve_markov(model, np.inf, 0.3)
    last = (model.prob * model.reward).sum(-1)[:, 0].reshape(2, 2, 2)
    first, second = (policy[1, 0] for policy in found.policies)
    np.testing.assert_allclose(first, softmax(last[0] @ second / 0.3), atol=1e-9)
    np.testing.assert_allclose(found.values[1, :, 0], np.einsum("a,iab,b->i", first, last, second), atol=1e-12)


def test_policies_have_the_residual_that_is_said_of_them():
    found = solve_markov(repeated(GAMES["ghp4"].payoffs, 1), 0.1, 0.01)
    assert found.residual < 1e-12 and found.policies_residual == 1.0
    assert solve_markov(repeated(STAG.payoffs, 1), 5, 0.25).policies_residual < 1e-12


def test_several_equilibria_are_flagged():
    assert solve_markov(repeated(STAG.payoffs, 1), 5, 0.25, look_for_several=1).several.all()
    assert not solve_markov(repeated(STAG.payoffs, 1), 3, 0.25, look_for_several=1).several.any()
    assert len(all_equilibria_2x2(STAG, 5, 0.25)) == 3
    three = np.zeros((2, 3, 3))
    three[:, range(3), range(3)] = 4.0
    assert solve_markov(repeated(three, 1), 5, 0.25, look_for_several=5).several.all()
