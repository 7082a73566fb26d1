"""How often descent finds what mixers can hold: `python -m benchmarks.fits` (a quarter of an hour on one core).

Tables of two agents with four actions, uniform in [-1, 1], fitted whole by Adam from random starts, as the learners'
modules do it: utilities as tables, mixers of one constant state. Share of tables whose mean squared error falls below
1e-3, and how often the greedy joint action is the table's best, in benchmarks/results/fits.csv.
"""

import argparse
import itertools
import time

import torch
from torch import Tensor, nn

from benchmarks import tables
from rqe_mappo.functional import q_learning
from rqe_mappo.nets.mixers import DuplexMixer, MonotonicMixer
from rqe_mappo.statistics import rate

AGENTS, ACTIONS, FITS = 2, 4, 1e-3
MIXERS = {
    "vdn": None,
    "qmix": lambda: MonotonicMixer(1, AGENTS, 32, 64),
    "qplex, 4 heads, 1 layer": lambda: DuplexMixer(1, AGENTS, ACTIONS, 64, 4, 1),
    "qplex, 10 heads, 3 layers": lambda: DuplexMixer(1, AGENTS, ACTIONS, 64, 10, 3),
}


def fitted(table: Tensor, name: str, steps: int, seed: int) -> tuple[float, bool]:
    """Mean squared error after fitting `[actions, actions]`, and whether the greedy joint action is the best one."""
    torch.manual_seed(seed)
    joint = torch.tensor(list(itertools.product(range(ACTIONS), repeat=AGENTS)))
    utilities = nn.Parameter(torch.randn(AGENTS, ACTIONS) * 0.1)
    mixer = MIXERS[name]() if MIXERS[name] else None
    optimiser = torch.optim.Adam([utilities, *(mixer.parameters() if mixer else ())], lr=3e-3)
    state, there = torch.ones(len(joint), 1), torch.ones(len(joint), AGENTS, dtype=torch.bool)
    wanted, error = table.flatten(), torch.tensor(torch.inf)
    for _ in range(steps):
        values = utilities.expand(len(joint), -1, -1)
        chosen = q_learning.of_actions(values, joint)
        if isinstance(mixer, DuplexMixer):
            total = mixer(chosen, values.detach().amax(-1), state, joint, there)
        else:
            total = mixer(chosen, state) if mixer else chosen.sum(-1)
        error = (total - wanted).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    greedy = tuple(utilities.argmax(-1).tolist())
    return float(error.detach()), bool(table[greedy] == table.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in MIXERS:
        generator, began = torch.Generator().manual_seed(0), time.process_time()
        drawn = torch.rand(args.tables, ACTIONS, ACTIONS, generator=generator) * 2 - 1
        found = [fitted(table, name, args.steps, seed) for seed, table in enumerate(drawn)]
        errors = torch.tensor([error for error, _ in found])
        fits = rate((errors < FITS).numpy())
        rows.append({"mixer": name, "tables": args.tables, "steps": args.steps, "fitted": fits.value,
                     "fitted low": fits.low, "fitted high": fits.high,
                     "greedy is best": sum(best for _, best in found) / args.tables,
                     "median error": float(errors.median()),
                     "CPU seconds": round(time.process_time() - began)})  # fmt: skip
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    tables.write(tables.RESULTS / "fits.csv", rows)


if __name__ == "__main__":
    main()
