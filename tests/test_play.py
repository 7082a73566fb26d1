"""The live page: every tab sees one session, steers it by valid messages alone, and nothing else is served."""

import http.client
import itertools
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rqe_mappo import cli as training
from rqe_mappo import registry
from rqe_mappo.data.vector import WorkerDied
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.live import cli, messages
from rqe_mappo.live.running_statistics import RunningStatistics
from rqe_mappo.live.server import Hub, application
from rqe_mappo.live.session import Session
from rqe_mappo.statistics import rate
from tests.test_workers import gone

PATIENCE_S = 30.0
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def trained(folder: Path, env: str, tau: str, seed: int) -> Path:
    size = ["--total-timesteps", "256", "--num-envs", "8", "--num-steps", "16", "--eval-episodes", "0"]
    settings = ["--tau", tau, "--seed", str(seed), "--return-scale", "12"]
    training.train(["--env", env, *settings, *size, "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def carts(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("carts")
    return trained(folder / "safe", "cartpole", "0.3", 1), trained(folder / "neutral", "cartpole", "inf", 2)


@pytest.fixture(scope="module")
def vehicles(tmp_path_factory) -> tuple[Path, Path]:
    pytest.importorskip("libsumo")
    folder = tmp_path_factory.mktemp("vehicles")
    return trained(folder / "safe", "sumo", "0.3", 1), trained(folder / "neutral", "sumo", "inf", 2)


@contextmanager
def served(*runs: Path, **settings):
    """A session of these runs on a free port: the session and the address."""
    hub = Hub()
    session = Session(tuple(Policy.load(run) for run in runs), hub.publish, **settings)
    listener = cli.listen("127.0.0.1", 0)
    server = uvicorn.Server(cli.web_config(application(session, hub, "127.0.0.1")))
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    session.start()
    session.ready.wait()
    assert session.error is None
    serving.start()
    try:
        yield session, f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        serving.join()
        listener.close()
        session.stop()
    assert session.error is None


@pytest.fixture(scope="module")
def live(carts):
    with served(*carts, seed=7) as (_, address):
        yield address


class Tab:
    """What a page does, without a page."""

    def __init__(self, address: str):
        self.socket = connect(f"ws://{address}/live", origin=f"http://{address}").__enter__()

    def send(self, **message) -> None:
        self.socket.send(json.dumps(message))

    def next(self, kind: str, where=lambda message: True) -> dict:
        """The next message of a type that is as wanted."""
        until = time.monotonic() + PATIENCE_S
        while True:
            message = json.loads(self.socket.recv(timeout=until - time.monotonic()))
            if message["type"] == kind and where(message):
                return message

    def step(self) -> dict:
        """One decision, as it was published."""
        self.send(do="step")
        return self.next("decision")

    def settle(self, **settings) -> None:
        """Wait until these settings hold."""
        self.next("settings", lambda message: settings.items() <= message.items())

    def pause(self) -> None:
        self.send(do="pause", value=True)
        self.settle(paused=True)

    def __enter__(self) -> "Tab":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()


def test_a_new_tab_gets_everything(live):
    with Tab(live) as tab:
        received = {message["type"]: message for message in (json.loads(tab.socket.recv()) for _ in range(5))}
        assert received.keys() >= {"hello", "settings", "decision", "statistics"}
        hello = received["hello"]
        assert [policy["risk_profile"] for policy in hello["policies"]] == ["τ = 0.3", "τ = ∞"]
        assert hello["agents"] == ["cart"] and hello["scene"]["decision_s"] == 0.02
        tab.send(do="pause", value=False)
        first, then = tab.next("decision", lambda m: m["agents"]), tab.next("decision")
        assert first["frames"][-1]["x_m"] != then["frames"][-1]["x_m"]


def test_alpha_acts_from_the_next_decision_in_mid_episode(live):
    with Tab(live) as tab:
        tab.pause()
        before = tab.step()
        for alpha in (0.25, 1.0, 0.0):
            tab.send(do="alpha", value=alpha)
            assert tab.next("statistics")["episodes"] == 0
            after = tab.step()
            assert after["alpha"] == alpha and after["episode"] == before["episode"]
            agent = after["agents"][0]
            safe, neutral = (np.array(policy["probs"]) for policy in agent["policies"])
            assert np.allclose(agent["mixture"], alpha * safe + (1 - alpha) * neutral, atol=2e-4)
            assert not np.allclose(safe, neutral, atol=1e-3)


def test_tabs_see_one_session_and_a_closed_one_changes_nothing(live):
    with Tab(live) as one:
        with Tab(live) as other:
            other.send(do="alpha", value=0.75)
            one.settle(alpha=0.75)
            other.settle(alpha=0.75)
            one.pause()
            other.settle(paused=True)
            one.send(do="step")
            assert one.next("decision", lambda m: m["alpha"] == 0.75) == other.next(
                "decision", lambda m: m["alpha"] == 0.75
            )
        assert one.step()["alpha"] == 0.75


def test_reset_with_a_seed_repeats_the_episode(live):
    with Tab(live) as tab:
        tab.pause()

        def frames_of(seed: int) -> list[dict]:
            tab.send(do="reset", seed=seed)
            begin = tab.next("decision", lambda m: m["agents"] is None)
            return begin["frames"] + [frame for _ in range(5) for frame in tab.step()["frames"]]

        first = frames_of(5)
        assert [frame["time_s"] for frame in first] == [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
        assert frames_of(6) != first
        assert frames_of(5) == first


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "JSON"),
        ("[]", "should be"),
        ('{"do": "fly"}', "fly"),
        ('{"do": "alpha"}', "required"),
        ('{"do": "alpha", "value": 1.5}', "less than or equal to 1"),
        ('{"do": "alpha", "value": NaN}', "alpha.value"),
        ('{"do": "alpha", "value": "0.5"}', "valid number"),
        ('{"do": "alpha", "value": true}', "valid number"),
        ('{"do": "alpha", "value": 0.5, "path": "/etc/passwd"}', "path"),
        ('{"do": "speed", "value": 1000}', "speed"),
        ('{"do": "reset", "seed": 1.5}', "integer"),
        ('{"do": "reset", "seed": -1}', "greater than or equal to 0"),
        ('{"do": "tau", "value": 1.0}', "there are two"),
        ('{"do": "step"}' + " " * messages.LONGEST, "bytes"),
        (b"\x00\x01", "text"),
    ],
)
def test_a_malformed_message_is_refused_and_the_session_goes_on(live, text, reason):
    with Tab(live) as tab, Tab(live) as other:
        tab.pause()
        tab.socket.send(text)
        answer = tab.next("refused")["reason"]
        assert reason in answer and "\n" not in answer
        other.settle(paused=True)
        tab.step()
        assert other.next("decision", lambda m: m["agents"])  # nothing of it reached the other tab before


