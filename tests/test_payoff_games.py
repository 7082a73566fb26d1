"""Games of common payoffs and games from files: exact answers, settings that hold payoffs, bad files in one line."""

import json
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test
from scipy.optimize import brentq, minimize

from rqe_mappo import cli
from rqe_mappo.config import ConfigError, default_config, from_json, to_json
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs import matrix_games
from rqe_mappo.envs.contract import action_counts
from rqe_mappo.envs.matrix_games import GAMES, SCENARIOS, BatchedMatrix, MatrixConfig, PayoffTable, matrix_game
from rqe_mappo.envs.matrix_games.table import LARGEST_FILE, MOST_PAYOFFS
from rqe_mappo.envs.tabular import return_distribution
from rqe_mappo.equilibrium import solve_markov
from rqe_mappo.training.loop import train
from tests.test_bad_input import complaint

SAFE, RISKY = 0, 1
ENTROPIC = 27.0787  # the tolerance above which risky is the better one
UNEQUAL = {"payoffs": [[[1, 2, 3], [4, 5, 6]], [[1, 0, 1], [0, 1, 0]]], "actions": [["a", "b"], ["x", "y", "z"]]}


@pytest.fixture
def file(tmp_path):
    """A game of 2 and 3 actions."""
    path = tmp_path / "game.json"
    path.write_text(json.dumps(UNEQUAL))
    return path


# Common payoffs


@pytest.mark.parametrize(
    ("name", "fitted"),
    [("penalty-2x2", (0, -4, -8)), ("penalty-3x3", (-6.22, -4.89, -3.56)), ("penalty-3x3-hard", (-7.56, -4.22, -0.89))],
)
def test_the_best_sum_of_utilities_under_uniform_play_is_as_documented(name, fitted):
    """Least squares of Q_1(a) + Q_2(b): in the corner, beside it, and elsewhere."""
    table = GAMES[name].payoffs[0]
    rows, columns = np.indices(table.shape).reshape(2, -1)
    design = np.concatenate((np.eye(len(table))[rows], np.eye(len(table))[columns]), axis=1)
    fit = (design @ np.linalg.lstsq(design, table.ravel(), rcond=None)[0]).reshape(table.shape)
    assert (fit[0, 0], fit[0, 1], fit[1, 1]) == pytest.approx(fitted, abs=5e-3)


@pytest.mark.parametrize(
    ("name", "error", "corner", "second"),
    [("penalty-2x2", 96, 8, -8), ("penalty-3x3", 288, 8, -6), ("penalty-3x3-hard", 344, -8, 6)],
)
def test_the_best_monotone_table_under_uniform_play_is_as_documented(name, error, corner, second):
    """Least squares over tables that rise along some order of each player's actions, in each such order."""
    table, fits = GAMES[name].payoffs[0], []
    rises = [
        {"type": "ineq", "fun": lambda fit, axis=axis: np.diff(fit.reshape(table.shape), axis=axis).ravel()}
        for axis in (0, 1)
    ]
    orders = list(permutations(range(len(table))))
    for place in (np.ix_(rows, columns) for rows, columns in product(orders, orders)):
        target = table[place].ravel()
        found = minimize(
            lambda fit, target=target: ((fit - target) ** 2).sum(), 0 * target, constraints=rises, method="SLSQP"
        )
        fit = np.empty_like(table)
        fit[place] = found.x.reshape(table.shape)
        fits.append((found.fun, fit))
    least, fit = min(fits, key=lambda pair: pair[0])
    assert least == pytest.approx(error, abs=1e-3)
    assert fit[0, 0] == pytest.approx(corner, abs=1e-2) and fit[1:, 1:].max() == pytest.approx(second, abs=1e-2)


def test_both_are_paid_the_same_and_the_optimum_is_8():
    for name in ("penalty-2x2", "penalty-3x3", "penalty-3x3-hard"):
        env = BatchedMatrix(SCENARIOS[name], 1)
        assert env.common_reward and env.return_bounds == (-12.0, 8.0)
        assert GAMES[name].payoffs[0, 0, 0] == 8 and (GAMES[name].payoffs[0] == GAMES[name].payoffs[1]).all()
        assert (GAMES[name].payoffs[0] == GAMES[name].payoffs[0].T).all()


