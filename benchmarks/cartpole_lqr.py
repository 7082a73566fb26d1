"""The trade-off in Risky CartPole, shown without a learner: a bang-bang LQR that holds the cart at a set-point.

`python -m benchmarks.cartpole_lqr` prints the table and writes benchmarks/results/cartpole_lqr.csv (under a minute).
"""

import argparse

from benchmarks import tables
from rqe_mappo.envs.risky_cartpole import SCENARIOS, BatchedRiskyCartPole
from rqe_mappo.envs.risky_cartpole.scripted import first_episodes, lqr
from rqe_mappo.statistics import cvar, interval, mean_interval, rate, std

SETPOINTS_M = (-1.2, -0.6, -0.3, 0.0, 0.3, 0.6, 1.2, 1.8)
RESULT = tables.RESULTS / "cartpole_lqr.csv"


def row(scenario: str, setpoint_m: float, episodes: int, seed: int) -> dict[str, float | str]:
    """One line of the table, with 95 % intervals over episodes."""
    env = BatchedRiskyCartPole(SCENARIOS[scenario], episodes)
    records = first_episodes(env, lqr(setpoint_m), seed)
    line = {"scenario": scenario, "setpoint_m": setpoint_m, "episodes": episodes, "seed": seed}
    returns = records["return"]
    for name, found in (
        ("mean", mean_interval(returns, seed=seed)),
        ("std", interval(std, returns, seed=seed)),
        ("cvar5", interval(cvar, returns, seed=seed)),
    ):
        line |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    falls = rate(records["fell"])
    return line | {"falls": falls.value, "falls_low": falls.low, "falls_high": falls.high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1500, help="episodes per set-point")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = [
        row(scenario, setpoint_m, args.episodes, args.seed)
        for scenario in ("calm", "default", "storm")
        for setpoint_m in SETPOINTS_M
    ]
    tables.write(RESULT, rows)
    print("scenario  x* (m)   mean    std  CVaR5  falls")
    for line in rows:
        print("{scenario:<8} {setpoint_m:7.1f} {mean:6.1f} {std:6.1f} {cvar5:6.1f} {falls:6.3f}".format(**line))


if __name__ == "__main__":
    main()
