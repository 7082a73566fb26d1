"""At which collision cost does safety have a price? `python -m benchmarks.prices` (docs/results.md); trains nothing.

A policy that is not trained again crashes as often whatever a crash costs, so its mean return at a collision cost c is
known from that at the cost of its training: m + (trained - c) * collisions per vehicle. Reads results/sumo_risk.csv and
the sweeps over tau in sweeps/results, and writes results/prices.csv: the mean return of every setting at every cost,
mean and 95 % t-interval over seeds. Only the ratio of costs counts: with a time cost of 2 read the column of half the
collision cost.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import tables
from rqe_mappo.statistics import Estimate, seed_interval
from rqe_mappo.sweeps.tables import over_seeds

SWEEPS = Path(__file__).parents[1] / "sweeps" / "results"
SOURCES = {  # name in the table: its rows, the collision cost in training
    "30 s, benchmarks.risk": (tables.RESULTS / "sumo_risk.csv", 30),
    "30 s, rqe-sweep": (SWEEPS / "sumo_cost30" / "results.csv", 30),
    "20 s, rqe-sweep": (SWEEPS / "sumo_cost20" / "results.csv", 20),
    "50 s, rqe-sweep": (SWEEPS / "sumo_cost50" / "results.csv", 50),
    "30 s, 8 million decisions": (SWEEPS / "sumo_8m" / "results.csv", 30),
}
COSTS = (10, 15, 20, 30, 50, 100)
SAFE = 0.01  # collisions per vehicle


def settings() -> list[dict]:
    """One entry a setting: how it was trained, its collision rate, and its mean return at each of `COSTS`."""
    found = []
    for name, (path, trained) in SOURCES.items():
        rows = tables.read(path)
        for key in dict.fromkeys((row["advantage"], row["tau"]) for row in rows):
            chosen = [row for row in rows if (row["advantage"], row["tau"]) == key]
            rates = [float(row["collision rate (agent)"]) for row in chosen]
            means = [float(row["mean return (agent)"]) for row in chosen]
            entry = {"trained at": name, "advantage": key[0], "tau": key[1], "seeds": len(chosen)}
            entry["collisions per vehicle"] = over_seeds(chosen, "collision rate (agent)")
            for cost in COSTS:
                entry[cost] = seed_interval([m + (trained - cost) * r for m, r in zip(means, rates, strict=True)])
            found.append(entry)
    return found


def show(found: Sequence[dict]) -> None:
    """Every setting in Markdown; then, at each cost, the best of all, the best of the safe ones, and neutral ones."""
    head = ["trained at", "advantage", "tau", "seeds", "collisions", *(f"at {cost} s" for cost in COSTS)]
    print(f"| {' | '.join(head)} |\n| {' | '.join(['---'] * len(head))} |")
    for entry in found:
        cells = [str(entry[name]) for name in head[:4]]
        cells += [f"{entry['collisions per vehicle'].value:.3f}", *(interval(entry[cost]) for cost in COSTS)]
        print(f"| {' | '.join(cells)} |")
    print(f"\n| a crash costs | best mean return | below {SAFE * 100:g} % of collisions | price | neutral, at 30 s |")
    print("| --- | --- | --- | --- | --- |")
    neutral = next(entry for entry in found if entry["tau"] == "inf")
    for cost in COSTS:
        best = max(found, key=lambda entry: entry[cost].value)
        safe = max((e for e in found if e["collisions per vehicle"].value < SAFE), key=lambda entry: entry[cost].value)
        cells = [f"{interval(e[cost])} ({e['advantage']}, {e['tau']}, {e['trained at']})" for e in (best, safe)]
        cells += [f"{best[cost].value - safe[cost].value:.1f} s", interval(neutral[cost])]
        print(f"| {cost} s | {' | '.join(cells)} |")


def interval(mean: Estimate) -> str:
    return f"{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]"


def main() -> None:
    found = settings()
    show(found)
    rows = []
    for entry in found:
        row = {name: entry[name] for name in ("trained at", "advantage", "tau", "seeds")}
        for name in ("collisions per vehicle", *COSTS):
            column = name if isinstance(name, str) else f"mean return at {name} s"
            row |= {column: entry[name].value, f"{column} low": entry[name].low, f"{column} high": entry[name].high}
        rows.append(row)
    tables.write(tables.RESULTS / "prices.csv", rows)


if __name__ == "__main__":
    main()
