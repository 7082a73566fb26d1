"""Payoffs of a user's own: read from a file, checked, and kept as plain values in the settings of a run."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rqe_mappo.envs.contract import LARGEST, WITHIN
from rqe_mappo.envs.matrix_games.payoffs import MatrixGame

MOST_PAYOFFS = 100_000  # numbers of all players: settings, and every policy file, hold them
MOST_PLAYERS = 16
LARGEST_FILE = 4_000_000  # bytes: forty a number


@dataclass(frozen=True)
class PayoffTable:
    """A game in normal form as plain values. Settings hold the payoffs themselves, never the name of a file.

    sizes: A_1 to A_n, how many actions each of the n players has.
    values: payoffs `[n, A_1, ..., A_n]`, flat, the last axis fastest; higher is better.
    actions: the actions' names, one tuple a player; empty: numbers from 1 on.

    Raises ValueError, in one line, where these contradict each other.
    """

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    actions: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self):
        n, names = len(self.sizes), self.actions
        _require(1 <= n <= MOST_PLAYERS, f"payoffs must be of 1 to {MOST_PLAYERS} players (got {n})")
        _require(min(self.sizes) >= 1, f"every player needs an action (got {list(self.sizes)})")
        count = n * math.prod(self.sizes)
        _require(count <= MOST_PAYOFFS, f"payoffs must be at most {MOST_PAYOFFS} numbers (got {count})")
        _require(len(self.values) == count, f"payoffs must be {count} numbers (got {len(self.values)})")
        bounded = all(abs(value) <= LARGEST for value in self.values)
        _require(bounded, f"payoffs must be finite and {WITHIN}")
        fits = not names or [len(own) for own in names] == list(self.sizes)
        _require(fits, f"actions must name {list(self.sizes)} actions, one list a player")
        distinct = all(len(set(own)) == len(own) for own in names)
        _require(distinct, "a player's actions must have different names")

    @classmethod
    def from_file(cls, path: str) -> "PayoffTable":
        """The table in a file of `{"payoffs": [n][A_1]...[A_n], "actions": [[name, ...], ...]}`, actions optional.

        The format of rqe-solve. ValueError, in one line that names the file, for anything else.
        """
        if not Path(path).is_file():  # devices and pipes, which may have no end, are none
            raise ValueError(f"{path} is no file" if Path(path).exists() else f"no such file: {path}")
        try:
            return cls._of(_content(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def _of(cls, content: Any) -> "PayoffTable":
        if not isinstance(content, dict) or "payoffs" not in content:
            raise ValueError('it must be an object with "payoffs": [n][A_1]...[A_n]')
        try:
            if np.array(content["payoffs"]).dtype.kind in "bU":  # NumPy would read "1" and true as numbers
                raise TypeError
            payoffs = np.array(content["payoffs"], dtype=float)
        except (ValueError, TypeError, OverflowError):
            raise ValueError("payoffs must be numbers in nested lists of equal lengths, [n][A_1]...[A_n]") from None
        if payoffs.size == 0 or payoffs.ndim != len(payoffs if payoffs.ndim else ()) + 1:
            raise ValueError(f"payoffs must be [n, A_1, ..., A_n] for n players (got shape {payoffs.shape})")
        sizes, names = payoffs.shape[1:], content.get("actions") or []
        if not isinstance(names, list) or not all(isinstance(own, list) for own in names):
            raise ValueError(f"actions must name {list(sizes)} actions, one list a player")
        actions = tuple(tuple(str(name) for name in own) for own in names)
        if any("\ud800" <= letter <= "\udfff" for own in actions for name in own for letter in name):
            raise ValueError("actions must have names that can be printed")
        return cls(sizes, tuple(payoffs.ravel().tolist()), actions)

    def game(self, name: str, source: str) -> MatrixGame:
        """The game of this table."""
        payoffs = np.array(self.values).reshape(len(self.sizes), *self.sizes)
        numbered = tuple(tuple(str(action + 1) for action in range(size)) for size in self.sizes)
        return MatrixGame(name, payoffs, self.actions or numbered, source)


def _content(path: str) -> Any:
    """What the JSON of a file holds; nothing beyond `LARGEST_FILE` bytes is read."""
    with open(path, "rb") as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError(f"it must have at most {LARGEST_FILE / 1e6:g} MB")
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON ({error})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key is given twice, of which JSON readers take the last."""
    keys = [key for key, _ in pairs]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"{min(twice)!r} is given twice")
    return dict(pairs)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
