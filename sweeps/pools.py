"""Work in pools that ends when it is told to."""

import multiprocessing
from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import contextmanager


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
