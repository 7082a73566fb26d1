"""What scripted drivers achieve: `python -m benchmarks.sumo_drivers` writes results/sumo_drivers.csv.

1000 episodes for each driver and scenario, with 95 % intervals over episodes; `--scenario` for one alone.
"""

import argparse

from benchmarks import tables
from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, scripted
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.evaluation.report import rows

RESULT = tables.RESULTS / "sumo_drivers.csv"
COPIES, EACH, SEED = 50, 20, 12345  # the 1000 episodes that rqe-eval plays
NAMES = ("always-go", "random", *(f"caution:{level:g}" for level in (0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1)), "sumo")
SHOWN = ("collision rate (agent)", "mean return (agent)", "CVaR5 of return (agent)", "travel time s (agent)")


def measure(scenario: str) -> list[dict]:
    """A row for each driver."""
    table = []
    env = BatchedIntersection(SCENARIOS[scenario], COPIES)
    for name in NAMES:
        driver = scripted.by_name(name)
        records, _ = run_episodes(env, lambda env, seen, driver=driver: driver(env), EACH, SEED)
        line = {"scenario": scenario, "driver": name, "episodes": len(records["return"])}
        for row in rows(records):
            key = f"{row.metric} ({row.level})"
            line |= {key: row.estimate.value, f"{key} low": row.estimate.low, f"{key} high": row.estimate.high}
        table.append({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in line.items()})
        print(scenario, name, *(f"{key}: {table[-1][key]}" for key in SHOWN), sep="  ", flush=True)
    env.close()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, help="this one alone; the rows of others are kept")
    args = parser.parse_args()
    kept = [row for row in tables.read(RESULT) if args.scenario and row["scenario"] != args.scenario]
    table = kept + [row for name in SCENARIOS if args.scenario in (None, name) for row in measure(name)]
    table.sort(key=lambda row: list(SCENARIOS).index(row["scenario"]))
    tables.write(RESULT, table)


if __name__ == "__main__":
    main()
