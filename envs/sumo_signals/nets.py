"""Road networks with their demand: those included in sumo-rl, and a user's."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


class SumoRlMissing(ImportError):
    """sumo-rl is not installed."""

    def __init__(self):
        super().__init__("sumo-rl is not installed: pip install 'rqe-mappo[signals]'")


@dataclass(frozen=True)
class Net:
    """A network and its demand, as file names; an episode starts at `begin_s` of the demand's clock."""

    net_file: str
    route_file: str
    begin_s: int = 0


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


def green_s(net_file: str) -> dict[str, tuple[float, ...]]:
    """How long each light's program shows each of its green phases, yellow after it included, in seconds.

    ValueError, with the fix, for a net whose lights sumo-rl cannot drive.
    """
    try:
        logics = [element for _, element in ET.iterparse(net_file) if element.tag == "tlLogic"]
    except ET.ParseError as error:
        raise ValueError(f"--net-file {net_file} is no SUMO network ({error}): use netconvert's output") from None
    if not logics:
        raise ValueError(f"--net-file {net_file} has no traffic light: use a net with one")
    found: dict[str, tuple[float, ...]] = {}
    for logic in logics:
        name, kind = logic.attrib["id"], logic.get("type")
        if kind != "static":
            raise ValueError(
                f"--net-file {net_file}: traffic light {name} is {kind}, which crashes SUMO under sumo-rl: "
                "make it static (netconvert --tls.rebuild --tls.default-type static)"
            )
        shown: list[float] = []
        for phase in logic.iter("phase"):
            state, duration = phase.get("state", ""), float(phase.get("duration", 0))
            if "y" not in state and state.strip("rs"):  # as sumo-rl tells green phases
                shown.append(duration)
            elif shown:
                shown[-1] += duration
        if not shown:
            raise ValueError(f"--net-file {net_file}: traffic light {name} has no green phase: give it one")
        found.setdefault(name, tuple(shown))  # of several programs the first counts
    return found


def checked(net: Net) -> Net:
    """`net`, if its files are there; else ValueError with the flag and the fix."""
    for flag, file in (("--net-file", net.net_file), ("--route-file", net.route_file)):
        if not Path(file).is_file():
            raise ValueError(f"{flag} {file} does not exist: give the path of a SUMO file")
    return net
