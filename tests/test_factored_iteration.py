"""Fitted Q-iteration with factorised values: theorems of arXiv 2006.00587 in small games (docs/factorisation.md)."""

import itertools

import numpy as np
import pytest

from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium import factored_iteration as fi

GAMMA = 0.99
SIZES = ((4, 3), (2, 3, 4))


def random_mdp(rng: np.random.Generator, sizes: tuple[int, ...], n_states: int = 3, gamma: float = 0.9):
    transition = rng.dirichlet(np.ones(n_states), size=(n_states, *sizes))
    return fi.MultiAgentMDP(rng.normal(size=(n_states, *sizes)), transition, gamma)


def random_marginals(rng: np.random.Generator, sizes: tuple[int, ...], n_states: int = 3) -> list[np.ndarray]:
    return [rng.dirichlet(np.ones(size), size=n_states) for size in sizes]


def one_step(name: str) -> fi.MultiAgentMDP:
    """A game of common payoffs, played once: then comes a state that pays 0."""
    payoffs = GAMES[name].payoffs[0]
    transition = np.zeros((2, *payoffs.shape, 2))
    transition[..., 1] = 1
    return fi.MultiAgentMDP(np.stack([payoffs, np.zeros_like(payoffs)]), transition, GAMMA)


def near(mdp: fi.MultiAgentMDP) -> list[np.ndarray]:
    """Utilities whose greedy actions and values are the optimal ones."""
    return fi.igm_utilities(fi.optimal_table(mdp))


def on_policy(mdp: fi.MultiAgentMDP, epsilon: float, iterations: int, start=None):
    return fi.fma_fqi(mdp, start or near(mdp), lambda utilities: fi.epsilon_greedy(utilities, epsilon), iterations)


def long_run(values: np.ndarray) -> float:
    """The mean growth factor of the first state's steps, from the first to the last."""
    steps = np.abs(np.diff(values[:, 0]))
    return float((steps[-1] / steps[0]) ** (1 / (len(steps) - 1)))


@pytest.mark.parametrize("sizes", SIZES)
def test_theorem_1_counterfactual_utilities_are_the_weighted_least_squares(sizes):
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, marginals = rng.normal(scale=10, size=(3, *sizes)), random_marginals(rng, sizes)
        closed = fi.over_joint_actions(np.add, fi.counterfactual_utilities(y, marginals))
        fitted = fi.least_squares_sum(y, fi.over_joint_actions(np.multiply, marginals))
        np.testing.assert_allclose(closed, fitted, rtol=0, atol=1e-10)


def test_theorem_1_is_for_product_data_only():
    """Data in which agents tend to do the same: the closed form with their marginals is no least-squares fit."""
    y, weights = GAMES["penalty-2x2"].payoffs[:1], np.array([[[0.4, 0.1], [0.1, 0.4]]])
    closed = fi.over_joint_actions(np.add, fi.counterfactual_utilities(y, [np.full((1, 2), 0.5)] * 2))
    fitted = fi.least_squares_sum(y, weights)
    assert np.abs(closed - fitted).max() > 1
    assert (weights * (fitted - y) ** 2).sum() < (weights * (closed - y) ** 2).sum() - 1


@pytest.mark.parametrize(("share", "best"), [(1 / 2, 0), (0.376, 0), (0.374, 1), (1 / 3, 1)])
def test_what_a_sum_makes_of_the_notes_table_depends_on_the_data(share, best):
    """It ranks the good action first if and only if the data have it with a probability over 3/8."""
    data = [np.array([[share, 1 - share]])] * 2
    utilities = fi.counterfactual_utilities(GAMES["penalty-2x2"].payoffs[:1], data)
    assert [int(action[0]) for action in fi.greedy(utilities)] == [best, best]
    p = share
    expected = [[-32 * p**2 + 64 * p - 24, -32 * p**2 + 32 * p - 12], [-32 * p**2 + 32 * p - 12, -32 * p**2]]
    np.testing.assert_allclose(fi.over_joint_actions(np.add, utilities)[0], expected, atol=1e-12)


