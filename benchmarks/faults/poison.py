"""Observations and rewards that are not finite, at many moments of a run: what was learned before must stay."""

import itertools
import os
import random
from pathlib import Path

import torch

from benchmarks.faults import Figure, forked
from rqe_mappo import cli

ENV = "pettingzoo:benchmarks.faults.poisoned"
FLAGS = (
    "--env", ENV, "--max-steps", "10", "--num-envs", "2", "--num-steps", "16", "--return-scale", "1",
    "--total-timesteps", "1200", "--save-interval", "1", "--log-interval", "1", "--keep", "100", "--eval-episodes", "0",
)  # fmt: skip
WHAT = [
    *itertools.product(("observation", "final"), ("nan", "inf", "-inf", "1e39")),
    *itertools.product(("reward",), ("nan", "inf", "-inf", "1e38")),
]
LAST = 200  # step of a copy until which poison is given; a run has 300
PER_UPDATE = 64  # decisions of single agents
LIMIT_S = 60.0


def run(count: int, rng: random.Random, folder: Path) -> list[Figure]:
    """`count` runs, each poisoned once, then resumed in a clean environment."""
    stopped = named = late = poisoned = ended = 0
    for number, (what, value) in zip(range(count), itertools.cycle(WHAT)):
        at = rng.randrange(1, LAST)
        place = folder / str(number)
        first = forked.run(lambda p=f"{what} {value} {at}", place=place: _poisoned(p, place), LIMIT_S)
        stopped += first.in_one_line
        named += all(word in first.err for word in (ENV, "two"))
        if not (first.in_one_line and ENV in first.err and "two" in first.err):
            print(f"{what} {value} at step {at}: exit code {first.code}: {first.err[-600:]}", flush=True)
        files = sorted(place.glob("checkpoints/*.policy.pt"))
        late += bool(files) and _steps(files[-1]) > 4 * at + PER_UPDATE
        poisoned += sum(not _finite(file) for file in files)
        again = forked.run(lambda place=place: cli.train(["--resume", str(place), "--env", ENV]), LIMIT_S)
        ended += again.code == 0
        if again.code:
            print(f"{what} {value} at step {at}, resumed: {again.last_words}", flush=True)
    return [
        Figure("not finite", "injections", count, count),
        Figure("not finite", "ended in one line", stopped, count),
        Figure("not finite", "the line names environment and agent", named, count),
        Figure("not finite", "runs that learned on for more than an update", late, 0),
        Figure("not finite", "checkpoints with weights that are not finite", poisoned, 0),
        Figure("not finite", "runs that came to their end once resumed", ended, count),
    ]


def _poisoned(poison: str, place: Path) -> None:
    os.environ["POISON"] = poison
    cli.train([*FLAGS, "--out", str(place)])


def _steps(policy_file: Path) -> int:
    return int(policy_file.name.split("_")[1].split(".")[0])


def _finite(policy_file: Path) -> bool:
    content = torch.load(policy_file, map_location="cpu", weights_only=True)  # as it is, whatever a reader would refuse
    return all(bool(weights.isfinite().all()) for module in content["modules"].values() for weights in module.values())