def test_a_flood_of_bytes_closes_that_tab_alone(live):
    with Tab(live) as tab, Tab(live) as other:
        tab.socket.send("x" * 100_000)
        with pytest.raises(ConnectionClosed):
            tab.next("refused")
        other.send(do="step")
        other.next("decision")


def fetched(address: str, path: str, **headers: str) -> tuple[int, dict, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", headers=headers)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_the_page_brings_all_it_needs(live):
    status, headers, _ = fetched(live, "/")
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    static = Path(cli.__file__).parent / "static"
    files = {"/": "index.html"} | {f"/{file.name}": file.name for file in static.iterdir() if file.suffix != ".html"}
    for path, name in files.items():
        assert fetched(live, path)[2] == (static / name).read_bytes()
        assert b"//" not in (static / name).read_bytes().replace(b"// ", b"").replace(b"://${location.host}", b"")


@pytest.mark.parametrize(
    "path", ["/index.html", "/server.py", "/../cli.py", "/%2e%2e/cli.py", "//etc/passwd", "/docs", "/openapi.json"]
)
def test_nothing_else_is_served(live, path):
    assert fetched(live, path)[0] == 404


def test_other_sites_and_rebound_names_are_refused(live):
    assert fetched(live, "/", Host="evil.example:8000")[0] == 421
    assert fetched(live, "/", Host="localhost:8000")[0] == 200
    assert fetched(live, "/", Origin="http://evil.example")[0] == 421
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://{live}/live", origin=origin).__enter__()
    asking = http.client.HTTPConnection(live)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    name = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    asking.request("GET", "/live", headers=upgrade | name)
    assert asking.getresponse().status == 403


@pytest.mark.slow
def test_a_killed_and_a_stopped_simulation_are_replaced(carts):
    with served(*carts, limit_s=2.0) as (session, address), Tab(address) as tab:
        for failure in (signal.SIGKILL, signal.SIGSTOP):
            tab.next("decision", lambda m: m["agents"])
            os.kill(session.worker.workers[0].process.pid, failure)
            assert "started anew" in tab.next("notice", lambda m: m["text"])["text"]
            tab.next("decision", lambda m: m["agents"])
        assert session.worker.restarts == [2]


def test_a_simulation_that_keeps_failing_pauses_until_reset(carts, monkeypatch):
    with served(*carts) as (session, address), Tab(address) as tab:
        tab.next("decision", lambda m: m["agents"])
        tab.pause()

        def step(actions):
            raise WorkerDied("worker 0 failed 3 times")

        monkeypatch.setattr(session.worker, "step", step)
        tab.send(do="step")
        assert "worker 0 failed 3 times" in tab.next("notice", lambda m: m["text"])["text"]
        tab.send(do="reset", seed=3)
        tab.next("decision", lambda m: m["agents"])


def test_tau_of_a_single_policy_moves_the_mark_and_not_the_driving(carts):
    with served(carts[0]) as (_, address), Tab(address) as tab:
        assert tab.next("settings")["tau"] == 0.3
        tab.pause()
        values, driving = [], []
        for tau in (0.1, 1.0, "inf"):
            tab.send(do="reset", seed=2)
            tab.send(do="tau", value=tau)
            tab.next("decision", lambda m: m["agents"] is None)
            agent = tab.step()["agents"][0]
            values.append(agent["policies"][0]["value"])
            driving.append((agent["action"], agent["mixture"]))
        assert values[0] < values[1] < values[2]
        assert driving[0] == driving[1] == driving[2]
        tab.send(do="alpha", value=0.5)
        assert "alpha needs two policies" in tab.next("refused")["reason"]


@pytest.mark.slow
def test_vehicles_move_at_their_reported_speed(vehicles):
    with served(*vehicles, kind="episode") as (_, address), Tab(address) as tab:
        hello = tab.next("hello")
        assert hello["scene"]["unit"] == "s" and len(hello["scene"]["roads"]) == 12
        tab.pause()
        frames = [frame for _ in range(8) for frame in tab.step()["frames"]]
        moved = []
        for old, new in itertools.pairwise(frames):
            places = {car["slot"]: car for car in old["vehicles"] if not car["collided"]}
            for car in new["vehicles"]:
                if car["slot"] in places and not car["collided"]:
                    was = places[car["slot"]]
                    gone = math.hypot(car["x_m"] - was["x_m"], car["y_m"] - was["y_m"])
                    assert gone == pytest.approx(car["speed_mps"] * hello["scene"]["frame_s"], abs=0.1)
                    moved.append(gone)
        assert len(moved) > 50 and np.mean(moved) > 0.3
        tab.send(do="speed", value="max")
        tab.send(do="pause", value=False)
        statistics = tab.next("statistics", lambda m: m["episodes"] >= 3)
        names = ["collisions per vehicle", "travel time", "mean return", "mean of the worst 5 %"]
        assert [row["name"] for row in statistics["rows"]] == names


def test_statistics_are_those_of_the_episodes_with_their_number():
    statistics = RunningStatistics("s")
    collision = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    records = {
        "copy": np.zeros(4, int), "length": np.array([[4, 10], [10, 0], [10, 10], [10, 10]]), "collision": collision,
        "timed_out": 0 * collision, "return": -5 - 30 * collision, "travel_time_s": np.full((4, 2), 5.0),
    }  # fmt: skip
    statistics.add(records)
    content = statistics.content()
    rows = {row["name"]: row for row in content["rows"]}
    assert content["episodes"] == 4
    known = rate(collision, records["length"] > 0)
    shown = [rows["collisions per vehicle"][key] for key in ("value", "low", "high")]
    assert shown == pytest.approx([100 / 7, 100 * known.low, 100 * known.high], abs=1e-3)
    assert rows["travel time"]["value"] == 5.0
    assert rows["mean return"]["value"] == pytest.approx(-5 - 30 / 7, abs=1e-3)
    tail = "mean of the worst 5 %"
    assert rows[tail]["value"] is None and "from 100 episodes on" in rows[tail]["note"]
    for _ in range(24):
        statistics.add(records)
    assert {row["name"]: row for row in statistics.content()["rows"]}[tail]["value"] == -35.0
    statistics.clear()
    assert statistics.content() == {"episodes": 0, "rows": []}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no/such/run"], "no/such/run"),
        (["{safe}", "{neutral}", "--alpha", "2"], "--alpha must lie in [0, 1]"),
        (["{safe}", "--alpha", "0.5"], "--alpha mixes two policies"),
        (["{safe}", "--port", "70000"], "--port must lie in"),
        (["{safe}", "--port", "{taken}"], "--port {taken} cannot be used"),
        (["{safe}", "--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
    ],
)
def test_bad_input_is_answered_in_one_line(carts, args, message, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        names = {"safe": carts[0], "neutral": carts[1], "taken": other.getsockname()[1]}
        with pytest.raises(SystemExit) as stop:
            cli.play([arg.format(**names) for arg in args])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert message.format(**names) in error and "\n" not in error


def test_an_environment_without_a_scene_is_refused(carts, monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "cartpole", replace(registry.ENVIRONMENTS["cartpole"], scene=""))
    with pytest.raises(ValueError, match="no live view of --env cartpole: give runs of --env sumo"):
        Session((Policy.load(carts[0]),), lambda kind, content: None)


@pytest.mark.slow
def test_ctrl_c_ends_everything_without_a_traceback(carts):
    command = [sys.executable, "-m", "rqe_mappo.live.cli", *map(str, carts), "--port", "0", "--host", "0.0.0.0"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = program.stdout.readline()
    assert line.startswith("watch at http://0.0.0.0:")
    children = Path(f"/proc/{program.pid}/task").glob("*/children")
    workers = [int(pid) for file in children for pid in file.read_text().split()]
    with Tab(f"127.0.0.1:{line.split(':')[2].split('/')[0]}") as tab:
        tab.next("decision", lambda m: m["agents"])
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 130
    assert "warning: anyone who can reach" in errors and "Traceback" not in errors
    until = time.monotonic() + PATIENCE_S
    while not all(map(gone, workers)) and time.monotonic() < until:
        time.sleep(0.05)  # Python's own helper processes end when they see that their parent did
    assert workers and all(map(gone, workers))


class Browser:
    """Chromium, headless, over the DevTools protocol."""

    def __init__(self, folder: Path):
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command = [CHROMIUM, *flags, f"--user-data-dir={folder}", "--window-size=1600,900", "about:blank"]
        self.program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready, until = folder / "DevToolsActivePort", time.monotonic() + PATIENCE_S
        while not (ready.is_file() and ready.read_text().strip()):
            assert time.monotonic() < until, "Chromium does not start"
            time.sleep(0.05)
        port, path = ready.read_text().split()
        self.socket = connect(f"ws://127.0.0.1:{port}{path}", max_size=None).__enter__()
        self.numbers, self.errors = itertools.count(1), []

    def call(self, method: str, page: str | None = None, **params) -> dict:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": page} if page else {})
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(answer["params"])
            if answer.get("id") == number:
                return answer["result"]

    def open(self, url: str) -> str:
        target = self.call("Target.createTarget", url=url, newWindow=True)["targetId"]
        page = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable", page)
        self.call("Log.enable", page)
        return page

    def run(self, page: str, script: str):
        result = self.call("Runtime.evaluate", page, expression=script, awaitPromise=True, returnByValue=True)
        return result["result"].get("value")

    def wait(self, page: str, script: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not self.run(page, script):
            assert time.monotonic() < until, script
            time.sleep(0.05)

    def close(self) -> None:
        self.socket.close()
        self.program.terminate()
        self.program.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_in_a_browser(vehicles, tmp_path):
    with served(*vehicles) as (session, address):
        browser = Browser(tmp_path)
        try:
            page, second = browser.open(f"http://{address}/"), browser.open(f"http://{address}/")
            for tab in (page, second):
                browser.wait(tab, "document.querySelectorAll('.agent').length === 4")
            assert browser.run(page, "document.getElementById('title').textContent") == "Unsignalised intersection"

            picture = "document.getElementById('scene').toDataURL()"
            browser.wait(page, "!document.getElementById('clock').textContent.endsWith(' 0.0 s')")
            one = browser.run(page, picture)
            browser.wait(page, f"{picture} !== {json.dumps(one)}")

            slide = "const s = document.getElementById('alpha'); s.value = 0.9; s.dispatchEvent(new Event('input'))"
            browser.run(page, f"{{ {slide} }}")
            browser.wait(second, "document.getElementById('alpha-value').textContent === 'α = 0.90'")
            assert session.alpha == session.actor.alpha == 0.9
            browser.run(second, "document.getElementById('pause').click()")
            browser.wait(page, "document.getElementById('pause').textContent === 'Play'")
            assert session.paused
            assert browser.errors == []
        finally:
            browser.close()


def test_the_mark_is_the_value_of_the_distribution(carts):
    with served(carts[0]) as (_, address), Tab(address) as tab:
        atoms = np.array(tab.next("hello")["policies"][0]["atoms"])
        policy = tab.next("decision", lambda m: m["agents"])["agents"][0]["policies"][0]
    tau = 0.3 * 12
    exact = -tau * np.log(np.array(policy["distribution"]) @ np.exp(-atoms / tau))
    assert policy["value"] == pytest.approx(exact, abs=0.5)
