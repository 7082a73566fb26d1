"""The global random generators, kept apart for environments that draw from them."""

import random
import sys
from types import TracebackType
from typing import Any

import numpy as np

numpy_random: Any = np.random  # whose stubs do not know all of it


class GlobalGenerators:
    """Python's, NumPy's and, where it is loaded, PyTorch's global generator, as environments within `with` see them.

    They follow from the seed alone, whatever the program around draws; and what the program draws from its own does not
    depend on what environments draw. NumPy's are exchanged and not copied, which takes a hundred times as long: so the
    second of two normal numbers, which its old functions hold back for the next call, is forgotten on both sides.

    >>> generators = GlobalGenerators(3)
    >>> with generators:
    ...     drawn = random.random()

    """

    def __init__(self, seed: int):
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start anew from `seed`, at least 0."""
        self._seed = seed
        numbers: Any = np.random.MT19937()
        numbers.state = np.random.RandomState(seed % 2**32).get_state(legacy=False)
        self._states: list[Any] = [random.Random(seed).getstate(), numbers]

    def __enter__(self) -> None:
        self._outer, states = _states(), self._states
        if len(states) < len(self._outer):  # PyTorch has been loaded since
            states = [*states, sys.modules["torch"].Generator().manual_seed(self._seed).get_state()]
        _set(states)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._states = _states()
        _set(self._outer)


def _states() -> list[Any]:
    states: list[Any] = [random.getstate(), numpy_random.get_bit_generator()]
    return [*states, sys.modules["torch"].get_rng_state()] if "torch" in sys.modules else states


def _set(states: list[Any]) -> None:
    random.setstate(states[0])
    numpy_random.set_bit_generator(states[1])
    if len(states) > 2:
        sys.modules["torch"].set_rng_state(states[2])
