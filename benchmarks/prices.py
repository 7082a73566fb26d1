"""At which collision cost does safety have a price? `python -m benchmarks.prices` (docs/results.md); trains nothing.

A policy that is not trained again crashes as often whatever a crash costs, so its mean return at a collision cost c is
known from that at the cost of its training: m + (30 - c) * collisions per vehicle. Reads the sweep over tau in
sweeps/results, evaluated by drawn and by likeliest actions, and writes results/prices.csv: the mean return of every
setting at every cost, mean and 95 % t-interval over seeds. Only the ratio of costs counts: with a time cost of 2 read
the column of half the collision cost.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import tables, without_options
from rqe_mappo.statistics import Estimate, seed_interval
from rqe_mappo.sweeps.tables import over_seeds

SWEEPS = Path(__file__).parents[1] / "sweeps" / "results"
SOURCES = {"drawn": SWEEPS / "sumo" / "results.csv", "likeliest": SWEEPS / "sumo_likeliest" / "results.csv"}
TRAINED = 30  # what a collision cost in training
COSTS = (10, 15, 20, 30, 50, 100)
SAFE = 0.01  # collisions per vehicle


def settings() -> list[dict]:
    """One entry a setting: how it acts, its collision rate, and its mean return at each of `COSTS`."""
    found = []
    for name, path in SOURCES.items():
        rows = tables.read(path)
        for tau in dict.fromkeys(row["tau"] for row in rows):
            chosen = [row for row in rows if row["tau"] == tau]
            rates = [float(row["collision rate (agent)"]) for row in chosen]
            means = [float(row["mean return (agent)"]) for row in chosen]
            entry = {"actions": name, "tau": tau, "seeds": len(chosen)}
            entry["collisions per vehicle"] = over_seeds(chosen, "collision rate (agent)")
            for cost in COSTS:
                entry[cost] = seed_interval([m + (TRAINED - cost) * r for m, r in zip(means, rates, strict=True)])
            found.append(entry)
    return found


def show(found: Sequence[dict]) -> None:
    """Every setting in Markdown; then, at each cost, the best of all, the best of the safe ones, and neutral ones."""
    head = ["actions", "tau", "seeds", "collisions", *(f"at {cost} s" for cost in COSTS)]
    print(f"| {' | '.join(head)} |\n| {' | '.join(['---'] * len(head))} |")
    for entry in found:
        cells = [str(entry[name]) for name in head[:3]]
        cells += [f"{entry['collisions per vehicle'].value:.3f}", *(interval(entry[cost]) for cost in COSTS)]
        print(f"| {' | '.join(cells)} |")
    for actions in SOURCES:
        own = [entry for entry in found if entry["actions"] == actions]
        safe = f"below {SAFE * 100:g} % of collisions"
        print(f"\n| a crash costs ({actions} actions) | best mean return | {safe} | price | neutral |")
        print("| --- | --- | --- | --- | --- |")
        neutral = next(entry for entry in own if entry["tau"] == "inf")
        safe_ones = [entry for entry in own if entry["collisions per vehicle"].value < SAFE]
        for cost in COSTS:
            best, safe = (max(some, key=lambda entry: entry[cost].value) for some in (own, safe_ones))
            cells = [f"{interval(entry[cost])} (tau {entry['tau']})" for entry in (best, safe)]
            cells += [f"{best[cost].value - safe[cost].value:.1f} s", interval(neutral[cost])]
            print(f"| {cost} s | {' | '.join(cells)} |")


def interval(mean: Estimate) -> str:
    return f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]"


def main() -> None:
    without_options(__doc__)
    found = settings()
    show(found)
    rows = []
    for entry in found:
        row = {name: entry[name] for name in ("actions", "tau", "seeds")}
        for name in ("collisions per vehicle", *COSTS):
            column = name if isinstance(name, str) else f"mean return at {name} s"
            row |= {column: entry[name].value, f"{column} low": entry[name].low, f"{column} high": entry[name].high}
        rows.append(row)
    tables.write(tables.RESULTS / "prices.csv", rows)


if __name__ == "__main__":
    main()
