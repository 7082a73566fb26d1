"""A run's folder survives what happens to folders: kills, full disks, planted links, folders taken away."""

import csv
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rqe_mappo import checkpoint, cli, files
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import default_config, to_json
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.files import WriteError, write_atomically
from rqe_mappo.training import run as runs
from rqe_mappo.training.logs import RunLog
from rqe_mappo.training.loop import train
from tests.test_bad_input import SMALL, complaint

FLAGS = [
    "--env", "cartpole", "--num-envs", "4", "--num-steps", "16", "--total-timesteps", "256", "--n-atoms", "11",
    "--eval-episodes", "0",
]  # fmt: skip


def small(folder: Path, **changes):
    return default_config("cartpole").replace(
        **SMALL | {"save_interval": 1, "log_interval": 1} | changes, out=str(folder)
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_policy_file(folder)["modules"]["actor"]


def equal(one: Path, other: Path) -> bool:
    known, found = weights(one), weights(other)
    return known.keys() == found.keys() and all(torch.equal(known[name], found[name]) for name in known)


class Killed(BaseException):
    """As by kill -9: nothing is tidied up on the way out."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    return train(small(tmp_path_factory.mktemp("runs") / "unbroken"), quiet=True)


MOMENTS = ["config.json", "versions.json", "step_000000000000.policy.pt", "step_000000000000.training.pt", "latest"]


@pytest.mark.slow
@pytest.mark.parametrize("again", ["--resume", "--out"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path, monkeypatch, capsys, unbroken, moment, again):
    """Killed just before that file is there; then it is started once more: one way goes on, or says which does."""
    folder, replace = tmp_path / "run", os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == moment:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: None)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        train(small(folder), quiet=True)
    monkeypatch.undo()
    assert list(folder.rglob("*.part"))
    refused = {("config.json", "--resume"): "begin a run with --out", ("latest", "--out"): "go on with --resume"}
    if (moment, again) in refused:
        said = complaint(capsys, cli.train, *(FLAGS if again == "--out" else []), again, str(folder))
        assert refused[moment, again] in said
        return
    cli.train([*(FLAGS if again == "--out" else []), again, str(folder), "--save-interval", "1", "--log-interval", "1"])
    assert equal(folder, unbroken)
    assert not list((folder / "checkpoints").glob(".*"))


def test_what_has_learned_never_begins_anew(capsys, unbroken, tmp_path):
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoints")
    for lost in (None, "latest"):
        if lost:
            (folder / lost).unlink()
        before = (folder / "metrics.csv").read_text()
        complaint(capsys, cli.train, "--resume", str(folder))
        complaint(capsys, cli.train, *FLAGS, "--out", str(folder))
        assert (folder / "metrics.csv").read_text() == before


def test_the_newest_pair_counts_where_latest_was_never_written(unbroken, tmp_path):
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "latest").unlink()
    assert checkpoint.newest(folder)[0].name == checkpoint.newest(unbroken)[0].name
    checkpoint.newest(folder)[1].unlink()  # half a pair is none
    assert checkpoint.newest(folder)[0].name < checkpoint.newest(unbroken)[0].name


@pytest.mark.parametrize("text", ["", "step_", "../../elsewhere", "\0", "step_1\nstep_2"])
def test_a_latest_that_names_nothing_says_what_to_write_into_it(unbroken, tmp_path, text):
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "latest").write_text(text)
    with pytest.raises(CheckpointError, match=f"write {checkpoint.complete(folder)[-1]} into {folder / 'latest'}"):
        Policy.load(folder)


@pytest.mark.parametrize("name", [".file.part", ".file.00000000.part"])
def test_a_planted_link_is_not_followed(tmp_path, monkeypatch, name):
    precious, folder = tmp_path / "precious", tmp_path / "run"
    precious.write_text("precious")
    folder.mkdir()
    (folder / name).symlink_to(precious)
    (folder / "file").symlink_to(precious)
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "00000000")  # a name that was guessed
    try:
        write_atomically(folder / "file", b"new")
        assert (folder / "file").read_bytes() == b"new" and not (folder / "file").is_symlink()
    except WriteError as error:
        assert str(folder / "file") in str(error)
    assert precious.read_text() == "precious"


def full_disk(monkeypatch, when: Callable[[Path], bool]) -> None:
    """The disk is full when a file is written of which `when` holds."""
    real = files.os.fsync

    def fsync(number: int) -> None:
        if when(Path(os.readlink(f"/proc/self/fd/{number}"))):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("kind", ["policy", "training"])
def test_a_full_disk_is_named_and_costs_nothing_that_was_saved(capsys, monkeypatch, tmp_path, unbroken, kind):
    folder = tmp_path / "run"
    written = []

    def third(path: Path) -> bool:
        written.extend([path] if f".{kind}.pt." in path.name else [])
        return len(written) == 3

    full_disk(monkeypatch, third)
    said = complaint(capsys, cli.train, *FLAGS, "--save-interval", "1", "--log-interval", "1", "--out", str(folder))
    assert f"step_000000000128.{kind}.pt cannot be written (No space left on device): the disk mounted at /" in said
    assert "MB free" in said and "inline_container" not in said
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("*128*"))
    monkeypatch.undo()
    assert Policy.load(folder).timesteps == 64
    cli.train(["--resume", str(folder)])
    assert equal(folder, unbroken)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_logs_on_a_full_disk_are_named(capsys, unbroken, tmp_path):
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "metrics.csv").unlink()
    (folder / "metrics.csv").symlink_to("/dev/full")
    said = complaint(capsys, cli.train, "--resume", str(folder), "--total-timesteps", "1000")
    assert f"{folder / 'metrics.csv'} cannot be written (No space left on device)" in said


def test_events_that_cannot_be_written_do_not_stop_a_run(capsys, monkeypatch, tmp_path):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    folder = train(small(tmp_path / "run"))
    said = capsys.readouterr()
    assert said.out.count("no more events for TensorBoard") == 1 and "Traceback" not in said.err
    assert Policy.load(folder).timesteps >= 256


def taken_away(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


def replaced_by_a_file(folder: Path) -> None:
    (folder / "checkpoints").rename(folder / "moved")
    (folder / "checkpoints").write_text("precious")


def replaced_by_a_link_to_nowhere(folder: Path) -> None:
    (folder / "checkpoints").rename(folder / "moved")
    (folder / "checkpoints").symlink_to(folder / "unmounted")


def moved_with_the_run(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def given_those_of_a_longer_run(folder: Path) -> None:
    for kind in ("policy", "training"):
        (folder / "checkpoints" / f"step_{10**6:012d}.{kind}.pt").write_text("of a longer run")


HAPPENINGS = [
    taken_away, replaced_by_a_file, replaced_by_a_link_to_nowhere, moved_with_the_run, given_those_of_a_longer_run,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("happening", HAPPENINGS)
def test_a_run_goes_on_whatever_happens_to_its_checkpoints(tmp_path, unbroken, happening):
    folder = tmp_path / "run"

    def after(step: int, scalars: dict[str, float]) -> None:
        if step == 128:
            happening(folder)

    train(small(folder, keep=1), on_update=after, quiet=True)
    assert equal(folder, unbroken)
    train(small(folder, keep=1, total_timesteps=320), resume=folder, quiet=True)
    assert Policy.load(folder).timesteps == 320
    columns, *rows = (folder / "metrics.csv").read_text().splitlines()
    assert columns.startswith("global_step") and rows
    if happening is replaced_by_a_file:
        assert (folder / "checkpoints.1").read_text() == "precious"


def test_going_back_to_an_older_checkpoint_keeps_what_is_written_then(unbroken, tmp_path):
    """Rotation counts up to the present step: the files of later ones are not newer."""
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    oldest = checkpoint.complete(folder)[0]
    (folder / "latest").write_text(oldest)
    config = small(folder, keep=1, total_timesteps=int(oldest.split("_")[1]) + 1)
    train(config, resume=folder, quiet=True)
    assert Policy.load(folder).timesteps < 256


def test_files_of_a_run_are_readable_by_those_who_may(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_network_that_its_spec_does_not_describe_does_not_begin_to_learn(tmp_path, monkeypatch):
    described = runs.nets.describe
    monkeypatch.setattr(runs.nets, "describe", lambda module: described(module) | {"hidden": [3]})
    with pytest.raises(
        ValueError, match="could not be loaded again: its network actor is not what its `spec` describes"
    ):
        train(small(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run" / "latest").exists()


def test_trust_reads_the_settings_of_a_run_that_has_saved_nothing(tmp_path):
    (tmp_path / "config.json").write_text(to_json(small(tmp_path)))
    cli.train(["--resume", str(tmp_path), "--trust"])
    assert Policy.load(tmp_path).timesteps == 256


def test_what_is_learned_later_gets_a_column_of_its_own(tmp_path):
    log = RunLog(tmp_path, 0, 100, quiet=True)
    for step, scalars in ((10, {"a": 1.0}), (20, {"a": 2.0, "b": 3.0}), (30, {"c": 4.0})):
        log.row(step, scalars)
    log.close()
    again = RunLog(tmp_path, 20, 100, quiet=True)  # goes on from step 20
    again.row(40, {"d": 5.0, "a": 6.0})
    again.close()
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["global_step", "a", "b", "c", "d"],
        ["10", "1", "", "", ""], ["20", "2", "3", "", ""], ["40", "6", "", "", "5"],
    ]  # fmt: skip
