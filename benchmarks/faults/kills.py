"""`kill -9` of training runs at random moments, again and again, and what becomes of them."""

import csv
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults import Figure, forked
from rqe_mappo import checkpoint, cli

OFTEN = ("--save-interval", "1", "--log-interval", "1", "--eval-episodes", "0")
CARTPOLE = ("--env", "cartpole", "--num-envs", "8", "--num-steps", "32", "--total-timesteps", "3000", *OFTEN)
REPLAY = (
    "--env", "step-games", "--algo", "qmix", "--keep-buffer", "--num-envs", "8", "--total-timesteps", "3000",
    "--buffer-episodes", "100", "--batch-episodes", "8", *OFTEN,
)  # fmt: skip
LIMIT_S = 120.0
DIFFER = ("resumed", "worker_restarts")  # of training states: how often the run was resumed


@dataclass(frozen=True)
class Kind:
    """Runs to kill.

    exact: whether a resumed run has to end bitwise equal to one that was never killed.
    learning: kill only after the process has saved what it learned itself, else at any moment from its start on.
    """

    name: str
    flags: tuple[str, ...]
    exact: bool = True
    learning: bool = False


KINDS = (
    Kind("CartPole", CARTPOLE),
    Kind("CartPole, recurrent", (*CARTPOLE, "--recurrent")),
    Kind("QMIX, buffer kept", REPLAY),
    Kind("QMIX, buffer kept, recurrent", (*REPLAY, "--recurrent")),
    Kind(
        "SUMO",
        ("--env", "sumo", "--num-envs", "4", "--num-steps", "16", "--total-timesteps", "3000", "--return-scale", "10",
         "--warmup-fraction", "0", *OFTEN),
        exact=False,
        learning=True,
    ),
)  # fmt: skip


def run(kind: Kind, kills: int, rng: random.Random, folder: Path) -> list[Figure]:
    """Kill runs of a kind `kills` times; each is resumed until it ends, and then another begins."""
    reference = folder / "unbroken"
    whole = forked.run(lambda: cli.train([*kind.flags, "--out", str(reference)]), LIMIT_S)
    if whole.code:
        raise RuntimeError(whole.err)
    seen: Counter[str] = Counter()
    while seen["kills"] < kills:
        _until_the_end(kind, folder / f"run{seen['runs']}", kills, whole.seconds, rng, seen)
        seen["runs"] += 1
        if kind.exact and seen["ended"] and not same_end(reference, folder / f"run{seen['runs'] - 1}"):
            seen["unequal"] += 1
    return [
        Figure(kind.name, "kill -9", seen["kills"], kills),
        Figure(kind.name, "of them before the first checkpoint", seen["early"]),
        Figure(kind.name, "of them while a file was being written", seen["writing"]),
        Figure(kind.name, "steps lost that had been saved", seen["lost"], 0),
        Figure(kind.name, "checkpoints that do not load", seen["broken"], 0),
        Figure(kind.name, "runs that did not go on", seen["dead"], 0),
        Figure(kind.name, "runs that came to their end", seen["runs"] - seen["dead"], seen["runs"]),
        *([Figure(kind.name, "ends not bitwise equal to the unbroken run", seen["unequal"], 0)] if kind.exact else []),
    ]


def _until_the_end(
    kind: Kind, folder: Path, kills: int, whole_s: float, rng: random.Random, seen: Counter[str]
) -> None:
    """Kill and resume a run until it ends by itself, or `kills` are done: then it may end in peace."""
    saved = -1
    seen["ended"] = 0
    while True:
        moment = rng.uniform(0, whole_s) if seen["kills"] < kills else LIMIT_S
        place = ("--resume", str(folder)) if (folder / "config.json").is_file() else ("--out", str(folder))
        flags = () if place[0] == "--resume" else kind.flags
        ended = forked.run(lambda flags=flags, place=place: cli.train([*flags, *place]), LIMIT_S,
                           _after(folder, moment, saved if kind.learning else None))  # fmt: skip
        if ended.code == -9 and not ended.stopped:
            seen["kills"] += 1
            seen["early"] += not (folder / "latest").is_file()
            seen["writing"] += any(folder.rglob("*.part"))
            now = _step(folder)
            seen["lost"] += now < saved
            seen["broken"] += not loads(folder)
            saved = now
        elif ended.code:
            print(f"{kind.name}: {ended.last_words}", flush=True)
            seen["dead"] += 1
            return
        else:
            seen["ended"] = 1
            return


def _after(folder: Path, moment: float, saved: int | None) -> Callable[[float], bool]:
    """When to kill: `moment` seconds after the start, or after the first checkpoint later than step `saved`."""
    since: list[float] = [0.0] if saved is None else []

    def due(seconds: float) -> bool:
        if not since and _step(folder) > max(saved or 0, 0):
            since.append(seconds)
        return bool(since) and seconds - since[0] >= moment

    return due


def _step(folder: Path) -> int:
    try:
        return int((folder / "latest").read_text().split("_")[1])
    except (OSError, ValueError, IndexError):
        return -1


def loads(folder: Path) -> bool:
    """Whether both files of a run's newest checkpoint can be read, if there is one."""
    if not (folder / "latest").is_file():
        return True
    try:
        checkpoint.load_policy_file(folder)
        checkpoint.load_training_file(checkpoint.newest(folder)[1])
    except checkpoint.CheckpointError as error:
        print(error, flush=True)
        return False
    return True


def same_end(one: Path, other: Path) -> bool:
    """Whether two runs ended bitwise equal: weights, optimisers, random state, environments, and their logs."""
    parts = {"state": _end(one) == _end(other), "log": _log(one) == _log(other)}
    if differ := [name for name, same in parts.items() if not same]:
        print(f"{other}: not bitwise equal: {', '.join(differ)}", flush=True)
    return not differ


def _end(folder: Path) -> Any:
    policy, training = checkpoint.newest(folder)
    states = (checkpoint.load_policy_file(policy)["modules"], checkpoint.load_training_file(training))
    return _bits({name: value for name, value in states[1].items() if name not in DIFFER}), _bits(states[0])


def _bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bits(item) for item in value]
    return (tuple(value.shape), value.dtype, value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


def _log(folder: Path) -> list[dict[str, str]]:
    """What was learned at each step; charts of episodes show the last that were seen, which is not saved."""
    with open(folder / "metrics.csv", newline="") as file:
        return [
            {name: text for name, text in row.items() if not name.startswith("charts/")} for row in csv.DictReader(file)
        ]
