"""Scripted policies, usable wherever a trained one is.

Each is called with a `BatchedSignals` and gives phases `[1, A]`, or PROGRAM in their place.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rqe_mappo.envs.sumo_signals.batched_signals import BatchedSignals
from rqe_mappo.envs.sumo_signals.config import PROGRAM

ScriptedPolicy = Callable[[BatchedSignals], np.ndarray]


def random(seed: int) -> ScriptedPolicy:
    """Uniform phases."""
    rng = np.random.default_rng(seed)
    return lambda env: rng.integers(0, env.counts)[None]


def fixed(shown_s: Sequence[float] | None = None) -> ScriptedPolicy:
    """Phases in turn, whatever the traffic, each for its time in `shown_s`; without, SUMO runs the net's own programs.

    Times include yellow and are rounded up to whole decisions; with several lights they are those of each, and all
    cycles begin with the episode. The net's programs run second by second as in SUMO: with their own yellow and
    all-red phases and their offsets, and where they are actuated by their rules.
    """
    if shown_s is None:
        return lambda env: np.full((1, len(env.counts)), PROGRAM)

    def choose(env: BatchedSignals) -> np.ndarray:
        phases = []
        for name, count in zip(env.possible_agents, env.counts, strict=True):
            if len(shown_s) != count:
                raise ValueError(f"light {name} has {count} phases, and {len(shown_s)} times are given")
            ends = np.cumsum(np.ceil(np.divide(shown_s, env.config.delta_time_s)))
            phases.append(int(np.searchsorted(ends, env.decisions % ends[-1], side="right")))
        return np.array([phases])

    return choose


def greedy(env: BatchedSignals) -> np.ndarray:
    """The phase that lets most standing vehicles go; the present one among equals."""
    phases = []
    for light in env.world.lights:
        halting = np.array([env.world.sumo.lane.getLastStepHaltingNumber(lane) for lane in light.lanes])
        served = light.served @ halting
        present = env.world.signals[light.name].green_phase
        phases.append(present if served[present] == served.max() else int(served.argmax()))
    return np.array([phases])


def by_name(name: str, seed: int = 0) -> ScriptedPolicy:
    """`fixed` (the net's programs), `fixed:SECONDS,SECONDS...`, `greedy` or `random`; ValueError otherwise."""
    kind, _, times = name.partition(":")
    if kind == "fixed":
        try:
            shown_s = [float(part) for part in times.split(",")] if times else None
        except ValueError:
            shown_s = []
        if shown_s is None or (shown_s and all(0 < time_s < np.inf for time_s in shown_s)):
            return fixed(shown_s)
        raise ValueError(f"--driver {name} needs seconds for each phase, as in fixed:25,15,10,10")
    known = {"greedy": greedy, "random": random(seed)}
    if name not in known:
        raise ValueError(f"--driver {name} is unknown: use {', '.join(known)}, fixed or fixed:25,15,10,10")
    return known[name]
