"""rqe-sweep on Ray: two workers on one machine, then a cluster of two nodes of which one is killed.

`python -m benchmarks.ray_cluster` (needs `pip install 'rqe-mappo[ray]'`). The nodes have the addresses 127.0.0.2 and
127.0.0.3 and a core each; what is killed is every process of the second, runs included, as if its plug were pulled.
Writes results/ray_cluster.csv: a row a run, with its attempts and whether the killed node was at it.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import tables
from benchmarks.tables import RESULTS

HEAD, SECOND, PORT = "127.0.0.2", "127.0.0.3", 6399  # Ray turns 127.0.0.1 into an outer address
SWEEP = ("tau", "--env", "cartpole", "--taus", "0.3,inf", "--seeds", "4", "--episodes", "100")
KILL_AFTER = 2  # runs that have finished
PATIENCE_S = 900
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}


def sweep(folder: Path, steps: int, *where: str) -> subprocess.Popen:
    """Start the sweep; its words go to sweep.log beside the folder."""
    command = [sys.executable, "-c", "from rqe_mappo.sweeps.cli import sweep; sweep()"]
    command += [*SWEEP, "--total-timesteps", str(steps), "--out", str(folder), *where]
    with open(folder.with_suffix(".log"), "w") as log:
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)


def ray(*args: str) -> None:
    """`ray` of this interpreter's environment."""
    command = [sys.executable, "-m", "ray.scripts.scripts", *args]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"ray {' '.join(args)}: {done.stderr.strip()[-500:]}")


@contextmanager
def cluster() -> Iterator[None]:
    """Two nodes of one core each."""
    common = ("--num-cpus", "1", "--disable-usage-stats")
    ray("start", "--head", "--node-ip-address", HEAD, "--port", str(PORT), "--include-dashboard", "false", *common)
    try:
        ray("start", "--address", f"{HEAD}:{PORT}", "--node-ip-address", SECOND, *common)
        yield
    finally:
        for root in nodes(HEAD) + nodes(SECOND):
            end(root)
        for pid, _, line in processes():
            if f"{HEAD}:{PORT}" in line or f"gcs_server_port={PORT}" in line:
                end(pid)


def processes() -> list[tuple[int, int, str]]:
    """Every process: its number, its parent's, its command line."""
    text = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(None, 2) for line in text.splitlines())
    return [(int(row[0]), int(row[1]), row[2]) for row in rows if len(row) == 3]


def nodes(address: str) -> list[int]:
    """The raylet of the node at `address`."""
    wanted = (f"--node_ip_address={address}", f"{HEAD}:{PORT}")
    return [
        pid for pid, _, line in processes()
        if line.split()[0].endswith("raylet") and all(word in line for word in wanted)
    ]  # fmt: skip


def below(root: int) -> dict[int, str]:
    """`root` and all that it started, with their command lines."""
    every = processes()
    found = {pid: line for pid, _, line in every if pid == root}
    while fresh := {pid: line for pid, parent, line in every if parent in found and pid not in found}:
        found |= fresh
    return found


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def states(folder: Path) -> dict[str, str]:
    """How each run of the sweep stands."""
    path = folder / "manifest.json"
    jobs = json.loads(path.read_text())["jobs"] if path.is_file() else []
    return {entry["name"]: entry["state"] for entry in jobs}


def pull_the_plug(folder: Path, child: subprocess.Popen) -> set[str]:
    """Once `KILL_AFTER` runs are done and the second node is at work: kill it; gives the runs it was at."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and child.poll() is None:
        time.sleep(0.2)
        (raylet,) = nodes(SECOND)
        doomed = below(raylet)
        at = {
            name for name in states(folder)
            for line in doomed.values()
            if "rqe_mappo.cli" in line and f"/{name}" in line and (folder / "runs" / name / "metrics.csv").is_file()
        }  # fmt: skip
        if at and list(states(folder).values()).count("done") >= KILL_AFTER:
            for pid in doomed:
                end(pid)
            return at
    raise RuntimeError(f"the second node was never at work: {folder.with_suffix('.log').read_text()[-1000:]}")


def rows(case: str, folder: Path, lost: set[str]) -> list[dict]:
    """A row a run: what became of it."""
    return [
        {
            "case": case, "run": name, "state": state, "node_killed": name in lost,
            "attempts": len(json.loads((folder / "runs" / name / "attempts.json").read_text())),
            "timesteps": json.loads((folder / "runs" / name / "eval.json").read_text())["timesteps"],
        }
        for name, state in states(folder).items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200_000, help="of each run")
    args = parser.parse_args()
    ENVIRONMENT["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    found = []
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "one_machine"
        if sweep(folder, args.steps, "--ray", "--jobs", "2").wait(PATIENCE_S):
            raise RuntimeError(folder.with_suffix(".log").read_text()[-1000:])
        found += rows("two workers on one machine", folder, set())
        with cluster():
            folder = Path(root) / "two_nodes"
            child = sweep(folder, args.steps, "--ray", f"{HEAD}:{PORT}")
            lost = pull_the_plug(folder, child)
            code = child.wait(PATIENCE_S)
        found += rows("two nodes, one killed", folder, lost)
    tables.write(RESULTS / "ray_cluster.csv", found)
    for row in found:
        print("  ".join(str(value) for value in row.values()))
    again = {row["run"] for row in found if row["attempts"] > 1}
    print(f"exit code {code}; at the killed node: {sorted(lost)}; run again: {sorted(again)}")
    if code or again != lost or any(row["state"] != "done" for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
