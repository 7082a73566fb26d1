"""Work in pools that ends when it is told to."""

import multiprocessing
import os
from collections.abc import Generator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from rqe_mappo.data.workers import die_with


@contextmanager
def processes(jobs: int) -> Generator[Executor]:
    """So many processes at work, one numeric thread each; they end with this one, however it ends.

    RuntimeError, in one line, where one of them was killed.
    """
    spawning = multiprocessing.get_context("spawn")
    try:
        with ending(ProcessPoolExecutor(jobs, spawning, _prepare, (os.getpid(),))) as pool:
            yield pool
    except BrokenProcessPool:
        raise RuntimeError(
            "a process at work was killed or could not begin, for want of memory perhaps: give the same command again, "
            "with fewer --jobs; what was finished is kept"
        ) from None


def _prepare(owner: int) -> None:
    import torch

    die_with(owner)
    torch.set_num_threads(1)


@contextmanager
def ending(pool: Executor) -> Generator[Executor]:
    """The pool, of which nothing more is begun once an error or Ctrl-C has ended the block.

    Processes that are at work then are ended too: a cell may take hours, and whoever asked has gone.
    """
    try:
        yield pool
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
