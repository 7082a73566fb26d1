"""MAPPO, QMIX and VDN beside BenchMARL's on mpe2's `simple_spread_v3`.

    python -m benchmarks.simple_spread --algo qmix --peer PYTHON

Both sides train on the same PettingZoo environment with as many frames (steps of the environment), the same networks
and the same settings, which stand in `spread_settings`. What differs all the same stands in README.md. Runs alternate,
one process and one thread each, and CPU seconds are those of the whole process, start-up included. The last actors of
both are evaluated by the same code in the same episodes, with drawn actions (MAPPO) or greedy ones. QMIX and VDN have
a third side: ours in the unit of values that it measures by itself.

PYTHON is an interpreter that has benchmarl 1.5.2 and mpe2; without it only our side is run. Writes
results/simple_spread.csv (a row a run, as it ends) and simple_spread_summary.csv (of runs of one algorithm and as many
frames). Runs that have a row are not run again, so the command may be stopped and started again; one that was broken
off starts anew.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_ind

from benchmarks import spread_settings, tables
from benchmarks.spread_settings import AGENTS, ENV, OffPolicy, Settings, Trained
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import make
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.statistics import Estimate, compare, mean_interval, seed_interval

RESULT, SUMMARY = tables.RESULTS / "simple_spread.csv", tables.RESULTS / "simple_spread_summary.csv"
PEER_SCRIPT = Path(__file__).parent / "peers" / "benchmarl_run.py"
ALGORITHMS = ("mappo", "qmix", "vdn")
SEEDS = (1, 2, 3, 4, 5)
EPISODES, COPIES, EVALUATION_SEED = 512, 64, 10_000


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


def ours(settings: Settings, seed: int, folder: Path) -> tuple[Trained, dict[str, Any]]:
    """Train with rqe-train; the last actor, and what the run took."""
    line = [sys.executable, "-m", "rqe_mappo.cli", "train", *settings.ours(seed), "--out", str(folder / "run")]
    spent = cpu_seconds(line)
    return Policy.load(folder / "run").actor, {"cpu_s": spent, "versions": f"torch {torch.__version__}"}


def theirs(python: str, settings: Settings, seed: int, folder: Path) -> tuple[Trained, dict[str, Any]]:
    """Train with BenchMARL; the last actor, and what the run took."""
    asked, given = folder / "settings.json", folder / "weights.pt"
    asked.write_text(json.dumps(settings.theirs(seed)))
    spent = cpu_seconds([python, str(PEER_SCRIPT), str(asked), str(given)])
    content = torch.load(given, weights_only=True)
    return with_weights(settings.untrained(), content["layers"]), {"cpu_s": spent, "versions": content["versions"]}


@torch.no_grad()
def with_weights(actor: Trained, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> Trained:
    """The actor with these weights and biases; what it sees behind what they are for, who it is, changes nothing."""
    linear = [layer for layer in actor.nets[0] if isinstance(layer, torch.nn.Linear)]
    for layer, (weight, bias) in zip(linear, layers, strict=True):
        layer.weight.zero_()
        layer.weight[:, : weight.shape[1]] = weight
        layer.bias.copy_(bias)
    return actor


def evaluated(actor: Trained) -> Estimate:
    """The undiscounted return of an agent, averaged over agents and episodes."""
    env, agents = make(ENV, COPIES), torch.arange(AGENTS)
    generator = torch.Generator().manual_seed(EVALUATION_SEED)

    @torch.no_grad()
    def choose(env, observed):
        rows = observed.active.shape
        uniform = torch.rand(*rows, actor.draws, generator=generator)
        nothing = torch.zeros(*rows, actor.memory_size)
        return actor.act(torch.from_numpy(observed.obs), agents.expand(rows), nothing, uniform=uniform).action.numpy()

    records, _ = run_episodes(env, choose, EPISODES // COPIES, EVALUATION_SEED)
    env.close()
    return mean_interval(records["return"].mean(1))


def run(
    side: str, seed: int, settings: Settings, train: Callable[..., tuple[Trained, dict[str, Any]]]
) -> dict[str, Any]:
    """One run and its row."""
    with tempfile.TemporaryDirectory() as folder:
        actor, took = train(settings, seed, Path(folder))
    found, decisions = evaluated(actor), settings.frames * AGENTS
    return {
        "algo": settings.algo, "side": side, "seed": seed, "frames": settings.frames, "cpu_s": took["cpu_s"],
        "decisions_per_cpu_s": decisions / took["cpu_s"], "return": found.value, "low": found.low, "high": found.high,
        "episodes": EPISODES, "versions": took["versions"],
    }  # fmt: skip


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is found of each algorithm and budget."""
    kinds = dict.fromkeys((row["algo"], int(row["frames"])) for row in rows)
    return [line for algo, frames in kinds for line in compared(rows, algo, frames)]


