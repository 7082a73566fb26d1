"""Gambles and matrix games: thresholds straight from the definitions of risk, and what they pay."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from rqe_mappo.config import default_config
from rqe_mappo.envs import gambles, matrix_games
from rqe_mappo.envs.gambles import RISKY, SAFE, BatchedGamble, gamble_game
from rqe_mappo.envs.tabular import return_distribution

Distribution = tuple[np.ndarray, np.ndarray]


# Risk of a distribution with few values, straight from the definitions


def entropic(distribution: Distribution, tau: float) -> float:
    return -tau * np.log(np.exp(-distribution[0] / tau) @ distribution[1])


def variance(distribution: Distribution) -> float:
    return (distribution[0] - distribution[0] @ distribution[1]) ** 2 @ distribution[1]


def distorted(distribution: Distribution, distortion) -> float:
    """Sum of z_i (D(F_i) - D(F_{i-1})): the distorted mean, D increasing on [0, 1]."""
    cdf = np.concatenate(([0.0], distribution[1].cumsum().clip(max=1.0)))
    return distribution[0] @ np.diff(distortion(cdf))


def cvar(distribution: Distribution, level: float) -> float:
    return distorted(distribution, lambda u: np.minimum(u / level, 1))


def expectile(distribution: Distribution, level: float) -> float:
    def balance(e):
        return (np.where(distribution[0] > e, level, 1 - level) * (distribution[0] - e)) @ distribution[1]

    return brentq(balance, distribution[0].min() - 1, distribution[0].max() + 1)


MEASURES = {  # with an interval that holds the threshold; the higher end is the more tolerant one where `up`
    "entropic": (entropic, 2, 50),
    "cvar": (cvar, 0.1, 0.999),
    "mean-variance": (lambda distribution, b: distribution[0] @ distribution[1] - b * variance(distribution), 0, 1),
    "mean-std": (lambda distribution, k: distribution[0] @ distribution[1] - k * variance(distribution) ** 0.5, 0, 1),
    "expectile": (expectile, 0.1, 0.5),
    "dual power": (lambda distribution, k: distorted(distribution, lambda u: 1 - (1 - u) ** k), 1, 3),
    "wang": (lambda distribution, shift: distorted(distribution, lambda u: ndtr(ndtri(u) + shift)), 0, 2),
    "gini": (lambda distribution, g: distorted(distribution, lambda u: u + g * u * (1 - u)), 0, 1),
}

GAMBLE_THRESHOLDS = {
    "entropic": 8.8321, "cvar": 6 / 7, "mean-variance": 1 / 18, "mean-std": 1 / 6, "expectile": 5 / 12,
    "dual power": 1.2630, "wang": 0.2104, "gini": 1 / 3,
}  # fmt: skip

CLIFF_THRESHOLDS = {"entropic": 13.29, "cvar": 0.6206, "mean-variance": 0.0482, "mean-std": 0.2494, "expectile": 0.3579}


def distribution_of(scenario: str, *actions: int, gamma: float = 1.0, first: str | None = None) -> Distribution:
    """The return when `actions` are taken at the choices, in the order of the states; from state `first`."""
    game = gamble_game(gambles.SCENARIOS[scenario])
    policy = np.tile([1.0, 0.0], (game.n_states, 1))
    choices = [i for i, name in enumerate(game.state_names) if name.startswith("choice")]
    policy[choices] = np.eye(2)[list(actions)]
    start = None if first is None else np.eye(game.n_states)[game.state_names.index(first)]
    return return_distribution(game, [policy], gamma=gamma, start=start)


def mixed(*distributions: Distribution) -> Distribution:
    """One of the distributions, at even odds."""
    values, probs = (np.concatenate(parts) for parts in zip(*distributions, strict=True))
    order = values.argsort()
    return values[order], probs[order] / len(distributions)


@pytest.mark.parametrize(
    ("scenario", "measure", "threshold"),
    [(scenario, *item) for scenario in ("m1", "m2") for item in GAMBLE_THRESHOLDS.items()]
    + [("m5", *item) for item in CLIFF_THRESHOLDS.items()],
)
def test_thresholds(scenario, measure, threshold):
    value, low, high = MEASURES[measure]
    safe, risky = distribution_of(scenario, SAFE), distribution_of(scenario, RISKY)
    found = brentq(lambda x: value(risky, x) - value(safe, x), low, high)
    assert found == pytest.approx(threshold, rel=5e-4)
    tolerant = high if measure in ("entropic", "cvar", "expectile") else low
    assert value(risky, tolerant) > value(safe, tolerant)


@pytest.mark.parametrize("scenario", ["m1", "m2", "m4"])
def test_the_gamble_itself(scenario):
    values, probs = distribution_of(scenario, RISKY)
    assert values.tolist() == [-2, 4] and probs.tolist() == [0.5, 0.5]
    assert distribution_of(scenario, SAFE)[0].tolist() == [0.5]


def test_mean_and_variance_along_the_cliff():
    short = distribution_of("m5", RISKY)
    assert short[0] @ short[1] == pytest.approx(2.2901, abs=5e-5)
    assert variance(short) == pytest.approx(26.764, abs=5e-4)
    assert distribution_of("m5", SAFE)[0] == pytest.approx(1.0)
    assert gamble_game(gambles.SCENARIOS["m5"]).horizon == 20


def test_static_and_nested_differ_where_the_prize_is_seen():
    static = {
        (low, high): cvar(distribution_of("m3", low, high), 0.5) for low in (SAFE, RISKY) for high in (SAFE, RISKY)
    }
    assert static[SAFE, SAFE] == pytest.approx(1.0)
    assert static[RISKY, SAFE] == static[RISKY, RISKY] == pytest.approx(1.5) == max(static.values())
    for state in ("choice without", "choice with prize"):
        assert cvar(distribution_of("m3", SAFE, SAFE, first=state), 0.5) == pytest.approx(1.0)
        assert cvar(distribution_of("m3", RISKY, RISKY, first=state), 0.5) == pytest.approx(-1.0)


def test_memory_pays_where_the_prize_is_hidden():
    def with_prize(prize, action):
        values, probs = distribution_of("m3b", action, first="choice")
        return values + prize, probs

    remembering = {(low, high): mixed(with_prize(0, low), with_prize(6, high)) for low in (0, 1) for high in (0, 1)}
    for action in (SAFE, RISKY):
        np.testing.assert_allclose(remembering[action, action][0], distribution_of("m3b", action)[0])
    values = {actions: cvar(distribution, 0.5) for actions, distribution in remembering.items()}
    assert values == pytest.approx({(SAFE, SAFE): 1, (SAFE, RISKY): 1, (RISKY, SAFE): 2, (RISKY, RISKY): 0})
    averse = {actions: entropic(distribution, 3.0) for actions, distribution in remembering.items()}
    assert averse[SAFE, SAFE] == pytest.approx(2.699, abs=5e-4) == max(averse.values())


def test_discounting_halves_the_static_threshold():
    def threshold(**view):
        return brentq(
            lambda tau: (
                entropic(distribution_of("m4", RISKY, **view), tau) - entropic(distribution_of("m4", SAFE, **view), tau)
            ),
            2,
            50,
        )

    assert threshold(gamma=0.5) == pytest.approx(4.416, abs=1e-3)
    assert threshold(first="choice") == pytest.approx(8.832, abs=1e-3)
    assert default_config("gamble", "m4").gamma == 0.5


@pytest.mark.parametrize("scenario", list(gambles.SCENARIOS))
def test_gambles_never_meet_their_horizon(scenario):
    env = BatchedGamble(gambles.SCENARIOS[scenario], 64)
    assert env.time_in_observation
    env.reset(0)
    rng = np.random.default_rng(0)
    for _ in range(3 * env.horizon):
        assert not env.step(rng.integers(0, 2, (64, 1))).truncated.any()


def test_gambling_is_recorded_for_each_prize():
    for scenario, prize in (("m3", 10), ("m3b", 6)):
        env = BatchedGamble(gambles.SCENARIOS[scenario], 4000)
        env.reset(0)
        first = env.step(np.ones((4000, 1), int))  # before the choice, so this is no gambling
        risky = (first.reward == 0) & (np.random.default_rng(0).random((4000, 1)) < 0.25)
        episodes = env.step(risky.astype(int)).episodes
        np.testing.assert_array_equal(episodes["gambled"], risky)
        np.testing.assert_array_equal(episodes["banked"], first.reward)
        assert episodes["gambled"].dtype == bool
        assert set(np.unique(episodes["banked"])) == {0, prize}


def test_hidden_prize_shows_nowhere():
    env = BatchedGamble(gambles.SCENARIOS["m3b"], 100)
    env.reset(0)
    step = env.step(np.zeros((100, 1), int))
    assert len(np.unique(step.reward)) == 2
    assert len(np.unique(step.obs, axis=0)) == len(np.unique(step.state, axis=0)) == 1
    shown = BatchedGamble(gambles.SCENARIOS["m3"], 100)
    shown.reset(0)
    assert len(np.unique(shown.step(np.zeros((100, 1), int)).obs, axis=0)) == 2


# Matrix games


@pytest.mark.parametrize("scenario", list(matrix_games.GAMES))
def test_matrix_games_pay_what_the_table_says(scenario):
    config = matrix_games.SCENARIOS[scenario]
    payoffs = matrix_games.GAMES[config.game].payoffs
    actions = np.indices(payoffs.shape[1:]).reshape(2, -1).T
    env = matrix_games.BatchedMatrix(config, len(actions))
    env.reset(0)
    step = env.step(actions)
    np.testing.assert_allclose(step.reward, payoffs[:, actions[:, 0], actions[:, 1]].T, rtol=1e-6)
    np.testing.assert_array_equal(step.episodes["action"], actions)
    assert step.terminated.all() and (step.obs == 1).all() and (step.state == 1).all()
    assert env.time_in_observation
    assert env.reward_bounds == env.return_bounds == (payoffs.min(), payoffs.max())


def test_matrix_games_may_have_any_shape():
    payoffs = np.arange(36.0).reshape(3, 2, 3, 2)
    game = matrix_games.matrix_game(matrix_games.MatrixGame("odd", payoffs, (("a", "b"),) * 3, "none"))
    assert game.n_actions == (2, 3, 2) and game.players == ("player_0", "player_1", "player_2")
    assert game.reward[2, 0, game.joint(np.array([1, 2, 0])), 0] == payoffs[2, 1, 2, 0]
