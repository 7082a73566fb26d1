"""Worst cases over transitions: inner problems against linear programs and convex solvers, iteration by brute force."""

import functools
import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog, minimize, minimize_scalar
from scipy.special import rel_entr

from rqe_mappo import registry
from rqe_mappo.algorithms.distributional import RiskyChoice
from rqe_mappo.algorithms.off_policy import OffPolicy
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.data.replay import Episodes
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.tabular import BatchedTabular, FiniteGame, nested_values
from rqe_mappo.equilibrium.cli import main
from rqe_mappo.equilibrium.robust_iteration import discounted, finite_horizon, next_states, team_reward
from rqe_mappo.functional import q_learning
from rqe_mappo.functional.risk import Entropic
from rqe_mappo.functional.robust import contaminated, kl_ball, kl_penalty, l1_ball, worst_of
from rqe_mappo.training.loop import train
from tests.test_replay import RIVALS
from tests.test_rqe_solve import complaint

GAMMA = 0.6
GAMMA_LEARNED = 0.9
RADII = (0.0, 0.01, 0.1, 0.3, 1.0, 2.5)
BALLS = {
    "contamination": lambda radius: functools.partial(contaminated, delta=min(radius, 1.0)),
    "l1": lambda radius: functools.partial(l1_ball, radius=radius),
    "kl": lambda radius: functools.partial(kl_ball, radius=radius),
    "kl-penalty": lambda radius: functools.partial(kl_penalty, tau=1 / radius if radius else math.inf),
}

OF_MEANS = [name for name in RIVALS if not issubclass(registry.algorithm(name).Config, RiskyChoice)]


def rows(seed: int, n: int = 200, atoms: int = 5, sparse: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and probabilities, some of which are 0; float64."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(atoms, 0.5), n)
    if sparse:
        probs = np.where(rng.random(probs.shape) < 0.2, 0.0, probs) + np.eye(atoms)[rng.integers(atoms, size=n)] * 1e-3
    return torch.from_numpy(rng.normal(size=(n, atoms))), torch.from_numpy(probs / probs.sum(-1, keepdims=True))


def divergence(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """KL(q || p) of each row."""
    return torch.from_numpy(rel_entr(q.numpy(), p.numpy())).sum(-1)


# The inner problems


def test_contamination_is_a_mixture_of_the_mean_and_the_least():
    values, probs = rows(0)
    for delta in (0.0, 0.2, 1.0):
        expected = (1 - delta) * (probs * values).sum(-1) + delta * values.amin(-1)
        torch.testing.assert_close(contaminated(values, probs, delta).value, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("radius", RADII)
def test_the_l1_ball_is_a_linear_program(radius):
    values, probs = rows(1, 30)
    found = l1_ball(values, probs, radius).value
    for v, p, value in zip(values.numpy(), probs.numpy(), found.tolist(), strict=True):
        n = len(v)  # q and the distances: q - p <= d, p - q <= d, sum d <= radius
        eye = np.eye(n)
        above = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, n)), np.ones((1, n))]])
        bound = np.concatenate((p, -p, [radius]))
        best = linprog(np.append(v, 0 * v), above, bound, np.append(np.ones(n), 0 * v)[None], [1.0])
        assert value == pytest.approx(best.fun, abs=1e-9)


def by_root(values: np.ndarray, probs: np.ndarray, radius: float) -> float:
    """The KL ball by the root of the tilt's divergence, where the radius can be met."""
    values, probs = values[probs > 0], probs[probs > 0]
    values = values - values.min()
    if radius >= -np.log(probs[values == 0].sum()):
        return 0.0

    def tilted(tilt: float) -> np.ndarray:
        q = probs * np.exp(-tilt * values)
        return q / q.sum()

    def excess(tilt: float) -> float:
        q = tilted(tilt)
        return float((q[q > 0] * np.log(q[q > 0] / probs[q > 0])).sum()) - radius

    return float(tilted(brentq(excess, 1e-9, 1e5, xtol=1e-13)) @ values)


