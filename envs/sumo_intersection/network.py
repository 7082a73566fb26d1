"""Networks made by SUMO's netconvert from plain XML, and cached."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class SumoMissing(ImportError):
    """SUMO's packages are not installed, or the system lacks a library that they load."""

    def __init__(self, reason: ImportError):
        text = "SUMO is not installed: pip install 'rqe-mappo[sumo]'"
        if not isinstance(reason, ModuleNotFoundError):  # small images lack what SUMO's wheel takes to be everywhere
            text = f"SUMO is installed and cannot be loaded ({reason}): on Debian, apt-get install libgl1 libxrender1"
        super().__init__(text)


def sumo_home() -> Path:
    """The folder of SUMO's wheel, set as SUMO_HOME which SUMO reads."""
    try:
        import sumo
    except ImportError as error:
        raise SumoMissing(error) from None
    os.environ["SUMO_HOME"] = sumo.SUMO_HOME
    return Path(sumo.SUMO_HOME)


def netconvert(*options: str | Path) -> None:
    """Run netconvert; RuntimeError with its error output if it fails."""
    command = [str(sumo_home() / "bin" / "netconvert"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"netconvert failed: {' '.join(done.stderr.split())} (command: {' '.join(command)})")


def build(plain: dict[str, str]) -> Path:
    """The .net.xml that netconvert makes of plain files `{"nod": ..., "edg": ..., "con": ...}`, cached."""
    from importlib.metadata import version

    sumo_home()

    def make(path: Path, folder: Path) -> None:
        files = {kind: folder / f"plain.{kind}.xml" for kind in plain}
        for kind, text in plain.items():
            files[kind].write_text(text)
        netconvert("-n", files["nod"], "-e", files["edg"], "-x", files["con"], "-o", path, "--no-turnarounds", "true")

    return _cached("built", "".join((*plain.values(), version("eclipse-sumo"))), make)


def keep(text: str, name: str) -> Path:
    """The .net.xml with this text, in the cache."""
    return _cached(name, text, lambda path, folder: path.write_text(text))


def _cached(name: str, contents: str, make: Callable[[Path, Path], object]) -> Path:
    """The network that follows from `contents`; where there is none, `make(path, scratch folder)` writes it.

    The cache lies in RQE_MAPPO_CACHE, else XDG_CACHE_HOME or ~/.cache; processes may write at the same time.
    """
    key = hashlib.sha256(contents.encode()).hexdigest()[:16]
    root = os.environ.get("RQE_MAPPO_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(root) / "rqe_mappo" / f"{name}_{key}.net.xml"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        fix = "set RQE_MAPPO_CACHE to a folder that can"
        raise ValueError(f"the cache folder {path.parent} cannot be written ({error.strerror}): {fix}") from None
    with scratch as folder:
        made = Path(folder) / "made.net.xml"
        make(made, Path(folder))
        os.replace(made, path)
    return path


def read_cached(net: Path) -> Any:
    """A network of the cache as sumolib knows it; ValueError if the file is damaged."""
    import sumolib

    try:
        return sumolib.net.readNet(str(net), withInternal=True)
    except Exception as error:  # sumolib checks nothing: what it makes of a damaged file may be any error
        raise ValueError(f"the road network {net} is damaged ({error}): delete it, and it is made again") from None
