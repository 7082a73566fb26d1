"""What drivers achieve that nobody trained: `python -m benchmarks.sumo_drivers` writes results/sumo_drivers.csv."""

import csv
from pathlib import Path

from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, drivers
from rqe_mappo.evaluate import play
from rqe_mappo.report import rows

RESULT = Path(__file__).parent / "results" / "sumo_drivers.csv"
COPIES, EACH, SEED = 50, 20, 12345  # the 1000 episodes that rqe-eval plays


def main() -> None:
    table = []
    chosen = {"always go": drivers.always_go, "random": drivers.random(0)}
    chosen |= {f"caution {level:g}": drivers.caution(level) for level in (0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1)}
    env = BatchedIntersection(SCENARIOS["default"], COPIES)
    for name, driver in chosen.items():
        records, _ = play(env, lambda env, seen, driver=driver: driver(env), EACH, SEED)
        line = {"driver": name, "episodes": len(records["return"])}
        for row in rows(records):
            key = f"{row.metric} ({row.level})"
            line |= {key: row.estimate.value, f"{key} low": row.estimate.low, f"{key} high": row.estimate.high}
        table.append({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in line.items()})
        shown = ("collision rate (agent)", "mean return (agent)", "CVaR5 of return (agent)", "travel time s (agent)")
        print(name, *(f"{key}: {table[-1][key]}" for key in shown), sep="  ", flush=True)
    env.close()
    with open(RESULT, "w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
