"""rqe-eval --cross-play: every run's agent among the agents of every other run, and among strangers.

A cell is one agent by its run among others by theirs; which agent is the one goes round. Written are cells.jsonl, as
cells are played, so that what was stopped goes on; cross_play.csv, a row a cell; gaps.csv, for runs that differ by
their seed alone what they lose with each other, against with themselves; and a heat map.
"""

import contextlib
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rqe_mappo import config as configs
from rqe_mappo import registry
from rqe_mappo.checkpoint import write_atomically
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data import vector
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.envs.action_noise import NoisyActions
from rqe_mappo.evaluation.episodes import MOST_COPIES, chooser, run_episodes
from rqe_mappo.evaluation.partners import ONNX, one_among, partner
from rqe_mappo.statistics import Estimate, mean_interval, rate
from rqe_mappo.sweeps import tables
from rqe_mappo.sweeps.cross_play_report import draw, gap_rows, show
from rqe_mappo.sweeps.players import Player, known_players
from rqe_mappo.sweeps.pools import processes
from rqe_mappo.training.lock import hold

CELLS = "cells.jsonl"
RANDOM = "random"
INCIDENTS = {"collision": "collisions", "fell": "falls"}  # shares of agents, by the name in records


@dataclass(frozen=True)
class CrossPlayConfig:
    """Let one agent of each run act among those of every run, and among strangers; write tables and a heat map."""

    cross_play: tuple[Path, ...]
    """Run folders or policy files, of one environment; they act in the setting of the first."""
    partners: tuple[str, ...] = ()
    """Strangers as the others: random, scripted:NAME (as rqe-eval --driver NAME), onnx:FILE (docs/cross-play.md)."""
    within: bool = False
    """Only runs that differ by their seed alone meet each other; a heat map for each such setting."""
    noise: tuple[float, ...] = (0.0,)
    """Chances that an action of the others is replaced by a uniform one; a matrix for each."""
    episodes: int = 200
    """Episodes of each cell, rounded up so that each agent of each copy is the one equally often."""
    seed: int = 12345
    """Seed of the episodes and of all draws."""
    deterministic: bool = False
    """Take the most probable actions instead of drawing them."""
    out: Path = Path("runs/cross_play")
    """Folder of the results."""
    jobs: int = os.cpu_count() or 1
    """Cells at a time, one core each."""
    trust: bool = False
    """The runs are your own: import the environment or algorithm of a module that their settings name."""

    def __post_init__(self):
        for name in ("episodes", "jobs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1 (got {getattr(self, name)})")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed must be in [0, {2**31 - 1}] (got {self.seed})")
        if not self.cross_play:
            raise ConfigError("--cross-play needs run folders: --cross-play RUN RUN ...")
        folders = [path.resolve() for path in self.cross_play]
        for name, given in (("cross_play", folders), ("partners", self.partners), ("noise", self.noise)):
            if len(set(given)) < len(given):
                raise ConfigError(f"--{name.replace('_', '-')} names one of them twice: give each once")
        if not self.noise or not all(0 <= chance <= 1 for chance in self.noise):
            raise ConfigError(f"--noise must be chances from 0 to 1 (got {' '.join(map(str, self.noise)) or 'none'})")


