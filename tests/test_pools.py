"""Pools: what was not begun when a block ended by an error is not begun any more."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from rqe_mappo.sweeps.pools import ending, processes


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_nothing_more_is_begun_after_an_error(stop):
    begun, go_on = [], threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        go_on.wait(10)

    with pytest.raises(stop), ending(ThreadPoolExecutor(1)) as pool:
        pool.map(work, range(20))
        threading.Timer(0.2, go_on.set).start()
        raise stop
    assert len(begun) <= 2


@pytest.mark.slow
def test_processes_that_are_at_work_are_ended():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ending(ProcessPoolExecutor(2, get_context("spawn"))) as pool:
        pool.map(time.sleep, [600] * 4)
        time.sleep(2)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 60


def test_all_is_done_that_was_waited_for():
    with ending(ThreadPoolExecutor(2)) as pool:
        found = list(pool.map(lambda number: number**2, range(20)))
    assert found == [number**2 for number in range(20)]


def killed(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_process_that_was_killed_is_told_in_one_line():
    with pytest.raises(RuntimeError, match=r"^a process at work was killed[^\n]*$"), processes(1) as pool:
        list(pool.map(killed, range(3)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the system ends them")
def test_processes_end_with_their_owner():
    code = """
import os, time
from rqe_mappo.sweeps.pools import processes
if __name__ == "__main__":
    with processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        worker = int(owner.stdout.readline())
        owner.kill()
    until = time.monotonic() + 30
    while time.monotonic() < until and alive(worker):
        time.sleep(0.1)
    assert not alive(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path):
    code = """
import tempfile, time
from rqe_mappo.command_line import main
def command(args):
    with tempfile.TemporaryDirectory():
        print("at work", flush=True)
        time.sleep(600)
main(command, "rqe-eval", [])
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"at work\n"
        assert list(tmp_path.iterdir())
        process.terminate()
        assert process.wait(30) == 130
    assert not list(tmp_path.iterdir())


def alive(pid: int) -> bool:
    """Whether a process runs: neither gone nor waiting for its end to be read."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
