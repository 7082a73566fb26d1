"""The road network: K disjoint four-way junctions, made once by SUMO's netconvert and cached."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

ARMS = "NESW"
TURNS = (1, 2, 3)  # arms to go on clockwise: left, straight, right
SPACING_M = 60.0  # between the arms of neighbouring copies


class SumoMissing(ImportError):
    """SUMO's packages are not installed."""

    def __init__(self):
        super().__init__("SUMO is not installed: pip install 'rqe-mappo[sumo]'")


def sumo_home() -> Path:
    """The folder of SUMO's wheel, set as SUMO_HOME for what SUMO itself looks up there."""
    try:
        import sumo
    except ImportError:
        raise SumoMissing from None
    os.environ["SUMO_HOME"] = sumo.SUMO_HOME
    return Path(sumo.SUMO_HOME)


def plain_xml(copies: int, arm_m: float) -> dict[str, str]:
    """SUMO's plain node, edge and connection files of `copies` junctions with one lane per arm and direction.

    Junctions give way to the right: SUMO registers no junction collisions on unregulated ones.
    """
    nodes, edges, connections = [], [], []
    side = int(copies**0.5 + 0.999)
    ends = {"N": (0, arm_m), "E": (arm_m, 0), "S": (0, -arm_m), "W": (-arm_m, 0)}
    for k in range(copies):
        x, y = (2 * arm_m + SPACING_M) * (k % side), (2 * arm_m + SPACING_M) * (k // side)
        nodes.append(f'<node id="C{k}" x="{x}" y="{y}" type="right_before_left" radius="4"/>')
        for a, (dx, dy) in ends.items():
            nodes.append(f'<node id="{a}{k}" x="{x + dx}" y="{y + dy}"/>')
            edges.append(f'<edge id="{a}i{k}" from="{a}{k}" to="C{k}" numLanes="1" speed="13.89"/>')
            edges.append(f'<edge id="{a}o{k}" from="C{k}" to="{a}{k}" numLanes="1" speed="13.89"/>')
            connections += [
                f'<connection from="{a}i{k}" to="{b}o{k}" fromLane="0" toLane="0"/>' for b in ARMS if b != a
            ]
    return {
        "nod": f"<nodes>{''.join(nodes)}</nodes>",
        "edg": f"<edges>{''.join(edges)}</edges>",
        "con": f"<connections>{''.join(connections)}</connections>",
    }


def build(copies: int, arm_m: float) -> Path:
    """The .net.xml of `copies` junctions, from the cache or from netconvert.

    The cache lies in RQE_MAPPO_CACHE, else XDG_CACHE_HOME or ~/.cache; processes may build at the same time.
    """
    from importlib.metadata import version

    home = sumo_home()
    parts = plain_xml(copies, arm_m)
    key = hashlib.sha256("".join((*parts.values(), version("eclipse-sumo"))).encode()).hexdigest()[:16]
    root = os.environ.get("RQE_MAPPO_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(root) / "rqe_mappo" / f"intersection_{copies}_{key}.net.xml"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        mend = "set RQE_MAPPO_CACHE to a folder that can"
        raise ValueError(f"the cache folder {path.parent} cannot be written ({error.strerror}): {mend}") from None
    with scratch as folder:
        files = {kind: Path(folder) / f"plain.{kind}.xml" for kind in parts}
        for kind, text in parts.items():
            files[kind].write_text(text)
        made = Path(folder) / "made.net.xml"
        command = [home / "bin" / "netconvert", "-n", files["nod"], "-e", files["edg"], "-x", files["con"],
                   "-o", made, "--no-turnarounds", "true"]  # fmt: skip
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"netconvert failed: {' '.join(done.stderr.split())}")
        os.replace(made, path)
    return path
