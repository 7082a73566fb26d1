"""SUMO networks that tests make, and what the package reads of them."""

import math
from pathlib import Path

from rqe_mappo.envs.sumo_intersection.config import IntersectionConfig
from rqe_mappo.envs.sumo_intersection.dynamics import junction_of
from rqe_mappo.envs.sumo_intersection.geometry import Geometry, read
from rqe_mappo.envs.sumo_intersection.junction import copies_of
from rqe_mappo.envs.sumo_intersection.network import keep, netconvert, sumo_home


def geometry_of(config: IntersectionConfig) -> Geometry:
    """The geometry of the junction that an environment with these settings has."""
    junction = junction_of(config)
    return read(keep(copies_of(junction, 1), "junction_1"), junction.name)


def star(
    folder: Path, arms: int, kind: str = "priority", lanes: int = 1, length_m: float = 40.0, *options: str
) -> Path:
    """A network with one junction `J` of that many arms, made from plain XML as a user would, clockwise from north."""
    nodes, edges = [f'<node id="J" x="0" y="0" type="{kind}"/>'], []
    for i in range(arms):
        x, y = (round(length_m * f(2 * math.pi * i / arms), 2) for f in (math.sin, math.cos))
        nodes.append(f'<node id="{i}" x="{x}" y="{y}"/>')
        edges += [f'<edge id="in{i}" from="{i}" to="J" numLanes="{lanes}"/>',
                  f'<edge id="out{i}" from="J" to="{i}" numLanes="{lanes}"/>']  # fmt: skip
    (folder / "n.nod.xml").write_text(f"<nodes>{''.join(nodes)}</nodes>")
    (folder / "n.edg.xml").write_text(f"<edges>{''.join(edges)}</edges>")
    net = folder / "town.net.xml"
    netconvert("-n", folder / "n.nod.xml", "-e", folder / "n.edg.xml", "-o", net, *options)
    return net


def changed(net: Path, old: str, new: str) -> Path:
    """A network with `old` replaced in its text, once for each time that it stands there."""
    text = net.read_text()
    assert old in text
    net.write_text(text.replace(old, new))
    return net


def public_networks() -> list[Path]:
    """Those of SUMO's wheel, the largest aside."""
    return sorted(net for net in (sumo_home() / "tools").glob("**/*.net.xml*") if net.stat().st_size < 2e6)


EVERYTHING = {
    "nod": """<nodes>
        <node id="J" x="0" y="0" z="3" type="priority" radius="6" keepClear="false" rightOfWay="edgePriority"/>
        <node id="n" x="0" y="90"/><node id="e" x="90" y="10"/><node id="s" x="0" y="-90"/><node id="w" x="-90" y="0"/>
        <node id="b" x="70" y="70"/></nodes>""",
    "edg": """<edges><edge id="ni" from="n" to="J" speed="7.5" priority="3" name="High | Street"/>
        <edge id="no" from="J" to="n" width="4.2"/>
        <edge id="ei" from="e" to="J" numLanes="2" priority="9" endOffset="2">
            <lane index="0" allow="bus passenger" speed="6"/><lane index="1" width="2.8" acceleration="true"/></edge>
        <edge id="eo" from="J" to="e" shape="0,0 40,8 90,10" type="street"/>
        <edge id="si" from="s" to="J" disallow="truck" sidewalkWidth="2"><stopOffset value="1.5" exceptions="bus"/>
            <param key="owner" value="town | county"/></edge>
        <edge id="so" from="J" to="s" spreadType="center" sidewalkWidth="2"/>
        <edge id="bi" from="b" to="J" allow="bicycle"/>
        <edge id="wo" from="J" to="w" distance="12"/></edges>""",
    "con": """<connections>
        <connection from="ni" to="so" fromLane="0" toLane="1" keepClear="false" pass="true"/>
        <connection from="ni" to="wo" fromLane="0" toLane="0" speed="4.5"/>
        <connection from="ni" to="eo" fromLane="0" toLane="0" contPos="9" visibility="20"/>
        <connection from="si" to="no" fromLane="1" toLane="0" disallow="passenger"/>
        <connection from="si" to="wo" fromLane="1" toLane="0"/>
        <connection from="ei" to="no" fromLane="0" toLane="0" length="15.5"/>
        <connection from="ei" to="so" fromLane="1" toLane="1" shape="7,3 1,-2 0,-9"/>
        <crossing node="J" edges="si so" width="3"/></connections>""",
    "typ": """<types>
        <type id="street" numLanes="1" speed="12"><restriction vClass="passenger" speed="8"/></type></types>""",
}


def network_with_everything(folder: Path, *options: str) -> Path:
    """One of whose junction something unusual is said in every way that netconvert knows."""
    for kind, text in EVERYTHING.items():
        (folder / f"n.{kind}.xml").write_text(text)
    net = folder / "all.net.xml"
    files = {"-n": "nod", "-e": "edg", "-x": "con", "-t": "typ"}
    made_of = (word for flag, kind in files.items() for word in (flag, folder / f"n.{kind}.xml"))
    netconvert(*made_of, *options, "-o", net)
    return net