def compared(rows: list[dict[str, Any]], algo: str, frames: int) -> list[dict[str, Any]]:
    """Means and 95 % t-intervals over seeds of each side, then how they compare, seeds that both have alone."""
    rows = [row for row in rows if (row["algo"], int(row["frames"])) == (algo, frames)]

    def column(side: str, what: str) -> dict[int, float]:
        return {int(row["seed"]): float(row[what]) for row in rows if row["side"] == side}

    summary = []
    for side in dict.fromkeys(row["side"] for row in rows):
        for what in ("return", "decisions_per_cpu_s"):
            values = list(column(side, what).values())
            summary.append(_line(f"{side}: {what}", seed_interval(values)))
    both = sorted(column("ours", "seed").keys() & column("BenchMARL", "seed").keys())

    def pair(what: str) -> tuple[list[float], list[float]]:
        return tuple([column(side, what)[seed] for seed in both] for side in ("ours", "BenchMARL"))

    if len(both) > 1:
        mine, others = pair("return")
        welch = ttest_ind(mine, others, equal_var=False)
        ends = welch.confidence_interval()
        gap = sum(mine) / len(both) - sum(others) / len(both)
        summary.append(_line("return, ours less BenchMARL's (Welch)", Estimate(gap, ends.low, ends.high, len(both))))
        summary.append({"what": "p of no difference (Welch)", "value": float(welch.pvalue), "seeds": len(both)})
        better = compare(mine, others).improvement
        summary.append(_line("probability that a run of ours has the higher return", better))
        ratios = [a / b for a, b in zip(*pair("decisions_per_cpu_s"), strict=True)]
        summary.append(_line("decisions per CPU second, ours / BenchMARL's", seed_interval(ratios)))
    return [{"algo": algo, "frames": frames, **line} for line in summary]


def _line(what: str, found: Estimate) -> dict[str, Any]:
    return {"what": what, "value": found.value, "low": found.low, "high": found.high, "seeds": found.n}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algo", choices=ALGORITHMS, default="mappo")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has benchmarl (default: our side only)")
    budgets = ", ".join(f"{algo} {spread_settings.of(algo).frames}" for algo in ALGORITHMS)
    parser.add_argument("--frames", type=int, help=f"per run (default: {budgets})")
    args = parser.parse_args()
    settings = spread_settings.of(args.algo, args.frames)
    if settings.frames < 1 or settings.frames % settings.batch_frames:
        parser.error(f"--frames must be a multiple of {settings.batch_frames}, what both collect between two updates")
    if args.peer and not shutil.which(args.peer):
        parser.error(f"--peer {args.peer} is no program: give the interpreter of an environment that has benchmarl")
    sides = {"ours": ours}
    if args.peer:
        sides["BenchMARL"] = lambda *given: theirs(args.peer, *given)
    if isinstance(settings, OffPolicy):
        sides["ours, unit measured"] = lambda asked, *given: ours(replace(asked, value_unit=None), *given)
    rows = tables.read(RESULT)
    done = {(row["algo"], row["side"], int(row["seed"]), int(row["frames"])) for row in rows}
    for seed in SEEDS:
        for side, train in sides.items():
            if (settings.algo, side, seed, settings.frames) not in done:
                rows.append(run(side, seed, settings, train))
                print("  ".join(str(value) for value in rows[-1].values()), flush=True)
                tables.write(RESULT, rows)
            tables.write(SUMMARY, summarise(rows))
    for row in compared(rows, settings.algo, settings.frames):
        print("  ".join(str(value) for value in row.values()))


if __name__ == "__main__":
    main()
