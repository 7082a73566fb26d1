"""Three updates of every algorithm, scalar by scalar: what a refactoring that claims to change nothing must not move.

`python -m tests.recorded_losses record` writes tests/data/recorded_losses.json, `... compare` says what differs from
it, bit for bit. On one machine nothing may differ; `test_recorded_losses` allows for what machines do differently.
"""

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch

FILE = Path(__file__).parent / "data" / "recorded_losses.json"
AVERSE = "--return-scale 10 --warmup-fraction 0 --risk-anneal-fraction 0"
EPS = "--eps 0.01 --eps-start 1"
CARTPOLE = f"--env cartpole --num-envs 8 --num-steps 32 --total-timesteps 768 --settle 0 --average 0 {EPS}"
MEASURED = (
    f"--env cartpole --num-envs 64 --num-steps 64 --total-timesteps 12288 --warmup-fraction 0.3 {EPS} --average-of last"
)
SUMO = "--env sumo --num-envs 6 --num-steps 24 --total-timesteps 1300 --num-minibatches 3"
GAME = "--env matrix --num-envs 64 --num-steps 2 --total-timesteps 768 --critic-first 0"
CLIFF = "--env cliff --num-envs 8 --num-steps 16 --total-timesteps 768"

ALGORITHMS = (
    f"--algo rqe-mappo --tau 0.5 {AVERSE}",
    f"--algo rqe-mappo --advantage static {AVERSE}",
    f"--algo rqe-mappo --advantage nested {AVERSE}",
    f"--algo rqe-mappo --advantage value {AVERSE}",
    f"--algo rqe-mappo --regulariser log-barrier {AVERSE}",
    "--algo mappo",
    "--algo ippo",
    f"--algo c51-cvar {AVERSE}",
    f"--algo mean-variance {AVERSE}",
    f"--algo mean-variance --form surrogate --spread deviation {AVERSE}",
    "--algo reward-shaped",
)
CASES = (
    *(f"{env} {algorithm}" for env in (CARTPOLE, SUMO, GAME) for algorithm in ALGORITHMS),
    f"{CARTPOLE} --discount-tau {AVERSE}",
    f"{CARTPOLE} --risk cvar:0.25 {AVERSE}",
    f"{CARTPOLE} --algo mappo --no-value-norm --no-value-clip --no-active-masks",
    f"{MEASURED} --settle 0.4 --average 0.5 --critic-first 0.1",
    f"{SUMO} --tau 0.3,1,inf,2 --eps 0.01,0.02,0.01,0.03 {AVERSE}",
    f"{SUMO} --no-shared-actor {AVERSE}",
    f"{GAME} --tau 0.3,inf {AVERSE}",
    f"{GAME} --advantage rqe --eps 0.1",
    f"{CLIFF} --advantage rqe --tau 0.5,1 {AVERSE}",
)


def scalars(flags: str) -> list[dict[str, float]]:
    """The rows that a run of `flags` logs, one an update, without those that time it."""
    from rqe_mappo import cli
    from rqe_mappo.training import logs

    torch.set_num_threads(1)
    rows: list[dict[str, float]] = []

    def keep(log: logs.RunLog, step: int, values: dict[str, float]) -> None:
        rows.append({"step": float(step)} | {name: value for name, value in values.items() if name not in logs.TIMED})

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(logs.RunLog, "row", keep):
        cli.train([*flags.split(), "--log-interval", "1", "--eval-episodes", "0", "--out", folder])
    return rows


def same(found: float, recorded: float, tolerance: float) -> bool:
    """Whether two scalars agree to a relative and absolute `tolerance`; nan agrees with nan."""
    if math.isnan(recorded):
        return math.isnan(found)
    return math.isclose(found, recorded, rel_tol=tolerance, abs_tol=tolerance)


def differences(case: str, tolerances: Sequence[float]) -> list[str]:
    """What of a case differs from the record by more than the tolerance of its update."""
    recorded, found = json.loads(FILE.read_text())[case], scalars(case)
    if len(found) != len(recorded):
        return [f"{len(found)} updates, recorded {len(recorded)}"]
    return [
        f"update {update}, {name}: {after.get(name)!r}, recorded {before.get(name)!r}"
        for update, (after, before, tolerance) in enumerate(zip(found, recorded, tolerances, strict=True))
        for name in sorted(set(after) | set(before))
        if name not in after or name not in before or not same(after[name], before[name], tolerance)
    ]


def main(command: str) -> None:
    """Record all cases, or compare them bit for bit."""
    if command == "record":
        FILE.parent.mkdir(exist_ok=True)
        lines = [f"{json.dumps(case)}: {json.dumps(scalars(case))}" for case in CASES]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    found = {case: differences(case, (0.0, 0.0, 0.0)) for case in CASES}
    for case, lines in found.items():
        print(f"{case}: {'equal' if not lines else '; '.join(lines[:3])}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main(sys.argv[1])
