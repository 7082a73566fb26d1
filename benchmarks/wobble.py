"""Draws how policies wander between checkpoints: `python -m benchmarks.wobble` reads results/crossings_checkpoints.csv.

That file is made by `python -m benchmarks.crossings RUN ... --all --mean-of 5 --likeliest` (docs/learning.md). Left:
the mean return of each checkpoint, and of the policy whose weights are the mean of the last, by drawn and by likeliest
actions. Right: the same checkpoints by travel time and the cost of their collisions, which make up most of it.
"""

from collections import defaultdict

from benchmarks import tables, without_options
from rqe_mappo.sweeps import style

SOURCE = tables.RESULTS / "crossings_checkpoints.csv"
FROM_STEP = 1_000_000
LEVELS_S = (-13.0, -12.0)


def main() -> None:
    without_options(__doc__)
    lines = defaultdict(list)
    for row in tables.read(SOURCE):
        if int(row["step"]) >= FROM_STEP:
            lines[row["run"], row["actions"]].append(
                {k: float(row[k]) for k in row if k not in ("run", "tau", "actions")}
            )
    figure = style.new_figure(11, 4.6)
    over_time, apart = figure.subplots(1, 2)
    runs = style.looks(list(dict.fromkeys(run for run, _ in lines)))
    for (run, actions), rows in lines.items():
        look, drawn = runs[run], actions == "drawn"
        single = [row for row in rows if row["checkpoints"] == 1]
        (mean,) = [row for row in rows if row["checkpoints"] > 1] or [None]
        over_time.plot(
            [row["step"] / 1e6 for row in single], [row["mean return"] for row in single],
            color=look.colour, ls="-" if drawn else ":", marker=look.marker, ms=5,
            label=f"{run.split('/')[-1].replace('s', 'seed ')}, {actions} actions",
        )  # fmt: skip
        if mean is not None:
            over_time.plot(4.15, mean["mean return"], color=look.colour, marker="*" if drawn else "x", ms=11, ls="")
        if drawn:
            points = [(row["travel"], row["cost of collisions"]) for row in single]
            apart.plot(*zip(*points, strict=True), color=look.colour, marker=look.marker, ms=5, lw=0.8, ls="-")
            apart.annotate("last", points[-1], textcoords="offset points", xytext=(6, 4), color=look.colour)
    low, high = apart.get_xlim()
    for level in LEVELS_S:
        apart.axline((low, -level - low - 0.23), slope=-1, color=style.QUIET, lw=0.8, ls="--")
        apart.annotate(f"mean {level:g}", (high, -level - high - 0.23), color=style.QUIET, fontsize=8, ha="right")
    over_time.set(xlabel="million decisions", ylabel="mean return, s")
    apart.set(xlabel="travel time, s", ylabel="cost of collisions, s")
    over_time.legend(fontsize=8, frameon=False)
    for axes in (over_time, apart):
        style.style_axes(axes)
    subtitle = "500 episodes a checkpoint; stars and crosses: the mean of the last five checkpoints' weights"
    style.title(figure, "A neutral policy wanders between bold and careful", subtitle)
    print(*style.save(figure, tables.RESULTS / "plots" / "sumo_wobble"), sep="\n")


if __name__ == "__main__":
    main()
