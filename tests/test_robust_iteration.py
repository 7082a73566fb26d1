"""Robust value iteration against brute force and other iterations, and its command."""

import functools
import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.special import rel_entr

from rqe_mappo.envs.tabular import FiniteGame, nested_values
from rqe_mappo.equilibrium.cli import main
from rqe_mappo.equilibrium.robust_iteration import discounted, finite_horizon, next_states, team_reward
from rqe_mappo.functional.robust import worst_of
from tests.test_robust import BALLS, by_root
from tests.test_rqe_solve import complaint

GAMMA = 0.6


# Iteration


def random_game(seed: int, n_states: int = 3, n_actions: tuple[int, ...] = (2,), ends: bool = True) -> FiniteGame:
    """Three outcomes a row and a fourth place of padding; the last state is an end, if there is any."""
    rng, j = np.random.default_rng(seed), math.prod(n_actions)
    shape = (n_states, j, 4)
    prob = np.zeros(shape)
    prob[..., :3] = rng.dirichlet(np.ones(3), shape[:2])
    reward = rng.normal(size=(len(n_actions), *shape))
    reward[..., 3] = -99.0  # what never happens counts nowhere
    terminal = np.arange(n_states) == (n_states - 1 if ends else -1)
    start = np.where(terminal, 0.0, 1.0)
    seen = np.zeros((n_states, len(n_actions), 1), np.float32)
    return FiniteGame(
        tuple("abc"[: len(n_actions)]), n_actions, rng.integers(n_states, size=shape), prob, reward, terminal,
        start / start.sum(), 4, seen, seen,
    )  # fmt: skip


def policy_value(game: FiniteGame, policy: np.ndarray, kernel: np.ndarray, gamma: float) -> np.ndarray:
    """The discounted value of joint actions `[S]` under outcomes' probabilities `[S, J, K]`, by a linear system."""
    rows, reward = np.arange(game.n_states), team_reward(game)
    chosen = kernel[rows, policy] * ~game.terminal[:, None]
    moves = np.zeros((game.n_states, game.n_states))
    np.add.at(moves, (rows[:, None], game.next_state[rows, policy]), chosen)
    return np.linalg.solve(np.eye(game.n_states) - gamma * moves, (chosen * reward[rows, policy]).sum(-1))


