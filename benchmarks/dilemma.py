"""Is care at a SUMO intersection a public good? `python -m benchmarks.dilemma RESIDENT ... --deviant RUN ...`.

Rewards are each vehicle's own: of a collision of two agents each pays its half of the harm. So agents that all climb
their own mean return need not climb the mean over agents. Here one vehicle drives by the policy of a --deviant run and
the others by that of a RESIDENT run, the first deviant among the first resident's and so on, and each policy among its
own kind, over 2000 episodes (`--episodes`) with actions drawn. Writes results/dilemma.csv: mean returns, with 95 %
intervals over episodes, of the one, of the others, and of all.

Care is a public good where a careless one among careful ones earns more than they do, and all careless earn less than
all careful.
"""

import argparse
from pathlib import Path

from benchmarks import tables
from rqe_mappo.config import from_json, spelled
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation.episodes import Chooser, chooser, copies_for, run_episodes
from rqe_mappo.statistics import mean_interval

RESULT = tables.RESULTS / "dilemma.csv"
SEED = 999


def one_among(resident: Policy, deviant: Policy) -> Chooser:
    """Vehicle 0 by `deviant`, all others by `resident`; who starts where is drawn anew in every episode."""
    theirs, its = chooser(resident), chooser(deviant)

    def choose(env, observed):
        actions = theirs(env, observed)
        actions[:, 0] = its(env, observed)[:, 0]
        return actions

    return choose


def tau_of(policy: Policy) -> str:
    return spelled(from_json(policy.config_json).algorithm.tau)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("residents", nargs="+", type=Path, help="run folders of --env sumo")
    parser.add_argument("--deviant", nargs="+", type=Path, required=True, help="as many run folders")
    parser.add_argument("--episodes", type=int, default=2000, help="of each pair (default: 2000)")
    args = parser.parse_args()
    if len(args.residents) != len(args.deviant):
        parser.error("give as many runs to --deviant as residents")
    copies, each = copies_for(args.episodes)
    table, env = [], None
    for folders in zip(args.residents, args.deviant, strict=True):
        resident, deviant = (Policy.load(folder) for folder in folders)
        if env is None:
            env = vector.make(from_json(resident.config_json), copies, in_process=True)
        for one, others in ((resident, resident), (deviant, resident), (resident, deviant), (deviant, deviant)):
            records, _ = run_episodes(env, one_among(others, one), each, SEED)
            line = {"one": tau_of(one), "others": tau_of(others), "runs": " ".join(folder.name for folder in folders)}
            for name, mine in (("one", slice(0, 1)), ("others", slice(1, None)), ("all", slice(None))):
                mean = mean_interval(records["return"][:, mine].mean(1))
                line |= {name + " return": mean.value, name + " low": mean.low, name + " high": mean.high}
                line[name + " collisions"] = float(records["collision"][:, mine].mean())
            table.append(line)
            print(*(f"{value:.3f}" if isinstance(value, float) else value for value in line.values()), flush=True)
            tables.write(RESULT, table)


if __name__ == "__main__":
    main()
