"""Multi-agent car following without a learner: what speeding pays, in the mean and in the tail.

`python -m benchmarks.macf` prints the table and writes benchmarks/results/macf.csv (about a minute).
"""

import argparse
from dataclasses import replace

from benchmarks import tables
from rqe_mappo.envs.macf import SCENARIOS, BatchedCars
from rqe_mappo.envs.macf.scripted import by_name
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.statistics import cvar, interval, mean_interval, std

DRIVERS = (
    *(f"cruise:{cap}{braking}" for braking in (",0.6", "") for cap in ("0.8", "1.0", "1.2", "1.4", "1.6")),
    *(f"plan:{cap}" for cap in ("1.0", "1.2", "1.4", "1.8")),
)
SETTINGS = {**SCENARIOS, "crash_cost 2": replace(SCENARIOS["default"], crash_cost=2.0)}
RESULT = tables.RESULTS / "macf.csv"


def row(setting: str, name: str, episodes: int, seed: int) -> dict[str, float | str]:
    """One line of the table, with 95 % intervals over episodes."""
    driver = by_name(name)
    env = BatchedCars(SETTINGS[setting], episodes)
    records, _ = run_episodes(env, lambda env, seen: driver(env), 1, seed)
    line = {"setting": setting, "driver": name, "episodes": episodes, "seed": seed}
    returns = records["return"][:, 0]
    for key, found in (
        ("mean", mean_interval(returns, seed=seed)),
        ("std", interval(std, returns, seed=seed)),
        ("cvar5", interval(cvar, returns, seed=seed)),
    ):
        line |= {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}
    for key in ("crashes", "arrived", "speeding"):
        line[key] = float(records[key].mean())
    return line | {"steps": float(records["length"].mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=10_000, help="episodes per driver")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = [row(setting, name, args.episodes, args.seed) for setting in SETTINGS for name in DRIVERS]
    tables.write(RESULT, rows)
    print("setting       driver              mean    std   CVaR5  crashes  steps")
    for line in rows:
        print(
            "{setting:<13} {driver:<15} {mean:8.2f} {std:6.2f} {cvar5:7.2f} {crashes:8.3f} {steps:6.1f}".format(**line)
        )


if __name__ == "__main__":
    main()
