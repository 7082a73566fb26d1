"""rqe-eval --sweep: the finished runs of a sweep evaluated in another way, and the sweep left as it was."""

import json
from pathlib import Path

import pytest

from rqe_mappo import cli
from rqe_mappo.sweeps import evaluation, tables
from tests.test_bad_input import complaint
from tests.test_sweeps import TINY, command


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A sweep of one run, and the folder of its evaluation by the most probable actions."""
    place = tmp_path_factory.mktemp("again")
    args = ["tau", "--env", "cartpole", "--taus", "1", "--seeds", "1", "--episodes", "100"]
    assert command(*args, "--jobs", "1", "--out", str(place / "sweep"), *TINY) == 0
    cli.evaluate(asked(place / "sweep", place / "likeliest"))
    return place / "sweep", place / "likeliest"


def asked(sweep: Path, out: Path, *more: str) -> list[str]:
    return ["--sweep", str(sweep), "--deterministic", "--episodes", "100", "--jobs", "1", "--out", str(out), *more]


def evaluated(folder: Path) -> dict:
    return json.loads((folder / "runs/tau1__s1/eval.json").read_text())


@pytest.mark.slow
def test_a_sweep_is_evaluated_by_its_most_probable_actions_and_keeps_its_own_evaluations(folders):
    sweep, out = folders
    drawn, likeliest = evaluated(sweep), evaluated(out)
    assert not drawn["deterministic"] and likeliest["deterministic"]
    assert drawn["seed"] == likeliest["seed"] == 2 and drawn["timesteps"] == likeliest["timesteps"]
    (before,), (after,) = tables.read(sweep / "results.csv"), tables.read(out / "results.csv")
    assert before["mean return (agent)"] != after["mean return (agent)"]
    assert {key: before[key] for key in ("run", "tau", "eps", "timesteps")} == {
        key: after[key] for key in ("run", "tau", "eps", "timesteps")
    }
    assert "--deterministic" in (out / "report.html").read_text()


@pytest.mark.slow
def test_what_is_there_is_not_evaluated_again(folders, monkeypatch):
    sweep, out = folders
    monkeypatch.setattr(evaluation, "_evaluate", None)
    cli.evaluate(asked(sweep, out))
    with pytest.raises(TypeError):  # another folder: now it would be
        cli.evaluate(asked(sweep, out.with_name("other")))


@pytest.mark.slow
def test_a_folder_holds_one_evaluation_of_one_sweep(folders, capsys):
    sweep, out = folders
    again = complaint(capsys, cli.evaluate, *asked(sweep, out, "--episodes", "200"))
    assert "--out" in again and "choose another folder" in again
    assert "--out" in complaint(capsys, cli.evaluate, *asked(sweep, sweep))


def test_a_sweep_without_finished_runs_has_nothing_to_evaluate(tmp_path, capsys):
    assert "manifest.json" in complaint(capsys, cli.evaluate, *asked(tmp_path, tmp_path / "out"))


def test_an_evaluation_of_no_policy_goes_to_no_folder(tmp_path, capsys):
    said = complaint(capsys, cli.evaluate, "cartpole", "--driver", "random", "--out", str(tmp_path))
    assert "--out" in said and "--driver" in said
