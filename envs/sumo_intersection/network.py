"""Networks made by SUMO's netconvert from plain XML, and cached."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path


class SumoMissing(ImportError):
    """SUMO's packages are not installed."""

    def __init__(self):
        super().__init__("SUMO is not installed: pip install 'rqe-mappo[sumo]'")


def sumo_home() -> Path:
    """The folder of SUMO's wheel, set as SUMO_HOME which SUMO reads."""
    try:
        import sumo
    except ImportError:
        raise SumoMissing from None
    os.environ["SUMO_HOME"] = sumo.SUMO_HOME
    return Path(sumo.SUMO_HOME)


def netconvert(*options: str | Path) -> None:
    """Run netconvert; RuntimeError with its error output if it fails."""
    command = [str(sumo_home() / "bin" / "netconvert"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"netconvert failed: {' '.join(done.stderr.split())} (command: {' '.join(command)})")


def build(plain: dict[str, str], name: str) -> Path:
    """The .net.xml of plain node, edge and connection files `{"nod": ..., "edg": ..., "con": ...}`, cached.

    The cache lies in RQE_MAPPO_CACHE, else XDG_CACHE_HOME or ~/.cache; processes may build at the same time.
    """
    from importlib.metadata import version

    sumo_home()
    key = hashlib.sha256("".join((*plain.values(), version("eclipse-sumo"))).encode()).hexdigest()[:16]
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
        files = {kind: Path(folder) / f"plain.{kind}.xml" for kind in plain}
        for kind, text in plain.items():
            files[kind].write_text(text)
        made = Path(folder) / "made.net.xml"
        netconvert("-n", files["nod"], "-e", files["edg"], "-x", files["con"], "-o", made, "--no-turnarounds", "true")
        os.replace(made, path)
    return path
