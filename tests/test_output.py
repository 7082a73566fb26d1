"""Output that nobody takes ends a command quietly; one that cannot be written, in one line."""

import os
import subprocess
import sys

import pytest

SOLVE = [sys.executable, "-m", "rqe_mappo.equilibrium.cli"]  # the command that starts fastest


def closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.slow
@pytest.mark.parametrize("args", [["--list"], ["--help"], ["stag-hunt", "--tau", "1", "--eps", "1"]])
def test_a_closed_pipe_ends_a_command_quietly(args):
    done = subprocess.run([*SOLVE, *args], stdout=closed_pipe(), stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_a_full_disk_under_the_output_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*SOLVE, "--list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "rqe-solve: standard output cannot be written (No space left on device)\n"


@pytest.mark.slow
@pytest.mark.parametrize("args", [["--list"], ["nothing"]])
def test_a_command_needs_no_output(args):
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *SOLVE, *args]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == (0 if args == ["--list"] else 2)
    assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 1


@pytest.mark.slow
def test_what_no_encoding_has_is_told_in_ascii():
    done = subprocess.run([*SOLVE, b"\xff"], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and b"\\udcff" in done.stderr
