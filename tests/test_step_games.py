"""The two-step and the m-step game: optimal and easy play by exact dynamic programming, and each rule by hand."""

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from rqe_mappo.envs import step_games
from rqe_mappo.envs.step_games import BatchedStepGame, MStepConfig, TwoStepConfig, step_game
from rqe_mappo.envs.tabular import FiniteGame, exact, return_bounds, return_distribution


def optimum(game: FiniteGame) -> float:
    """The best return from the start, by backward induction over joint actions."""
    value = np.zeros(game.n_states)
    for _ in range(game.horizon):
        of_joint = (game.prob * (game.reward[0] + value[game.next_state])).sum(-1)
        value = np.where(game.terminal, 0.0, of_joint.max(-1))
    return float(value @ game.start)


def fixed(game: FiniteGame, plan: list[tuple[int, int]]) -> float:
    """The return of a plan, a joint action a step."""
    policies = [np.eye(2)[[actions[i] for actions in plan]][:, None].repeat(game.n_states, 1) for i in range(2)]
    values, probs = return_distribution(game, policies)
    assert probs.tolist() == [1.0]
    return float(values[0])


def test_the_best_of_the_two_step_game_is_8_and_the_sure_branch_pays_7():
    game = step_game(TwoStepConfig())
    assert optimum(game) == 8 == return_bounds(game)[0, 1]
    assert [fixed(game, [(1, 0), last]) for last in ((0, 0), (0, 1), (1, 0), (1, 1))] == [0, 1, 1, 8]
    assert [fixed(game, [(0, 1), last]) for last in ((0, 0), (0, 1), (1, 0), (1, 1))] == [7] * 4
    assert optimum(step_game(TwoStepConfig(sure=8.5))) == 8.5


def test_the_best_sum_of_utilities_prefers_the_sure_branch():
    """Least squares of Q_1(a) + Q_2(b) to 0, 1 / 1, 8: its best, 6.5, is below the sure 7."""
    table = np.array([[0.0, 1.0], [1.0, 8.0]])
    fit = table.mean(1)[:, None] + table.mean(0) - table.mean()
    assert fit.tolist() == [[-1.5, 2.5], [2.5, 6.5]]


@pytest.mark.parametrize("good_branches", [2, 4])
@pytest.mark.parametrize("steps", [2, 5, 10])
def test_the_best_of_the_m_step_game_is_m_plus_3_and_the_easy_play_m(steps, good_branches):
    game = step_game(MStepConfig(steps=steps, good_branches=good_branches))
    assert optimum(game) == steps + 3 == return_bounds(game)[0, 1]
    assert fixed(game, [(0, 0)] * (steps - 1) + [(1, 1)]) == steps + 3
    assert fixed(game, [(0, 0)] * steps) == fixed(game, [(1, 1)] * steps) == steps
    mixed = [(0, 1)] * steps
    assert fixed(game, mixed) == (steps if good_branches == 4 else 0)


def test_with_ten_steps_that_is_13_and_10():
    game = step_game(step_games.SCENARIOS["m-step"])
    assert optimum(game) == 13 and fixed(game, [(1, 1)] * 10) == 10


def test_leaving_the_branch_pays_nothing_and_ends_the_game():
    env = BatchedStepGame(MStepConfig(steps=4), 2)
    env.reset(0)
    both = np.array([[1, 1], [0, 1]])
    step = env.step(both)  # a branch that pays, and one that does not
    assert step.reward[:, 0].tolist() == [1, 0] and step.terminated[:, 0].tolist() == [False, True]
    step = env.step(np.array([[1, 0], [0, 0]]))
    assert step.reward[:, 0].tolist() == [0, 1] and step.terminated[:, 0].tolist() == [True, False]
    assert step.episodes["return"].tolist() == [[1, 1]] and step.episodes["length"].tolist() == [[2, 2]]


def test_the_bonus_is_paid_on_branch_00_in_the_last_step_alone():
    game = step_game(MStepConfig(steps=3))
    last = game.state_names.index("branch 00, step 2")
    assert game.reward[0, last, :, 0].tolist() == [1, 1, 1, 4]
    assert (game.reward == 4).sum() == 2  # once for each agent
    assert np.flatnonzero(game.obs[last, 0]).tolist() == [2, 3]
    assert np.flatnonzero(game.obs[0, 0]).tolist() == [0]


@pytest.mark.parametrize("scenario", list(step_games.SCENARIOS))
def test_both_are_paid_the_same_and_no_time_limit_is_met(scenario):
    config = step_games.SCENARIOS[scenario]
    env = BatchedStepGame(config, 3)
    assert env.common_reward and env.time_in_observation and not exact.horizon_binds(env.game)
    assert env.reward_step == 1.0
    seen = env.reset(0)
    assert np.array_equal(seen.obs, seen.state) and np.array_equal(seen.obs[:, 0], seen.obs[:, 1])
    parallel_api_test(step_games.parallel_env(scenario), num_cycles=100)


@pytest.mark.parametrize(
    ("build", "name", "value"),
    [(TwoStepConfig, "sure", float("inf")), (MStepConfig, "steps", 1), (MStepConfig, "steps", 1001),
     (MStepConfig, "steps", 2.5), (MStepConfig, "good_branches", 3)],
)  # fmt: skip
def test_bad_settings_are_named_in_one_line(build, name, value):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} must [^\n]* \\(got {value}\\)$"):
        build(**{name: value})
