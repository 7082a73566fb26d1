"""Programs and files of traffic lights: programs run as in SUMO, and files are taken as SUMO takes them."""

import gzip
import re
from dataclasses import replace
from pathlib import Path

import libsumo
import numpy as np
import pytest

from benchmarks import signal_programs
from rqe_mappo import cli
from rqe_mappo.envs.sumo_intersection.network import netconvert
from rqe_mappo.envs.sumo_signals import NETS, BatchedSignals, SignalsConfig, scripted
from rqe_mappo.envs.sumo_signals.config import PROGRAM
from rqe_mappo.envs.sumo_signals.nets import Net, bundled
from rqe_mappo.evaluation.episodes import run_episodes

NS, TURNS, WE = "GGrrrrGGrrrr", "rrGrrrrrGrrr", "rrrGGrrrrGGr"
RED = "r" * 12
SHORT = SignalsConfig(num_seconds=100)


def yellow(state: str) -> str:
    return state.replace("G", "y")


def program(*phases: tuple[int, str], name: str = "0", offset: int = 0, kind: str = "static") -> str:
    """A program of the light of 2way-single-intersection."""
    shown = "".join(f'<phase duration="{seconds}" state="{state}"/>' for seconds, state in phases)
    return f'<tlLogic id="t" type="{kind}" programID="{name}" offset="{offset}">{shown}</tlLogic>'


TWO = ((30, NS), (3, yellow(NS)), (2, RED), (30, WE), (3, yellow(WE)), (2, RED))
DAY = program((33, NS), (2, yellow(NS)), (33, WE), (2, yellow(WE)), name="day")
THREE = program((20, NS), (3, yellow(NS)), (9, TURNS), (3, yellow(TURNS)), (20, WE), (3, yellow(WE)), name="night")
ACTUATED = program(*TWO, kind="actuated").replace('duration="30"', 'duration="30" minDur="5" maxDur="50"')
CHANGES = program((20, NS), (3, "YYrrrrGGrrrr"), (2, "rrruurrrrGGr"), (20, WE), (3, yellow(WE)))
SWITCHES = (
    '<additional><WAUT refTime="0" id="w" startProg="day"><wautSwitch time="40" to="night"/></WAUT>'
    '<wautJunction wautID="w" junctionID="t"/></additional>'
)


@pytest.fixture
def net_of(tmp_path):
    """Writes 2way-single-intersection with other programs: its files, with the demand."""
    known = bundled("2way-single-intersection")
    before, after = re.split(r"<tlLogic.*</tlLogic>", Path(known.net_file).read_text(), flags=re.DOTALL)

    def write(programs: str, begin_s: int = 0, additional: str = "") -> Net:
        net, more = tmp_path / "my.net.xml", tmp_path / "more.add.xml"
        net.write_text(before + programs + after)
        more.write_text(additional or "<additional/>")
        return Net(str(net), known.route_file, begin_s, str(more))

    return write


@pytest.fixture
def opened():
    """Opens the environment on files, and closes it after the test."""
    envs = []

    def open_(files: Net, **settings) -> BatchedSignals:
        own = {"net_file": files.net_file, "route_file": files.route_file or None, "begin_s": files.begin_s}
        config = replace(SHORT, **own, additional_files=files.additional_files or None)
        envs.append(BatchedSignals(replace(config, **settings)))
        return envs[-1]

    yield open_
    for env in envs:
        env.close()


@pytest.mark.parametrize(
    ("programs", "begin_s", "additional"),
    [
        (program(*TWO, offset=4), 0, ""),
        (program(*TWO), 25_266, ""),
        (program((7, RED), *TWO), 0, ""),
        (DAY + THREE, 0, ""),
        (THREE + DAY, 0, ""),
        (DAY, 11, f"<additional>{THREE}</additional>"),
        (CHANGES, 0, ""),
        (ACTUATED, 0, ""),
        (DAY + THREE, 0, SWITCHES),
    ],
    ids=["offset", "later begin", "leading all-red", "last of two programs", "and the other way round",
         "program in an additional file", "red and yellow", "actuated by traffic", "programs by the hour"],
)  # fmt: skip
def test_fixed_shows_every_second_what_sumo_alone_shows(net_of, tmp_path, programs, begin_s, additional):
    files = net_of(programs, begin_s, additional)
    if programs != ACTUATED:
        files = replace(files, route_file="")
    assert signal_programs.compare(files, {"t"}, tmp_path) == (300, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "with_"),
    [
        ("game/fkk_in/ingolstadt.net.xml.gz", ()),
        ("game/square/square.net.xml", ("square.tll.xml", "square.rou.xml")),
        ("game/bs3d/bs.net.xml", ()),
        ("sumolib/scenario/scenarios/RiLSA1BothTLS/rilsa1both.net.xml", ("tls.add.xml",)),
        ("4x4-Lucas/4x4.net.xml", ()),
        ("3x3grid/3x3Grid2lanes.net.xml", ()),
        ("RESCO/cologne8/cologne8.net.xml", ()),
    ],
)
def test_networks_of_the_wheels_run_as_in_sumo(net, with_):
    """A part of `python -m benchmarks.signal_programs`, which takes all."""
    (path,) = (folder / net for folder in signal_programs.wheels().values() if (folder / net).is_file())
    row = signal_programs.row(signal_programs.Case(path, (), tuple(path.parent / name for name in with_)))
    assert row["outcome"] == "as SUMO's" and row["light_seconds"] >= 3 * 300 * row["lights"] > 0


