"""Is care at a SUMO intersection a public good? `python -m benchmarks.dilemma RESIDENT ... --deviant RUN ...`.

Rewards are each vehicle's own: of a collision of two agents each pays its half of the harm. So agents that all climb
their own mean return need not climb the mean over agents. Here one vehicle drives by the policy of a --deviant run and
the others by that of a RESIDENT run, the first deviant among the first resident's and so on, and each policy among its
own kind, over 2000 episodes (`--episodes`) with actions drawn. Vehicle 0 is never behind another at its start, the last
ones often are: so the one is another vehicle in each copy, all equally often. Writes results/dilemma.csv: mean returns,
with 95 % intervals over episodes, of the one, of the others, and of all.

Care is a public good where a careless one among careful ones earns more than a careful one there, and all careless earn
less than all careful.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks import tables
from rqe_mappo.config import from_json, spelled
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation.episodes import Chooser, chooser, run_episodes
from rqe_mappo.statistics import mean_interval

RESULT = tables.RESULTS / "dilemma.csv"
SEED, COPIES = 999, 40


def which_one(copies: np.ndarray, agents: int) -> np.ndarray:
    """The one, in each of some copies."""
    return copies % agents


def one_among(resident: Policy, deviant: Policy) -> Chooser:
    """The one by `deviant`, all others by `resident`."""
    theirs, its = chooser(resident), chooser(deviant)

    def choose(env, observed):
        actions, copies = theirs(env, observed), np.arange(env.num_envs)
        one = copies, which_one(copies, len(env.possible_agents))
        actions[one] = its(env, observed)[one]
        return actions

    return choose


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
    table = []
    env = vector.make(from_json(Policy.load(args.residents[0]).config_json), COPIES, in_process=True)
    for resident, deviant in zip(args.residents, args.deviant, strict=True):
        for one, others in ((resident, resident), (deviant, resident), (resident, deviant), (deviant, deviant)):
            choose = one_among(Policy.load(others), Policy.load(one))
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


if __name__ == "__main__":
    main()
