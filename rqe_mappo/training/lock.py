"""One command at a time works in a folder.

The kernel's lock on `.lock` decides between processes of one machine: it ends with the process that holds it, however
that ended. Network file systems may offer no locks, or only between processes of one machine, in silence. So the file
also says who holds the folder, and the holder touches it every few seconds: a record of another machine counts if it is
touched while it is watched.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from rqe_mappo.config import ConfigError

NAME = ".lock"
TOUCH_S = 10.0
WATCH_S = 45.0  # four touches, and room for a slow server
POLL_S = 1.0
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_open: set[IO[str]] = set()
FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def hold(folder: Path, what: str, flag: str = "--out") -> Generator[None]:
    """Hold `folder`, which is made if there is none, against other processes and threads until the block ends.

    what: the command that holds it, for the message to others.
    flag: which names the folder.
    Raises ConfigError where another holds it, or where it cannot be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, FLAGS, 0o666), "r+", errors="replace")
    except OSError as error:
        raise ConfigError(f"{flag} {folder} cannot be written ({error.strerror}): choose another folder") from None
    with file:
        try:
            _take(file, path, what)
        except BlockingIOError as error:
            raise ConfigError(
                f"{flag} {folder}: {error.args[1]}: wait for it, stop it, or choose another folder"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{flag} {folder}: {NAME} cannot be written ({error.strerror}): free some space"
            ) from None
        _open.add(file)
        ended = threading.Event()
        toucher = threading.Thread(target=_touch, args=(file, ended), name="lock", daemon=True)
        toucher.start()
        try:
            yield
        finally:
            ended.set()
            toucher.join()
            _open.discard(file)
            with contextlib.suppress(OSError):  # of a lost server
                file.truncate(0)


def _take(file: IO[str], path: Path, what: str) -> None:
    """Lock the open `file` and write who holds it; BlockingIOError that says who does where that is another."""
    locked = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EWOULDBLOCK, _who(_record(file))) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        locked = False
    other = _record(file)
    if other and _works(other, locked, path):
        raise BlockingIOError(errno.EWOULDBLOCK, _who(other))
    pid = os.getpid()
    mine = {"what": what, "host": socket.gethostname(), "pid": pid, "started": _started(pid), "boot": _boot(),
            "thread": threading.get_native_id()}  # fmt: skip
    file.seek(0)
    file.truncate()
    json.dump(mine, file)
    file.flush()
    if other or not locked:  # two may have found the same stale record, or none: who wrote last has it
        time.sleep(POLL_S)
        with open(path) as again:
            if (now := _record(again)) != mine:
                raise BlockingIOError(errno.EWOULDBLOCK, _who(now))


def _works(other: dict[str, Any], locked: bool, path: Path) -> bool:
    """Whether the holder that a record names still works."""
    if other.get("boot") == _boot():  # this kernel, which has just given us its lock if it has any
        return not locked and _started(other.get("pid")) == other.get("started") is not None
    print(f"{path.parent} was held by another machine ({_who(other)}): watching it for {WATCH_S:.0f} s",
          file=sys.stderr, flush=True)  # fmt: skip
    first, until = _touched(path), time.monotonic() + WATCH_S
    while time.monotonic() < until:
        time.sleep(min(POLL_S, WATCH_S))
        if _touched(path) != first:
            return True
    return False


def _touched(path: Path) -> int:
    """When the file was last touched, in ns; opened anew because network file systems then ask their server."""
    with open(path) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _touch(file: IO[str], ended: threading.Event) -> None:
    while not ended.wait(TOUCH_S):
        with contextlib.suppress(OSError):
            os.utime(file.fileno())


def _forget_in_child() -> None:
    """Close what a forked process inherits: it would hold the folder beyond this one's end."""
    for file in _open:
        os.close(file.fileno())
    _open.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _record(file: IO[str]) -> dict[str, Any]:
    """What a file says of its holder; empty where it says nothing that can be read."""
    file.seek(0)
    try:
        found = json.loads(file.read(4096))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _who(record: dict[str, Any]) -> str:
    what = record.get("what", "another command")
    return f"{what} is at work there (process {record.get('pid', '?')} on {record.get('host', 'this machine')})"


def _boot() -> str:
    """Names this run of the kernel, which containers share."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _started(pid: Any) -> int | None:
    """When a process of this machine began, in ticks since boot, which tells a reused number apart; None if none."""
    try:
        return int(Path(f"/proc/{int(pid)}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (OSError, ValueError, TypeError, IndexError):
        return None