@dataclass(frozen=True)
class Cell:
    """One agent by a run (`one`) among others, by a run or a stranger, whose actions are replaced by chance."""

    one: Player
    others: Player | str
    noise: float
    place: str
    asked: CrossPlayConfig

    @property
    def names(self) -> tuple[str, str]:
        """The row and the column of the matrix."""
        return self.one.name, self.others if isinstance(self.others, str) else self.others.name

    def measure(self) -> dict[str, Any]:
        """Play its episodes; gives the row of cross_play.csv."""
        asked = self.asked
        if asked.trust:  # in a process of its own
            for path in asked.cross_play:
                configs.trust(path)
        policy = load_run(self.place)
        config = configs.from_json(policy.config_json)
        a_trained_one = isinstance(self.others, Player)
        few = config.num_envs if a_trained_one else 1  # scripted policies look into an environment of this process
        most = few if registry.environment(config.env).own_process else MOST_COPIES
        copies = evenly(min(asked.episodes, most), len(policy.agents))
        env = vector.make(config, copies, in_process=not a_trained_one)
        try:
            records = self._play(config, env)
        finally:
            env.close()
        row: dict[str, Any] = dict(zip(("one", "others"), self.names, strict=True)) | {"noise": self.noise}
        return row | columns(records, asked.seed)

    def _play(self, config: TrainConfig, env: Any) -> dict[str, np.ndarray]:
        """Records of its episodes, and in each who was the `one`."""
        asked, agents = self.asked, len(env.possible_agents)
        one = self._chooser(self.one, config, env, 0)
        others = one if self.others in (self.one, RANDOM) else self._chooser(self.others, config, env, 1)
        noise = 1.0 if self.others == RANDOM else self.noise
        rounds, found = -(-agents // env.num_envs), []
        for number in range(rounds):
            slots = (number * env.num_envs + np.arange(env.num_envs)) % agents
            chances = np.where(np.arange(agents) == slots[:, None], 0.0, noise)
            playing: Any = NoisyActions(env, chances) if noise else env
            each = -(-asked.episodes // (rounds * env.num_envs))
            records, _ = run_episodes(playing, one_among(one, others, slots), each, asked.seed + number)
            found.append(records | {"one": slots[records["copy"]]})
        return {key: np.concatenate([records[key] for records in found]) for key in found[0]}

    def _chooser(self, who: Player | str, config: TrainConfig, env: Any, which: int) -> Any:
        if isinstance(who, str):
            return partner(who, config, env, self.asked.seed + which, self.asked.deterministic)
        policy = load_run(who.path)
        policy.seed(self.asked.seed + which)
        return chooser(policy, self.asked.deterministic)


def columns(records: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """What episodes brought the one, the others and all agents, each with its interval over episodes."""
    one = np.arange(records["return"].shape[1]) == records["one"][:, None]
    here = records["length"] > 0
    found: dict[str, Any] = {"episodes": len(here)}
    for name, those in (("one", one & here), ("others", ~one & here), ("all", here)):
        counted = those.any(1)
        if not counted.any():
            continue
        returns = (records["return"] * those).sum(1)[counted] / those.sum(1)[counted]
        found |= _cells(f"return of {name}", mean_interval(returns, seed=seed))
        for key, incidents in INCIDENTS.items():
            if key in records:
                found |= _cells(f"{incidents} of {name}", rate(records[key] > 0, those))
        if "travel_time_s" in records:  # of those that crossed, as in rqe-eval
            crossed = those & ~(records["collision"] > 0) & ~(records["timed_out"] > 0)
            if crossed.any():
                found |= _cells(f"travel time s of {name}", mean_interval(records["travel_time_s"], crossed, seed=seed))
    return found


def evenly(most: int, agents: int) -> int:
    """How many copies, up to `most`, in which each agent is the one equally often, in whole rounds of them."""
    return max(copies for copies in range(1, most + 1) if copies % agents == 0 or agents % copies == 0)


def _cells(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def cross_play(asked: CrossPlayConfig) -> None:
    """Measure all cells, print the matrix and the gaps, and write them."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        players = known_players(asked.cross_play, asked.trust, Path(folder))
        check_strangers(asked)
        if (asked.out / "latest").is_file():
            raise ConfigError(f"--out {asked.out} is a run: choose another folder")
        stack.enter_context(hold(asked.out, "another rqe-eval --cross-play"))
        cells = [
            Cell(one, others, noise, players[0].path, asked)
            for noise, one, others in product(asked.noise, players, [*players, *asked.partners])
            if meet(one, others, asked.within)
            if others != RANDOM or noise == asked.noise[0]  # who acts at random slips at random
        ]
        check_place(asked)
        rows = played(cells, Kept(asked.out / CELLS, players))
        tables.write(asked.out / "cross_play.csv", rows)
        write_atomically(asked.out / "cross_play.json", json.dumps(request(asked), indent=1).encode())
        gaps = [gap for noise in asked.noise for gap in gap_rows(players, rows, noise)]
        groups = together(players, asked.within)
        if gaps:
            tables.write(asked.out / "gaps.csv", gaps)
        else:
            (asked.out / "gaps.csv").unlink(missing_ok=True)
            print("no gap: no two of the runs differ by their seed alone")
        for noise, group in product(asked.noise, groups):
            show(rows, gaps, noise, group)
        print(draw(rows, gaps, asked.noise, groups, asked.out))


class Kept:
    """The cells that a folder holds, a line of JSON each, so that a cross-play that was stopped goes on.

    A cell counts where it was played by the same policies, in the same episodes.
    """

    def __init__(self, file: Path, players: Sequence[Player]):
        self.file = file
        self.digests = {player.name: _digest(player.path) for player in players}
        self.rows: dict[str, dict[str, Any]] = {}
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        self.lead = "" if text.endswith("\n") or not text else "\n"  # behind a line that was cut off
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off, or of another version
                cell = json.loads(line)
                self.rows[cell["key"]] = dict(cell["row"])

    def key(self, cell: Cell) -> str:
        """What tells a cell from all others, as text."""
        asked, theirs = cell.asked, cell.names[1]
        if theirs not in self.digests:
            self.digests[theirs] = _digest_beside(theirs.removeprefix(ONNX)) if theirs.startswith(ONNX) else ""
        who = [self.digests[name] for name in cell.names]
        game = _digest(cell.place)  # of the run in whose game they act
        return json.dumps([*cell.names, *who, game, cell.noise, asked.episodes, asked.seed, asked.deterministic])

    def add(self, cell: Cell, row: dict[str, Any]) -> None:
        """Keep what a cell brought."""
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(self.lead + json.dumps({"key": self.key(cell), "row": row}) + "\n")
        self.lead = ""


def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _digest_beside(file: str) -> str:
    """Of an ONNX file and of those beside it whose names begin alike, in which its weights may be."""
    path = Path(file)
    return " ".join(
        _digest(str(each)) for each in sorted(path.parent.glob(f"{glob.escape(path.stem)}*")) if each.is_file()
    )


def played(cells: Sequence[Cell], kept: Kept) -> list[dict[str, Any]]:
    """The rows of all cells, of which those that are kept are not played again."""
    rows = [kept.rows.get(kept.key(cell)) for cell in cells]
    missing = [number for number, row in enumerate(rows) if row is None]
    if len(missing) < len(cells):
        print(f"{len(cells) - len(missing)} of {len(cells)} cells are kept in {kept.file}")
    with processes(cells[0].asked.jobs) as pool:
        asked = {pool.submit(cells[number].measure): number for number in missing}
        for done in tqdm(as_completed(asked), total=len(missing), disable=None, unit="cell"):
            number = asked[done]
            rows[number] = row = done.result()
            kept.add(cells[number], row)
    return [row for row in rows if row is not None]


def meet(one: Player, others: Player | str, within: bool) -> bool:
    """Whether there is a cell for them."""
    return not within or isinstance(others, str) or one.setting == others.setting


def together(players: Sequence[Player], within: bool) -> list[list[Player]]:
    """The players of each heat map."""
    if not within:
        return [list(players)]
    settings = dict.fromkeys(player.setting for player in players)
    return [[player for player in players if player.setting == setting] for setting in settings]


def request(asked: CrossPlayConfig) -> dict[str, list[Any]]:
    """What is asked for, as it is kept beside the tables in cross_play.json."""
    return {
        "runs": [str(path.resolve()) for path in asked.cross_play], "partners": list(asked.partners),
        "noise": list(asked.noise),
        "played": [asked.episodes, asked.seed, asked.deterministic, asked.within],
    }  # fmt: skip


def check_place(asked: CrossPlayConfig) -> None:
    """ConfigError where `out` holds cells that this cross-play does not play, and so would lose."""
    table, kept, wanted = asked.out / "cross_play.csv", asked.out / "cross_play.json", request(asked)
    if table.is_file():
        try:
            before = json.loads(kept.read_text(encoding="utf-8"))
            again = all(set(before[name]) <= set(wanted[name]) for name in ("runs", "partners", "noise"))
            again = again and before["played"] == wanted["played"]
        except (OSError, ValueError, KeyError, TypeError):  # of another version, or damaged
            again = False
        if not again:
            raise ConfigError(f"--out {asked.out} holds another cross-play: give another folder, or remove {table}")


def check_strangers(asked: CrossPlayConfig) -> None:
    """ConfigError, before any cell is played, where a partner or noise cannot act in the environment."""
    if not asked.partners and not any(asked.noise):
        return
    config = configs.from_json(load_run(asked.cross_play[0]).config_json)
    with contextlib.closing(vector.make(config, 1, in_process=True)) as env:
        observed = env.reset(asked.seed)
        for name in asked.partners:
            if name != RANDOM:
                partner(name, config, env, asked.seed, asked.deterministic)(env, observed)
        if RANDOM in asked.partners or any(asked.noise):
            try:
                NoisyActions(env, 1.0)
            except ValueError as error:
                raise ConfigError(f"--noise and --partners random: {error}") from None
