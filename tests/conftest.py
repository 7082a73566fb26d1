"""Every test runs with the shapes in the signatures of `functional` checked, on one thread, and can be interrupted.

The checks are those of a test's first `CHECKED` calls: a run that learns repeats them a hundred thousand times, and
they would be a quarter of its time.

Tests marked `slow` (over two seconds, all cases of a test together) run with `--slow`, or when they are named.
"""

import signal

import jaxtyping
import pytest
import torch

CHECKED = 5_000

# The numeric tower: an int is a good float.
jaxtyping.install_import_hook(
    "rqe_mappo.functional", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)
torch.set_num_threads(1)  # tensors are small here
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and tests send it


class Enough:
    """False the first `calls` times that it is asked, then true."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def pytest_runtest_setup() -> None:
    jaxtyping.config.jaxtyping_disable = Enough(CHECKED)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = any("::" in argument for argument in config.args)
    if config.getoption("--slow") or named or config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
