"""The console script rqe-solve: what it prints, and that bad input ends in one line."""

import json

import numpy as np
import pytest

from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium.cli import main


def printed(capsys, *args: str) -> str:
    main(list(args))
    return capsys.readouterr().out


def test_stag_hunt_lists_every_equilibrium(capsys):
    out = printed(capsys, "stag-hunt", "--tau", "5", "--eps", "0.25")
    assert "equilibrium 3 of 3" in out and "stag 0.9648  hare 0.0352" in out and "stag 0.9121" in out
    assert "action form, kl penalty, entropy regulariser" in out and "not covered" in out
    assert "of 3" not in printed(capsys, "stag-hunt", "--tau", "5", "--eps", "0.25", "--no-all")


def test_human_games_take_the_fitted_parameters(capsys):
    out = printed(capsys, "sc1")
    assert "as fitted by" in out and "U 0.0810" in out and "L 0.6920" in out and "the only equilibrium" in out
    assert "tau 10, 0.01; eps 0.21, 0.555; aggregate form, kl penalty, log-barrier" in out and "is covered" in out
    assert "U 0.0969" in printed(capsys, "sc1", "--penalty", "reverse-kl")
    assert "as fitted by" not in printed(capsys, "sc1", "--tau", "1", "--eps", "1")


def test_json(capsys):
    content = json.loads(printed(capsys, "free-rider", "--tau", "0.5,inf", "--eps", "0.2", "--json"))
    assert content["tau"] == [0.5, "inf"] and content["eps"] == [0.2, 0.2] and content["complete"]
    for equilibrium in content["equilibria"]:
        assert equilibrium["converged"] and equilibrium["residual"] < 1e-10
        assert sum(equilibrium["strategies"][0].values()) == pytest.approx(1)


def test_the_residual_is_said_of_what_is_printed(capsys):
    """Probabilities that underflow to 0 may still decide: the residual of their logarithms is not theirs."""
    line = "theirs is 1.0e+00"
    averse = ("ghp4", "--tau", "0.1", "--eps", "0.01")
    assert line in printed(capsys, *averse) and line in printed(capsys, *averse, "--no-all")
    (found,) = json.loads(printed(capsys, *averse, "--json"))["equilibria"]
    assert found["residual"] < 1e-12 and found["strategies_residual"] == 1.0 and found["converged"]
    assert found["strategies"][0]["U"] == 0.0 and found["log_strategies"][0]["U"] == pytest.approx(-1693.07, abs=0.01)
    assert "theirs is" not in printed(capsys, "stag-hunt", "--tau", "0.1", "--eps", "0.01")


def test_list_names_every_game(capsys):
    assert [line.split()[0] for line in printed(capsys, "--list").splitlines()] == list(GAMES)


def test_a_game_from_a_file(capsys, tmp_path):
    file = tmp_path / "trio.json"
    payoffs = np.random.default_rng(0).normal(size=(3, 2, 2, 3)).tolist()
    file.write_text(json.dumps({"payoffs": payoffs, "actions": [["a", "b"], ["c", "d"], ["x", "y", "z"]]}))
    out = printed(capsys, str(file), "--tau", "1,2,3", "--eps", "0.5", "--form", "aggregate", "--penalty", "reverse-kl")
    assert "player 3:  x 0." in out and "one equilibrium; there may be others" in out and "3 players" in out
    file.write_text(json.dumps({"payoffs": payoffs}))
    assert "player 3:  1 0." in printed(capsys, str(file), "--tau", "1", "--eps", "0.5")


def test_what_does_not_converge_exits_with_1(capsys, monkeypatch):
    monkeypatch.setattr("rqe_mappo.equilibrium.solver.TOLERANCE", -1.0)
    monkeypatch.setattr("rqe_mappo.equilibrium.two_by_two.TOLERANCE", -1.0)
    with pytest.raises(SystemExit) as stop:
        main(["stag-hunt", "--tau", "5", "--eps", "0.25"])
    assert stop.value.code == 1 and "NOT CONVERGED" in capsys.readouterr().out


GIVEN = ("--tau", "1", "--eps", "1")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "name a game"),
        (("nope", *GIVEN), "unknown game 'nope'"),
        (("none.json", *GIVEN), "no such file: none.json"),
        (("stag-hunt",), "--tau and --eps must be given"),
        (("stag-hunt", "--tau", "1"), "--eps must be given"),
        (("sc1", "--tau", "1"), "both, or neither"),
        (("sc1", "--penalty", "kl", "--regulariser", "entropy"), "fitted parameters exist for"),
        (("stag-hunt", "--tau", "0", "--eps", "1"), "--tau must be > 0 (got 0); use inf"),
        (("stag-hunt", "--tau", "-1", "--eps", "1"), "--tau must be > 0"),
        (("stag-hunt", "--tau", "nan", "--eps", "1"), "--tau must be > 0 (got nan)"),
        (("stag-hunt", "--tau", "1e-308", "--eps", "1"), "--tau must lie within 1e-75 and 1e+75, or be inf"),
        (("stag-hunt", "--tau", "1", "--eps", "1e100"), "--eps must lie within 1e-75 and 1e+75 (got 1e+100)"),
        (("stag-hunt", "--tau", "1", "--eps", "0"), "--eps must be > 0"),
        (("stag-hunt", "--tau", "1", "--eps", "inf"), "--eps must be > 0 and finite"),
        (("stag-hunt", "--tau", "1", "--eps", "1e-15"), "--eps must be at least"),
        (("stag-hunt", "--tau", "1,2,3", "--eps", "1"), "--tau takes 1 number or 2"),
        (("stag-hunt", "--tau", "1", "--eps", "1,x"), "--eps must be numbers"),
        (("stag-hunt", *GIVEN, "--form", "both"), "--form"),
        (("stag-hunt", *GIVEN, "--penalty", "tv"), "--penalty"),
        (("stag-hunt", *GIVEN, "--frob"), "--frob"),
    ],
)
def test_bad_arguments_end_in_one_line(capsys, args, words):
    assert words in complaint(capsys, *args)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", 'must be an object with "payoffs"'),
        ('{"payoffs": [[[1, 2], [3]], [[1, 2], [3, 4]]]}', "equal lengths"),
        ('{"payoffs": [[["a", 2], [3, 4]], [[1, 2], [3, 4]]]}', "payoffs must be numbers"),
        ('{"payoffs": [[[NaN, 2], [3, 4]], [[1, 2], [3, 4]]]}', "finite"),
        ('{"payoffs": [[1, 2], [3, 4]]}', "payoffs must be [n, A_1, ..., A_n]"),
        ('{"payoffs": []}', "payoffs must be [n, A_1, ..., A_n]"),
        ('{"payoffs": null}', "payoffs must be"),
        (
            '{"payoffs": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]], "actions": [["a"], ["b", "c"]]}',
            "actions must name [2, 2]",
        ),
        ('{"payoffs": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]], "actions": 3}', "actions must name [2, 2]"),
        ('{"payoffs": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]], "actions": [["a", "a"], ["b", "c"]]}', "different names"),
    ],
)
def test_bad_files_end_in_one_line(capsys, tmp_path, text, words):
    file = tmp_path / "game.json"
    file.write_text(text)
    error = complaint(capsys, str(file), *GIVEN)
    assert words in error and "game.json" in error


def complaint(capsys, *args: str) -> str:
    """The one line that the command says, and its exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error
