"""Every reader of files, and attacks on it: in one process, so that thousands of files take minutes."""

import contextlib
import gzip
import io
import json
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults import Figure, damage, forked
from rqe_mappo import cli, command_line
from rqe_mappo.config import default_config
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.equilibrium.cli import read_game
from rqe_mappo.sweeps import job, manifest, reading, tables
from rqe_mappo.sweeps.job import Job, Outcome
from rqe_mappo.sweeps.manifest import Manifest
from rqe_mappo.training.logs import RunLog
from rqe_mappo.training.loop import train

LIMIT_S = 10.0  # for one file
MEMORY = 4 * 2**30  # bytes of addresses beyond those in use
EXPECTED = (ValueError, OSError, ImportError, RuntimeError)  # what commands end in one line for
SMALL = {"total_timesteps": 256, "num_envs": 4, "num_steps": 16, "eval_episodes": 0, "n_atoms": 11}
Damage = Callable[[bytes, random.Random], damage.Damaged]


@dataclass(frozen=True)
class Reader:
    """Something that reads a file.

    file: a good one, which is damaged in its place.
    read: what to call; gives what it found, to be compared.
    kinds: of damage.
    checked: whether a checksum has to see every change of bytes that changes what is found.
    named: what may stand in a message instead of the file: a flag that chose something in it.
    """

    name: str
    file: Path
    read: Callable[[Path], Any]
    kinds: tuple[Damage, ...]
    checked: bool = False
    named: str = ""


class TookTooLong(BaseException):
    """A reader that did not come to an end."""


def sweep_folder(folder: Path) -> Path:
    """The folder of a sweep of one small run, with all its tables; gives the run's folder."""
    known = Manifest(folder, "cartpole", "tau 1", ["rqe-sweep tau"], {"python": "3"})
    run = known.run_folder("tau1__s1")
    train(default_config("cartpole").replace(**SMALL, out=str(run)), quiet=True)
    with contextlib.redirect_stdout(io.StringIO()):
        cli.evaluate([str(run), "--episodes", "128"])
    job.begin_attempt(run)
    job.end_attempt(run)
    known.add([Job("tau1__s1", "tau 1", "rqe-mappo", "tau 1", (("tau", "1"),), 1, (), str(run), "", 256, 128)])
    known.record(Outcome("tau1__s1", "done"))
    tables.collect(known)
    return run


def replayed(folder: Path) -> Reader:
    """The reader of the episodes that a run keeps beside its checkpoints."""
    few = {"total_timesteps": 256, "num_envs": 4, "batch_episodes": 8, "eval_episodes": 0, "keep_buffer": True}
    config = default_config("step-games", "default", "qmix").replace(**few, out=str(folder))
    train(config, quiet=True)
    file = max((folder / "replay").glob("*.pt"))
    return Reader(
        "replayed episodes", file, lambda path: str(train(config, resume=folder, quiet=True)),
        (damage.bytewise, damage.bytewise, damage.archive),
    )  # fmt: skip


def readers(folder: Path) -> list[Reader]:
    """All readers, with good files for them in `folder`."""
    run = sweep_folder(folder / "sweep")
    policy = max((run / "checkpoints").glob("*.policy.pt"))
    training = max((run / "checkpoints").glob("*.training.pt"))
    config = default_config("cartpole").replace(**SMALL, out=str(run))
    raw, text, tree = damage.bytewise, damage.textual, damage.json_tree
    game = folder / "game.json"
    game.write_text('{"payoffs": [[[2, 0], [3, 1]], [[2, 3], [0, 1]]], "actions": [["a", "b"], ["c", "d"]]}')

    def logged(path: Path) -> Any:
        log = RunLog(path.parent, 256, 256, quiet=True)
        log.close()
        return log.columns

    return [
        Reader("policy file", policy, _policy, (raw, raw, damage.archive), checked=True),
        Reader(
            "training state", training, lambda path: str(train(config, resume=run, quiet=True)),
            (raw, raw, damage.archive),
        ),
        replayed(folder / "replayed"),
        Reader("config.json", run / "config.json", lambda path: repr(command_line.train_config(["--resume", str(run)])),
               (raw, text, tree, tree), named="--trust"),
        Reader("latest", run / "latest", lambda path: repr(cli.configs.checkpoint.newest(run)), (raw, text)),
        Reader("metrics.csv", run / "metrics.csv", logged, (raw, text)),
        Reader("eval.json", run / "eval.json", lambda path: tables.headline(run), (raw, text, tree, tree)),
        Reader("eval_episodes.npz", run / "eval_episodes.npz",
               lambda path: {name: array.tobytes() for name, array in reading.episodes(path).items()}, (raw,)),
        Reader("attempts.json", run / "attempts.json", lambda path: job.train_seconds(run), (raw, text, tree, tree)),
        Reader("manifest.json", folder / "sweep" / "manifest.json", lambda path: repr(manifest.load(path.parent)),
               (raw, text, tree, tree)),
        Reader("results.csv", folder / "sweep" / "results.csv", _results, (raw, text, text)),
        Reader("curves.csv", folder / "sweep" / "curves.csv", tables.read, (raw, text)),
        Reader("episodes.csv.gz", folder / "sweep" / "episodes.csv.gz", tables.read,
               (raw, damage.gzipped(raw), damage.gzipped(text))),
        Reader("game.json", game, lambda path: repr(read_game(str(path))), (raw, text, tree, tree)),
        *_of_the_hub(folder, policy),
        *_networks(folder),
    ]  # fmt: skip


