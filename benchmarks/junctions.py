"""Does training work on junctions nobody made for it? `python -m benchmarks.junctions` writes results/junctions.csv.

Two junctions converted from OpenStreetMap, cut out of networks that come with SUMO's own wheel (its `tools/game`):
200,000 decisions each with the settings of the recipe, then 400 episodes of the last checkpoint beside scripted
drivers. One seed: it shows that junctions load, train and are evaluated, not how good tau is on them.
"""

import tempfile

from benchmarks import tables, without_options
from rqe_mappo.config import default_config
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.sumo_intersection.network import sumo_home
from rqe_mappo.evaluation.episodes import chooser, drive, scripted
from rqe_mappo.evaluation.report import rows
from rqe_mappo.training.loop import train

RESULT = tables.RESULTS / "junctions.csv"
JUNCTIONS = (("bs3d/bs.net.xml", "34814866"), ("DRT/osm.net.xml", "1560223962"))
EPISODES, SEED = 400, 12345
SHOWN = ("mean return (agent)", "CVaR5 of return (agent)", "collision rate (agent)", "travel time s (agent)",
         "time-out rate (agent)")  # fmt: skip


def main() -> None:
    without_options(__doc__)
    table = []
    for net, junction in JUNCTIONS:
        place = {"net": str(sumo_home() / "tools" / "game" / net), "junction": junction}
        config = default_config("sumo").replace(**place, total_timesteps=200_000, eval_episodes=0)
        with tempfile.TemporaryDirectory() as folder:
            policy = Policy.load(train(config.replace(out=f"{folder}/run")))
        policy.seed(SEED)
        who = {name: scripted(config, name, SEED) for name in ("random", "always-go", "caution:1")}
        for name, choose in (who | {"trained, tau 1": chooser(policy)}).items():
            line = {"net": net, "junction": junction, "policy": name, "episodes": EPISODES}
            for row in rows(drive(config, choose, EPISODES, SEED)):
                key = f"{row.metric} ({row.level})"
                if key in SHOWN:
                    line |= {key: row.estimate.value, f"{key} low": row.estimate.low, f"{key} high": row.estimate.high}
            table.append({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in line.items()})
            print(net, junction, name, *(f"{key}: {table[-1][key]}" for key in SHOWN), sep="  ", flush=True)
    tables.write(RESULT, table)


if __name__ == "__main__":
    main()
