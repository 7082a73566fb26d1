"""How fast is the intersection, beside SUMO alone? `python -m benchmarks.sumo_speed` prints a table by copies K.

Both sides step the same network with the same spawn rule and the same six vehicles a junction under random
accelerations drawn from one seed. 'Bare' is libsumo with nothing around it: it replays what ours did, vehicle by
vehicle (add, acceleration or speed, remove), and steps; it reads nothing, observes nothing, rewards nothing. Figures
are decisions of controlled vehicles per CPU second.
"""

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection

DECISIONS = 12_000  # times copies, about: enough for a second or more


@dataclass
class Recorder:
    """Stands before a libsumo domain and writes down the calls that change the traffic."""

    domain: Any
    script: list[tuple[str, tuple, dict]]
    changing: tuple[str, ...] = ("add", "remove", "setAcceleration", "setSpeed", "setSpeedMode")
    calls: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.domain, name)
        if name not in self.changing:
            return call

        def recorded(*args: Any, **keywords: Any) -> Any:
            self.script.append((name, args, keywords))
            return call(*args, **keywords)

        return recorded


def _drive(env: BatchedIntersection, decisions: int) -> int:
    rng = np.random.default_rng(0)
    made = 0
    for _ in range(decisions):
        made += int(env.active.sum())
        env.step(rng.integers(0, 4, env.active.shape))
    return made


def ours(copies: int = 64, decisions: int | None = None) -> float:
    """Decisions per CPU second of the whole environment: control, stepping, observations, state, rewards, resets."""
    env = BatchedIntersection(SCENARIOS["default"], copies)
    env.reset(0)
    _drive(env, 20)
    began = time.process_time()
    made = _drive(env, decisions or DECISIONS // copies)
    spent = time.process_time() - began
    env.close()
    return made / spent


def bare_libsumo(copies: int = 64, decisions: int | None = None) -> float:
    """Decisions per CPU second of libsumo stepping exactly the traffic that `ours` drove."""
    decisions = decisions or DECISIONS // copies
    env = BatchedIntersection(SCENARIOS["default"], copies)
    sim, script = env.world.sim, []
    plain_vehicle, plain_step = sim.vehicle, sim.step
    sim.vehicle = Recorder(plain_vehicle, script)

    def recorded_step() -> Any:
        script.append(("step", (), {}))
        return plain_step()

    sim.step = recorded_step
    env.reset(0)
    made = _drive(env, decisions)
    sim.vehicle = plain_vehicle
    env.world.load(0)
    step = sim.libsumo.simulationStep
    calls = [
        (step if name == "step" else getattr(plain_vehicle, name), args, keywords) for name, args, keywords in script
    ]
    began = time.process_time()
    for call, args, keywords in calls:
        call(*args, **keywords)
    spent = time.process_time() - began
    env.close()
    return made / spent


def main() -> None:
    print("copies  ours/CPU-s  bare/CPU-s  ratio (medians of 3 alternated rounds)")
    for copies in (1, 8, 32, 64, 128):
        rounds = [(ours(copies), bare_libsumo(copies)) for _ in range(3)]
        mine, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        print(f"{copies:6}  {mine:10.0f}  {bare:10.0f}  {ratio:5.2f}")


if __name__ == "__main__":
    main()
