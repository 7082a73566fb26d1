"""Checkpoints: a policy file and a training-state file, written atomically, read without executing anything.

`checkpoints/step_N.policy.pt` holds what a deployer needs, `checkpoints/step_N.training.pt` what a resumed run needs,
and `latest`, replaced last, names the newest complete pair. A kill at any moment leaves the previous pair valid.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rqe_mappo import upgrade

POLICY_FORMAT = "rqe_mappo policy 2"
TRAINING_FORMAT = "rqe_mappo training state 2"
OLDER: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    POLICY_FORMAT: ("rqe_mappo policy 1", upgrade.policy),
    TRAINING_FORMAT: ("rqe_mappo training state 1", upgrade.training),
}
"""The format before each, and what makes one of the other."""


class CheckpointError(ValueError):
    """A file or folder that is not a checkpoint of this package; the message names it and the fix, in one line."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to the disk, then rename: readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _save(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.part")
    torch.save(_on_cpu(content), temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _on_cpu(value: Any) -> Any:
    """The same with all tensors on the CPU, so that a file does not say where the networks lived."""
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value.cpu() if isinstance(value, torch.Tensor) else value


def _load(path: Path, wanted: str) -> dict[str, Any]:
    """Contents of one of our files: tensors and plain values only, so that a stranger's file cannot run code."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give a run folder or a step_N.policy.pt file of rqe-train")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different class for each kind of damage
        cause = "is damaged, or not a checkpoint of rqe-train (nothing in it was executed)"
        raise CheckpointError(f"{path} {cause}: use another checkpoint of the run") from error
    older, upgraded = OLDER[wanted]
    if isinstance(content, dict) and content.get("format") == older:
        return _upgraded(path, content, upgraded)
    if not isinstance(content, dict) or content.get("format") != wanted:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} is not a '{wanted}' file (found {found!r}): use a checkpoint made by rqe-train")
    return content


def _upgraded(
    path: Path, content: dict[str, Any], upgraded: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    try:
        return upgraded(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not hold a whole checkpoint ({type(error).__name__}: {error}): use another checkpoint"
        ) from None


def load_policy_file(path: str | Path) -> dict[str, Any]:
    """Contents of a policy file, given itself or its run folder (then the newest), on the CPU."""
    path = Path(path)
    return _load(newest(path)[0] if path.is_dir() else path, POLICY_FORMAT)


def algorithm_of(path: str | Path) -> str:
    """The algorithm of a policy file or run folder, by the name in its settings; empty where there is none."""
    try:
        return str(json.loads(load_policy_file(path)["config"])["algo"])
    except (KeyError, TypeError, ValueError):
        return ""


def load_training_file(path: Path) -> dict[str, Any]:
    """Contents of a training-state file, on the CPU."""
    return _load(path, TRAINING_FORMAT)


def save(run: Path, step: int, policy: dict[str, Any], training: dict[str, Any], keep: int) -> None:
    """Write both files of `step`, point `latest` at them, and remove all but the newest `keep` pairs."""
    folder = run / "checkpoints"
    folder.mkdir(exist_ok=True)
    name = f"step_{step:012d}"
    _save(folder / f"{name}.policy.pt", {"format": POLICY_FORMAT, **policy})
    _save(folder / f"{name}.training.pt", {"format": TRAINING_FORMAT, **training})
    write_atomically(run / "latest", f"{name}\n".encode())
    for old in sorted(folder.glob("step_*.policy.pt"))[:-keep]:
        old.unlink()
        old.with_name(old.name.replace(".policy.", ".training.")).unlink(missing_ok=True)


def newest(run: Path) -> tuple[Path, Path]:
    """Policy file and training-state file of the newest complete checkpoint of a run folder."""
    fix = "give the folder of a run that has saved at least once"
    if not run.is_dir():
        raise CheckpointError(f"{run} is not a folder: {fix}")
    pointer = run / "latest"
    name = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    if not re.fullmatch(r"step_\d+", name):
        raise CheckpointError(f"{run} holds no checkpoint: {fix}")
    policy, training = (run / "checkpoints" / f"{name}.{kind}.pt" for kind in ("policy", "training"))
    if not policy.is_file():
        raise CheckpointError(f"{policy} is missing although {pointer} names it: {fix}")
    return policy, training


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
