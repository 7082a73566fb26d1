"""Does `--algo exact-rqe` find the equilibrium? `python -m benchmarks.exact_rqe` trains it on games that are solved.

13 human games in both parameterisations, the stag hunt on either side of the tau at which its stag equilibrium ends,
and the free-rider game on either side of its pitchfork; each with two seeds. Writes results/exact_rqe.csv: the policies
trained and solved, their largest difference, and fixed-point residual and exploitability of the trained ones under the
exact game (`rqe_mappo.equilibrium`).
"""

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import tables
from benchmarks.silent import trained
from rqe_mappo.config import default_config
from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium import HUMAN_GAMES, RiskGame, all_equilibria_2x2
from rqe_mappo.nets import PolicyActor

RESULT = tables.RESULTS / "exact_rqe.csv"
SEEDS = (1, 2)


@dataclass(frozen=True)
class Case:
    """One game with its parameters, tau and eps in points; `start`: each player's first probability of action 0."""

    game: str
    tau: tuple[float, ...]
    eps: tuple[float, ...]
    form: str
    penalty: str
    regulariser: str
    start: float = 0.5
    total_timesteps: int = 400_000


def cases() -> list[Case]:
    human = [
        Case(name, fit.tau, fit.eps, "aggregate", *pair)
        for name, game in HUMAN_GAMES.items()
        for pair, fit in game.fits.items()
    ]
    stag = [
        Case("stag-hunt", (tau, tau), (0.25, 0.25), "action", "kl", "entropy", start)
        for tau in (math.inf, 10, 5, 4, 3)
        for start in (0.5, 0.95)
    ]
    free = [  # near the pitchfork, at an aversion of 0.829, the pull towards the equilibria fades
        Case("free-rider", (1 / aversion,) * 2, (0.2, 0.2), "aggregate", "kl", "entropy", total_timesteps=steps)
        for aversion, steps in ((0.5, 400_000), (0.7, 1_600_000), (0.95, 400_000), (1, 400_000), (10, 400_000))
    ]
    return human + stag + free


def climb(case: Case, seed: int, **changes: float) -> np.ndarray:
    """Train one case from its start, the recipe with `changes`; gives the players' policies `[n, actions]`."""
    config = default_config("matrix", case.game, "exact-rqe").replace(
        tau=case.tau, eps=case.eps, rqe_form=case.form, rqe_penalty=case.penalty, regulariser=case.regulariser,
        seed=seed, **{"total_timesteps": case.total_timesteps, **changes},
    )  # fmt: skip

    def lean(actor: PolicyActor) -> None:
        for net in actor.nets:
            net[-1].bias[0] += math.log(case.start / (1 - case.start))

    run = trained(config, lean)
    with torch.no_grad():
        return run.algorithm.actor.logits(torch.ones(2, 1), torch.arange(2)).softmax(-1).double().numpy()


def solve(case: Case, seed: int, **changes: float) -> dict:
    """Train one case and compare with the nearest exact equilibrium; gives its row."""
    found = climb(case, seed, **changes)
    game = RiskGame.of(GAMES[case.game], case.tau, case.eps, case.form, case.penalty, case.regulariser)
    known = all_equilibria_2x2(
        GAMES[case.game], case.tau, case.eps, form=case.form, penalty=case.penalty, regulariser=case.regulariser
    )
    nearest = min(known, key=lambda e: np.abs(np.array(e.strategies) - found).max())
    return {
        "game": case.game, "form": case.form, "penalty": case.penalty, "regulariser": case.regulariser,
        "tau 1": case.tau[0], "tau 2": case.tau[1], "eps 1": case.eps[0], "eps 2": case.eps[1],
        "start": case.start, "seed": seed, "equilibria": len(known),
        "trained 1": found[0, 0], "trained 2": found[1, 0],
        "exact 1": nearest.strategies[0][0], "exact 2": nearest.strategies[1][0],
        "difference": np.abs(np.array(nearest.strategies) - found).max(),
        "residual": game.residual(found), "exploitability": game.exploitability(found).max(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="games at a time, one core each")
    parser.add_argument("--only", default="", help="only games whose name holds this; writes nothing")
    args = parser.parse_args()
    chosen = [(case, seed) for case in cases() for seed in SEEDS if args.only in case.game]
    rows = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for row in pool.map(solve, *zip(*chosen, strict=True)):
            rows.append({key: f"{v:.5g}" if isinstance(v, float) else v for key, v in row.items()})
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(f"largest difference {max(float(row['difference']) for row in rows):.4f}")
    if not args.only:
        tables.write(RESULT, rows)


if __name__ == "__main__":
    main()