def brute_force(game: FiniteGame, kernels: np.ndarray, gamma: float) -> np.ndarray:
    """max over policies of min over kernels, one of `[M, S, J, K]` a state, of the values by linear systems."""
    places, best = list(itertools.product(range(len(kernels)), repeat=game.n_states)), []
    for actions in itertools.product(range(game.n_joint), repeat=game.n_states):
        picked = (np.stack([kernels[m, s] for s, m in enumerate(place)]) for place in places)
        best.append(np.min([policy_value(game, np.array(actions), kernel, gamma) for kernel in picked], axis=0))
    return np.max(best, axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_a_finite_set_is_solved_as_by_brute_force(seed):
    game = random_game(seed)
    rng = np.random.default_rng(seed)
    kernels = np.where(game.prob > 0, rng.gamma(1.0, size=(3, *game.prob.shape)), 0.0)
    kernels /= kernels.sum(-1, keepdims=True)
    worst = functools.partial(worst_of, kernels=torch.from_numpy(kernels))
    found = discounted(game, lambda values, probs: worst(values), GAMMA)
    np.testing.assert_allclose(found.values, brute_force(game, kernels, GAMMA), rtol=0, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_contamination_is_solved_as_by_brute_force(seed):
    """Over the corners of the set: all that is moved goes to one outcome."""
    game, delta = random_game(seed), 0.3
    corners = (1 - delta) * game.prob + delta * np.eye(4)[:3, None, None]
    found = discounted(game, BALLS["contamination"](delta), GAMMA)
    np.testing.assert_allclose(found.values, brute_force(game, corners, GAMMA), rtol=0, atol=1e-8)


def by_program(name: str, v: np.ndarray, p: np.ndarray, radius: float) -> float:
    """The inner problem by other means."""
    if name == "contamination":
        return (1 - radius) * p @ v + radius * v.min()
    if name == "kl":
        return v.min() + by_root(v, p, radius)
    if name == "kl-penalty":
        return float(-np.log(p @ np.exp(-radius * v)) / radius)
    eye, one = np.eye(len(v)), np.ones((1, len(v)))
    above = np.block([[eye, -eye], [-eye, -eye], [0 * one, one]])
    program = np.append(v, 0 * v), above, np.concatenate((p, -p, [radius])), np.hstack((one, 0 * one)), [1.0]
    return linprog(*program, options={"primal_feasibility_tolerance": 1e-10}).fun


@pytest.mark.parametrize("name", BALLS)
@pytest.mark.parametrize("players", [(2,), (2, 2)])
def test_every_set_is_solved_as_by_another_iteration(name, players):
    """Value iteration with each inner problem solved by itself; players are one team, whose rewards add up."""
    game, radius, gamma = random_game(5, n_actions=players), 0.3, 0.4
    values, reward = np.zeros(game.n_states), game.reward.sum(0)
    for _ in range(26):  # 0.4^26 is below 1e-10
        table = np.zeros((game.n_states, game.n_joint))
        for s, j in itertools.product(np.flatnonzero(~game.terminal), range(game.n_joint)):
            outcome = reward[s, j, :3] + gamma * values[game.next_state[s, j, :3]]
            table[s, j] = by_program(name, outcome, game.prob[s, j, :3], radius)
        values = table.max(-1)
    found = discounted(game, BALLS[name](radius), gamma)
    np.testing.assert_allclose(found.values, values, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.action_values, table, rtol=0, atol=1e-8)
    assert (found.policy[:-1] == table[:-1].argmax(-1)).all()
    assert found.start_value == pytest.approx(values[:-1].mean(), abs=1e-8)


@pytest.mark.parametrize("name", BALLS)
@pytest.mark.parametrize("over", ["outcomes", "states"])
def test_a_set_of_one_distribution_is_value_iteration(name, over):
    for seed in range(5):
        game = random_game(seed, 4)
        found = discounted(game, BALLS[name](0.0), GAMMA, over)
        np.testing.assert_allclose(found.values, brute_force(game, game.prob[None], GAMMA), rtol=0, atol=1e-8)
        backward = finite_horizon(game, BALLS[name](0.0), GAMMA, over)
        values = np.zeros(4)
        for t in reversed(range(game.horizon)):
            values = (game.prob * (game.reward[0] + GAMMA * values[game.next_state])).sum(-1).max(-1) * ~game.terminal
            np.testing.assert_allclose(backward.values[t], values, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", BALLS)
@pytest.mark.parametrize("over", ["outcomes", "states"])
def test_solutions_fall_with_the_radius(name, over):
    for seed in range(2):
        game = random_game(seed, 4, (2, 2))
        found = np.array([discounted(game, BALLS[name](radius), GAMMA, over).values for radius in (0.0, 0.1, 1.0)])
        assert (np.diff(found, axis=0) <= 1e-9).all()
        assert found[0].sum() > found[-1].sum() + 0.005


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contamination", "l1", "kl"])
def test_no_kernel_of_the_set_brings_the_robust_policy_below_its_value(name):
    """Random kernels, drawn towards the nominal ones into the set; nature's own answers reach the value."""
    radius, rng = 0.3, np.random.default_rng(0)
    lowest = math.inf
    for seed in range(4):
        game = random_game(seed, 4)
        found = discounted(game, BALLS[name](radius), GAMMA)
        for _ in range(30):
            other = np.zeros_like(game.prob)
            other[..., :3] = rng.dirichlet(np.full(3, 0.3), game.prob.shape[:2])
            share = np.ones((*game.prob.shape[:2], 1))
            for _ in range(200):
                kernel = game.prob + share * (other - game.prob)
                inside = {
                    "contamination": (kernel >= (1 - radius) * game.prob - 1e-12).all(-1),
                    "l1": np.abs(kernel - game.prob).sum(-1) <= radius,
                    "kl": rel_entr(kernel, game.prob).sum(-1) <= radius,
                }[name]
                share = np.where(inside[..., None], share, 0.95 * share)
            assert inside.all()
            gain = policy_value(game, found.policy, kernel, GAMMA) - found.values
            assert gain.min() >= -1e-9
            lowest = min(lowest, gain[:-1].min())
        exact = policy_value(game, found.policy, found.worst, GAMMA)
        np.testing.assert_allclose(exact, found.values, rtol=0, atol=1e-8)
    assert lowest < 0.1  # some come near


def test_the_penalty_gives_the_nested_entropic_value():
    """V of the robust policy is that of the risk measure, step by step; docs/games.md has where it turns."""
    tau, game = 0.7, random_game(3, 4)
    found = finite_horizon(game, BALLS["kl-penalty"](1 / tau))
    policy = np.eye(game.n_joint)[found.policy]
    nested = nested_values(game, [policy], lambda x, p: float(-tau * np.log(p @ np.exp(-x / tau))))
    np.testing.assert_allclose(found.values, nested, rtol=0, atol=1e-8)


def test_a_policy_that_is_given_is_judged():
    game = random_game(1, 4)
    ball = BALLS["l1"](0.3)
    best, always = discounted(game, ball, GAMMA), np.ones(4, int)
    judged = discounted(game, ball, GAMMA, policy=always)
    exact = policy_value(game, always, judged.worst, GAMMA)
    np.testing.assert_allclose(judged.values, exact, rtol=0, atol=1e-8)
    assert (judged.values <= best.values + 1e-9).all() and (judged.policy == always).all()


@pytest.mark.parametrize("delta", [0.1, 0.4])
def test_contamination_over_all_states_is_a_lower_discount(delta):
    """Where nothing ends: the least value is one number, so that it adds a constant, and gamma is gamma (1 - delta)."""
    changed = 0
    for seed in range(10):
        game = random_game(seed, 4, (3,), ends=False)
        found = discounted(game, BALLS["contamination"](delta), GAMMA, "states")
        lower = discounted(game, BALLS["contamination"](0.0), GAMMA * (1 - delta))
        _, follows = next_states(game)
        constant = GAMMA * delta * found.values[follows].min() / (1 - GAMMA * (1 - delta))
        np.testing.assert_allclose(found.values, lower.values + constant, rtol=0, atol=1e-8)
        assert (found.policy == lower.policy).all()
        changed += (found.policy != discounted(game, BALLS["contamination"](0.0), GAMMA).policy).any()
    assert changed


def test_states_that_follow_nothing_are_not_nature_s_to_choose():
    game = random_game(0, 4)
    game.next_state[...] = np.minimum(game.next_state, 3) % 3 + 1  # nothing leads to state 0
    game.reward[0, 0] -= 50
    probs, follows = next_states(game)
    assert follows.tolist() == [False, True, True, True]
    assert probs[..., 0].max() == 0 and np.allclose(probs.sum(-1), 1)
    found = discounted(game, BALLS["contamination"](0.5), GAMMA, "states")
    assert found.values[0] < -40 and found.values[1:].min() > -20
    assert found.worst[:3, :, 0].max() == 0


def test_what_cannot_be_solved_is_refused():
    game = random_game(0)
    with pytest.raises(ValueError, match="gamma must be in"):
        discounted(game, BALLS["l1"](0.1), 1.0)
    anything = torch.full((1, *game.prob.shape), 0.25, dtype=torch.float64)
    with pytest.raises(ValueError, match="leave alone"):
        discounted(game, lambda values, probs: worst_of(values, anything), GAMMA)


# The command


def test_rqe_solve_turns_where_the_gamble_does(capsys):
    """`m1`: risky if and only if tau > 8.8321, or delta < 1/6: (1 - delta) 1 - 2 delta = 0.5."""
    for kind, below, above in (("kl-penalty", 8.8320, 8.8322), ("contamination", 0.1667, 0.1666)):
        for number, action in ((below, 0), (above, 1)):
            main(["gamble", "--robust", f"{kind}:{number}", "--json"])
            content = json.loads(capsys.readouterr().out)
            assert content["first"] == {"robust": {"choice": [action]}, "neutral": {"choice": [1]}}
            assert content["nominal"]["neutral"] == pytest.approx(1)
            assert content["worst_case"]["robust"] >= content["worst_case"]["neutral"]


def test_rqe_solve_solves_games_of_a_team_and_of_many_states(capsys):
    main(["matrix", "--scenario", "risky-safe", "--robust", "l1:0.2"])
    out = capsys.readouterr().out
    assert "robust        5.0000      5.0000  play: 0, 0" in out
    assert "neutral       4.0000      7.0000  play: 1, 1" in out
    main(["gamble", "--scenario", "m5", "--robust", "kl:0.05", "--gamma", "0.9", "--over", "states"])
    assert "kl:0.05 over states, gamma 0.9, at most 20 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--robust", "l1:0.2"), "name an environment"),
        (("gamble", "--robust", "tv:0.2"), "--robust tv:0.2 is unknown: use contamination:DELTA"),
        (("gamble", "--robust", "l1:x"), "is unknown"),
        (("gamble", "--robust", "l1:nan"), "is unknown"),
        (("gamble", "--robust", "l1:-1"), "radius must be >= 0"),
        (("gamble", "--robust", "contamination:2"), "delta must be in [0, 1]"),
        (("gamble", "--robust", "kl-penalty:0"), "tau must be > 0"),
        (("gamble", "--robust", "l1:1", "--tau", "1"), "does not go with --tau"),
        (("gamble", "--robust", "l1:1", "--gamma", "2"), "--gamma must be in [0, 1]"),
        (("gamble", "--robust", "l1:1", "--scenario", "m9"), "--scenario m9 is unknown: use default, m1"),
        (("cartpole", "--robust", "l1:1"), "a finite game, such as gamble or cliff (got cartpole)"),
        (("nope", "--robust", "l1:1"), "nope is unknown"),
        (("cliff", "--robust", "l1:1", "--over", "states"), "too many"),
        (("stag-hunt", "--tau", "1", "--eps", "1", "--gamma", "0.9"), "--gamma needs --robust"),
    ],
)
def test_bad_arguments_end_in_one_line(capsys, args, words):
    assert words in complaint(capsys, *args)
