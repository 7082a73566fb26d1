"""The training loop, readable top to bottom."""

import contextlib
import shlex
import signal
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rqe_mappo import checkpoint
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data import finite, vector
from rqe_mappo.data.finite import NotFinite
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.training.lock import hold
from rqe_mappo.training.logs import RunLog, summarise
from rqe_mappo.training.run import Run, folder_of, new_folder, pick_device

EDGE_MASS_WARNING = 0.01
CRITIC_KNOWS = 0.05  # share of a run after which a critic's distribution is more than the bell that it starts as

Scalars = dict[str, float]
OnUpdate = Callable[[int, Scalars], bool | None]
"""Called after each update with the step and what the algorithm logged; True stops the run, which saves first."""
OnEpisodes = Callable[[int, list[dict[str, np.ndarray]]], bool | None]
"""Called with the step and the records of episodes that ended (`Step.episodes`), likewise."""


def _quoted(folder: Path) -> str:
    return shlex.quote(str(folder))


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop (Ctrl-C or SIGTERM); it has saved its state in `folder`."""

    def __init__(self, folder: Path):
        super().__init__(f"interrupted; go on with: rqe-train --resume {_quoted(folder)}")


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that a run stops between updates; the second acts."""

    def __init__(self):
        self.asked = False
        self.previous: dict[int, Any] = {}

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        signal.signal(number, self.previous[number])

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as for jobs that a shell put in the background
                    self.previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def train(
    config: TrainConfig,
    resume: Path | None = None,
    on_update: OnUpdate | None = None,
    on_episodes: OnEpisodes | None = None,
    quiet: bool = False,
) -> Path:
    """Train to `config.total_timesteps`, from the start or from the newest checkpoint of the folder `resume`.

    on_update, on_episodes: called as the run goes on; either stops it early by returning True.
    quiet: print nothing.
    Returns the run folder. Raises Interrupted, with everything saved, on Ctrl-C or SIGTERM.
    """
    torch.set_num_threads(1)  # at these sizes a second thread costs more than it gives; run two runs instead
    pick_device(config.device)
    if resume is not None and checkpoint.begun(resume):
        checkpoint.newest(resume)
    env = vector.make(config, config.num_envs, config.num_workers)
    held = contextlib.ExitStack()
    held.callback(env.close)
    held.enter_context(tiny_numbers_as_zero())
    try:
        config.algorithm.check_environment(env)
        if config.time_limit == "terminal" and not env.time_in_observation:
            raise ConfigError("--time-limit terminal needs an environment that shows the time left: use bootstrap")
        folder = resume or folder_of(config)
        held.enter_context(hold(folder, "rqe-train", "--out" if resume is None else "--resume"))
        if resume is None:
            new_folder(config, folder)
        goes_on = resume is not None and checkpoint.begun(resume)  # not if it was killed before it had saved anything
        run = Run.build(config, folder, env)
        if goes_on:
            run.restore()
        else:
            run.collector.start(env.reset(config.seed))
            run.save()  # from here on there is always something to go on from
        log = RunLog(folder, run.step, config.total_timesteps, quiet)
        if workers := vector.workers_of(env):
            workers.log = log.say
        log.say(f"{'resuming' if goes_on else 'training'} in {folder}")
        for note in (*config.algorithm.notes(env), *run.notes):
            log.say(f"note: {note}")
        try:
            with StopRequest() as stop:
                finished = loop(run, log, stop, on_update, on_episodes)
        except NotFinite as error:
            raise NotFinite(
                f"--env {config.env}: {error}, after step {run.step}: nothing of that was saved; "
                f"rqe-train --resume {_quoted(folder)} goes on from the checkpoint of step {run.saved}"
            ) from None
        finally:
            log.close()
    finally:
        held.close()
    if not finished:
        raise Interrupted(folder)
    return folder


