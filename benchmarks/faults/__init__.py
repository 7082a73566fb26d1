"""What happens when things go wrong: `python -m benchmarks.faults` ([what it does](../README.md#faults)).

A part a module, each with `run(count, rng, folder) -> list[Figure]`; whatever trains does so in forked processes
(`forked`), so that the one that forks stays clean and has everything imported.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A number that a part found, and what it has to be, if that is known."""

    part: str
    name: str
    value: float | str
    wanted: float | str | None = None

    @property
    def right(self) -> bool:
        return self.wanted is None or self.value == self.wanted
