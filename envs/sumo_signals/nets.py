"""Road networks with their demand: those included in sumo-rl, and a user's."""

import gzip
import xml.etree.ElementTree as ET
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


class SumoRlMissing(ImportError):
    """sumo-rl is not installed."""

    def __init__(self):
        super().__init__("sumo-rl is not installed: pip install 'rqe-mappo[signals]'")


@dataclass(frozen=True)
class Net:
    """A network and its demand, as file names; an episode starts at `begin_s` of the demand's clock.

    route_file, additional_files: several with commas between, as SUMO takes them; read in this order, additional files
        first.
    """

    net_file: str
    route_file: str = ""
    begin_s: int = 0
    additional_files: str = ""

    def options(self) -> list[str]:
        """SUMO's options for them."""
        given = {"--route-files": self.route_file, "--additional-files": self.additional_files}
        more = [part for option, files in given.items() if files for part in (option, files)]
        return ["--net-file", self.net_file, *more, "--begin", str(self.begin_s)]


def _resco(name: str, routes: str | None = None, begin_s: int = 0) -> Net:
    folder = f"RESCO/{name}"
    return Net(f"{folder}/{name}.net.xml", f"{folder}/{routes or name}.rou.xml", begin_s)


# relative to sumo_rl/nets; RESCO's hours are those of sumo_rl.environment.resco_envs
NETS = {
    "2way-single-intersection": Net(
        "2way-single-intersection/single-intersection.net.xml",
        "2way-single-intersection/single-intersection-vhvh.rou.xml",
    ),
    "single-intersection": Net(
        "single-intersection/single-intersection.net.xml", "single-intersection/single-intersection.rou.xml"
    ),
    "double": Net("double/network.net.xml", "double/flow.rou.xml"),
    "2x2grid": Net("2x2grid/2x2.net.xml", "2x2grid/2x2.rou.xml"),
    "3x3grid": Net("3x3grid/3x3Grid2lanes.net.xml", "3x3grid/routes14000.rou.xml"),
    "4x4-Lucas": Net("4x4-Lucas/4x4.net.xml", "4x4-Lucas/4x4c1c2c1c2.rou.xml"),
    "4x4loop": Net("4x4loop/4x4loop.net.xml", "4x4loop/4x4loop.rou.xml"),
    "grid4x4": _resco("grid4x4", "grid4x4_1"),
    "arterial4x4": _resco("arterial4x4", "arterial4x4_1"),
    "cologne1": _resco("cologne1", begin_s=25_200),
    "cologne3": _resco("cologne3", begin_s=25_200),
    "cologne8": _resco("cologne8", begin_s=25_200),
    "ingolstadt1": _resco("ingolstadt1", begin_s=57_600),
    "ingolstadt7": _resco("ingolstadt7", begin_s=57_600),
    "ingolstadt21": _resco("ingolstadt21", begin_s=57_600),
}


def bundled(name: str) -> Net:
    """The net `name` of the installed sumo-rl, with absolute paths."""
    spec = find_spec("sumo_rl")  # without importing it: that needs SUMO_HOME and decides about libsumo
    if spec is None or not spec.submodule_search_locations:
        raise SumoRlMissing
    folder = Path(spec.submodule_search_locations[0]) / "nets"
    known = NETS[name]
    return Net(str(folder / known.net_file), str(folder / known.route_file), known.begin_s)


def checked(net: Net) -> Net:
    """`net`, if its files are there and its network is one; else ValueError with the flag and the fix."""
    for flag, files in (
        ("--net-file", net.net_file),
        ("--route-file", net.route_file),
        ("--additional-files", net.additional_files),
    ):
        for file in (part.strip() for part in files.split(",")):
            if files and not Path(file).is_file():
                raise ValueError(f"{flag} {file or repr(files)} does not exist: give the path of a SUMO file")
    try:
        root = _root(net.net_file)
        reason = "" if root.tag == "net" and "version" in root.attrib else "no <net version=...>"  # which crashes SUMO
    except (ET.ParseError, OSError, EOFError, zlib.error, ValueError) as error:
        reason = str(error)
    if reason:
        raise ValueError(f"--net-file {net.net_file} is no SUMO network ({reason}): use netconvert's output")
    return net


def _root(file: str) -> ET.Element:
    """The outermost element, still empty, of an XML file that is compressed or not, whatever its name."""
    with open(file, "rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(file) if compressed else open(file, "rb") as stream:
        return next(element for _, element in ET.iterparse(stream, events=("start",)))
