"""What every environment owes its learner: true final observations, and spaces that hold what agents can do."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rqe_mappo.envs import cliff_walk, gambles, matrix_games, risky_cartpole
from rqe_mappo.envs.contract import Observed, PaddedBox, PaddedDiscrete, action_counts, action_dtype
from rqe_mappo.envs.history import History
from rqe_mappo.envs.tabular import BatchedTabular
from tests import toy


def test_what_truncation_hides_from_the_cart_is_what_a_single_cart_sees():
    config = risky_cartpole.RiskyCartPoleConfig(horizon=7)
    env = risky_cartpole.BatchedRiskyCartPole(config, 1)
    single = risky_cartpole.RiskyCartPoleEnv(horizon=7)
    env.reset(4)
    single.reset(seed=4)
    for index in range(7):
        step, (last, *_) = env.step(np.array([[index % 2]])), single.step(index % 2)
    assert step.truncated.all() and step.obs[0, 0, 5] == 1
    assert np.array_equal(step.final_obs, last[None]) and np.array_equal(step.final_state, last[None])


def test_what_truncation_hides_on_the_cliff_is_what_a_single_game_sees():
    env = cliff_walk.BatchedCliff(cliff_walk.CliffConfig(horizon=5), 1)
    single = cliff_walk.parallel_env(horizon=5)
    env.reset(1)
    single.reset(seed=1)
    for _ in range(5):
        step, (last, *_) = env.step(np.array([[1, 2]])), single.step({"agent_0": 1, "agent_1": 2})
    assert step.truncated.all()
    assert np.array_equal(step.final_obs, np.stack(list(last.values())))
    assert np.array_equal(step.final_state, single.state())


def test_history_extends_final_observations_and_keeps_what_is_available():
    env = History(toy.Choosing(toy.ToyConfig(), 3, Discrete(2), masks=True), 0.9, shown=True)
    seen, cut = env.reset(0), 0
    for _ in range(30):
        assert seen.avail.shape == (3, 3, 2) and not seen.avail.all()
        past, discount, ended = env.past, env.discount, seen.active
        seen = env.step(np.ones((3, 3), np.int64))
        copy, agent = np.nonzero(seen.truncated)
        gained = past + discount[:, None] * ended
        assert seen.final_obs.shape == (len(copy), *env.observation_space.shape)
        assert np.allclose(seen.final_obs[:, 2], gained[copy, agent] / env.unit)
        assert np.allclose(seen.final_obs[:, 3], 0.9 * discount[copy])
        assert np.array_equal(seen.final_obs[:, :2], seen.final_state[:, :2] + 1)
        cut += len(copy)
    assert cut > 3


def test_a_reward_is_common_where_all_possible_payoffs_are_equal():
    def common(payoffs):
        game = matrix_games.matrix_game(matrix_games.MatrixGame("", np.array(payoffs, float), (("a", "b"),) * 2, ""))
        return BatchedTabular(game, 1).common_reward

    table = [[1, 2], [3, 4]]
    assert common([table, table])
    assert not common([table, [[1, 2], [3, 5]]])
    assert not matrix_games.BatchedMatrix(matrix_games.MatrixConfig(), 1).common_reward
    assert not cliff_walk.BatchedCliff(cliff_walk.CliffConfig(), 1).common_reward
    assert gambles.BatchedGamble(gambles.GambleConfig(), 1).common_reward
    assert risky_cartpole.BatchedRiskyCartPole(risky_cartpole.RiskyCartPoleConfig(), 1).common_reward


def test_outcomes_that_never_happen_do_not_count_for_a_common_reward():
    game = gambles.gamble_game(gambles.GambleConfig(win_probability=1.0))
    two = replace(
        game, players=("a", "b"), n_actions=(2, 1), reward=np.concatenate((game.reward, game.reward.clip(min=-1))),
        obs=np.repeat(game.obs, 2, 1), state=np.repeat(game.state, 2, 1),
    )  # fmt: skip
    from rqe_mappo.envs.tabular import exact

    assert exact.common_reward(two)
    assert not exact.common_reward(replace(two, prob=gambles.gamble_game(gambles.GambleConfig()).prob))


def test_padded_spaces_know_each_agents_share_and_survive_pickling():
    padded = pickle.loads(pickle.dumps(PaddedDiscrete([2, 4], start=3)))
    assert padded == Discrete(4, start=3) and padded.counts == (2, 4)
    boxes = [Box(-1, 1, (2,)), Box(np.float32([-3, -1, 0]), np.float32([0.5, 5, np.inf]))]
    wide = pickle.loads(pickle.dumps(PaddedBox(boxes)))
    assert wide.widths == (2, 3) and wide.boxes == tuple(boxes) and wide.shape == (3,)
    assert wide.low.tolist() == [-3, -1, 0] and wide.high.tolist() == [1, 5, np.inf]


def test_counts_are_given_where_they_differ():
    env = toy.Choosing(toy.ToyConfig(), 1, PaddedDiscrete([2, 4, 4]))
    assert action_counts(env) == (2, 4, 4)
    env.action_space = PaddedDiscrete([4, 4, 4])
    assert action_counts(env) is None


@pytest.mark.parametrize(
    ("space", "dtype"),
    [(Discrete(2, start=5), np.int64), (MultiDiscrete([2, 3]), np.int64), (Box(0, 1, (2,), np.float64), np.float32)],
)
def test_actions_have_one_dtype_for_each_kind_of_space(space, dtype):
    assert action_dtype(space) is dtype


def test_available_actions_are_given_by_name_only():
    arrays = [np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32), np.ones((1, 1), bool)]
    assert Observed(*arrays).avail is None
    with pytest.raises(TypeError):
        Observed(*arrays, np.ones((1, 1, 2), bool))
