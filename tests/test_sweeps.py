"""Sweeps: what is run, how they survive, and that their tables and plots stand by themselves."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rqe_mappo.sweeps import cli, grid, manifest, page, plots, tables
from rqe_mappo.sweeps.backends import Local, Ray, Slurm
from rqe_mappo.sweeps.job import Job, Outcome, begin_attempt, end_attempt, finished, run, steps_done, train_seconds
from rqe_mappo.sweeps.metrics import BY_COLUMN, METRICS
from rqe_mappo.sweeps.sweep import Progress, make_plan
from rqe_mappo.training.lock import hold
from tests.test_bad_input import complaint

TINY = ["--num-envs", "4", "--num-steps", "16", "--n-atoms", "11", "--total-timesteps", "256"]
SMALL = ["--num-envs", "16", "--num-steps", "32", "--n-atoms", "11", "--save-interval", "1",
         "--total-timesteps", "16000"]  # fmt: skip


def command(*args: str) -> int:
    """rqe-sweep in this process; gives its exit code."""
    try:
        cli.sweep(list(args))
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, int]:
    """A sweep of two runs, of which the first fails, and its exit code."""
    folder = tmp_path_factory.mktemp("sweep") / "out"
    args = ["grid", "--env", "cartpole", "--grid", "device=toaster,cpu", "--seeds", "1", "--episodes", "100"]
    return folder, command(*args, "--jobs", "2", "--out", str(folder), *TINY)


# What is run


def jobs_of(*args: str) -> list[Job]:
    return make_plan(list(args))[0].jobs


def test_a_sweep_is_settings_times_seeds_seed_by_seed(tmp_path):
    jobs = jobs_of("tau", "--env", "cartpole", "--taus", "inf,.3,0.30,2", "--seeds", "2", "--out", str(tmp_path))
    assert [job.name for job in jobs] == [
        "tau0.3__s1", "tau2__s1", "tauinf__s1", "tau0.3__s2", "tau2__s2", "tauinf__s2",
    ]  # fmt: skip
    assert jobs[0].folder == str(tmp_path / "runs" / "tau0.3__s1")
    assert jobs == jobs_of("tau", "--env", "cartpole", "--taus", "0.3,2,inf", "--seeds", "2", "--out", str(tmp_path))


def test_tau_goes_from_averse_to_neutral_by_default():
    jobs = jobs_of("tau", "--env", "cartpole", "--seeds", "1", "--first-seed", "4")
    assert [job.label for job in jobs] == ["tau 0.3", "tau 0.5", "tau 1", "tau 2", "tau 10", "tau inf"]
    assert {job.seed for job in jobs} == {4}
    assert jobs[0].episodes == 1000


def test_ablation_takes_risk_and_rationality_away():
    flags = {s.label: dict(s.flags) for s in grid.ablation("0.3", "0.02")}
    assert flags == {
        "both": {"tau": "0.3", "eps": "0.02"},
        "risk only": {"tau": "0.3", "eps": "0"},
        "rationality only": {"tau": "inf", "eps": "0.02"},
        "neither": {"tau": "inf", "eps": "0"},
    }
    jobs = jobs_of("ablation", "--env", "cartpole", "--tau", ".3", "--seeds", "1")
    assert [job.name for job in jobs] == ["both__s1", "risk-only__s1", "rationality-only__s1", "neither__s1"]


def test_compare_takes_algorithms_with_flags_of_their_own():
    settings = grid.compare(["rqe-mappo --tau .3", "rqe-mappo --tau inf", "mappo"])
    assert [s.label for s in settings] == ["rqe-mappo tau 0.3", "rqe-mappo tau inf", "mappo"]
    assert [(s.family, s.point) for s in settings] == [
        ("rqe-mappo", "tau 0.3"),
        ("rqe-mappo", "tau inf"),
        ("mappo", ""),
    ]
    assert dict(settings[0].flags) == {"algo": "rqe-mappo", "tau": "0.3"}
    (switched,) = grid.compare(["qmix --recurrent --gru-size=32 --no-double-q"])
    assert switched.label == "qmix recurrent gru-size 32 no-double-q"
    assert switched.args == ["--algo", "qmix", "--recurrent", "--gru-size", "32", "--no-double-q"]
    assert {"rqe-mappo", "mappo"} <= {s.label for s in grid.compare([])}


def test_grid_is_a_product_and_semicolons_part_values_with_commas():
    settings = grid.grid(["tau=0.3,1", "risk=entropic,cvar:0.1"], "rqe-mappo")
    assert [s.slug for s in settings] == [
        "tau0.3__riskentropic", "tau0.3__riskcvar0.1", "tau1__riskentropic", "tau1__riskcvar0.1",
    ]  # fmt: skip
    assert (settings[1].family, settings[1].point) == ("risk cvar:0.1", "tau 0.3")
    assert [s.label for s in grid.grid(["tau=0.3,inf;1"], "rqe-mappo")] == ["tau 0.3,inf", "tau 1"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["tau", "--taus", "0.3,abc"], ["--tau", "abc"]),
        (["tau", "--taus", "0.3,-1"], ["--tau", "must be > 0"]),
        (["tau", "--taus", ""], ["--taus names no value", "0.3,1,inf"]),
        (["tau", "--tau", "0.3"], ["--tau is what this sweep varies", "--taus"]),
        (["tau", "--seed", "3"], ["--seed", "--seeds"]),
        (["tau", "--seeds", "0"], ["--seeds must be at least 1"]),
        (["tau", "--seeds", "many"], ["--seeds", "many"]),
        (["tau", "--jobs", "0"], ["--jobs must be at least 1"]),
        (["tau", "--env", "chess"], ["--env chess", "cartpole"]),
        (["tau", "--scenario", "moon"], ["--scenario moon", "default"]),
        (["tau", "--gamma", "7"], ["--gamma", "7"]),
        (["tau", "--no-such-flag"], ["--no-such-flag"]),
        (["tau", "--resume", "x"], ["--resume", "set by rqe-sweep"]),
        (["tau", "--ray", "--slurm"], ["--ray and --slurm", "choose one"]),
        (["ablation", "--eps", "0"], ["ablation", "--eps"]),
        (["ablation", "--tau", "inf"], ["ablation", "--tau"]),
        (["compare", "--algo", "magic"], ["--algo magic", "mappo"]),
        (["compare", "--algo", "rqe-mappo --tau"], ["--tau give one number"]),
        (["compare", "--algo", "rqe-mappo 0.3"], ["--algo", "0.3 follows no flag", "qmix --recurrent"]),
        (["compare", "--algo", "qmix --recurrent on"], ["Unrecognized options: on"]),
        (["compare", "--algo", "mappo", "--algo", "mappo"], ["mappo", "once"]),
        (["grid"], ["--grid"]),
        (["grid", "--grid", "tau"], ["--grid tau is not a grid", "tau=0.3,1,inf"]),
        (["grid", "--grid", "seed=1,2"], ["--seeds"]),
        (["grid", "--grid", "tau=1", "--grid", "tau=2"], ["--grid tau is given twice"]),
        (["grid", "--grid", "risk=cvar:0.1,cvar0.1"], ["share the name", "riskcvar0.1"]),
        (["nonsense"], ["nonsense"]),
        ([], ["required", "tau,ablation,compare,grid"]),
    ],
)
def test_bad_input_ends_in_one_line(capsys, tmp_path, args, words):
    place = [] if "--env" in args or not args else ["--env", "cartpole"]
    error = complaint(capsys, cli.sweep, *args, *place, *(["--out", str(tmp_path / "o")] if args else []))
    assert all(word in error for word in words), error
    assert not (tmp_path / "o").exists()


def test_folders_that_cannot_be(capsys, tmp_path, swept):
    (tmp_path / "file").write_text("in the way")
    tau = ["tau", "--env", "cartpole", "--seeds", "1", "--taus", "1", *TINY]
    assert "cannot be written" in complaint(capsys, cli.sweep, *tau, "--out", str(tmp_path / "file" / "o"))
    (tmp_path / "manifest.json").write_text("{")
    assert "is damaged" in complaint(capsys, cli.sweep, *tau, "--out", str(tmp_path))
    assert "no manifest.json" in complaint(capsys, cli.report, str(swept[0] / "runs"))
    assert "no results.csv" in complaint(capsys, cli.plot, str(tmp_path))
    assert "is not a folder" in complaint(capsys, cli.plot, str(tmp_path / "nothing"))
    with hold(tmp_path, "another rqe-sweep"):
        assert "another rqe-sweep" in complaint(capsys, cli.sweep, *tau, "--out", str(tmp_path))
    again = ["grid", "--grid", "device=cpu", "--seeds", "1", "--out", str(swept[0])]
    assert "holds a sweep of --env cartpole" in complaint(
        capsys, cli.sweep, *again, "--env", "gamble", "--grid", "eps=1"
    )
    assert "another --gamma" in complaint(capsys, cli.sweep, *again, "--env", "cartpole", *TINY, "--gamma", "0.9")


def test_missing_cluster_packages_give_one_line(capsys, monkeypatch, tmp_path):
    for name in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)
    tau = ["tau", "--env", "cartpole", "--seeds", "1", "--taus", "1", "--out", str(tmp_path / "o")]
    assert "pip install 'rqe-mappo[ray]'" in complaint(capsys, cli.sweep, *tau, "--ray")
    assert "pip install 'rqe-mappo[slurm]'" in complaint(capsys, cli.sweep, *tau, "--slurm")
    assert "--slurm partition must be KEY=VALUE" in complaint(capsys, cli.sweep, *tau, "--slurm", "partition")


def test_dry_run_prints_the_runs_and_runs_nothing(capsys, tmp_path, swept):
    code = command("tau", "--env", "cartpole", "--seeds", "2", "--taus", "1", "--dry-run", "--out", str(tmp_path / "o"))
    printed = capsys.readouterr().out
    assert code == 0 and not (tmp_path / "o").exists()
    assert "tau1__s1" in printed and "rqe-train --env cartpole" in printed and "2 runs" in printed
    args = ["grid", "--env", "cartpole", "--grid", "device=cpu", "--seeds", "1", "--episodes", "100", *TINY]
    command(*args, "--dry-run", "--out", str(swept[0]))
    assert "finished" in capsys.readouterr().out


# How it survives


def test_a_failing_run_does_not_stop_the_rest(swept):
    folder, code = swept
    assert code == 1
    jobs = manifest.load(folder).jobs
    assert {name: entry.state for name, entry in jobs.items()} == {
        "devicetoaster__s1": "failed",
        "devicecpu__s1": "done",
    }
    assert "--device toaster cannot be used" in jobs["devicetoaster__s1"].reason
    assert "--device toaster" in (folder / "logs" / "devicetoaster__s1.log").read_text()
    assert [row["run"] for row in tables.read(folder / "results.csv")] == ["devicecpu__s1"]
    text = (folder / "report.html").read_text()
    assert "--device toaster cannot be used" in text and "rqe-sweep grid" in text


def children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, path.read_text().split())
    return found


def until(condition, what: str, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child processes in /proc")
def test_killed_and_interrupted_runs_are_resumed_and_finished_ones_left_alone(tmp_path, monkeypatch):
    args = ["tau", "--env", "cartpole", "--taus", "1", "--seeds", "2", "--episodes", "4", "--jobs", "1"]
    line = [
        sys.executable,
        "-c",
        "from rqe_mappo.sweeps.cli import sweep; sweep()",
        *args,
        "--out",
        str(tmp_path),
        *SMALL,
    ]
    first, second = (tmp_path / "runs" / f"tau1__s{seed}" for seed in (1, 2))

    def begun(folder: Path) -> bool:
        return (folder / "latest").is_file() and not (folder / "latest").read_text().startswith("step_000000000000")

    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: begun(first), "a first checkpoint")
        os.kill(children(process.pid)[0], signal.SIGKILL)
        until(lambda: begun(second), "the second run")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "to continue: rqe-sweep tau" in err
    assert "failed: killed by SIGKILL" in out
    states = {name: entry.state for name, entry in manifest.load(tmp_path).jobs.items()}
    assert states == {"tau1__s1": "failed", "tau1__s2": "interrupted"}
    assert not (tmp_path / "report.html").exists()

    steps = [int((folder / "latest").read_text().strip().removeprefix("step_")) for folder in (first, second)]
    assert all(0 < step < 16000 for step in steps)
    monkeypatch.setattr("rqe_mappo.sweeps.sweep.write_outputs", lambda folder: None)  # the plots are tested below
    assert command(*args, "--out", str(tmp_path), *SMALL) == 0
    for seed in (1, 2):
        log = (tmp_path / "logs" / f"tau1__s{seed}.log").read_text()
        assert log.count("$ rqe-train") == 2 and log.count("$ rqe-train --resume") == 1
        assert len(json.loads((tmp_path / "runs" / f"tau1__s{seed}" / "attempts.json").read_text())) == 2
    assert {row["run"] for row in tables.read(tmp_path / "results.csv")} == {"tau1__s1", "tau1__s2"}

    before = {path: path.stat().st_mtime_ns for path in (first / "latest", second / "eval.json")}
    assert command(*args, "--out", str(tmp_path), *SMALL) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def job_at(where: Path, **changes) -> Job:
    return replace(
        Job("run", "a", "a", "", (), 1, ("--env", "cartpole"), str(where / "run"), str(where / "run.log"), 256, 100),
        **changes,
    )


def finished_job(swept) -> Job:
    folder = swept[0] / "runs" / "devicecpu__s1"
    return job_at(swept[0], folder=str(folder), log=str(swept[0] / "again.log"))


def test_a_run_that_lives_on_without_its_sweep_is_waited_for(swept):
    """As after the sweep was killed outright: the run's process holds its log."""
    job, where = finished_job(swept), Local(1)
    with open(job.log, "w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        where.submit(job)
        assert next(where.as_completed()) is None
    assert [outcome.state for outcome in where.as_completed() if outcome is not None] == ["done"]
    with open(job.log, "w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert run(job, stopping=lambda: True).state == "waiting"


def test_finished_means_trained_and_evaluated_as_far_as_asked(swept, tmp_path):
    job = finished_job(swept)
    assert finished(job)
    assert not finished(replace(job, timesteps=10**9))
    assert not finished(replace(job, episodes=10**9))
    shutil.copytree(job.folder, tmp_path / "run")
    copy = replace(job, folder=str(tmp_path / "run"))
    assert finished(copy)
    (tmp_path / "run" / "eval_episodes.npz").unlink()
    assert not finished(copy)
    assert copy.command()[0] == "--resume"
    assert steps_done(tmp_path / "run") >= 256 and steps_done(tmp_path) == 0


def test_training_time_counts_every_attempt_up_to_its_last_checkpoint(tmp_path):
    begin_attempt(tmp_path)
    path = tmp_path / "attempts.json"
    began = json.loads(path.read_text())[0]["began"]
    (tmp_path / "latest").touch()
    os.utime(tmp_path / "latest", (began + 10, began + 10))  # then it was killed
    begin_attempt(tmp_path)
    again = json.loads(path.read_text())[1]["began"]
    os.utime(tmp_path / "latest", (again + 5, again + 5))
    assert train_seconds(tmp_path) == pytest.approx(15)
    end_attempt(tmp_path)
    os.utime(tmp_path / "latest", (again + 500, again + 500))  # as a copy of the folder would have it
    assert train_seconds(tmp_path) == pytest.approx(15)


def test_cpu_time_counts_every_attempt_from_zero():
    logged = [{"charts/cpu_seconds": text} for text in ("2", "5.5", "", "1", "4")]
    assert tables.cpu_seconds(logged) == 9.5
    assert tables.cpu_seconds([{"global_step": "1"}]) == ""


def outcomes(where, *jobs: Job) -> dict[str, Outcome]:
    for job in jobs:
        where.submit(job)
    return {outcome.name: outcome for outcome in where.as_completed() if outcome is not None}


def test_local_processes_stop_and_what_waits_never_starts(swept, tmp_path):
    where = Local(1)
    where.stop()
    assert outcomes(where, finished_job(swept))["run"].state == "waiting"


def test_what_breaks_outside_the_run_is_a_failure_too(swept, tmp_path):
    (tmp_path / "run").write_text("in the way")
    found = outcomes(Local(2), job_at(tmp_path), replace(finished_job(swept), name="other"))
    assert found["run"].state == "failed" and "NotADirectoryError" in found["run"].reason
    assert found["other"].state == "done"


def test_slurm_jobs_through_submitit(swept, tmp_path):
    pytest.importorskip("submitit")
    found = outcomes(Slurm(tmp_path, {"cluster": "debug", "timeout_min": "5"}), finished_job(swept))
    assert found["run"].state == "done"
    with pytest.raises(RuntimeError, match="--slurm: "):
        Slurm(tmp_path, {"cluster": "debug", "nonsense": "1"})


def test_ray_tasks(swept):
    pytest.importorskip("ray")
    assert outcomes(Ray("", 1), finished_job(swept))["run"].state == "done"


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(swept, monkeypatch, capsys):
    job = finished_job(swept)
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        progress = Progress([job])
        progress.tick()
        progress.job_ended(Outcome("run", "done", 75.0), Path("run.log"), "mean return 3")
        progress.job_ended(Outcome("run", "failed", 75.0, "no luck"), Path("run.log"), "")
        progress.close()
        printed = capsys.readouterr()
        assert "[1/1] run  done in 1:15  mean return 3" in printed.out and "no luck  (log: run.log)" in printed.out
        assert ("100%" in printed.err) == terminal


# Tables


def test_tables_survive_the_way_to_csv_and_back(tmp_path):
    rows = [{"run": "a", "label": 'tau 0.3,inf; "x"', "value": 1 / 3}, {"run": "b", "value": math_nan(), "new": 7}]
    for name in ("t.csv", "t.csv.gz"):
        tables.write(tmp_path / name, rows)
        back = tables.read(tmp_path / name)
        assert back[0]["label"] == 'tau 0.3,inf; "x"' and back[1]["new"] == "7"
        assert tables.number(back[0], "value") == pytest.approx(1 / 3, rel=1e-6)
        assert np.isnan(tables.number(back[1], "value")) and np.isnan(tables.number(back[1], "label"))
    assert tables.read(tmp_path / "nothing.csv") == []


def math_nan() -> float:
    return float("nan")


def test_results_hold_what_the_run_measured(swept):
    folder = swept[0]
    (row,) = tables.read(folder / "results.csv")
    found = json.loads((folder / "runs" / row["run"] / "eval.json").read_text())
    mean = next(m for m in found["metrics"] if m["metric"] == "mean return" and m["level"] == "agent")
    for name, column in (("value", ""), ("low", " low"), ("high", " high")):
        assert tables.number(row, f"mean return (agent){column}") == pytest.approx(mean[name], rel=1e-6)
    assert (row["env"], row["algo"], row["device"], row["seed"], row["episodes"]) == (
        "cartpole", "rqe-mappo", "cpu", "1", "100",
    )  # fmt: skip
    assert float(row["train_seconds"]) > 0 and float(row["train_cpu_seconds"]) > 0
    episodes = tables.read(folder / "episodes.csv.gz")
    assert len(episodes) == 100
    assert np.mean([float(e["return"]) for e in episodes]) == pytest.approx(mean["value"], rel=1e-4)
    assert {row["run"] for row in tables.read(folder / "curves.csv")} == {"devicecpu__s1"}


def test_a_tail_of_few_episodes_is_left_out(tmp_path, swept):
    known = manifest.load(swept[0])
    shutil.copytree(swept[0] / "runs" / "devicecpu__s1", tmp_path / "runs" / "devicecpu__s1")
    path = tmp_path / "runs" / "devicecpu__s1" / "eval.json"
    found = json.loads(path.read_text())
    for metric in found["metrics"]:
        metric["episodes"] = 99
    path.write_text(json.dumps(found))
    tables.write_results(replace(known, folder=tmp_path))
    (row,) = tables.read(tmp_path / "results.csv")
    assert "CVaR5 of return (agent)" not in row and row["mean return (agent)"]
    assert "CVaR5 of return (agent)" in tables.read(swept[0] / "results.csv")[0]


# Fronts


def test_metrics_are_those_that_evaluations_write(swept):
    found = json.loads((swept[0] / "runs" / "devicecpu__s1" / "eval.json").read_text())
    written = {f"{metric['metric']} ({metric['level']})" for metric in found["metrics"]}
    assert {"mean return (agent)", "CVaR5 of return (agent)", "fall rate (agent)"} <= written & BY_COLUMN.keys()
    assert len(BY_COLUMN) == len(METRICS)


# Plots and page


@pytest.mark.slow
def test_plots_come_from_the_tables_alone(swept, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(swept[0], folder, ignore=shutil.ignore_patterns("runs", "logs", "manifest.json"))
    before = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    names = {"front_mean-return_cvar5", "front_mean-return_fall-rate", "bars", "curves", "returns"}
    assert before.keys() == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    shutil.rmtree(folder / "plots")
    cli.plot([str(folder)])
    assert {path.name: path.read_bytes() for path in (folder / "plots").iterdir()} == before


def test_runs_too_short_for_a_curve_have_none(swept, tmp_path):
    shutil.copy(swept[0] / "results.csv", tmp_path)
    tables.write(tmp_path / "curves.csv", [{"run": "a", "label": "a", "family": "a", "global_step": 256}])
    assert "curves.png" not in {path.name for path in plots.draw(tmp_path)}


def test_rows_of_runs_that_were_deleted_stay(swept, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(swept[0], folder, ignore=shutil.ignore_patterns("runs", "plots"))
    before = {name: (folder / name).read_bytes() for name in ("results.csv", "curves.csv", "episodes.csv.gz")}
    tables.collect(manifest.load(folder))
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_page_needs_nothing_but_itself_and_escapes_what_it_shows(swept):
    known = manifest.load(swept[0])
    entry = known.jobs["devicetoaster__s1"]
    known.jobs["devicetoaster__s1"] = replace(entry, reason="<script>alert(1)</script>")
    text = page.html(known)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert text.count("data:image/png;base64,") == 5
    assert not any(f'{attribute}="{scheme}' in text for attribute in ("src", "href") for scheme in ("http", "//"))
    assert "url(" not in text and "@import" not in text


def test_what_runs_warned_of_is_on_the_console_and_on_the_page(swept, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(swept[0], folder, ignore=shutil.ignore_patterns("runs"))
    known, name = manifest.load(folder), "devicecpu__s1"
    warning = "warning: nothing was learned <b>"
    assert "stayed risk-neutral: train longer" in page.html(known)  # the run was short
    known.log(name).write_text("training in here\n")
    assert "it warned" not in page.html(known)
    known.log(name).write_text(f"training in here\n{warning}\n  5%  warning: not at the beginning\n{warning}\n")
    assert page.html(known).count("nothing was learned &lt;b&gt;") == 1
    with contextlib.closing(Progress([])) as progress:
        progress.job_ended(Outcome(name, "done", 60.0), known.log(name), "mean return 1")
    done, said = capsys.readouterr().out.splitlines()
    assert done == f"[1/0] {name}  done in 1:00  mean return 1" and said.strip() == warning


def test_parser_shows_help(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.sweep(["tau", "--help"])
    assert stop.value.code == 0 and "--taus" in capsys.readouterr().out