def _policy(path: Path) -> Any:
    policy = Policy.load(path)
    weights = {name: list(module.state_dict().values()) for name, module in policy.modules.items()}
    return policy.config_json, policy.agents, policy.timesteps, repr(policy.risk), {
        name: [weight.numpy().tobytes() for weight in found] for name, found in weights.items()
    }  # fmt: skip


def _results(path: Path) -> Any:
    rows = tables.read(path)
    return rows, tables.front_rows(rows), tables.comparisons(rows, "tau 1")


def _of_the_hub(folder: Path, policy: Path) -> Iterator[Reader]:
    try:
        Policy.load(policy).save_pretrained(folder / "hub")
    except ImportError:
        return
    for name, kinds in (("config.json", (damage.bytewise, damage.json_tree, damage.json_tree)),
                        ("model.safetensors", (damage.bytewise,))):  # fmt: skip
        yield Reader(f"the Hub's {name}", folder / "hub" / name,
                     lambda path: repr(Policy.from_pretrained(str(path.parent)).spec), kinds)  # fmt: skip


def _networks(folder: Path) -> Iterator[Reader]:
    try:
        from rqe_mappo.envs.sumo_intersection.dynamics import junction_of
        from rqe_mappo.envs.sumo_intersection.network import sumo_home
        from rqe_mappo.envs.sumo_signals import nets

        generate = [str(sumo_home() / "bin" / "netgenerate"), "--grid", "--grid.number", "3"]
    except ImportError:
        return
    net, zipped, lights = folder / "grid.net.xml", folder / "grid.net.xml.gz", folder / "lights.net.xml"
    for path, kind in ((net, "right_before_left"), (lights, "traffic_light")):
        subprocess.run([*generate, "--default-junction-type", kind, "-o", str(path)], check=True, capture_output=True)
    zipped.write_bytes(gzip.compress(net.read_bytes(), mtime=0))
    sumo = default_config("sumo")

    def junction(path: Path) -> Any:
        return bool(junction_of(sumo.replace(net=str(path), junction="B1").env_config))

    yield Reader("a network", net, junction, (damage.bytewise, damage.textual), named="--junction")
    yield Reader("a network, gzipped", zipped, junction, (damage.bytewise, damage.gzipped(damage.textual)),
                 named="--junction")  # fmt: skip
    yield Reader("a network with lights", lights, lambda path: bool(nets.checked(nets.Net(str(path), str(path)))),
                 (damage.bytewise, damage.textual))  # fmt: skip


def attack(reader: Reader, count: int, rng: random.Random, marker: Path) -> tuple[Counter[str], list[str]]:
    """Damage the reader's file `count` times; what became of it, and what the first faults were."""
    good, seen, faults = reader.file.read_bytes(), Counter(files=count), []
    expected = reader.read(reader.file)
    evil = damage.malicious(marker)
    try:
        for number in range(count):
            made = (
                damage.Damaged(evil[number], bare=False) if number < len(evil) else rng.choice(reader.kinds)(good, rng)
            )
            reader.file.write_bytes(made.content)
            fault = _tried(reader, made, expected, seen)
            if marker.exists():
                fault = "executed"
                marker.rmdir()
            if fault:
                seen[fault.split(":")[0]] += 1
                faults.append(f"{reader.name}: {fault}")
                kept = marker.parent / f"{fault.split(':')[0]} {reader.name} {number}".replace("/", "-")
                kept.write_bytes(made.content)
    finally:
        reader.file.write_bytes(good)
    return seen, faults


def _tried(reader: Reader, made: damage.Damaged, expected: Any, seen: Counter[str]) -> str | None:
    """Read the file once; gives a word for the fault, and what was said, or None."""
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        found = reader.read(reader.file)
    except EXPECTED as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        seen["refused"] += 1
        said, names = str(error), (reader.file.name, str(reader.file.parent), reader.named)
        return None if any(name and name in said for name in names) else f"unnamed: {said[:300]}"
    except TookTooLong:
        return "slow"
    except BaseException as error:
        return f"traceback: {type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.monotonic() - began > LIMIT_S / 2:
        return "slow"
    changed = found != expected
    seen["accepted, changed" if changed else "accepted, the same"] += 1
    return "silent" if changed and made.bare and reader.checked else None


def _too_long(number: int, frame: Any) -> None:
    raise TookTooLong


def guard() -> None:
    """Limit the memory and the time of this process's readers."""
    signal.signal(signal.SIGALRM, _too_long)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


FAULTS = ("traceback", "unnamed", "silent", "executed", "slow")


def run(count: int, rng: random.Random, folder: Path) -> list[Figure]:
    """Attack every reader with `count` files."""
    seed = rng.randrange(2**31)
    found = forked.call(lambda: _attacked(count, seed, folder), limit_s=3600)
    figures = []
    for name, seen in found.items():
        part = f"reader: {name}"
        figures += [Figure(part, what, seen.get(what, 0)) for what in ("refused", "accepted, the same")]
        figures.append(Figure(part, "accepted, changed", seen.get("accepted, changed", 0)))
        figures += [Figure(part, what, seen.get(what, 0), 0) for what in FAULTS]
        figures.append(Figure(part, "files", seen["files"], count))
    return figures


def _attacked(count: int, seed: int, folder: Path) -> dict[str, dict[str, int]]:
    torch.set_num_threads(1)
    known = readers(folder)
    guard()
    found = {}
    for reader in known:
        seen, faults = attack(reader, count, random.Random(f"{seed} {reader.name}"), folder / "executed")
        found[reader.name] = dict(seen)
        for fault in faults[:5]:
            print(json.dumps(fault), flush=True)
    return found
