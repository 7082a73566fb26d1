"""Pools: what was not begun when a block ended by an error is not begun any more."""

import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from rqe_mappo.sweeps.pools import ending


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
