"""How far an evaluation is, on standard error: a bar on a terminal, elsewhere a line now and then if it takes long."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator

from tqdm import tqdm

EVERY_S = 15.0  # between two lines where there is no terminal
Show = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


@contextlib.contextmanager
def shown(unit: str, every_s: float = EVERY_S) -> Generator[Show]:
    """Gives what shows the progress; on a terminal the bar goes away at the end."""
    if not sys.stderr.isatty():
        yield _lines(unit, every_s)
        return
    with tqdm(unit=f" {unit}", leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _lines(unit: str, every_s: float) -> Show:
    due = time.monotonic() + every_s

    def show(done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + every_s
            print(f"{done} of {total} {unit}", file=sys.stderr, flush=True)

    return show