@pytest.mark.parametrize("radius", RADII[1:])
def test_the_kl_ball_is_the_root_of_the_tilt(radius):
    values, probs = rows(2, 100)
    found = kl_ball(values, probs, radius).value
    least = values.masked_fill(probs == 0, torch.inf).amin(-1)
    expected = [by_root(v, p, radius) for v, p in zip(values.numpy(), probs.numpy(), strict=True)]
    torch.testing.assert_close(found, least + torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("radius", [0.05, 0.4])
def test_the_kl_ball_is_the_convex_program(radius):
    values, probs = rows(3, 10, sparse=False)
    found = kl_ball(values, probs, radius).value
    for v, p, value in zip(values.numpy(), probs.numpy(), found.tolist(), strict=True):
        inside = {"type": "ineq", "fun": lambda q, p=p: radius - (q * np.log(q / p)).sum()}
        whole = {"type": "eq", "fun": lambda q: q.sum() - 1}
        best = minimize(
            lambda q, v=v: q @ v, p, bounds=[(1e-12, 1)] * len(p), constraints=[inside, whole], method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        assert value == pytest.approx(best.fun, abs=1e-6)


@pytest.mark.parametrize("radius", [1e-6, 0.01, 0.2, 1.0])
def test_the_ball_is_the_dual_of_the_penalty(radius):
    """It is the greatest entropic value at any tau, less tau times the radius."""
    for v, p in zip(*rows(4, 6), strict=True):

        def lack(log_tau: float, v=v, p=p) -> float:
            return math.exp(log_tau) * radius - float(kl_penalty(v, p, math.exp(log_tau)).value)

        best = minimize_scalar(lack, bounds=(-30, 12), method="bounded", options={"xatol": 1e-9})
        assert kl_ball(v, p, radius).value.item() == pytest.approx(-best.fun, abs=1e-8)
        assert kl_ball(v, p, radius).value.item() >= -best.fun - 1e-12


@pytest.mark.parametrize("tau", [1e-3, 0.5, 20.0, 1e6, math.inf])
def test_the_penalty_is_the_entropic_measure(tau):
    values, probs = rows(5)
    found = kl_penalty(values, probs, tau)
    order = values.argsort(-1)
    log_probs = probs.log().gather(-1, order)
    expected = Entropic(tau).value(values.gather(-1, order), log_probs)
    torch.testing.assert_close(found.value, expected, rtol=1e-10, atol=1e-10)
    if math.isfinite(tau):
        price = tau * divergence(found.probs, probs)
        torch.testing.assert_close((found.probs * values).sum(-1) + price, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", BALLS)
def test_worst_distributions_lie_in_their_sets(name):
    values, probs = rows(6)
    for radius in RADII:
        q = BALLS[name](radius)(values, probs).probs
        assert (q >= -1e-15).all()
        torch.testing.assert_close(q.sum(-1), torch.ones(len(q), dtype=q.dtype), rtol=0, atol=1e-12)
        if name == "contamination":
            assert (q >= (1 - min(radius, 1.0)) * probs - 1e-15).all()
        elif name == "l1":
            assert ((q - probs).abs().sum(-1) <= radius + 1e-12).all()
        else:
            assert torch.isfinite(divergence(q, probs)).all()
            assert name == "kl-penalty" or (divergence(q, probs) <= radius + 1e-9).all()


@pytest.mark.parametrize("name", BALLS)
def test_values_fall_with_the_radius_from_the_mean_to_the_least(name):
    values, probs = rows(7)
    found = torch.stack([BALLS[name](radius)(values, probs).value for radius in (*RADII, 1e9)])
    assert (found.diff(dim=0) <= 1e-12).all()
    torch.testing.assert_close(found[0], (probs * values).sum(-1), rtol=0, atol=1e-12)
    least = values if name in ("contamination", "l1") else values.masked_fill(probs == 0, torch.inf)
    torch.testing.assert_close(found[-1], least.amin(-1), rtol=0, atol=1e-6 if name == "kl-penalty" else 1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6), st.sampled_from(sorted(BALLS)), st.sampled_from(RADII),
    st.sampled_from([1e-9, 1e-3, 1.0, 1e9]), st.sampled_from([0.0, 1.0, -1e6, 1e6]),
)  # fmt: skip
def test_shifts_and_scales_pass_through(seed, name, radius, scale, shift):
    """The unit of values is theirs alone; a shift is meant in that unit."""
    values, probs = rows(seed, 3)
    found = BALLS[name](radius)(values, probs)
    ball = functools.partial(kl_penalty, tau=scale / radius) if name == "kl-penalty" and radius else BALLS[name](radius)
    moved = ball(scale * (values + shift), probs).value
    rounding = 1e-10 * (1 + 10 * abs(shift))
    torch.testing.assert_close(moved / scale - shift, found.value, rtol=0, atol=rounding)


@pytest.mark.parametrize("radius", [0.0, 1e-300, 1e-20, 1e-9, 0.5, 50.0, math.inf])
def test_degenerate_rows_of_the_kl_ball(radius):
    """One atom has all probability; all values are equal; two least ones; a least one with hardly any probability."""
    tiny = 1e-30
    values = torch.tensor([[3.0, -9, 5], [2, 2, 2], [0, 0, 1], [0, 1, 1], [0, 1e-14, 1]], dtype=torch.float64)
    mixed = [0.2, 0.3, 0.5]
    probs = torch.tensor([[1, 0, 0], mixed, mixed, [tiny, 0.5, 0.5], mixed], dtype=torch.float64)
    found = kl_ball(values, probs, radius)
    assert torch.isfinite(found.probs).all()
    assert found.value[0] == 3 and found.value[1] == pytest.approx(2, abs=1e-15)
    if radius == 0:
        assert found.value.tolist() == pytest.approx([3, 2, 0.5, 1, 0.5])
    if radius >= 70:
        assert found.value[2:].tolist() == [0, 0, 0]
    if radius == 0.5:  # lam of two atoms: KL(q || 1/2) = 1/2, and the tilt of one that is hardly there moves nothing
        q = brentq(lambda q: q * math.log(q / 0.5) + (1 - q) * math.log((1 - q) / 0.5) - 0.5, 1e-9, 0.5)
        assert found.value[[2, 4]].tolist() == pytest.approx([q, q], abs=1e-9)
        assert found.value[3] == pytest.approx(by_root(values[3].numpy(), probs[3].numpy(), 0.5), abs=1e-9)


def test_the_worst_of_some_distributions_is_their_least_mean():
    values, probs = rows(8)
    kernels = torch.stack([probs, probs.flip(0), torch.full_like(probs, 1 / probs.shape[-1])])
    found = worst_of(values, kernels)
    torch.testing.assert_close(found.value, (kernels * values).sum(-1).amin(0), rtol=0, atol=1e-14)
    torch.testing.assert_close((found.probs * values).sum(-1), found.value, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["contamination", "l1", "kl", "kl-penalty"])
def test_the_slope_in_the_values_is_the_worst_distribution(name):
    values, probs = rows(9, 20, sparse=False)
    values.requires_grad_()
    found = BALLS[name](0.3)(values, probs)
    (slope,) = torch.autograd.grad(found.value.sum(), values)
    torch.testing.assert_close(slope, found.probs.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BALLS)
def test_float32_and_broadcasting(name):
    values, probs = rows(10, 12, sparse=False)
    ball = BALLS[name](0.3)
    found = ball(values.float(), probs.float())
    assert found.value.dtype == found.probs.dtype == torch.float32
    torch.testing.assert_close(found.value.double(), ball(values, probs).value, rtol=0, atol=1e-5)
    each = torch.stack([ball(values[0], p).value for p in probs])
    torch.testing.assert_close(ball(values[0], probs).value, each, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (functools.partial(contaminated, delta=1.1), "delta must be in"),
        (functools.partial(contaminated, delta=math.nan), "delta must be in"),
        (functools.partial(l1_ball, radius=-0.1), "radius must be >= 0"),
        (functools.partial(kl_ball, radius=math.nan), "radius must be >= 0"),
        (functools.partial(kl_penalty, tau=0.0), "tau must be > 0"),
    ],
)
def test_what_is_no_set_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(*rows(11, 2))


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


# Learned from replay


def played() -> Episodes:
    """Two episodes of a team of two: one ends after 2 steps, the other is cut after 3; agent 1 leaves the second."""
    filled = torch.tensor([[True, True], [True, True], [False, True]])
    there = torch.ones(4, 2, 2, dtype=torch.bool)
    there[2:, 0], there[2:, 1, 1] = False, False
    return Episodes(
        obs=torch.zeros(4, 2, 2, 1), state=torch.zeros(4, 2, 1), avail=None, action=torch.zeros(3, 2, 2, dtype=int),
        reward=torch.tensor([[1.0, 2], [3, 4], [0, 6]]), active=there[:-1] & filled[..., None], present=there,
        terminated=torch.tensor([[False, False], [True, False], [False, False]]),
        ended=torch.tensor([[False, False], [True, False], [False, True]]), filled=filled, extras={},
    )  # fmt: skip


def targets(batch: Episodes, following: torch.Tensor, delta: float, lam: float, gamma: float = 0.8) -> torch.Tensor:
    learner = SimpleNamespace(
        unit=2.0, run=SimpleNamespace(gamma=gamma), config=SimpleNamespace(contamination=delta, td_lambda=lam)
    )
    return OffPolicy.targets(learner, batch, following)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shift", [-10.0, 0.0, 10.0])
def test_contaminated_targets_are_those_of_a_plain_loop(lam, shift):
    """What follows a step, the end too, is a mixture with the least of all that follows; padding is nothing."""
    batch, delta, gamma = played(), 0.3, 0.8
    following = torch.tensor([[1.0, -2], [55, 3], [-99, 4]]) + shift  # 55 is behind an end, -99 behind the episode
    least = min(shift - 2, 0.0)
    found = targets(batch, following, delta, lam, gamma)
    for b, length in ((0, 2), (1, 3)):
        y = 0.0
        for t in reversed(range(length)):
            value = 0.0 if batch.terminated[t, b] else float(following[t, b])
            mixed = value if t + 1 == length else (1 - lam) * value + lam * y
            y = float(batch.reward[t, b]) / 2 + gamma * ((1 - delta) * mixed + delta * least)
            assert float(found[t, b]) == pytest.approx(y, abs=1e-5)


def test_values_of_agents_have_a_least_one_each():
    batch = played()
    team = torch.tensor([[1.0, -2], [55, 3], [-99, 4]])
    other = 10 * team
    each = targets(batch, torch.stack((team, other), -1), 0.3, 0.5)
    torch.testing.assert_close(each[..., 0], targets(batch, team, 0.3, 0.5))
    torch.testing.assert_close(each[..., 1], targets(batch, other, 0.3, 0.5))


def test_without_contamination_targets_are_as_they_were_to_the_last_bit():
    batch, following = played(), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    plain = q_learning.lambda_returns(batch.reward / 2.0, following, batch.terminated, batch.ended, 0.8, 0.6)
    assert torch.equal(targets(batch, following, 0.0, 0.6), plain)


def test_contamination_of_games_of_one_step_changes_nothing():
    batch = played()
    batch = replace(batch, terminated=batch.filled, ended=batch.filled)
    following = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    found, plain = (targets(batch, following, delta, 0.6)[batch.filled] for delta in (0.5, 0.0))
    assert torch.equal(found, plain)


@pytest.mark.parametrize("delta", [-0.1, 1.1, math.nan])
def test_contamination_is_a_probability(delta):
    with pytest.raises(ConfigError, match="--contamination must be in"):
        default_config("step-games", algo="vdn").replace(contamination=delta)


@pytest.mark.slow
@pytest.mark.parametrize("algo", OF_MEANS)
def test_every_rival_takes_it(algo, tmp_path):
    """In the two-step game ends are the least that follows: what is learned is worth less."""
    means = []
    for delta in (0.0, 0.6):
        config = default_config("step-games", algo=algo).replace(
            total_timesteps=2048, num_envs=8, batch_episodes=16, replay_ratio=8.0, target_interval=20, td_lambda=0.0,
            contamination=delta, eval_episodes=0, out=str(tmp_path / str(delta)),
        )  # fmt: skip
        rows = []
        train(config, quiet=True, on_update=lambda step, scalars, rows=rows: rows.append(scalars))
        means.append(rows[-1]["value/target_mean"])
    assert 0 < means[1] < 0.9 * means[0]


def patience(num_envs: int) -> BatchedTabular:
    """Take 1 and fall back to state 0, or wait, 0, 1, 2, 3, for 3 a step in the last state; a tenth goes anywhere."""
    next_state, prob = np.zeros((4, 2, 4), int) + np.arange(4), np.full((4, 2, 4), 0.025)
    for s in range(4):
        prob[s, 0, 0] += 0.9
        prob[s, 1, min(s + 1, 3)] += 0.9
    reward = np.zeros((1, 4, 2, 4))
    reward[0, :, 0], reward[0, 3, 1] = 1.0, 3.0
    seen = np.eye(4, dtype=np.float32)[:, None]
    game = FiniteGame(
        ("player",), (2,), next_state, prob, reward, np.zeros(4, bool), np.full(4, 0.25), 20, seen, seen
    )  # fmt: skip
    return BatchedTabular(game, num_envs)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["iql", "central-q"])