def test_the_comparison_finds_a_second_that_differs(net_of, tmp_path, monkeypatch):
    files = replace(net_of(program(*TWO)), route_file="")
    monkeypatch.setattr(scripted, "by_name", lambda name: scripted.fixed((35, 35)))
    _, differing = signal_programs.compare(files, {"t"}, tmp_path)
    assert differing > 50


@pytest.mark.parametrize(("programs", "count"), [(DAY + THREE, 3), (THREE + DAY, 2)])
def test_agents_choose_among_the_green_phases_of_the_program_that_runs(net_of, opened, programs, count):
    assert opened(net_of(programs)).counts == (count,)


def test_red_and_yellow_are_no_green_phases_however_they_are_written(net_of, opened):
    env = opened(net_of(CHANGES))
    assert [signal.shown for signal in env.world.signals.values()] == [[NS, WE]]


def test_a_light_follows_its_program_in_all_decisions_of_an_episode_or_in_none(net_of, opened):
    env = opened(net_of(DAY))
    for first, then in ((PROGRAM, 1), (0, PROGRAM)):
        env.reset(0)
        env.step(np.array([[first]]))
        with pytest.raises(ValueError, match="light t must choose phases in all decisions of an episode"):
            env.step(np.array([[then]]))
    env.reset(0)
    with pytest.raises(ValueError, match="cannot choose phase -2"):
        env.step(np.array([[-2]]))


def test_what_is_seen_follows_the_program(net_of, opened):
    env = opened(net_of(program((20, NS), (5, yellow(NS)), (20, WE), (5, yellow(WE)))))
    env.reset(0)
    steps = [env.step(scripted.fixed()(env)) for _ in range(10)]
    phases = [step.obs[0, 0, 3:5].tolist() for step in steps]
    assert phases == [[1, 0]] * 5 + [[0, 1]] * 5
    assert steps[6].obs[0, 0, 2] == pytest.approx(10 / 60)  # minutes since the last change


def test_trains_switch_their_own_lights(tmp_path, opened):
    arms = {"a": (-100, 0), "b": (200, 100), "c": (0, 100), "d": (0, -100), "e": (300, 0), "f": (200, -100)}
    nodes = "".join(f'<node id="{name}" x="{x}" y="{y}"/>' for name, (x, y) in arms.items())
    nodes += '<node id="m" x="0" y="0" type="rail_crossing"/><node id="k" x="200" y="0" type="traffic_light"/>'
    roads = "".join(f'<edge id="{a}{b}" from="{a}" to="{b}"/>' for a, b in ("am", "mk", "ke", "bk", "kf"))
    rails = "".join(f'<edge id="{a}{b}" from="{a}" to="{b}" allow="rail"/>' for a, b in ("cm", "md"))
    (tmp_path / "plain.nod.xml").write_text(f"<nodes>{nodes}</nodes>")
    (tmp_path / "plain.edg.xml").write_text(f"<edges>{roads}{rails}</edges>")
    net, routes = tmp_path / "rail.net.xml", tmp_path / "rail.rou.xml"
    routes.write_text('<routes><flow id="f" begin="0" end="100" period="10" from="am" to="ke"/></routes>')
    netconvert("-n", tmp_path / "plain.nod.xml", "-e", tmp_path / "plain.edg.xml", "-o", net)
    env = opened(Net(str(net), str(routes)))
    assert env.possible_agents == ("k",) and "m" in env.world.sumo.trafficlight.getIDList()
    records, _ = run_episodes(env, lambda env, seen: scripted.fixed()(env), 1, seed=0)
    assert records["trips"][0] == 10