def both(action: int) -> tuple[np.ndarray, np.ndarray]:
    """The return of risky-safe when both take an action."""
    return return_distribution(matrix_game(matrix_games.RANDOM_GAMES["risky-safe"]), [np.eye(2)[[action] * 2]] * 2)


def test_risky_pays_more_on_average_and_safe_pays_surely():
    values, probs = both(RISKY)
    assert values.tolist() == [-20, 10] and probs == pytest.approx([0.1, 0.9])
    assert values @ probs == pytest.approx(7) and (values - 7) ** 2 @ probs == pytest.approx(81)
    assert both(SAFE)[0].tolist() == [5]
    assert matrix_games.RANDOM_GAMES["risky-safe"].payoffs[0] == pytest.approx(np.array([[5, 0], [0, 7]]))


def test_where_the_averse_turn_to_the_safe_action():
    values, probs = both(RISKY)
    entropic = brentq(lambda tau: -tau * np.log(np.exp(-values / tau) @ probs) - 5, 5, 100)
    cvar = brentq(lambda level: (-20 * 0.1 + 10 * (level - 0.1)) / level - 5, 0.2, 0.99)
    assert entropic == pytest.approx(ENTROPIC, abs=5e-4) and cvar == pytest.approx(0.6)
    game = matrix_game(matrix_games.RANDOM_GAMES["risky-safe"])
    for tau, risky in ((0.98 * ENTROPIC, False), (1.02 * ENTROPIC, True)):
        stage = [
            float(-tau * np.log(np.exp(-game.reward[0, 0, joint] / tau) @ game.prob[0, joint])) for joint in (0, 3)
        ]
        assert (stage[1] > stage[0]) == risky
    assert solve_markov(game, 2.0, 0.05).policies[0][0, 0, SAFE] > 0.9


def test_drawn_payoffs_have_the_frequencies_of_the_table():
    env = BatchedMatrix(SCENARIOS["risky-safe"], 20_000)
    env.reset(0)
    step = env.step(np.ones((20_000, 2), np.int64))
    assert env.common_reward and (step.reward[:, 0] == step.reward[:, 1]).all()
    assert (step.reward[:, 0] == -20).mean() == pytest.approx(0.1, abs=0.01)
    assert set(np.unique(step.reward)) == {-20, 10} and env.return_bounds == (-20, 10) and env.reward_step == 5


# From a file


def test_a_file_is_played_as_it_stands(file):
    config = MatrixConfig(payoffs=PayoffTable.from_file(str(file)))
    env = BatchedMatrix(config, 6)
    env.reset(0)
    actions = np.indices((2, 3)).reshape(2, -1).T
    step = env.step(actions)
    np.testing.assert_array_equal(step.reward.T.reshape(2, 2, 3), UNEQUAL["payoffs"])
    assert action_counts(env) == (2, 3) and not env.common_reward
    single = matrix_games.parallel_env(payoffs=config.payoffs)
    assert single.matrix.actions == (("a", "b"), ("x", "y", "z"))
    parallel_api_test(single, num_cycles=20)


def test_settings_hold_the_payoffs_and_not_the_file(file):
    config = default_config("matrix").replace(payoffs=PayoffTable.from_file(str(file)))
    text = to_json(config)
    assert str(file) not in text and "game.json" not in text
    file.unlink()
    assert from_json(text) == config
    held = json.loads(text)["env_config"]["payoffs"]
    assert held["sizes"] == [2, 3] and held["values"] == np.array(UNEQUAL["payoffs"]).ravel().tolist()


