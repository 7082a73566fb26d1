"""Checkpoints: a policy file and a training-state file, written atomically, read without executing anything.

`checkpoints/step_N.policy.pt` holds what a deployer needs, `checkpoints/step_N.training.pt` what a resumed run needs,
and `latest`, replaced last, names the newest complete pair. A kill at any moment leaves the previous pair valid.
"""

import contextlib
import itertools
import os
import re
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from rqe_mappo import schema, upgrade
from rqe_mappo.files import WriteError, load_tensors, save_tensors, write_atomically
from rqe_mappo.schema import Count, Positive, Rule

__all__ = ["CheckpointError", "load_policy_file", "load_training_file", "newest", "save", "write_atomically"]

POLICY_FORMAT = "rqe_mappo policy 2"
TRAINING_FORMAT = "rqe_mappo training state 2"
OLDER: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    POLICY_FORMAT: ("rqe_mappo policy 1", upgrade.policy),
    TRAINING_FORMAT: ("rqe_mappo training state 1", upgrade.training),
}
"""The format before each, and what makes one of the other."""
LARGEST_POLICY = 2**31  # bytes, as ONNX has it; a policy of this package has some 100 kB


class CheckpointError(ValueError):
    """A file or folder that is not a checkpoint of this package; the message names it and the fix, in one line."""


Tolerance = Annotated[float, Rule(lambda tau: tau > 0, "be above 0")]


class Risk(TypedDict):
    """The risk measure of a policy's training; tau in units of return_scale, one for all agents or one each."""

    name: str
    tau: Tolerance | list[Tolerance]
    clip: Positive | None
    return_scale: Positive | None


class PolicyContent(TypedDict):
    """What a policy file holds; networks and spaces are what `nets` and `described_spaces` check."""

    format: NotRequired[str]
    config: str
    agents: list[str]
    timesteps: Count
    networks: dict[str, dict[str, Any]]
    returns: str | None
    risk: Risk | None
    modules: dict[str, dict[str, Tensor]]
    spaces: NotRequired[list[dict[str, Any]]]


class TrainingContent(TypedDict):
    """What a training-state file holds; algorithm, collector and env are what these check themselves."""

    format: NotRequired[str]
    algorithm: dict[str, Any]
    collector: dict[str, Any]
    generator: UInt8[Tensor, " bytes"]
    env: dict[str, Any] | None
    worker_restarts: list[Count]
    step: Count
    updates: Count
    resumed: Count


