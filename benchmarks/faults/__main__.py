"""All parts, one after another, or those that are named; writes their rows of benchmarks/results/faults.csv."""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.faults import Figure, commands, disk, forked, kills, poison, readers, workers
from rqe_mappo.sweeps import tables

RESULT = Path(__file__).parents[1] / "results" / "faults.csv"
Part = Callable[[int, random.Random, Path], list[Figure]]
CARTPOLE, RECURRENT, REPLAY, RECURRENT_REPLAY, SUMO = kills.KINDS
PARTS: dict[str, tuple[Part, int, int]] = {
    "kills": (partial(kills.run, CARTPOLE), 100, 6),
    "kills-recurrent": (partial(kills.run, RECURRENT), 50, 4),
    "kills-replay": (partial(kills.run, REPLAY), 10, 2),
    "kills-recurrent-replay": (partial(kills.run, RECURRENT_REPLAY), 10, 2),
    "kills-sumo": (partial(kills.run, SUMO), 50, 3),
    "workers": (workers.run, 100, 4),
    "disk": (partial(disk.run, CARTPOLE), 20, 3),
    "disk-sumo": (partial(disk.run, SUMO), 20, 2),
    "not-finite": (poison.run, 30, 6),
    "readers": (readers.run, 1000, 30),
    "commands": (commands.run, 2000, 40),
}
"""A part, how often as a whole, and how often with --quick."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few of each, within five minutes; writes no file")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts")
    parser.add_argument("--count", type=int, help="so many of each instead; writes no file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    forked.preload()
    found: list[Figure] = []
    for name in args.only:
        part, whole, quick = PARTS[name]
        count = args.count or (quick if args.quick else whole)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            figures = part(count, random.Random(f"{args.seed} {name}"), Path(folder))
        figures.append(Figure(figures[0].part, "seconds", round(time.monotonic() - began)))
        for figure in figures:
            wanted = "" if figure.wanted is None else f"(has to be {figure.wanted})"
            print(
                f"{'' if figure.right else 'WRONG  '}{figure.part}: {figure.name} {figure.value} {wanted}", flush=True
            )
        found += figures
    if not args.quick and args.count is None:
        write(found)
    wrong = [figure for figure in found if not figure.right]
    print(f"{len(found)} figures, {len(wrong)} of them wrong")
    return int(bool(wrong))


def write(found: list[Figure]) -> None:
    """Write figures to the table, in the place of those of the same parts."""
    RESULT.parent.mkdir(exist_ok=True)
    parts = {figure.part for figure in found}
    others = [row for row in tables.read(RESULT) if row["part"] not in parts]
    rows = [
        {"part": f.part, "figure": f.name, "value": f.value, "has to be": "" if f.wanted is None else f.wanted}
        for f in found
    ]
    tables.write(RESULT, [*others, *rows])


if __name__ == "__main__":
    sys.exit(main())
