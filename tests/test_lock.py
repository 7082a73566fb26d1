"""One command at a time works in a folder; what holds it ends with whoever holds it."""

import errno
import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from rqe_mappo import cli
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.training import lock
from rqe_mappo.training.lock import hold
from rqe_mappo.training.loop import train
from tests.test_bad_input import complaint

SMALL = {"total_timesteps": 256, "num_envs": 4, "num_steps": 16, "eval_episodes": 0, "n_atoms": 11}


def another_process(folder: Path) -> int:
    """The id of a process that holds the folder."""
    told, tells = os.pipe()
    child = os.fork()
    if not child:
        with hold(folder, "rqe-train"):
            os.write(tells, b"held")
            time.sleep(60)
        os._exit(0)
    assert os.read(told, 4) == b"held"
    return child


def record(folder: Path, **changes) -> Path:
    """What a holder leaves that could not clean up."""
    path = folder / lock.NAME
    held = {"what": "rqe-train", "host": "far", "pid": 4_000_000, "started": 1, "boot": lock._boot()}
    path.write_text(json.dumps(held | changes))
    return path


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "WATCH_S", 0.3)
    monkeypatch.setattr(lock, "POLL_S", 0.05)


@pytest.fixture
def lockless(monkeypatch, quick):
    """A file system without locks."""

    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_held_folder_is_refused_with_its_holder_and_free_after_a_kill(tmp_path):
    other = another_process(tmp_path)
    with pytest.raises(ConfigError, match=rf"^--resume {tmp_path}: rqe-train is at work there \(process {other} "):
        hold(tmp_path, "rqe-train", "--resume").__enter__()
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    with hold(tmp_path, "rqe-train"):
        pass
    assert (tmp_path / lock.NAME).read_text() == ""


def test_a_second_run_into_a_folder_is_refused_and_changes_nothing(tmp_path, capsys):
    """Two `--out D`, two `--resume D`, and one of each, in one process as in two."""
    run = tmp_path / "run"
    config = default_config("cartpole").replace(**SMALL, out=str(run))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    refused = []

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def meanwhile(step, scalars):
        before = content()
        refused.append(complaint(capsys, cli.train, "--env", "cartpole", *flags, "--out", str(run)))
        refused.append(complaint(capsys, cli.train, "--resume", str(run)))
        assert content() == before
        return len(refused) > 2

    train(config, on_update=meanwhile, quiet=True)
    assert len(refused) > 2
    assert all("rqe-train is at work there" in said and str(run) in said for said in refused)
    train(config, resume=run, quiet=True)


def test_threads_of_a_process_exclude_each_other(tmp_path):
    found = []

    def second():
        try:
            with hold(tmp_path, "rqe-train"):
                found.append("held")
        except ConfigError:
            found.append("refused")

    with hold(tmp_path, "rqe-train"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    second()
    assert found == ["refused", "held"]


def test_a_forked_child_does_not_hold_on_to_the_folder(tmp_path):
    """Such as an environment's own process, when the run that forked it is killed."""
    told, tells = os.pipe()
    with hold(tmp_path, "rqe-train"):
        child = os.fork()
        if not child:
            os.write(tells, b"here")
            time.sleep(60)
            os._exit(0)
        assert os.read(told, 4) == b"here"
    try:
        with hold(tmp_path, "rqe-train"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 4000, '{"pid": "x"}', "\x00\xff"])
def test_whatever_lies_in_the_file_a_free_folder_can_be_held(tmp_path, quick, text):
    (tmp_path / lock.NAME).write_text(text)
    with hold(tmp_path, "rqe-train"):
        pass


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / lock.NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match="cannot be written"):
        hold(tmp_path, "rqe-train").__enter__()
    assert (tmp_path / "precious").read_text() == "content"


def test_another_machine_holds_the_folder_while_it_touches_the_record(tmp_path, quick, capsys):
    """Where the file system keeps locks of each machine to itself."""
    path, ended = record(tmp_path, boot="another"), threading.Event()

    def touch():
        while not ended.wait(0.05):
            os.utime(path)

    toucher = threading.Thread(target=touch)
    toucher.start()
    with pytest.raises(ConfigError, match=r"process 4000000 on far"):
        hold(tmp_path, "rqe-train").__enter__()
    ended.set()
    toucher.join()
    assert "watching" in capsys.readouterr().err
    with hold(tmp_path, "rqe-train"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_record_is_touched_while_the_folder_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "TOUCH_S", 0.02)
    with hold(tmp_path, "rqe-train"):
        os.utime(tmp_path / lock.NAME, (1, 1))
        time.sleep(0.3)
        assert (tmp_path / lock.NAME).stat().st_mtime > 1


def test_without_locks_the_record_of_a_living_process_holds_and_of_an_ended_one_does_not(tmp_path, lockless):
    record(tmp_path, pid=os.getpid(), started=lock._started(os.getpid()))
    with pytest.raises(ConfigError, match=f"process {os.getpid()} on far"):
        hold(tmp_path, "rqe-train").__enter__()
    record(tmp_path, pid=os.getpid(), started=1)  # its number was given to another since
    with hold(tmp_path, "rqe-train"), pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        hold(tmp_path, "rqe-train").__enter__()


def test_without_locks_the_last_of_two_that_find_a_free_folder_has_it(tmp_path, lockless, monkeypatch):
    monkeypatch.setattr(lock, "POLL_S", 0.3)
    threading.Timer(0.1, lambda: record(tmp_path, boot="another")).start()
    with pytest.raises(ConfigError, match="process 4000000 on far"):
        hold(tmp_path, "rqe-train").__enter__()
