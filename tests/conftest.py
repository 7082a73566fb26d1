"""Every test runs with the shapes in the signatures of `functional` checked, on one thread, and can be interrupted.

Tests marked `slow` (over two seconds, all cases of a test together) run with `--slow`, or when they are named.
"""

import signal

import pytest
import torch
from jaxtyping import install_import_hook

# The numeric tower: an int is a good float.
install_import_hook("rqe_mappo.functional", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
torch.set_num_threads(1)  # tensors are small here
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and tests send it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = any("::" in argument for argument in config.args)
    if config.getoption("--slow") or named or config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
