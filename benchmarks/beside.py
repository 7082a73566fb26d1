"""Ours beside a peer's: runs that take turns, a row each, and how they compare.

One process and one thread a run; CPU seconds are those of the whole process, start-up included. A row has `algo`,
`side` ("ours", the peer's name, further ones), `seed`, `frames` (steps of the environment) and what was found: `cpu_s`,
`decisions_per_cpu_s`, `return` with its interval over `episodes`, `versions`.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_ind

from benchmarks import tables
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import ByNameConfig, make
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.statistics import Estimate, compare, mean_interval, seed_interval

SEEDS = (1, 2, 3, 4, 5)
EVALUATION_SEED = 10_000
PEERS = Path(__file__).parent / "peers"
Row = dict[str, Any]
Trained = tuple[Any, Row]
"""An actor, and what its run took: `cpu_s`, `versions`."""


def cpu_seconds(line: list[str]) -> float:
    """Run a command to its end; the CPU seconds of it and its children."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began = spent()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr[-2000:]}")
    return spent() - began


def ours(flags: Sequence[str]) -> Trained:
    """Train with rqe-train; the last actor."""
    with tempfile.TemporaryDirectory() as folder:
        spent = cpu_seconds([sys.executable, "-m", "rqe_mappo.cli", "train", *flags, "--out", f"{folder}/run"])
        return Policy.load(f"{folder}/run").actor, {"cpu_s": spent, "versions": f"torch {torch.__version__}"}


def theirs(python: str, script: str, asked: dict[str, Any], actor: Any) -> Trained:
    """Train by a script of `peers/`, which reads settings and writes weights; `actor` with these weights."""
    with tempfile.TemporaryDirectory() as folder:
        settings, given = Path(folder) / "settings.json", Path(folder) / "weights.pt"
        settings.write_text(json.dumps(asked))
        spent = cpu_seconds([python, str(PEERS / script), str(settings), str(given)])
        content = torch.load(given, weights_only=True)
    return with_weights(actor, content["layers"]), {"cpu_s": spent, "versions": content["versions"]}


@torch.no_grad()
def with_weights(actor: Any, layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """The actor with these weights and biases; what it sees behind what they are for, who it is, changes nothing."""
    linear = [layer for layer in actor.nets[0].modules() if isinstance(layer, torch.nn.Linear)]
    for layer, (weight, bias) in zip(linear, layers, strict=True):
        layer.weight.zero_()
        layer.weight[:, : weight.shape[1]] = weight
        layer.bias.copy_(bias)
    return actor


def evaluated(actor: Any, config: ByNameConfig, episodes: int, copies: int) -> Estimate:
    """The undiscounted return of an agent, averaged over agents and episodes, which are the same for every actor."""
    env = make(config, copies)
    agents = torch.arange(len(env.possible_agents))
    generator = torch.Generator().manual_seed(EVALUATION_SEED)

    @torch.no_grad()
    def choose(env, observed):
        rows = observed.active.shape
        uniform = torch.rand(*rows, actor.draws, generator=generator)
        nothing = torch.zeros(*rows, actor.memory_size)
        return actor.act(torch.from_numpy(observed.obs), agents.expand(rows), nothing, uniform=uniform).action.numpy()

    records, _ = run_episodes(env, choose, episodes // copies, EVALUATION_SEED)
    env.close()
    return mean_interval(records["return"].mean(1))


@dataclass(frozen=True)
class Contest:
    """Sides that take turns on one task.

    sides: what each trains, given a seed. evaluate: the return of an actor. decisions: of a run.
    result, summary: a row a run, and what is found of each algorithm and budget.
    """

    algo: str
    frames: int
    decisions: int
    sides: dict[str, Callable[[int], Trained]]
    evaluate: Callable[[Any], Estimate]
    result: Path
    summary: Path

    def hold(self, seeds: Sequence[int] = SEEDS) -> None:
        """Run what has no row yet, seed by seed, and print what is found."""
        rows: list[Row] = list(tables.read(self.result))
        done = {(row["algo"], row["side"], int(row["seed"]), int(row["frames"])) for row in rows}
        for seed in seeds:
            for side, train in self.sides.items():
                if (self.algo, side, seed, self.frames) not in done:
                    rows.append(self._row(side, seed, *train(seed)))
                    print("  ".join(str(value) for value in rows[-1].values()), flush=True)
                    tables.write(self.result, rows)
                tables.write(self.summary, summarise(rows))
        for row in compared(rows, self.algo, self.frames):
            print("  ".join(str(value) for value in row.values()))

    def _row(self, side: str, seed: int, actor: Any, took: Row) -> Row:
        found = self.evaluate(actor)
        return {
            "algo": self.algo, "side": side, "seed": seed, "frames": self.frames, "cpu_s": took["cpu_s"],
            "decisions_per_cpu_s": self.decisions / took["cpu_s"], "return": found.value, "low": found.low,
            "high": found.high, "episodes": found.n, "versions": took["versions"],
        }  # fmt: skip


def summarise(rows: Sequence[Row]) -> list[Row]:
    """What is found of each algorithm and budget."""
    kinds = dict.fromkeys((row["algo"], int(row["frames"])) for row in rows)
    return [line for algo, frames in kinds for line in compared(rows, algo, frames)]


def compared(rows: Sequence[Row], algo: str, frames: int) -> list[Row]:
    """Means and 95 % t-intervals over seeds of each side, then how ours and the peer's compare, seeds of both alone."""
    rows = [row for row in rows if (row["algo"], int(row["frames"])) == (algo, frames)]

    def column(side: str, what: str) -> dict[int, float]:
        return {int(row["seed"]): float(row[what]) for row in rows if row["side"] == side}

    summary = []
    sides = list(dict.fromkeys(row["side"] for row in rows))
    for side in sides:
        for what in ("return", "decisions_per_cpu_s"):
            summary.append(_line(f"{side}: {what}", seed_interval(list(column(side, what).values()))))
    for peer in (side for side in sides if not side.startswith("ours")):
        both = sorted(column("ours", "seed").keys() & column(peer, "seed").keys())

        def pair(what: str, peer: str = peer, seeds: Sequence[int] = tuple(both)) -> tuple[list[float], list[float]]:
            return tuple([column(side, what)[seed] for seed in seeds] for side in ("ours", peer))

        if len(both) > 1:
            mine, others = pair("return")
            welch = ttest_ind(mine, others, equal_var=False)
            ends = welch.confidence_interval()
            gap = sum(mine) / len(both) - sum(others) / len(both)
            summary.append(_line(f"return, ours less {peer}'s (Welch)", Estimate(gap, ends.low, ends.high, len(both))))
            summary.append({"what": "p of no difference (Welch)", "value": float(welch.pvalue), "seeds": len(both)})
            better = compare(mine, others).improvement
            summary.append(_line("probability that a run of ours has the higher return", better))
            ratios = [a / b for a, b in zip(*pair("decisions_per_cpu_s"), strict=True)]
            summary.append(_line(f"decisions per CPU second, ours / {peer}'s", seed_interval(ratios)))
    return [{"algo": algo, "frames": frames, **line} for line in summary]


def _line(what: str, found: Estimate) -> Row:
    return {"what": what, "value": found.value, "low": found.low, "high": found.high, "seeds": found.n}
