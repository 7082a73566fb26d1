"""Work in pools that ends when it is told to."""

from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import contextmanager


@contextmanager
def ending(pool: Executor) -> Generator[Executor]:
    """The pool, of which nothing more is begun once an error or Ctrl-C has ended the block."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