def test_contamination_learns_the_robust_policy(algo, tmp_path):
    """Where it differs from the neutral one, with values near those of robust value iteration."""
    game = patience(1).game
    solved = {delta: discounted(game, BALLS["contamination"](delta), GAMMA_LEARNED, "states") for delta in (0.0, 0.4)}
    assert [found.policy.tolist() for found in solved.values()] == [[1, 1, 1, 1], [0, 0, 1, 1]]
    moves = next_states(game)[0].mean(1)  # of agents that act at random
    visits = np.mean([game.start @ np.linalg.matrix_power(moves, t) for t in range(game.horizon)], axis=0)
    for delta, exact in solved.items():
        config = default_config("tests.test_robust:patience", algo=algo).replace(
            total_timesteps=16_000, num_envs=16, gamma=GAMMA_LEARNED, contamination=delta, exploration=1.0,
            td_lambda=0.0, actor_hidden=(), learning_rate=1e-2, replay_ratio=40.0, target_interval=10,
            time_limit="bootstrap", eval_episodes=0, out=str(tmp_path / f"{algo}{delta}"),
        )  # fmt: skip
        rows = []
        folder = train(config, quiet=True, on_update=lambda step, scalars, rows=rows: rows.append(scalars))
        policy = Policy.load(folder)
        chosen = [int(policy.act(row)[0]) for row in game.obs]
        assert chosen == exact.policy.tolist(), (delta, exact.action_values)
        mean = np.mean([row["value/target_mean"] for row in rows[-5:]])
        assert mean == pytest.approx(visits @ exact.action_values.mean(-1), rel=0.03)
