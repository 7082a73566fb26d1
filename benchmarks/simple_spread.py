"""MAPPO, QMIX and VDN beside BenchMARL's on mpe2's `simple_spread_v3`.

    python -m benchmarks.simple_spread --algo qmix --peer PYTHON

Both sides train on the same PettingZoo environment with as many frames (steps of the environment), the same networks
and the same settings, which stand in `spread_settings`. What differs all the same stands in README.md. Runs alternate,
one process and one thread each, and CPU seconds are those of the whole process, start-up included. The last actors of
both are evaluated by the same code in the same episodes, with drawn actions (MAPPO) or greedy ones.

PYTHON is an interpreter that has benchmarl 1.5.2 and mpe2; without it only our side is run. Writes
results/simple_spread.csv (a row a run, as it ends) and simple_spread_summary.csv (of runs of one algorithm and as many
frames). Runs that have a row are not run again, so the command may be stopped and started again; one that was broken
off starts anew.
"""

import argparse
import shutil

import torch

from benchmarks import beside, spread_settings, tables
from benchmarks.beside import Contest, ours, theirs
from benchmarks.spread_settings import AGENTS, ENV, Trained
from rqe_mappo.statistics import Estimate

RESULT, SUMMARY = tables.RESULTS / "simple_spread.csv", tables.RESULTS / "simple_spread_summary.csv"
PEER_SCRIPT = "benchmarl_run.py"
ALGORITHMS = ("mappo", "qmix", "vdn")
EPISODES, COPIES = 512, 64


def evaluated(actor: Trained) -> Estimate:
    """The undiscounted return of an agent, averaged over agents and episodes."""
    return beside.evaluated(actor, ENV, EPISODES, COPIES)


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
    sides = {"ours": lambda seed: ours(settings.ours(seed))}
    if args.peer:
        sides["BenchMARL"] = lambda seed: theirs(args.peer, PEER_SCRIPT, settings.theirs(seed), settings.untrained())
    Contest(settings.algo, settings.frames, settings.frames * AGENTS, sides, evaluated, RESULT, SUMMARY).hold()


if __name__ == "__main__":
    main()
