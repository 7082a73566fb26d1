"""A disk that is full, at many moments of a run: a small tmpfs in a namespace of its own, so that no rights are needed.

Where the system has no user namespaces for ordinary users, a limit on the size of files takes its place (SIGXFSZ is
ignored, so that writes fail): it is met at fewer moments, and the figures say so.
"""

import ctypes
import os
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults import Figure, forked, kills
from rqe_mappo import cli

NEW_USER, NEW_MOUNTS, REMOUNT, PRIVATE = 0x10000000, 0x00020000, 0x20, 0x44000
ROOM = 64 * 2**20  # bytes that the disk has in the end
LIMIT_S = 240.0


def run(kind: kills.Kind, moments: int, rng: random.Random, folder: Path) -> list[Figure]:
    """Runs of a kind on disks that are full at moments spread over the run, each resumed once there is room."""
    reference, place = folder / "unbroken", folder / "disk"
    place.mkdir(exist_ok=True)
    whole = forked.run(lambda: cli.train([*kind.flags, "--out", str(reference)]), LIMIT_S)
    if whole.code:
        raise RuntimeError(whole.err)
    mounts = forked.run(lambda: _mounted(place, 2**20)).code == 0
    trial = _on_small_disk if mounts else _under_limit
    used = sum(path.stat().st_blocks * 512 for path in reference.rglob("*"))
    largest = max(path.stat().st_size for path in reference.rglob("*"))
    most = used if mounts else largest
    found = []
    for number in range(moments):
        size = int(most * (number + rng.random()) / moments)
        own = place if mounts else place / str(number)
        found.append(forked.call(lambda size=size, own=own: trial(kind, own, size, reference), LIMIT_S))
    met = [one for one in found if one["full"]]
    for one in met:
        if not (one["in_one_line"] and one["named"]):
            print(f"{kind.name}, disk full: {one['said']}", flush=True)
    part = f"{kind.name}, disk full" + ("" if mounts else " (limit on the size of files: no tmpfs could be mounted)")
    return [
        Figure(part, "moments", len(met), moments if mounts else None),
        Figure(part, "of them after the first checkpoint", sum(one["saved"] for one in met)),
        Figure(part, "ended in one line", sum(one["in_one_line"] for one in met), len(met)),
        Figure(part, "the line names the folder and the disk or its fault", sum(one["named"] for one in met), len(met)),
        Figure(part, "parts of files left", sum(one["parts"] for one in met), 0),
        Figure(part, "checkpoints that do not load", sum(not one["loads"] for one in met), 0),
        Figure(part, "runs that came to their end once there was room", sum(one["ended"] for one in met), len(met)),
        *([Figure(part, "ends not bitwise equal", sum(one["unequal"] for one in met), 0)] if kind.exact else []),
    ]


def _on_small_disk(kind: kills.Kind, place: Path, size: int, reference: Path) -> dict[str, Any]:
    _mounted(place, size)
    return _trial(kind, place / "run", lambda: None, lambda: _mount(place, ROOM, REMOUNT), reference)


def _under_limit(kind: kills.Kind, place: Path, size: int, reference: Path) -> dict[str, Any]:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return _trial(kind, place / "run", limited, lambda: None, reference)


def _trial(
    kind: kills.Kind, folder: Path, begin: Callable[[], None], make_room: Callable[[], None], reference: Path
) -> dict[str, Any]:
    def first() -> None:
        begin()
        cli.train([*kind.flags, "--out", str(folder)])

    ended = forked.run(first, LIMIT_S / 3)
    parts = sum(1 for path in folder.parent.rglob("*") if path.name.endswith(".part"))
    saved = (folder / "latest").is_file() and bool((folder / "latest").read_text())
    loads = kills.loads(folder)
    make_room()
    again = ["--resume", str(folder)] if (folder / "config.json").is_file() else [*kind.flags, "--out", str(folder)]
    resumed = forked.run(lambda: cli.train(again), LIMIT_S / 3)
    if resumed.code:
        print(resumed.err)
    return {
        "full": ended.code != 0,
        "in_one_line": ended.in_one_line,
        "named": str(folder) in ended.err,
        "said": ended.err[-2000:],
        "parts": parts,
        "saved": saved,
        "loads": loads,
        "ended": resumed.code == 0,
        "unequal": kind.exact and resumed.code == 0 and not kills.same_end(reference, folder),
    }


def _mounted(place: Path, size: int) -> None:
    """Enter namespaces of one's own, in which `place` is a tmpfs; OSError where the system has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    ids = ((os.getuid(), "uid_map"), (os.getgid(), "gid_map"))
    if libc.unshare(NEW_USER | NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no namespace")
    Path("/proc/self/setgroups").write_text("deny")
    for number, name in ids:
        Path(f"/proc/self/{name}").write_text(f"0 {number} 1")
    if libc.mount(b"none", b"/", None, PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no private mounts")
    _mount(place, size)


def _mount(place: Path, size: int, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", flags, f"size={max(size, 4096)}".encode()):
        raise OSError(ctypes.get_errno(), "no tmpfs")