def _load(path: Path, wanted: str, kind: type) -> dict[str, Any]:
    """Contents of one of our files: tensors and plain values only, so that a stranger's file cannot run code."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give a run folder or a step_N.policy.pt file of rqe-train")
    try:
        content = load_tensors(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None
    except Exception as error:  # zipfile, pickle and torch raise a different class for each kind of damage
        cause = "is damaged, or not a checkpoint of rqe-train (nothing in it was executed)"
        raise CheckpointError(f"{path} {cause}: {_instead_of(path)}") from error
    older, upgraded = OLDER[wanted]
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if not isinstance(found, str) or found not in (older, wanted):
        shown = reprlib.repr(found)
        raise CheckpointError(f"{path} is not a '{wanted}' file (found {shown}): use a checkpoint made by rqe-train")
    try:
        return checked(upgraded(content) if found == older else content, kind)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} does not hold a whole checkpoint ({cause}): {_instead_of(path)}") from None


def checked(content: dict[str, Any], kind: Any = PolicyContent) -> dict[str, Any]:
    """The contents of a file as its `kind` has them; ValueError for missing, unknown or wrong ones, and for nan."""
    known = schema.read(kind, content, "")
    for name in ("modules", "algorithm"):
        _check_finite(known.get(name), name)
    return known


def _check_finite(value: Any, place: str) -> None:
    """ValueError for a tensor that is not finite: whoever acted by it, or learned on, would be lost."""
    if isinstance(value, dict | list | tuple):
        items: Iterable[Any] = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            _check_finite(item, f"{place}.{name}")
    elif isinstance(value, Tensor) and not value.isfinite().all():
        raise ValueError(f"{place} is not finite")


def _instead_of(path: Path) -> str:
    """What to do where a checkpoint cannot be used."""
    run = path.parent.parent
    others = [name for name in complete(run) if not path.name.startswith(f"{name}.")]
    if path.parent != _folder(run) or not others:
        return "use another checkpoint"
    return f"use another checkpoint, such as {others[-1]}: with that name in {run / 'latest'}, --resume goes on from it"


def load_policy_file(path: str | Path) -> dict[str, Any]:
    """Contents of a policy file, given itself or its run folder (then the newest), on the CPU: a `PolicyContent`."""
    path = Path(path)
    path = newest(path)[0] if path.is_dir() else path
    if path.is_file() and path.stat().st_size > LARGEST_POLICY:
        raise CheckpointError(f"{path} is larger than {LARGEST_POLICY / 2**30:.0f} GiB: no policy is")
    return _load(path, POLICY_FORMAT, PolicyContent)


def algorithm_of(path: str | Path) -> str:
    """The algorithm of a policy file or run folder, by the name in its settings; empty where there is none."""
    try:
        return str(schema.parse_json(load_policy_file(path)["config"], "config")["algo"])
    except (KeyError, TypeError, ValueError):
        return ""


def load_training_file(path: Path) -> dict[str, Any]:
    """Contents of a training-state file, on the CPU: a `TrainingContent`."""
    return _load(path, TRAINING_FORMAT, TrainingContent)


def save(run: Path, step: int, policy: dict[str, Any], training: dict[str, Any], keep: int) -> None:
    """Write both files of `step`, point `latest` at them, and remove all but the newest `keep` pairs up to it.

    Raises WriteError where that is impossible; the checkpoint before is then as valid as it was.
    """
    folder = _made(_folder(run))
    name = f"step_{step:012d}"
    policy_file, training_file = _pair(run, name)
    there = policy_file.exists()
    try:
        size = save_tensors(policy_file, {"format": POLICY_FORMAT, **policy})
        if size > LARGEST_POLICY:
            raise CheckpointError(
                f"the networks take {size / 2**30:.1f} GiB, more than can be loaded: use smaller ones"
            )
        save_tensors(training_file, {"format": TRAINING_FORMAT, **training})
    except BaseException:
        if not there:  # half a pair takes room, and is of no use
            policy_file.unlink(missing_ok=True)
        raise
    write_atomically(run / "latest", f"{name}\n".encode())
    before = sorted(old for old in folder.glob("step_*.policy.pt") if old.name <= policy_file.name)
    left_behind = folder.glob(".step_*.part")  # by processes that were killed
    for path in (*(file for old in before[:-keep] for file in _pair(run, old.name.split(".")[0])), *left_behind):
        with contextlib.suppress(OSError):  # one file too many is no reason to stop
            path.unlink(missing_ok=True)


def _folder(run: Path) -> Path:
    return run / "checkpoints"


def _made(folder: Path) -> Path:
    """The folder, made anew where it is gone; what else took its name, such as a link to nowhere, is set aside."""
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            names = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
            folder.rename(next(name for name in names if not os.path.lexists(name)))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(folder, error) from None
    return folder


def _pair(run: Path, name: str) -> tuple[Path, Path]:
    """Policy file and training-state file of a checkpoint."""
    return _folder(run) / f"{name}.policy.pt", _folder(run) / f"{name}.training.pt"


def complete(run: Path) -> list[str]:
    """The names of a run's checkpoints of which both files are there, the earliest first."""
    names = sorted(path.name.removesuffix(".policy.pt") for path in _folder(run).glob("step_*.policy.pt"))
    return [name for name in names if all(path.is_file() for path in _pair(run, name))]


def begun(run: Path) -> bool:
    """Whether a run has ever saved anything; one that was killed before that begins anew."""
    return any(os.path.lexists(run / name) for name in ("latest", "metrics.csv")) or bool(complete(run))


def newest(run: Path) -> tuple[Path, Path]:
    """Policy file and training-state file of the newest complete checkpoint of a run folder."""
    fix = "give the folder of a run that has saved at least once"
    if not run.is_dir():
        raise CheckpointError(f"{run} is not a folder: {fix}")
    names, pointer = complete(run), run / "latest"
    if not os.path.lexists(pointer) and names:  # killed before it was written
        return _pair(run, names[-1])
    name = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    if not re.fullmatch(r"step_\d+", name):
        raise CheckpointError(f"{run} holds no checkpoint: {_fix(pointer, names) or fix}")
    policy, training = _pair(run, name)
    if not policy.is_file():
        raise CheckpointError(f"{policy} is missing although {pointer} names it: {_fix(pointer, names) or fix}")
    return policy, training


def _fix(pointer: Path, names: list[str]) -> str:
    """What makes `latest` point at one of the checkpoints there are; empty if there are none."""
    return f"write {names[-1]} into {pointer}" if names else ""


def to_plain(value: Any) -> Any:
    """Arrays within nested dicts, lists and tuples as tensors, numpy scalars as Python's: what a safe load accepts."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.item() if isinstance(value, np.generic) else value


def to_arrays(value: Any) -> Any:
    """The reverse of `to_plain` for arrays."""
    if isinstance(value, dict):
        return {key: to_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_arrays(item) for item in value]
    return value.numpy() if isinstance(value, torch.Tensor) else value
