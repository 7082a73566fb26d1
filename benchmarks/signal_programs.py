"""Do lights run the programs that SUMO runs? `python -m benchmarks.signal_programs` writes results/signal_programs.csv.

Every network in the wheels of SUMO and sumo-rl, with every program of its lights: as they come, begun later, and with
another offset; also with the demand and the further files of SUMO's own configurations. SUMO itself runs 300 s of each
and records what every light shows in every second. Then the environment does so under the driver `fixed`, and has to
show the same; and then under random phases, which have to run. A row for each set of files.
"""

import gzip
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.sax.saxutils import quoteattr

from benchmarks import tables, without_options
from rqe_mappo.envs.sumo_intersection.network import sumo_home
from rqe_mappo.envs.sumo_signals import BatchedSignals, SignalsConfig, scripted
from rqe_mappo.envs.sumo_signals.nets import NETS, Net, bundled

RESULT = tables.RESULTS / "signal_programs.csv"
SECONDS, LATER_S, OFFSET_S, SEED = 300, 1003, 17, "1"
Shown = dict[tuple[str, str], tuple[str, str]]
"""Of a second and a light: its program and state."""


@dataclass(frozen=True)
class Case:
    """A network with the files that belong to it."""

    net: Path
    routes: tuple[Path, ...] = ()
    additional: tuple[Path, ...] = ()
    begin_s: int = 0

    @property
    def logics(self) -> list[ET.Element]:
        """The programs of its lights, as SUMO reads them."""
        return [logic for file in (self.net, *self.additional) for logic in tree(file).iter("tlLogic")]


@cache
def tree(file: Path) -> ET.ElementTree:
    """An XML file; unchanged by whoever asks."""
    with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
        return ET.parse(stream)


def wheels() -> dict[str, Path]:
    """Where the networks lie."""
    spec = find_spec("sumo_rl")
    assert spec is not None and spec.submodule_search_locations
    return {"sumo": sumo_home() / "tools", "sumo_rl": Path(spec.submodule_search_locations[0]) / "nets"}


def cases() -> Iterator[Case]:
    """Each network alone, with each file of programs beside it, and as sumo-rl and SUMO's games use it."""
    for folder in wheels().values():
        for net in sorted(folder.rglob("*.net.xml*")):
            yield Case(net)
            beside = sorted({*net.parent.glob("*.add.xml"), *net.parent.glob("*.tll.xml")})
            yield from (Case(net, (), (file,)) for file in beside if any(tree(file).iter("tlLogic")))
    for known in map(bundled, NETS):
        yield Case(Path(known.net_file), (Path(known.route_file),), (), known.begin_s)
    yield from (played(file) for file in sorted((wheels()["sumo"] / "game").glob("*.sumocfg")))


def played(configuration: Path) -> Case:
    """What one of SUMO's games is made of, without the outputs that it writes beside itself."""
    given = {option.tag: option.get("value", "") for option in tree(configuration).iter()}

    def files(option: str) -> tuple[Path, ...]:
        names = [name for name in given.get(option, "").split(",") if name and name != "input_additional.add.xml"]
        return tuple(configuration.parent / name for name in names)

    hours, *minutes = given.get("begin", "0").split(":")
    begin_s = int(hours) * (3600 if minutes else 1)
    return Case(*files("net-file"), files("route-files"), files("additional-files"), begin_s)


def variants(case: Case, folder: Path) -> Iterator[Net]:
    """`case` as it comes, begun later, with an offset, and with every program of its network as the one that runs."""
    yield net_of(case)
    yield net_of(replace(case, begin_s=case.begin_s + LATER_S))
    programs = Counter(logic.get("id") for logic in tree(case.net).iter("tlLogic"))
    for last in range(max(programs.values(), default=0)):
        net = rewritten(case.net, folder / f"{last}.net.xml", last)
        additional = [rewritten(file, folder / file.name, 0) for file in case.additional]
        yield net_of(replace(case, net=net, additional=tuple(additional)))


def net_of(case: Case) -> Net:
    """The case as the environment knows it."""
    routes, additional = (",".join(map(str, files)) for files in (case.routes, case.additional))
    return Net(str(case.net), routes, case.begin_s, additional)


def rewritten(file: Path, target: Path, last: int) -> Path:
    """A copy whose programs have an offset, and of each light the one at `last` comes last: that is what SUMO runs."""
    with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as stream:
        root = ET.parse(stream).getroot()
    logics: dict[str, list[ET.Element]] = {}
    for logic in root.findall("tlLogic"):
        logic.set("offset", str(OFFSET_S))
        logics.setdefault(logic.attrib["id"], []).append(logic)
    for programs in logics.values():
        places = [list(root).index(logic) for logic in programs]
        first = (last + 1) % len(programs)
        for place, logic in zip(places, programs[first:] + programs[:first], strict=True):
            root[place] = logic
    ET.ElementTree(root).write(target)
    return target


