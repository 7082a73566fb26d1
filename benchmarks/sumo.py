"""How fast is the intersection? `python -m benchmarks.sumo` writes results/sumo.csv; it wants two free cores.

Figures are decisions of controlled vehicles. Both sides of 'bare' step the same network with the same spawn rule and
the same six vehicles a junction under random accelerations drawn from one seed: bare libsumo replays what ours did,
vehicle by vehicle (add, acceleration or speed, remove), and steps; it reads nothing, observes nothing, rewards nothing.
The 'plain loop' is one PettingZoo environment, stepped with dicts of random actions. Rounds are alternated; a row gives
medians, ratios are medians of ratios within a round.
"""

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables, without_options
from rqe_mappo.data.vector import WorkerEnvs
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, IntersectionEnv

RESULT = tables.RESULTS / "sumo.csv"
COPIES = (1, 8, 32, 64)
DECISIONS = 12_000  # times copies, about: enough for a second or more
ROUNDS = 3
DEFAULT = SCENARIOS["default"]


@dataclass
class Recorder:
    """Stands before a libsumo domain and writes down the calls that change the traffic."""

    domain: Any
    script: list[tuple[str, tuple, dict]]
    changing: tuple[str, ...] = ("add", "remove", "setAcceleration", "setSpeed", "setSpeedMode")

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.domain, name)
        if name not in self.changing:
            return call

        def recorded(*args: Any, **keywords: Any) -> Any:
            self.script.append((name, args, keywords))
            return call(*args, **keywords)

        return recorded


def _drive(env: BatchedEnv, active: np.ndarray, steps: int) -> tuple[int, np.ndarray]:
    """Random actions for a number of steps, whoever is `active` at first; gives the decisions made, and who is then."""
    rng, made = np.random.default_rng(0), 0
    for _ in range(steps):
        made += int(active.sum())
        active = env.step(rng.integers(0, 4, active.shape)).active
    return made, active


def ours(copies: int = 64, steps: int | None = None) -> float:
    """Decisions per CPU second of the whole environment: control, stepping, observations, state, rewards, resets."""
    env = BatchedIntersection(DEFAULT, copies)
    _, active = _drive(env, env.reset(0).active, 20)
    began = time.process_time()
    made, _ = _drive(env, active, steps or DECISIONS // copies)
    spent = time.process_time() - began
    env.close()
    return made / spent


def bare_libsumo(copies: int = 64, steps: int | None = None) -> float:
    """Decisions per CPU second of libsumo stepping exactly the traffic that `ours` drove."""
    env = BatchedIntersection(DEFAULT, copies)
    sim, script = env.world.sim, []
    plain_vehicle, plain_step = sim.vehicle, sim.step
    sim.vehicle = Recorder(plain_vehicle, script)

    def recorded_step() -> Any:
        script.append(("step", (), {}))
        return plain_step()

    sim.step = recorded_step
    made, _ = _drive(env, env.reset(0).active, steps or DECISIONS // copies)
    sim.vehicle = plain_vehicle
    env.world.load(0)
    step = sim.connection.simulationStep
    calls = [
        (step if name == "step" else getattr(plain_vehicle, name), args, keywords) for name, args, keywords in script
    ]
    began = time.process_time()
    for call, args, keywords in calls:
        call(*args, **keywords)
    spent = time.process_time() - began
    env.close()
    return made / spent


def plain_loop(steps: int = 4000) -> float:
    """Decisions per CPU second of one PettingZoo environment."""
    env, rng, made = IntersectionEnv(DEFAULT), np.random.default_rng(0), 0
    env.reset(0)
    began = time.process_time()
    for _ in range(steps):
        if not env.agents:
            env.reset()
        made += len(env.agents)
        env.step({agent: int(rng.integers(0, 4)) for agent in env.agents})
    spent = time.process_time() - began
    env.close()
    return made / spent


def workers(count: int, copies: int = 64, steps: int = 400) -> float:
    """Decisions per second of wall time of `copies` spread over worker processes."""
    env = WorkerEnvs(functools.partial(BatchedIntersection, DEFAULT, copies // count), count)
    _, active = _drive(env, env.reset(0).active, 20)
    began = time.perf_counter()
    made, _ = _drive(env, active, steps)
    spent = time.perf_counter() - began
    env.close()
    return made / spent


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def growth(copies: int = 64, warm: int = 2_000, steps: int = 10_000) -> tuple[float, int]:
    """MB of memory gained per million decisions once everything has been used, and the decisions that tell."""
    env = BatchedIntersection(DEFAULT, copies)
    _, active = _drive(env, env.reset(0).active, warm)
    before = resident_mb()
    made, _ = _drive(env, active, steps)
    gained = resident_mb() - before
    env.close()
    return gained / made * 1e6, made


def main() -> None:
    without_options(__doc__)
    measured: dict[str, Callable[[], float]] = {}
    for copies in COPIES:
        measured[f"ours, {copies} copies"] = functools.partial(ours, copies)
        measured[f"bare libsumo, {copies} copies"] = functools.partial(bare_libsumo, copies)
    measured |= {"plain PettingZoo loop": plain_loop}
    measured |= {f"{count} worker{'s' * (count > 1)}, 64 copies": functools.partial(workers, count) for count in (1, 2)}
    rounds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, measure in measured.items():
            rounds[name].append(measure())
    rows = [
        {"what": name, "unit": "decisions per second of wall time" if "worker" in name else "decisions per CPU second",
         "value": round(statistics.median(values)), "lowest": round(min(values)), "highest": round(max(values))}
        for name, values in rounds.items()
    ]  # fmt: skip
    pairs = [(f"ours, {k} copies", f"bare libsumo, {k} copies") for k in COPIES]
    pairs += [("ours, 64 copies", "plain PettingZoo loop"), ("2 workers, 64 copies", "1 worker, 64 copies")]
    for top, bottom in pairs:
        ratios = [a / b for a, b in zip(rounds[top], rounds[bottom], strict=True)]
        rows.append({"what": f"{top} / {bottom}", "unit": "ratio", "value": round(statistics.median(ratios), 2),
                     "lowest": round(min(ratios), 2), "highest": round(max(ratios), 2)})  # fmt: skip
    gained, decisions = growth()
    rows.append({"what": f"memory gained over {decisions} decisions", "unit": "MB per million decisions",
                 "value": round(gained, 3)})  # fmt: skip
    tables.write(RESULT, rows)
    for row in rows:
        print("  ".join(str(value) for value in row.values()))


if __name__ == "__main__":
    main()
