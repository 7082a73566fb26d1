"""Where on Risky CartPole each tau wants the cart: `python -m benchmarks.cartpole_aims [RUN ...]`.

The regulator of `benchmarks.cartpole_lqr` holds the cart at a set-point. What is left of the discounted return after
3 s is valued by the clipped entropic measure whose gradient learners follow (`Entropic.zero_utility_value`), tau in
units of 18, about what five runs at tau = 1 measured (17.4 to 19). Writes results/cartpole_aims.csv and a plot; with
run folders, trained policies are valued in the same way and only printed.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks import tables
from rqe_mappo.algorithms.recipes import cartpole
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.envs.risky_cartpole import SCENARIOS, BatchedRiskyCartPole
from rqe_mappo.envs.risky_cartpole.scripted import lqr
from rqe_mappo.evaluation.episodes import Chooser, chooser
from rqe_mappo.functional.risk import Entropic
from rqe_mappo.sweeps import style

SETPOINTS_M = (-0.3, 0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8)
TAUS = (0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 10.0)
UNIT, CLIP, FIRST_STEP, COPIES, SEED = 18.0, 3.0, 150, 2000, 3
RESULT, PLOT = tables.RESULTS / "cartpole_aims.csv", tables.RESULTS / "plots" / "cartpole_aims"


def what_is_left(choose: Chooser) -> np.ndarray:
    """Discounted returns from the first step on of those copies that stand then."""
    config = SCENARIOS["default"]
    env = BatchedRiskyCartPole(config, COPIES)
    seen = env.reset(SEED)
    gamma, left, stands = cartpole("default")["gamma"], np.zeros(COPIES), np.ones(COPIES, bool)
    began = stands
    for step in range(config.horizon):
        if step == FIRST_STEP:
            began = stands
        seen = done = env.step(choose(env, seen))
        if step >= FIRST_STEP:
            left += gamma ** (step - FIRST_STEP) * done.reward[:, 0] * stands
        stands = stands & ~done.terminated[:, 0]
    return left[began]


def worths(choose: Chooser) -> dict[str, float]:
    """The mean of what is left, and what it is worth by each tau."""
    returns = torch.as_tensor(np.sort(what_is_left(choose)))
    even = torch.full_like(returns, -np.log(len(returns)))
    worth = {f"tau {tau:g}": Entropic(tau * UNIT, CLIP).zero_utility_value(returns, even) for tau in TAUS}
    found = {"copies": len(returns), "mean": returns.mean(), **worth}
    return {name: round(float(value), 2) for name, value in found.items()}


def draw(rows: list[dict[str, float]]) -> None:
    """Each tau's worth of the set-points, less that of the middle of the track."""
    figure = style.new_figure(8, 4.6)
    axes = figure.subplots()
    (middle,) = [one for one in rows if one["setpoint_m"] == 0]
    names = ["tau 0.5", "tau 1", "tau 1.5", "tau 2", "tau 3", "mean"]
    looks = style.looks(names)
    for name in names:
        look, label = looks[name], name.replace("tau", "τ =").replace("mean", "τ = ∞")
        worth = [one[name] - middle[name] for one in rows]
        axes.plot([one["setpoint_m"] for one in rows], worth, color=look.colour, marker=look.marker, ms=5, label=label)
    axes.axhline(0, color=style.QUIET, lw=0.8, ls="--")
    axes.set(xlabel="set-point, m (right is windy and pays more)", ylabel="worth more than the middle")
    axes.legend(fontsize=8, frameon=False)
    style.style_axes(axes)
    style.title(figure, "Between calm and wind the aim turns over", "what is left of the discounted return after 3 s")
    print(*style.save(figure, PLOT), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="run folders of Risky CartPole")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    for run in runs:
        policy = load_run(run)
        policy.seed(SEED)
        print(run, "  ".join(f"{name} {value:g}" for name, value in worths(chooser(policy)).items()), flush=True)
    if runs:
        return
    regulators = {setpoint_m: lqr(setpoint_m) for setpoint_m in SETPOINTS_M}
    rows = [{"setpoint_m": at, **worths(lambda env, seen, own=own: own(env))} for at, own in regulators.items()]
    tables.write(RESULT, rows)
    for one in rows:
        print("  ".join(f"{name} {value:g}" for name, value in one.items()))
    draw(rows)


if __name__ == "__main__":
    main()