def test_theorem_3_uniform_data_diverge_at_the_derived_rate():
    mdp = fi.leaving_game(GAMMA)
    uniform = [np.full((2, 2), 0.5)] * 2
    values, utilities = fi.fma_fqi(mdp, near(mdp), lambda _: uniform, 1000)
    assert values[0] == pytest.approx([1 / (1 - GAMMA), 0])  # it starts at the optimum
    assert [int(action[0]) for action in fi.greedy(utilities)] == [0, 0]
    derived = 5 / 4 * GAMMA
    assert fi.growth_factor(mdp, fi.greedy(utilities), uniform) == pytest.approx(derived, rel=1e-12)
    assert long_run(values) == pytest.approx(derived, rel=1e-12)
    assert 1e90 < values[-1, 0] < 1e100


@pytest.mark.parametrize("first", [-1000.0, -10.0, 0.0, 10.0])
@pytest.mark.parametrize("second", [-1000.0, 1000.0])
def test_theorem_3_holds_from_every_start(first, second):
    start = fi.igm_utilities(np.broadcast_to(np.array([first, second])[:, None, None], (2, 2, 2)))
    values, _ = fi.fma_fqi(fi.leaving_game(GAMMA), start, lambda _: [np.full((2, 2), 0.5)] * 2, 1500)
    assert values[-1, 0] > 1e100
    assert values[-1, 0] / values[-2, 0] == pytest.approx(5 / 4 * GAMMA)


def test_a_growth_factor_above_one_may_end_in_a_cycle():
    """Growing values make other actions greedy, under which they shrink: two joint policies take turns for ever."""
    reward = np.array([[[1.0, -2.0], [2.0, -1.0]], [[1.0, 0.0], [-2.0, 2.0]]])
    mdp = fi.MultiAgentMDP(reward, np.eye(2)[[[[1, 0], [1, 1]], [[0, 0], [0, 0]]]], 0.9)
    uniform = [np.full((2, 2), 0.5)] * 2
    values, utilities = fi.fma_fqi(mdp, near(mdp), lambda _: uniform, 600)
    following = fi.counterfactual_utilities(fi.targets(mdp, values[-1]), uniform)
    factors = [fi.growth_factor(mdp, fi.greedy(each), uniform) for each in (utilities, following)]
    assert sorted(factors) == pytest.approx([0.9, 5 / 4 * 0.9])
    np.testing.assert_allclose(values[-1], values[-3], atol=1e-9)
    assert np.abs(values[-1] - values[-2]).min() > 3


@pytest.mark.parametrize("sizes", SIZES)
def test_the_growth_matrix_is_the_map_of_an_iteration(sizes):
    """Two iterations with the same greedy actions differ by L times what they started from."""
    rng = np.random.default_rng(1)
    mdp, marginals = random_mdp(rng, sizes), random_marginals(rng, sizes)
    values = rng.normal(size=3)
    other = values + 1e-6 * rng.normal(size=3)
    fits = [fi.counterfactual_utilities(fi.targets(mdp, start), marginals) for start in (values, other)]
    actions = fi.greedy(fits[0])
    assert all((a == b).all() for a, b in zip(actions, fi.greedy(fits[1]), strict=True))
    change = np.subtract(*(sum(utility.max(-1) for utility in fit) for fit in fits))
    np.testing.assert_allclose(change, fi.growth_matrix(mdp, actions, marginals) @ (values - other), atol=1e-14)


@pytest.mark.parametrize(("epsilon", "stable"), [(0.19, True), (0.21, False)])
def test_theorem_2_the_leaving_game_is_stable_for_epsilon_below_a_fifth(epsilon, stable):
    """2 sqrt(1 / gamma - 1) = 0.2010: below it values converge, above it they run away; greedy actions stay."""
    mdp = fi.leaving_game(GAMMA)
    values, utilities = on_policy(mdp, epsilon, 1000)
    assert [int(action[0]) for action in fi.greedy(utilities)] == [0, 0]
    derived = GAMMA * (1 + epsilon**2 / 4)
    assert (derived < 1) == stable
    assert long_run(values) == pytest.approx(derived, rel=1e-9)


def test_theorem_2_values_converge_next_to_the_optimum():
    values, _ = on_policy(fi.leaving_game(GAMMA), 0.05, 3000)
    assert values[-1, 0] == pytest.approx(1 / (1 - GAMMA * (1 + 0.025**2)), rel=1e-9)