@pytest.fixture
def parts(tmp_path):
    """One demand in the pieces that SUMO takes: compressed network, types, vehicles, a program."""
    known = bundled("2way-single-intersection")
    (tmp_path / "a.net.xml.gz").write_bytes(gzip.compress(Path(known.net_file).read_bytes()))
    (tmp_path / "types.xml").write_text('<routes><vType id="slow" maxSpeed="5"/></routes>')
    vehicle = '<vehicle id="a" type="slow" depart="0"><route edges="n_t t_s"/></vehicle>'
    (tmp_path / "my demand.rou.xml").write_text(f"<routes>{vehicle}</routes>")
    (tmp_path / "b.rou.xml.gz").write_bytes(gzip.compress(f"<routes>{vehicle}</routes>".replace('"a"', '"b"').encode()))
    (tmp_path / "night.add.xml").write_text(f"<additional>{THREE}</additional>")
    return tmp_path


def test_files_are_taken_as_sumo_takes_them(parts, opened):
    routes = ", ".join(str(parts / name) for name in ("types.xml", "my demand.rou.xml", "b.rou.xml.gz"))
    env = opened(Net(str(parts / "a.net.xml.gz"), routes, 0, str(parts / "night.add.xml")))
    assert env.counts == (3,)
    records, _ = run_episodes(env, lambda env, seen: scripted.fixed()(env), 1, seed=0)
    assert records["trips"][0] == 2
    env.close()
    demand = ",".join(str(parts / name) for name in ("types.xml", "my demand.rou.xml"))
    config = replace(SHORT, net_file=str(parts / "a.net.xml.gz"), additional_files=demand)
    env = BatchedSignals(config)
    try:
        records, _ = run_episodes(env, lambda env, seen: scripted.fixed()(env), 1, seed=0)
        assert records["trips"][0] == 1
    finally:
        env.close()


@pytest.mark.slow
def test_files_come_through_the_command_line(parts, monkeypatch):
    monkeypatch.chdir(parts)
    flags = "--net-file a.net.xml.gz --route-file types.xml,b.rou.xml.gz --additional-files night.add.xml --num-envs 1"
    cli.train(f"--env sumo-signals {flags} --num-seconds 50 --total-timesteps 20 --num-steps 10 --out run".split())
    assert (parts / "run" / "config.json").is_file()


def test_every_file_that_is_missing_is_named(parts):
    net = str(parts / "a.net.xml.gz")
    for change, words in (
        ({"net_file": "no.net.xml", "route_file": "b"}, "--net-file no.net.xml does not exist"),
        ({"net_file": net, "route_file": f"{parts}/types.xml,no.rou.xml"}, "--route-file no.rou.xml does not exist"),
        ({"net_file": net, "route_file": f"{parts}/types.xml,"}, "--route-file '.*types.xml,' does not exist"),
        ({"net_file": net, "additional_files": "no.add.xml"}, "--additional-files no.add.xml does not exist"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(SHORT, **change).files()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no road", "is no SUMO network"),
        (b"", "is no SUMO network"),
        (b"\x1f\x8b\x08 not compressed", "is no SUMO network"),
        (gzip.compress(b"<net version='1.9'>", mtime=0)[:9], "is no SUMO network"),
        (b"<net/>", "is no SUMO network .no <net version"),
        (b"<html><body/></html>", "is no SUMO network .no <net version"),
        (b"<net version='1.9'/>", "has no traffic light"),
    ],
)
def test_what_is_no_network_with_lights_is_refused_in_one_line(tmp_path, opened, content, words):
    net = tmp_path / "my.net.xml.gz"
    net.write_bytes(content)
    with pytest.raises(ValueError, match=f"^--net-file .*{words}") as refused:
        opened(Net(str(net), str(net)))
    assert "\n" not in str(refused.value)


def test_a_light_without_a_green_phase_is_refused_and_closes_the_simulation(net_of, opened):
    with pytest.raises(ValueError, match="traffic light t has no green phase in its program '0': give it one"):
        opened(net_of(program((3, yellow(NS)), (5, RED))))
    assert not libsumo.simulation.isLoaded()
    opened(net_of(DAY)).reset(0)


def test_sumos_refusal_is_one_line(net_of, opened, tmp_path):
    files = net_of(DAY)
    for text in ('<routes><trip id="a" depart="0" from="nowhere" to="nowhere"/></routes>', "<routes>", "no routes"):
        broken = tmp_path / "my routes.rou.xml"
        broken.write_text(text)
        with pytest.raises(RuntimeError, match=r"SUMO stopped: .*command: sumo") as refused:
            opened(replace(files, route_file=str(broken)))
        assert "\n" not in str(refused.value)
    with pytest.raises(RuntimeError, match="SUMO stopped: it refuses its files, with the reason above"):
        opened(net_of(DAY + DAY))
    opened(net_of(DAY)).reset(0)


def test_every_bundled_net_is_there():
    for name in NETS:
        assert SignalsConfig(net=name).files() == bundled(name)
