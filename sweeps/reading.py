"""What a sweep reads back: tables, evaluations and their episodes. Damage ends in one line with file and fix."""

import csv
import gzip
import io
import math
import shlex
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

from rqe_mappo import schema
from rqe_mappo.config import ConfigError
from rqe_mappo.schema import Count, Rule

LARGEST = 2**30  # bytes that a table or the episodes of a run may unpack to; those of a large sweep take some 50 MB
HEAD = ("run", "label", "family")
COLUMNS = {
    "results.csv": (*HEAD, "point", "seed", "episodes"),
    "summary.csv": ("label", "metric", "mean", "low", "high"),
    "comparisons.csv": (
        "label", "metric", "pairs", "better_by", "low", "high", "probability", "probability_low", "probability_high",
    ),
    "fronts.csv": (
        "first", "second", "family", "settings", "front_of_all", "seeds", "hypervolume", "low", "high",
        "reference_first", "reference_second",
    ),
    "curves.csv": (*HEAD, "global_step"),
    "episodes.csv.gz": (*HEAD, "episode", "agent", "return"),
    "metrics.csv": ("global_step",),
}  # fmt: skip
"""The columns that each table must have; other tables may have any."""
MIXED = ("safe", "neutral", "alpha", "eval_seed")  # those of results.csv too where there is "kind"
WHOLE = {"seed", "episodes", "settings", "seeds", "pairs", "global_step", "episode", "agent"}
NUMBERS = {
    "train_seconds", "train_cpu_seconds", "charts/cpu_seconds", "return", "mean", "low", "high", "better_by",
    "probability", "probability_low", "probability_high", "hypervolume", "reference_first", "reference_second", "alpha",
}  # fmt: skip


class Metric(TypedDict):
    """One metric of an evaluation; None where no agent had a sample, or the sample gives no interval."""

    metric: str
    level: str
    value: float | None
    low: float | None
    high: float | None
    episodes: Count


class Evaluation(TypedDict):
    """What is read of eval.json; it holds more."""

    timesteps: Count
    episodes: Count
    deterministic: bool
    metrics: list[Metric]
    critic: NotRequired[dict[str, Any]]


class Attempt(TypedDict):
    """An attempt at a run of a sweep: when it began and when it last saved, in seconds since the epoch."""

    began: Annotated[float, Rule(math.isfinite, "be finite")]
    saved: Annotated[float, Rule(math.isfinite, "be finite")] | None


def read_json(kind: Any, path: Path, fix: str) -> Any:
    """The contents of a JSON file as the type `kind`; what a TypedDict does not know is left out.

    fix: what to do where the file is damaged, for the message. Raises ConfigError; FileNotFoundError for no file.
    """
    try:
        found = schema.parse_json(path.read_text(encoding="utf-8"), "the file")
        return schema.read(kind, _known(kind, found), "")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is damaged ({error.reason}): {fix}") from None
    except schema.SchemaError as error:
        raise ConfigError(f"{path} is damaged ({error}): {fix}") from None


def _known(kind: Any, found: Any) -> Any:
    """The entries of a dict that a TypedDict knows, at any depth of lists and TypedDicts."""
    if getattr(kind, "__origin__", None) is list and isinstance(found, list):
        return [_known(kind.__args__[0], item) for item in found]
    if not (isinstance(kind, type) and hasattr(kind, "__required_keys__") and isinstance(found, dict)):
        return found
    return {name: _known(of, found[name]) for name, of in kind.__annotations__.items() if name in found}


def evaluation(folder: Path) -> Evaluation:
    """The evaluation of a run, from its eval.json."""
    return read_json(Evaluation, folder / "eval.json", f"run rqe-eval {shlex.quote(str(folder))} again")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, gzipped if the name says so, as text; none if there is no file.

    Raises ConfigError where the file is damaged: numbers that are none, rows of another length, columns that lack.
    """
    if not path.is_file():
        return []
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST} bytes")
        lines = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
        return list(_rows(path.name, lines))
    except (ValueError, EOFError, OSError, zlib.error, csv.Error) as error:
        cause = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} is damaged ({cause}): delete it, and rqe-sweep or rqe-eval writes it anew") from None


def _rows(name: str, lines: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    head = next(lines, None)
    if head is None:
        raise ValueError("it is empty")
    if not head and next(lines, None) is None:
        return  # a table without rows
    needed = (*COLUMNS.get(name, ()), *(MIXED if name == "results.csv" and "kind" in head else ()))
    if missing := [column for column in needed if column not in head]:
        raise ValueError(f"it has no column {missing[0]}")
    if len(set(head)) < len(head):
        raise ValueError("two columns have the same name")
    metrics = [column for column in head if f"{column} low" in head]
    numbers = NUMBERS.union(*((column, f"{column} low", f"{column} high") for column in metrics))
    for place, cells in enumerate(lines, 2):
        if len(cells) != len(head):
            raise ValueError(f"row {place} has {len(cells)} cells, not {len(head)}")
        row = dict(zip(head, cells, strict=True))
        if name in COLUMNS:
            _check_numbers(row, numbers, place)
        yield row


def _check_numbers(row: dict[str, str], numbers: set[str], place: int) -> None:
    for column, text in row.items():
        if column in WHOLE:
            right = text.isascii() and text.isdecimal() and len(text) < 19
        else:
            right = column not in numbers or text == "" or _is_number(text)
        if not right:
            raise ValueError(f"row {place}: {column} is {text[:20]!r}, no number")


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text)) and text.isascii()
    except ValueError:
        return False


def number(row: dict[str, Any], column: str) -> float:
    """A cell as a number; nan where it is empty or missing."""
    text = row.get(column)
    return math.nan if text in ("", None) else float(text)


def episodes(path: Path) -> dict[str, np.ndarray]:
    """The arrays of eval_episodes.npz that have a number for each episode and agent, `[F, A]`; `length` among them."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST} bytes")
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        shape = arrays["length"].shape
        if len(shape) != 2 or any(array.dtype.kind not in "fiub" for array in arrays.values()):
            raise ValueError("its arrays are not numbers of episodes and agents")
        if any(array.shape != shape for array in arrays.values() if array.ndim == 2):
            raise ValueError("its arrays have different shapes")
    except (
        ValueError, KeyError, EOFError, OSError, NotImplementedError, RuntimeError, SyntaxError, TypeError,
        MemoryError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error,
    ) as error:  # each kind of damage has another  # fmt: skip
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{path} is damaged ({cause}): run rqe-eval {shlex.quote(str(path.parent))} again") from None
    return {name: array for name, array in arrays.items() if array.ndim == 2}