def recorder(lights: set[str], folder: Path) -> Path:
    """A file with which SUMO writes what lights show in every second into `folder`/states.xml."""
    folder.mkdir(exist_ok=True)
    events = [f'<timedEvent type="SaveTLSStates" source={quoteattr(name)} dest="states.xml"/>' for name in lights]
    file = folder / "recorder.add.xml"
    file.write_text(f"<additional>{''.join(events)}</additional>")
    return file


def recorded(folder: Path) -> Shown:
    """What the recorder of `folder` wrote; nothing without lights."""
    if not (folder / "states.xml").is_file():
        return {}
    states = ET.parse(folder / "states.xml").iter("tlsState")
    return {(row.attrib["time"], row.attrib["id"]): (row.attrib["programID"], row.attrib["state"]) for row in states}


def with_recorder(files: Net, lights: set[str], folder: Path) -> Net:
    """`files` and a recorder."""
    more = [files.additional_files, str(recorder(lights, folder))]
    return replace(files, additional_files=",".join(filter(None, more)))


def in_sumo(files: Net, lights: set[str], folder: Path) -> Shown:
    """What lights show where SUMO runs alone; RuntimeError with its reason where it refuses the files."""
    files = with_recorder(files, lights, folder)
    options = ["--seed", SEED, "--max-depart-delay", "-1", "--time-to-teleport", "-1", "--no-warnings", "--no-step-log",
               "--collision.action", "warn", "--collision.check-junctions", "true",
               "--xml-validation", "never"]  # fmt: skip
    command = [str(sumo_home() / "bin" / "sumo"), *files.options(), *options, "--end", str(files.begin_s + SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"SUMO alone refuses it: {' '.join(done.stderr.split())}")
    return recorded(folder)


def in_environment(files: Net, lights: set[str], folder: Path, driver: str) -> Shown:
    """What lights show in the environment under a scripted driver."""
    files = with_recorder(files, lights, folder)
    own = {"net_file": files.net_file, "additional_files": files.additional_files}
    config = SignalsConfig(**own, route_file=files.route_file or None, begin_s=files.begin_s, num_seconds=SECONDS)
    env = BatchedSignals(config)
    try:
        env.reset(0)
        env.world.start(int(SEED))
        choose = scripted.by_name(driver)
        while not env.over:
            env.drive(choose(env)[0])
        env.finish()
        return recorded(folder)
    finally:
        env.close()


def compare(files: Net, lights: set[str], folder: Path) -> tuple[int, int]:
    """How many seconds of lights were compared, and in how many the environment showed something else than SUMO.

    Random phases are driven too. RuntimeError where SUMO refuses the files, ValueError where there is no light.
    """
    expected = in_sumo(files, lights, folder / "sumo")
    shown = in_environment(files, lights, folder / "fixed", "fixed")
    steered = in_environment(files, lights, folder / "random", "random")
    assert len(expected) == len(steered) == SECONDS * len(lights)
    return len(expected), sum(shown.get(key) != state for key, state in expected.items())


def row(case: Case) -> dict[str, str | int]:
    """A line of the table."""
    logics, compared, differing, outcome = case.logics, 0, 0, "as SUMO's"
    lights = {logic.attrib["id"] for logic in logics}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for files in variants(case, Path(folder)):
                seconds, wrong = compare(files, lights, Path(folder))
                compared, differing = compared + seconds, differing + wrong
        except (RuntimeError, ValueError) as error:
            outcome = str(error)
    for place in wheels().values():
        outcome = outcome.replace(f"{place}/", "")
    kinds = Counter(logic.attrib["type"] for logic in logics)
    return {
        "network": next(str(case.net.relative_to(place)) for place in wheels().values() if place in case.net.parents),
        "with": " ".join(file.name for file in (*case.routes, *case.additional)),
        "begin_s": case.begin_s,
        "lights": len(lights),
        "programs": len(logics),
        "kinds": " ".join(f"{kind} {count}" for kind, count in kinds.items()),
        "light_seconds": compared,
        "differing": differing,
        "outcome": "differs" if differing else outcome,
    }


def main() -> None:
    without_options(__doc__)
    table = []
    for case in dict.fromkeys(cases()):
        table.append(row(case))
        print(*table[-1].values(), sep="  ", flush=True)
    tables.write(RESULT, table)


if __name__ == "__main__":
    main()
