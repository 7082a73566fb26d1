"""Functions in forked processes, whose imports are those of this one: they start in milliseconds."""

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

POLL_S = 0.005


@dataclass(frozen=True)
class Ended:
    """How a process ended: `code` is negative for a signal; `stopped` where its time was over."""

    code: int
    out: str
    err: str
    seconds: float
    stopped: bool

    @property
    def in_one_line(self) -> bool:
        """Whether it gave up as a command has to: exit code 2 and one line of reasons."""
        return self.code == 2 and self.err.count("\n") == 1 and "Traceback" not in self.err

    @property
    def last_words(self) -> str:
        lines = self.err.strip().splitlines()
        return lines[-1] if lines else f"exit code {self.code}"


def preload() -> None:
    """Import what trainings, evaluations and sweeps import, here and now; nothing is trained, no thread is started."""
    import torch

    from rqe_mappo.config import default_config
    from rqe_mappo.data import vector
    from rqe_mappo.evaluation import evaluation, film, plots  # noqa: F401
    from rqe_mappo.sweeps import mixing, sweep  # noqa: F401
    from rqe_mappo.training import loop  # noqa: F401

    torch.set_num_threads(1)
    for env in ("cartpole", "sumo"):
        vector.make(default_config(env), 1).close()


def run(
    function: Callable[[], Any], limit_s: float = 120.0, kill: Callable[[float], bool] = lambda seconds: False
) -> Ended:
    """Call `function` in a process of its own, killed (SIGKILL) when `kill(seconds)` says so, or after `limit_s`."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        pid = os.fork()
        if not pid:
            _child(function, out.fileno(), err.fileno())
        began, stopped = time.monotonic(), False
        while not (found := os.waitpid(pid, os.WNOHANG))[0]:
            seconds = time.monotonic() - began
            stopped = seconds > limit_s
            if stopped or kill(seconds):
                os.kill(pid, signal.SIGKILL)
                found = os.waitpid(pid, 0)
                break
            time.sleep(POLL_S)
        seconds = time.monotonic() - began
        for file in (out, err):
            file.seek(0)
        return Ended(os.waitstatus_to_exitcode(found[1]), out.read(), err.read(), seconds, stopped)


def call(function: Callable[[], Any], limit_s: float) -> Any:
    """What `function` returns, as JSON has it, from a process of its own; RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        ended = run(lambda: path.write_text(json.dumps(function())), limit_s)
        if ended.code:
            raise RuntimeError(f"exit code {ended.code}\n{ended.out[-2000:]}\n{ended.err[-4000:]}")
        return json.loads(path.read_text())


def _child(function: Callable[[], Any], out: int, err: int) -> NoReturn:
    code = 0
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        function()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120  # as Python's own end
    os._exit(code)