@pytest.mark.slow
def test_a_run_goes_on_without_its_file(file, tmp_path):
    config = default_config("matrix").replace(
        payoffs=PayoffTable.from_file(str(file)),
        num_envs=4,
        total_timesteps=64,
        eval_episodes=0,
        out=str(tmp_path / "r"),
    )
    folder = train(config, quiet=True)
    file.unlink()
    cli.train(["--resume", str(folder), "--total-timesteps", "128"])
    policy = Policy.load(folder)
    assert policy.timesteps == 128 and policy.probabilities(np.ones((2, 1), np.float32))[0, 2] == 0


def test_a_path_in_settings_reads_no_file(file):
    text = to_json(default_config("matrix")).replace('"payoffs": null', f'"payoffs": {json.dumps(str(file))}')
    with pytest.raises(ConfigError, match=r"env_config.payoffs must be an object"):
        from_json(text)
    with pytest.raises(ValueError, match=r"^--payoffs must be a PayoffTable: use PayoffTable.from_file \(got "):
        MatrixConfig(payoffs=str(file))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"sizes": [2, 3], "values": [0.0] * 11}, "payoffs must be 12 numbers (got 11)"),
        ({"sizes": [10**9, 10**9], "values": [0.0]}, f"payoffs must be at most {MOST_PAYOFFS} numbers"),
        ({"sizes": [], "values": []}, "of 1 to 16 players (got 0)"),
        ({"sizes": [1] * 17, "values": [0.0] * 17}, "of 1 to 16 players (got 17)"),
        ({"sizes": [2, 0], "values": []}, "every player needs an action"),
        ({"sizes": [1, 1], "values": ["inf", 0]}, "must be finite"),
        ({"sizes": [1, 1], "values": [1e16, 0]}, "lie within -1e+15 and 1e+15"),
        ({"sizes": [1, 1], "values": [0, 0], "actions": [["a"]]}, "actions must name [1, 1]"),
        ({"sizes": [1, 1], "values": [0, 0], "file": "/etc/passwd"}, "does not know: 'file'"),
    ],
)
def test_settings_of_a_stranger_are_refused_before_memory_is_taken(table, words):
    text = to_json(default_config("matrix")).replace('"payoffs": null', f'"payoffs": {json.dumps(table)}')
    with pytest.raises(ConfigError) as error:
        from_json(text)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not valid JSON"),
        ("[1]", 'must be an object with "payoffs"'),
        ('{"payoffs": [[[1, 2], [3]], [[1, 2], [3, 4]]]}', "equal lengths"),
        ('{"payoffs": [[[Infinity]], [[1]]]}', "finite"),
        ('{"payoffs": [[1e300], [1]]}', "must be [n, A_1, ..., A_n]"),
        ('{"payoffs": ' + "[" * 5000 + "]" * 5000 + "}", "game.json: "),
        (" " * LARGEST_FILE + "{}", "at most 4 MB"),
        (json.dumps({"payoffs": np.zeros((2, 300, 300)).tolist()}), f"at most {MOST_PAYOFFS} numbers (got 180000)"),
    ],
)
def test_bad_files_end_in_one_line(file, capsys, content, words):
    file.write_text(content)
    said = complaint(capsys, cli.train, "--env", "matrix", "--payoffs", str(file))
    assert "--payoffs" in said and "game.json" in said and words in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--payoffs", "none.json"], "--payoffs: no such file: none.json"),
        (["--payoffs", "/dev/zero"], "/dev/zero is no file"),
        (["--payoffs"], "--payoffs"),
        (["--scenario", "sc1", "--payoffs", "FILE"], "leave --game and --scenario out (got sc1)"),
        (["--env", "cliff", "--payoffs", "FILE"], "--payoffs"),
    ],
)
def test_bad_flags_end_in_one_line(file, capsys, args, words):
    given = [str(file) if word == "FILE" else word for word in args]
    assert words in complaint(capsys, cli.train, *([] if "--env" in args else ["--env", "matrix"]), *given)


def test_settings_with_other_payoffs_are_other_settings(file):
    one = PayoffTable.from_file(str(file))
    other = replace(one, values=(*one.values[:-1], 9.0))
    assert hash(one) != hash(other) and MatrixConfig(payoffs=one) != MatrixConfig(payoffs=other)