@contextlib.contextmanager
def tiny_numbers_as_zero() -> Generator[None]:
    """Numbers too small for a full mantissa count as 0 in this thread.

    Probabilities of a critic that is sure vanish, and processors take 100 times as long for numbers below 1e-38.
    """
    before = float(torch.tensor(1e-38) * 0.1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def loop(
    run: Run, log: RunLog, stop: StopRequest, on_update: OnUpdate | None = None, on_episodes: OnEpisodes | None = None
) -> bool:
    """Collect, learn, log, save, until the budget is spent or a callback is content (True), or `stop` is asked for."""
    config, algorithm = run.config, run.algorithm
    episodes: list[dict[str, np.ndarray]] = []
    shown: Scalars = {}
    warned, content = False, False
    edge_rows = 0  # in succession, with much probability on an edge
    began, began_cpu, first_step = time.monotonic(), time.process_time(), run.step
    while run.step < config.total_timesteps and not stop.asked and not content:
        progress = run.progress
        try:
            explored = algorithm.explore
            chunk, ended = run.collector.collect(explored)
        except Exception as error:  # the environments cannot go on, whatever they raise
            if run.step > run.saved:
                run.save(environments=False)
            if not isinstance(error, NotFinite):  # which says so itself
                log.say(f"the run cannot go on; what was learned is saved: rqe-train --resume {_quoted(run.folder)}")
            raise
        if not chunk.active.any():
            continue  # all workers were lost at every step
        scalars = _learned(run, chunk)
        run.step += int(chunk.active.sum())
        run.updates += 1
        episodes += ended
        content = _content(run, scalars, ended, on_update, on_episodes)

        save = run.step >= config.total_timesteps or stop.asked or content or run.updates % config.save_interval == 0
        if save or run.updates % config.log_interval == 0:
            shown |= summarise(episodes)
            episodes.clear()
            speed = (run.step - first_step) / (time.monotonic() - began)
            charts = {"charts/SPS": speed, "charts/cpu_seconds": time.process_time() - began_cpu}
            if workers := vector.workers_of(run.env):
                charts["charts/worker_restarts"] = float(sum(workers.restarts))
            log.row(run.step, shown | scalars | charts)
            log.progress(run.step, shown, explored)
            edge = max(scalars.get(f"critic/edge_mass_{end}", 0.0) for end in ("low", "high"))
            edge_rows = edge_rows + 1 if edge > EDGE_MASS_WARNING and progress.share > CRITIC_KNOWS else 0
            if edge_rows == 2 and not warned:  # one row may still show where the critic began
                warned = True
                log.say(f"warning: {edge:.1%} of the return distribution lies on an edge atom: its tail is cut off")
        if save:
            run.save()
    if run.step > run.saved:  # asked to stop after the last update had been looked at
        run.save()
    finished = content or run.step >= config.total_timesteps
    for warning in algorithm.warnings() if finished else ():
        log.say(f"warning: {warning}")
    return finished


def _learned(run: Run, chunk: Trajectory) -> Scalars:
    """What the algorithm logs of a trajectory that it learned from; NotFinite where that spoilt its weights."""
    algo, algorithm = run.config.algo, run.algorithm
    scalars = _numbers(algorithm.learn(chunk, run.progress) or {}, algo)
    try:
        finite.check_weights(algorithm.modules)
    except NotFinite as error:
        losses = [f"{name} {value:g}" for name, value in scalars.items() if name.startswith("losses/")]
        raise NotFinite(f"--algo {algo} has learned that {error} ({', '.join(losses)})") from None
    return scalars


def _content(
    run: Run,
    scalars: Scalars,
    ended: list[dict[str, np.ndarray]],
    on_update: OnUpdate | None,
    on_episodes: OnEpisodes | None,
) -> bool:
    """Whether a callback asks the run to stop; one that raises loses nothing that was learned."""
    try:
        stop = on_update is not None and bool(on_update(run.step, scalars))
        return (on_episodes is not None and bool(ended) and bool(on_episodes(run.step, ended))) or stop
    except BaseException:
        run.save()
        raise


def _numbers(scalars: Scalars, algo: str) -> Scalars:
    """Scalars as plain numbers; ValueError that names the one that is none."""
    plain = {}
    for name, value in scalars.items():
        try:
            plain[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"--algo {algo}: learn gave {name} = {value!r}, which is no number") from None
    return plain
