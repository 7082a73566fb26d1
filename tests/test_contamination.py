"""Contaminated targets of value methods, and what they learn."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rqe_mappo import registry
from rqe_mappo.algorithms.distributional import RiskyChoice
from rqe_mappo.algorithms.off_policy import OffPolicy
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.data.replay import Episodes
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.tabular import BatchedTabular, FiniteGame
from rqe_mappo.equilibrium.robust_iteration import discounted, next_states
from rqe_mappo.functional import q_learning
from rqe_mappo.training.loop import train
from tests.test_off_policy import RIVALS
from tests.test_robust import BALLS

GAMMA_LEARNED = 0.9

OF_MEANS = [name for name in RIVALS if not issubclass(registry.algorithm(name).Config, RiskyChoice)]


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
        config = default_config("tests.test_contamination:patience", algo=algo).replace(
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
