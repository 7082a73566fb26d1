"""What a run writes while it trains: metrics.csv, TensorBoard events, and one calm line of progress."""

import contextlib
import csv
import io
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rqe_mappo.config import ConfigError
from rqe_mappo.files import WriteError, write_atomically
from rqe_mappo.statistics import cvar

INCIDENTS = {"collision": "collisions", "fell": "falls", "timed_out": "time-outs"}
LINES_PER_RUN = 20
TIMED = {"charts/SPS", "charts/cpu_seconds"}  # scalars that are others each time a run is made
FEWEST_FOR_CVAR = 20  # episodes; the worst 5 % of fewer are less than one


def summarise(episodes: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Scalars of finished episodes, one sample per agent that took part; empty if none finished."""
    if not episodes:
        return {}
    took_part = np.concatenate([record["length"] for record in episodes]) > 0
    returns = np.concatenate([record["return"] for record in episodes])[took_part]
    scalars = {
        "charts/episodic_return": float(returns.mean()),
        "charts/episodic_return_std": float(returns.std()),
        "charts/cvar05": float(cvar(returns, 0.05)),
        "charts/episodic_length": float(np.concatenate([record["length"] for record in episodes])[took_part].mean()),
        "charts/episodes": float(sum(len(record["copy"]) for record in episodes)),
    }
    for key, name in INCIDENTS.items():
        if key in episodes[0]:
            scalars[f"charts/{name}"] = float(np.concatenate([record[key] for record in episodes])[took_part].mean())
    return scalars


class Events:
    """TensorBoard's events of a run: where they cannot be written, one line says so, and the run goes on without."""

    def __init__(self, run: Path, start: int, say: Callable[[str], None]):
        self.run, self.say, self.lost = run, say, False
        self.hook, threading.excepthook = threading.excepthook, self._failed
        with self._said():
            self.writer = SummaryWriter(str(run), purge_step=start or None)

    def _failed(self, failure: threading.ExceptHookArgs) -> None:
        """The writer's own thread would print a traceback; what stopped it is raised again where it is used."""
        if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboard")):
            self.hook(failure)

    def add(self, step: int, scalars: dict[str, float]) -> None:
        with self._said():
            for name, value in () if self.lost else scalars.items():
                self.writer.add_scalar(name, value, step)

    @contextlib.contextmanager
    def _said(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self.lost = True
            self.say(f"warning: no more events for TensorBoard: {WriteError(self.run, error)}; metrics.csv has them")

    def close(self) -> None:
        with self._said():
            if not self.lost:
                self.writer.close()
        threading.excepthook = self.hook


class RunLog:
    """Rows for metrics.csv and TensorBoard, and progress for whoever watches."""

    def __init__(self, run: Path, start: int, total: int, quiet: bool = False):
        self.quiet = quiet
        self.path, self.total, self.last = run / "metrics.csv", total, start
        self.columns = self._forget_after(start)
        self.began, self.start = time.monotonic(), start
        self.bar = None
        if sys.stderr.isatty() and not quiet:
            self.bar = tqdm(
                total=total, initial=start, unit=" decisions", unit_scale=True, dynamic_ncols=True, smoothing=0.1
            )
        self.next_line = start
        self.events = Events(run, start, self.say)

    def _forget_after(self, start: int, new: Sequence[str] = ()) -> list[str]:
        """Drop rows later than `start`, and add columns; gives the columns there are, none where there is no file."""
        if not self.path.is_file():
            return []
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
            if not rows:
                return []
            kept = [row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) <= start]
        except (ValueError, csv.Error) as error:
            raise ConfigError(f"{self.path} is damaged ({error}): move it away, and the run begins a new one") from None
        text = io.StringIO()
        csv.writer(text).writerows([[*rows[0], *new], *([*row, *("" for _ in new)] for row in kept)])
        write_atomically(self.path, text.getvalue().encode())
        return [*rows[0], *new]

    def row(self, step: int, scalars: dict[str, float]) -> None:
        """Append one row at `step`; scalars that it lacks are left empty, as new ones are in the rows before."""
        if new := [name for name in scalars if name not in self.columns]:
            columns = self._forget_after(step, new) if self.columns else []
            self.columns = columns or [*(self.columns or ["global_step"]), *new]
        values = [scalars.get(name) for name in self.columns[1:]]
        line = [step, *("" if value is None else f"{value:.6g}" for value in values)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)  # somebody may have taken the folder away
            with open(self.path, "a", newline="") as file:
                csv.writer(file).writerows([line] if file.tell() else [self.columns, line])
        except OSError as error:
            raise WriteError(self.path, error) from None
        self.events.add(step, scalars)

    def progress(self, step: int, scalars: dict[str, float], explored: float = 0.0) -> None:
        """Show where the run is: a live bar on a terminal, else about twenty lines a run.

        explored: how often agents acted at random, whose returns `scalars` are of.
        """
        words = [f"return {scalars['charts/episodic_return']:.2f}"] if "charts/episodic_return" in scalars else []
        if words:
            if scalars["charts/episodes"] >= FEWEST_FOR_CVAR:
                words.append(f"CVaR5 {scalars['charts/cvar05']:.2f}")
            words += [f"{name} {scalars[f'charts/{name}']:.3f}" for name in ("collisions", "falls")
                      if f"charts/{name}" in scalars]  # fmt: skip
        if explored > 0:
            words.append(f"exploring {explored:.0%}")
        if self.bar is not None:
            self.bar.set_postfix_str("  ".join(words), refresh=False)
            self.bar.update(min(step, self.total) - self.last)
            self.last = min(step, self.total)
        elif step >= self.next_line and not self.quiet:
            speed = (step - self.start) / (time.monotonic() - self.began)
            left = max(0, self.total - step) / max(speed, 1e-9)
            share = min(1.0, step / self.total)
            text = f"{share:4.0%}  {step:>11,} decisions  {speed:>8,.0f}/s  {'  '.join(words)}"
            print(f"{text}  {int(left // 60)}:{int(left % 60):02d} left", flush=True)
            self.next_line = step + self.total / LINES_PER_RUN

    def say(self, text: str) -> None:
        """A line that does not break the bar."""
        if self.bar is not None:
            tqdm.write(text)
        elif not self.quiet:
            print(text, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.events.close()