@pytest.mark.parametrize(("epsilon", "stays"), [(0.93, True), (0.94, False)])
def test_theorem_2_the_penalty_game_keeps_its_optimum_up_to_15_16(epsilon, stays):
    _, utilities = on_policy(one_step("penalty-3x3"), epsilon, 10)
    assert ([int(action[0]) for action in fi.greedy(utilities)] == [0, 0]) == stays


def test_theorem_2_is_local_the_bad_corner_is_stable_too():
    mdp = one_step("penalty-2x2")
    bad = [np.array([[0.0, 1.0], [0.0, 0.0]])] * 2
    for epsilon, action in ((0.74, 1), (0.76, 0)):
        _, utilities = on_policy(mdp, epsilon, 10, bad)
        assert [int(chosen[0]) for chosen in fi.greedy(utilities)] == [action, action]


@pytest.mark.parametrize("sizes", SIZES)
def test_theorem_2_random_games_stay_and_err_by_the_square_of_epsilon(sizes):
    rng = np.random.default_rng(2)
    for _ in range(5):
        mdp = random_mdp(rng, sizes)
        optimum, errors = fi.optimal_table(mdp), []
        for epsilon in (2e-3, 1e-3):
            values, utilities = on_policy(mdp, epsilon, 200)
            assert all((a == b).all() for a, b in zip(fi.greedy(utilities), fi.greedy(near(mdp)), strict=True))
            errors.append(np.abs(values[-1] - fi.best(optimum)).max())
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("sizes", SIZES)
def test_theorem_4_fqi_igm_contracts_by_gamma(sizes):
    rng = np.random.default_rng(3)
    for _ in range(10):
        mdp = random_mdp(rng, sizes)
        optimum = fi.optimal_table(mdp)
        table = rng.normal(scale=100, size=optimum.shape)
        for _ in range(100):
            following = fi.fqi_igm_step(mdp, table)
            assert np.abs(following - optimum).max() <= mdp.gamma * np.abs(table - optimum).max() + 1e-12
            table = following
        assert np.abs(table - optimum).max() < 0.1


def test_theorem_4_the_leaving_game_converges_where_the_sum_diverges():
    mdp = fi.leaving_game(GAMMA)
    table = np.zeros((2, 2, 2))
    for _ in range(1000):
        table = fi.fqi_igm_step(mdp, table)
    np.testing.assert_allclose(fi.best(table), [100, 0], atol=100 * 1.01 * GAMMA**1000)


@pytest.mark.parametrize("sizes", SIZES)
def test_igm_utilities_have_the_best_joint_action_and_tell_all_apart(sizes):
    table = np.random.default_rng(4).normal(size=(3, *sizes))
    utilities = fi.igm_utilities(table)
    found = np.ravel_multi_index(fi.greedy(utilities), sizes)
    assert (found == table.reshape(3, -1).argmax(-1)).all()
    np.testing.assert_allclose(sum(utility.max(-1) for utility in utilities), fi.best(table))
    assert all(len(np.unique(row)) == len(row) for utility in utilities for row in utility)


def test_the_optimal_table_is_the_best_of_all_policies():
    mdp = random_mdp(np.random.default_rng(5), (2, 2))
    reward, transition = mdp.reward.reshape(3, 4), mdp.transition.reshape(3, 4, 3)
    states = np.arange(3)
    values = [
        np.linalg.solve(np.eye(3) - mdp.gamma * transition[states, policy], reward[states, policy])
        for policy in map(list, itertools.product(range(4), repeat=3))
    ]
    np.testing.assert_allclose(fi.best(fi.optimal_table(mdp)), np.max(values, axis=0), rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"transition": np.ones((2, 2, 2))}, "for rewards"), ({"transition": np.ones((2, 2, 2, 2))}, "no prob"),
     ({"transition": np.broadcast_to([2.0, -1.0], (2, 2, 2, 2))}, "no prob"), ({"gamma": 1.0}, "not in")],
)  # fmt: skip
def test_what_is_no_mdp_is_refused(change, message):
    whole = vars(fi.leaving_game(GAMMA)) | change
    with pytest.raises(ValueError, match=message):
        fi.MultiAgentMDP(**whole)
