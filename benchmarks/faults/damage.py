"""Damaged and malicious files, made from good ones: bytes, text, trees of JSON, archives of PyTorch."""

import gzip
import io
import json
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ODD_WORDS = (
    "nan", "inf", "-inf", "1e999", "-1", "0", "8.5", "1e12", "9" * 400, "null", "true", "{}", "[]", "[1]", '""', '"x"',
    "\x00", "\ufeff", '"\\ud800"', "../../etc/passwd", "planted:Thing", "<script>", ",", ",,,,", "\n\n", '"',
)  # fmt: skip
ODD_VALUES = (
    None, True, False, -1, 0, 8.5, 10**12, 10**400, -(10**19), float("nan"), float("inf"), "", "x", "nope", "\ud800",
    "../../x", "planted:Thing", "pettingzoo:planted", [], [1], {}, {"a": 1}, [[[]]], "a" * 10_000,
)  # fmt: skip
DEEP = 20_000


@dataclass(frozen=True)
class Damaged:
    """The content of a file; `bare`: bytes were changed with no regard for what they mean, which a checksum sees."""

    content: bytes
    bare: bool = True


class Payload:
    """What runs when a careless reader unpickles it: it makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        import os

        return os.mkdir, (str(self.marker),)


def bytewise(good: bytes, rng: random.Random) -> Damaged:
    """Bits flipped; parts cut, doubled, swapped, overwritten or inserted."""
    at, to = sorted((rng.randrange(len(good) + 1), rng.randrange(len(good) + 1)))
    few = min(to, at + 64)
    junk = rng.randbytes(rng.randrange(1, 64))
    return Damaged(
        rng.choice((
            lambda: _flipped(good, rng),
            lambda: _flipped(good, rng),
            lambda: good[:at],
            lambda: good[at:],
            lambda: good[:at] + good[to:],
            lambda: good[:to] + good[at:],
            lambda: good[:at] + junk + good[at:],
            lambda: good[:at] + bytes(few - at) + good[few:],
            lambda: good + junk,
            lambda: junk + good,
            lambda: b"",
            lambda: junk,
        ))()
    )  # fmt: skip


def _flipped(good: bytes, rng: random.Random) -> bytes:
    changed = bytearray(good)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def textual(good: bytes, rng: random.Random) -> Damaged:
    """A word replaced by an odd one; lines lost, doubled or cut."""
    text = good.decode()
    lines = text.splitlines(keepends=True) or [""]
    at = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind < 3:
        words = [index for index, letter in enumerate(text) if letter in ' ,:\n="'] or [0]
        first = rng.choice(words)
        last = next((index for index in words if index > first), len(text))
        text = text[: first + 1] + rng.choice(ODD_WORDS) + text[last:]
    elif kind == 3:
        text = "".join(lines[:at] + lines[at + 1 :])
    elif kind == 4:
        text = "".join(lines[:at] + [lines[at]] * 2 + lines[at + 1 :])
    else:
        text = "".join(lines[:at]) + lines[at][: rng.randrange(len(lines[at]) + 1)]
    return Damaged(text.encode(errors="surrogatepass"), bare=False)


def json_tree(good: bytes, rng: random.Random) -> Damaged:
    """A value replaced by an odd one, lost, or another added; or nested too deep."""
    if rng.random() < 0.03:
        return Damaged(rng.choice((b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP)), bare=False)
    return Damaged(json.dumps(_changed(json.loads(good), rng, ODD_VALUES)).encode(), bare=False)


def archive(good: bytes, rng: random.Random) -> Damaged:
    """What a checkpoint holds, changed as `json_tree` does, and saved again as PyTorch does."""
    content = torch.load(io.BytesIO(good), weights_only=True)
    tensors = (torch.zeros(3), torch.full((2, 2), torch.nan), torch.zeros(1).expand(10**6, 10**6), torch.zeros(0))
    made = io.BytesIO()
    torch.save(_changed(content, rng, (*ODD_VALUES, *tensors)), made)
    return Damaged(made.getvalue(), bare=False)


def _changed(tree: Any, rng: random.Random, odd: tuple) -> Any:
    """The tree with one place changed, at a random depth."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.2:
        return rng.choice(odd)
    copy = tree.copy()
    key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
    kind = rng.random()
    if kind < 0.1:
        del copy[key]
    elif kind < 0.15 and isinstance(copy, dict):
        copy[str(key) + "x"] = copy.pop(key)
    else:
        copy[key] = _changed(copy[key], rng, odd)
    return copy


def gzipped(damage: Callable[[bytes, random.Random], Damaged]) -> Callable[[bytes, random.Random], Damaged]:
    """The same damage inside a gzip file that is itself whole."""

    def inside(good: bytes, rng: random.Random) -> Damaged:
        return Damaged(gzip.compress(damage(gzip.decompress(good), rng).content, mtime=0), bare=False)

    return inside


def malicious(marker: Path) -> list[bytes]:
    """Files that run code in a careless reader, which then makes the folder `marker`; and one that fills the memory."""
    tensors, arrays = io.BytesIO(), io.BytesIO()
    torch.save({"format": "rqe_mappo policy 2", "modules": Payload(marker)}, tensors)
    import numpy as np

    np.savez(arrays, length=np.array([Payload(marker)], dtype=object))
    bomb = gzip.compress(b"run,label,family\n" + bytes(2**22), mtime=0)
    return [pickle.dumps(Payload(marker)), tensors.getvalue(), arrays.getvalue(), bomb]
