"""Is care at a SUMO intersection a public good? `python -m benchmarks.dilemma RESIDENT ... --deviant RUN ...`.

Rewards are each vehicle's own: of a collision of two agents each pays its half of the harm. So agents that all climb
their own mean return need not climb the mean over agents. Here one vehicle drives by the policy of a --deviant run and
the others by that of a RESIDENT run, the first deviant among the first resident's and so on, and each policy among its
own kind, over 2000 episodes (`--episodes`) with actions drawn. Vehicle 0 is never behind another at its start, the last
ones often are: so the one is another vehicle in each copy, all equally often. Writes results/dilemma.csv: mean returns,
with 95 % intervals over episodes, of the one, of the others, and of all; and dilemma_summary.csv: differences, means
over pairs of runs with 95 % t-intervals.

Care is a public good where a careless one among careful ones earns more than a careful one there, and all careless earn
less than all careful.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables
from rqe_mappo.config import from_json, spelled
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation.episodes import chooser, run_episodes
from rqe_mappo.evaluation.partners import one_among
from rqe_mappo.statistics import mean_interval, seed_interval

RESULT, SUMMARY = tables.RESULTS / "dilemma.csv", tables.RESULTS / "dilemma_summary.csv"
SEED, COPIES = 999, 40


def which_one(copies: np.ndarray, agents: int) -> np.ndarray:
    """The one, in each of some copies."""
    return copies % agents


def named(folder: Path) -> str:
    tau = spelled(from_json(Policy.load(folder).config_json).algorithm.tau)
    return f"{'/'.join(folder.parts[-2:])} (tau {tau})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("residents", nargs="+", type=Path, help="run folders of --env sumo")
    parser.add_argument("--deviant", nargs="+", type=Path, required=True, help="as many run folders")
    parser.add_argument("--episodes", type=int, default=2000, help="of each pair (default: 2000)")
    args = parser.parse_args()
    if len(args.residents) != len(args.deviant):
        parser.error("give as many runs to --deviant as residents")
    table: list[dict[str, Any]] = []
    env = vector.make(from_json(Policy.load(args.residents[0]).config_json), COPIES, in_process=True)
    for resident, deviant in zip(args.residents, args.deviant, strict=True):
        policies = {folder: chooser(Policy.load(folder)) for folder in (resident, deviant)}
        slots = which_one(np.arange(COPIES), len(env.possible_agents))
        for one, others in ((resident, resident), (deviant, resident), (resident, deviant), (deviant, deviant)):
            choose = one_among(policies[one], policies[others], slots)
            records, _ = run_episodes(env, choose, -(-args.episodes // COPIES), SEED)
            agents = records["return"].shape[1]
            mine = np.arange(agents) == which_one(records["copy"], agents)[:, None]
            line = {"one": named(one), "others": named(others)}
            for name, those in (("one", mine), ("others", ~mine), ("all", np.ones_like(mine))):
                mean = mean_interval((records["return"] * those).sum(1) / those.sum(1))
                line |= {name + " return": mean.value, name + " low": mean.low, name + " high": mean.high}
                line[name + " collisions"] = float(records["collision"][those].mean())
            table.append(line)
            print(*(f"{value:.3f}" if isinstance(value, float) else value for value in line.values()), flush=True)
            tables.write(RESULT, table)
    tables.write(SUMMARY, summarised(table))


def summarised(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a change of the one, or of all, brings to whom, over the pairs of runs; four rows a pair."""
    residents, among_residents, among_deviants, deviants = (table[start::4] for start in range(4))
    found = []
    for change, before, after in (
        ("a deviant among residents, for a resident there", residents, among_residents),
        ("a resident among deviants, for a deviant there", deviants, among_deviants),
        ("all deviants, for all residents", residents, deviants),
    ):
        for who in ("one", "others", "all"):
            gains = [new[f"{who} return"] - old[f"{who} return"] for old, new in zip(before, after, strict=True)]
            known = seed_interval(gains)
            found.append(
                {"change": change, "return of": who, "gain": known.value, "low": known.low, "high": known.high,
                 "pairs": known.n}
            )  # fmt: skip
            print(*(f"{value:.3f}" if isinstance(value, float) else value for value in found[-1].values()))
    return found


if __name__ == "__main__":
    main()
