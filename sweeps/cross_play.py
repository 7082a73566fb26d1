"""rqe-eval --cross-play: every run's agent among the agents of every other run, and among strangers.

A cell is one agent by its run among others by theirs; which agent is the one goes round. Written are cross_play.csv, a
row a cell; gaps.csv, for runs that differ by their seed alone what they lose with each other, against with themselves;
and a heat map.
"""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rqe_mappo import config as configs
from rqe_mappo import registry
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data import vector
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.action_noise import NoisyActions
from rqe_mappo.evaluation.episodes import MOST_COPIES, chooser, run_episodes
from rqe_mappo.evaluation.partners import one_among, partner
from rqe_mappo.statistics import Estimate, mean_interval, rate, seed_interval
from rqe_mappo.sweeps import style, tables
from rqe_mappo.training.lock import hold

RANDOM = "random"
INCIDENTS = {"collision": "collisions", "fell": "falls"}  # shares of agents, by the name in records


@dataclass(frozen=True)
class CrossPlayConfig:
    """Let one agent of each run act among those of every run, and among strangers; write tables and a heat map."""

    cross_play: tuple[Path, ...]
    """Run folders or policy files, of one environment; they act in the setting of the first."""
    partners: tuple[str, ...] = ()
    """Strangers as the others: random, scripted:NAME (as rqe-eval --driver NAME), onnx:FILE (docs/cross-play.md)."""
    noise: tuple[float, ...] = (0.0,)
    """Chances that an action of the others is replaced by a uniform one; a matrix for each."""
    episodes: int = 200
    """Episodes of each cell."""
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
            raise ConfigError(f"--noise must be chances from 0 to 1 (got {' '.join(map(str, self.noise))})")


@dataclass(frozen=True)
class Player:
    """A run: its folder, what it is called, and its setting, which is everything but the seed."""

    path: str
    name: str
    setting: str
    seed: int


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
        mine = np.arange(records["return"].shape[1]) == records["one"][:, None]
        here = records["length"] > 0
        row: dict[str, Any] = dict(zip(("one", "others"), self.names, strict=True)) | {"noise": self.noise}
        row["episodes"] = len(records["return"])
        for name, those in (("one", mine & here), ("others", ~mine & here), ("all", here)):
            counted = those.any(1)
            returns = (records["return"] * those).sum(1)[counted] / those.sum(1)[counted]
            row |= _cells(f"return of {name}", mean_interval(returns, seed=asked.seed)) if counted.any() else {}
        for key, name in INCIDENTS.items():
            if key in records:
                row |= _cells(f"{name} of all", rate(records[key] > 0, here))
        return row

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
            playing = NoisyActions(env, chances) if noise else env
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


def evenly(most: int, agents: int) -> int:
    """How many copies, up to `most`, in which each agent is the one equally often, in whole rounds of them."""
    return max(copies for copies in range(1, most + 1) if copies % agents == 0 or agents % copies == 0)


