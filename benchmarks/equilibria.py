"""How reliable is the exact solver, and when is there a second equilibrium? `python -m benchmarks.equilibria`.

Writes benchmarks/results/equilibria.csv, one row a study (half an hour on one busy core):

solver: `solve` on random games of n players, whatever form, penalty and regulariser. Payoffs are normal times a scale,
tau and eps log-uniform: scale in [0.4, 7.4], tau in [0.05, 100] (inf in a tenth), eps in [0.003, 3].

second equilibrium: `all_equilibria_2x2` on random games, half of them coordination games, whose eps_1 eps_2 lie at
`condition` times tau_1 tau_2, or up to 20 % above: 1 is the condition of tractability, 1/16 that of uniqueness. Payoffs
are scaled by up to 1000 tau, and eps_1 / eps_2 is log-uniform in [1/100, 100].
"""

import csv
import time
from pathlib import Path

import numpy as np

from benchmarks import without_options
from rqe_mappo.equilibrium import all_equilibria_2x2, solve
from rqe_mappo.equilibrium.adversary import PENALTIES
from rqe_mappo.equilibrium.game import FORMS
from rqe_mappo.equilibrium.response import REGULARISERS

RESULTS = Path(__file__).parent / "results" / "equilibria.csv"
DRAWS = {"solver": 1000, "covered": 1000, "second equilibrium": 300}
COVERED = (("kl", "log-barrier"), ("reverse-kl", "entropy"))  # with the aggregate form, by the theorem of tractability
SIZES = {2: (2, 4), 3: (2, 3)}
FIELDS = ("study", "n", "form", "penalty", "regulariser", "condition", "draws", "converged", "worst residual",
          "worst exploitability", "with a second equilibrium", "seconds")  # fmt: skip


def log_uniform(rng: np.random.Generator, low: float, high: float, size: int | None = None) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def random_games(n: int, draws: int) -> dict:
    """`solve` on games of n players."""
    rng, began = np.random.default_rng(n), time.perf_counter()
    found = []
    for _ in range(draws):
        sizes = rng.integers(SIZES[n][0], SIZES[n][1] + 1, size=n)
        payoffs = rng.normal(size=(n, *sizes)) * log_uniform(rng, 0.4, 7.4)
        tau = np.where(rng.random(n) < 0.1, np.inf, log_uniform(rng, 0.05, 100, n))
        eps = log_uniform(rng, 0.003, 3, n)
        form, penalty, regulariser = (str(rng.choice(kinds)) for kinds in (FORMS, PENALTIES, REGULARISERS))
        found.append(solve(payoffs, tau, eps, form=form, penalty=penalty, regulariser=regulariser))
    good = [e for e in found if e.converged]
    return {
        "study": "solver", "n": n, "form": "mixed", "penalty": "mixed", "regulariser": "mixed", "draws": draws,
        "converged": len(good), "worst residual": f"{max(e.residual for e in good):.1e}",
        "worst exploitability": f"{max(e.exploitability.max() for e in good):.1e}",
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def second(form: str, penalty: str, regulariser: str, condition: float, draws: int) -> dict:
    """Counts 2x2 games with more than one equilibrium at the edge of a condition."""
    rng, began = np.random.default_rng(7), time.perf_counter()
    several, worst, converged = 0, 0.0, 0
    for draw in range(draws):
        payoffs = rng.normal(size=(2, 2, 2))
        if draw % 2:  # both gain by choosing alike
            payoffs += 2 * np.eye(2)
        tau = log_uniform(rng, 0.1, 10, 2)
        payoffs *= log_uniform(rng, 1, 1000) * tau[:, None, None]
        product = condition * rng.uniform(1, 1.2) * tau.prod()
        ratio = log_uniform(rng, 0.01, 100)
        eps = np.sqrt(product * np.array([ratio, 1 / ratio]))
        found = all_equilibria_2x2(
            payoffs, tau, eps, form=form, penalty=penalty, regulariser=regulariser, points=1001
        )  # fmt: skip
        several += len(found) > 1
        converged += all(e.converged for e in found) and len(found) > 0
        worst = max([worst, *(e.residual for e in found)])
    return {
        "study": "second equilibrium", "n": 2, "form": form, "penalty": penalty, "regulariser": regulariser,
        "condition": condition, "draws": draws, "converged": converged, "worst residual": f"{worst:.1e}",
        "with a second equilibrium": several, "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def main() -> None:
    without_options(__doc__)
    rows = []
    with RESULTS.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, restval="")
        table.writeheader()

        def add(row: dict) -> None:
            rows.append(row)
            table.writerow(row)
            file.flush()
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)

        for n in SIZES:
            add(random_games(n, DRAWS["solver"]))
        for form in reversed(FORMS):
            for penalty in PENALTIES:
                for regulariser in REGULARISERS:
                    for condition in (1.0, 1 / 16):
                        covered = form == "aggregate" and (penalty, regulariser) in COVERED and condition == 1
                        draws = DRAWS["covered" if covered else "second equilibrium"]
                        add(second(form, penalty, regulariser, condition, draws))


if __name__ == "__main__":
    main()
