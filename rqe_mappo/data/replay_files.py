"""A replay buffer on the disk: files that are written once, one with each checkpoint, and removed when they are old."""

import re
from pathlib import Path
from typing import TypedDict

import torch
from jaxtyping import Int
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.data.replay import EpisodeReplay
from rqe_mappo.files import load_tensors, save_tensors

FOLDER = "replay"
ANEW = "resume with --no-keep-buffer, which fills the buffer anew"
NAME = re.compile(r"episodes_(\d{12})_(\d{12})\.pt")


class Kept(TypedDict):
    """What a file holds: episodes as `EpisodeReplay.cut_out` gives them."""

    length: Int[Tensor, " B"]
    arrays: dict[str, Tensor]


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    """The files of a run folder in order: number of the first episode, of the one behind the last, path."""
    found = [(NAME.fullmatch(path.name), path) for path in (folder / FOLDER).glob("episodes_*.pt")]
    return sorted((int(match[1]), int(match[2]), path) for match, path in found if match and path.is_file())


def write(folder: Path, replay: EpisodeReplay) -> None:
    """Write the whole episodes that no file holds yet; files of episodes that have not been are another run's."""
    written = 0
    for _, behind, path in _files(folder):
        if behind > replay.count:
            path.unlink(missing_ok=True)
        else:
            written = behind
    first = max(written, replay.count - len(replay))
    if first >= replay.count:
        return
    slots = torch.tensor(list(replay.finished)[first - replay.count :])
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    content = {"length": replay.length[slots], "arrays": replay.cut_out(slots)}
    save_tensors(folder / FOLDER / f"episodes_{first:012d}_{replay.count:012d}.pt", content)


def drop_old(folder: Path, replay: EpisodeReplay) -> None:
    """Remove the files of which no episode is in the buffer any more, and what killed processes left half written."""
    for path in (folder / FOLDER).glob(".episodes_*.part"):
        if path.is_file():
            path.unlink(missing_ok=True)
    for _, behind, path in _files(folder):
        if behind <= replay.count - len(replay):
            path.unlink(missing_ok=True)


def read(folder: Path, replay: EpisodeReplay, kept: int) -> None:
    """Fill an empty buffer with the `kept` episodes that it held when `replay.count` had ended; later ones are removed.

    CheckpointError where a file is missing or cannot be read.
    """
    at = replay.count - kept
    for first, behind, path in _files(folder):
        if first >= replay.count:  # of a checkpoint that was never completed
            path.unlink()
        elif behind > at:
            if first > at:
                break
            _restore(path, behind - first, replay, at - first)
            at = behind
    if at < replay.count:
        raise CheckpointError(f"{folder / FOLDER} lacks episode {at} of the replay buffer: {ANEW}")


def _restore(path: Path, episodes: int, replay: EpisodeReplay, skip: int) -> None:
    try:
        kept = schema.read(Kept, load_tensors(path), path.name)
        if len(kept["length"]) != episodes:
            raise ValueError("it does not hold the episodes that its name says")
        replay.restore(kept["length"], kept["arrays"], skip)
    except Exception as error:  # whatever foreign contents lead to
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{path} holds no episodes of this run ({cause}): {ANEW}") from error