def _cells(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def cross_play(asked: CrossPlayConfig) -> None:
    """Measure all cells, print the matrix and the gaps, and write them."""
    players = known_players(asked)
    check_strangers(asked)
    with hold(asked.out, "another rqe-eval --cross-play"):
        cells = [
            Cell(one, others, noise, players[0].path, asked)
            for noise, one, others in product(asked.noise, players, [*players, *asked.partners])
            if others != RANDOM or noise == asked.noise[0]  # who acts at random slips at random
        ]
        with ProcessPoolExecutor(asked.jobs, get_context("spawn"), _one_thread) as pool:
            rows = list(tqdm(pool.map(Cell.measure, cells), total=len(cells), disable=None, unit="cell"))
        tables.write(asked.out / "cross_play.csv", rows)
        gaps = [gap for noise in asked.noise for gap in gap_rows(players, rows, noise)]
        tables.write(asked.out / "gaps.csv", gaps)
        for noise in asked.noise:
            _print(rows, gaps, noise)
        print(draw(rows, gaps, asked))


def known_players(asked: CrossPlayConfig) -> list[Player]:
    """The runs, once it is known that they can act in the first one's environment."""
    for path in asked.cross_play if asked.trust else ():
        configs.trust(path)
    policies = [load_run(path) for path in asked.cross_play]
    found = [configs.from_json(policy.config_json) for policy in policies]
    for path, policy, config in zip(asked.cross_play, policies, found, strict=True):
        if config.env != found[0].env or _faces(policy) != _faces(policies[0]):
            raise ConfigError(
                f"--cross-play {path} is of {config.env} with other agents, observations or actions than "
                f"{asked.cross_play[0]} of {found[0].env}: give runs that can act in the same environment"
            )
        if config.env_config != found[0].env_config:
            print(f"{path} was trained in other settings of {config.env}, and acts in those of {asked.cross_play[0]}")
    if len(policies[0].agents) == 1:
        raise ConfigError(f"--cross-play {asked.cross_play[0]} is of one agent, which has no others: use rqe-eval RUN")
    settings = [" ".join(_setting(config, found)) or config.algo for config in found]
    plain = [f"{setting} s{config.seed}" for setting, config in zip(settings, found, strict=True)]
    names = [name if plain.count(name) == 1 else str(path) for name, path in zip(plain, asked.cross_play, strict=True)]
    return [
        Player(str(path), name, setting, config.seed)
        for path, name, setting, config in zip(asked.cross_play, names, settings, found, strict=True)
    ]


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


def _faces(policy: Policy) -> tuple[Any, ...]:
    """What must be the same of policies that act side by side."""
    return policy.agents, policy.spec.obs_dim, policy.spec.actions


LEFT_OUT = {"seed", "out", "device", "eval_episodes", "save_interval", "log_interval", "keep", "num_workers"}


def _setting(config: TrainConfig, others: Sequence[TrainConfig]) -> list[str]:
    """The algorithm, and the flags in which the run differs from another of that algorithm, but for the seed."""
    mine, flats = config.flat(), [other.flat() for other in others if other.algo == config.algo]
    differing = [
        name for name in mine
        if name not in LEFT_OUT and any(other.get(name, mine[name]) != mine[name] for other in flats)
    ]  # fmt: skip
    return [config.algo, *(f"{name.replace('_', '-')} {mine[name]}" for name in differing)]


def gap_rows(players: Sequence[Player], rows: Sequence[dict[str, Any]], noise: float) -> list[dict[str, Any]]:
    """For each setting, of its first run of each seed: the mean return with themselves, with each other, and the gap.

    The 95 % interval is a t-interval of jackknife pseudo-values: a run is left out with its row and its column, since
    pairs that share a run are not independent. nan below three runs.
    """
    value = {(row["one"], row["others"]): row["return of all"] for row in rows if row["noise"] == noise}
    found = []
    for setting in dict.fromkeys(player.setting for player in players):
        of_seed = {player.seed: player.name for player in reversed(players) if player.setting == setting}
        names = list(of_seed.values())[::-1]
        if len(names) > 1:
            matrix = np.array([[value[one, others] for others in names] for one in names])
            with_self, with_others, gap = gap_of(matrix)
            found.append({
                "setting": setting, "noise": noise, "runs": len(names), "with themselves": with_self,
                "with each other": with_others, "gap": gap.value, "low": gap.low, "high": gap.high,
            })  # fmt: skip
    return found


def gap_of(matrix: np.ndarray) -> tuple[float, float, Estimate]:
    """The means of the diagonal and of the rest of `matrix` `[n, n]`, and their difference with its interval."""
    n = len(matrix)

    def means(kept: list[int]) -> tuple[float, float]:
        part = matrix[np.ix_(kept, kept)]
        apart = ~np.eye(len(kept), dtype=bool)
        return float(part.diagonal().mean()), float(part[apart].mean())

    everyone = list(range(n))
    own, cross = means(everyone)
    if n < 3:
        return own, cross, Estimate(own - cross, np.nan, np.nan, n)
    without = [np.subtract(*means([other for other in everyone if other != left])) for left in everyone]
    pseudo = n * (own - cross) - (n - 1) * np.array(without)
    spread = seed_interval(pseudo)
    return own, cross, Estimate(own - cross, spread.low, spread.high, n)


def _print(rows: Sequence[dict[str, Any]], gaps: Sequence[dict[str, Any]], noise: float) -> None:
    shown = [row for row in rows if row["noise"] == noise]
    ones, others = (list(dict.fromkeys(row[name] for row in shown)) for name in ("one", "others"))
    of = {(row["one"], row["others"]): f"{row['return of all']:.4g}" for row in shown}
    lines = [["one \\ others", *others], *([one, *(of.get((one, other), "") for other in others)] for one in ones)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"mean return of all agents{f', actions of the others replaced with a chance of {noise:g}' * (noise > 0)}")
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for gap in gaps:
        if gap["noise"] == noise:
            ends = "" if np.isnan(gap["low"]) else f" [{gap['low']:.4g}, {gap['high']:.4g}]"
            print(
                f"{gap['setting']}: {gap['with themselves']:.4g} with themselves, {gap['with each other']:.4g} with "
                f"each other; gap {gap['gap']:.4g}{ends} over {gap['runs']} runs"
            )
    print()


def draw(rows: Sequence[dict[str, Any]], gaps: Sequence[dict[str, Any]], asked: CrossPlayConfig) -> Path:
    """A heat map for each chance of noise, side by side, on one scale of colours."""
    ones, others = (list(dict.fromkeys(row[name] for row in rows)) for name in ("one", "others"))
    values = np.full((len(asked.noise), len(ones), len(others)), np.nan)
    for row in rows:
        values[asked.noise.index(row["noise"]), ones.index(row["one"]), others.index(row["others"])] = row[
            "return of all"
        ]
    figure = style.new_figure(len(asked.noise) * (2.2 + 0.75 * len(others)) + 1.5, 2.4 + 0.5 * len(ones))
    axes_of = figure.subplots(1, len(asked.noise), squeeze=False)[0]
    low, high = np.nanmin(values), np.nanmax(values)
    image = None
    for axes, matrix, noise in zip(axes_of, values, asked.noise, strict=True):
        image = axes.imshow(matrix, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(others)), [style.pretty(name) for name in others], rotation=35, ha="right")
        axes.set_yticks(range(len(ones)), [style.pretty(name) for name in ones] if axes is axes_of[0] else [])
        axes.set(xlabel="the others" + f", noise {noise:g}" * (len(asked.noise) > 1))
        for (y, x), value in np.ndenumerate(matrix):
            dark = value < (low + high) / 2
            axes.text(x, y, "" if np.isnan(value) else f"{value:.3g}", ha="center", va="center", fontsize=8,
                      color="white" if dark else "black")  # fmt: skip
    axes_of[0].set_ylabel("the one")
    figure.colorbar(image, ax=list(axes_of), label="mean return of all agents")
    style.title(figure, "Who gets on with whom", f"{rows[0]['episodes']} episodes a cell")
    return style.save(figure, asked.out / "plots" / "cross_play")[0]


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
