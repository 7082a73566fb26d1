"""Reference controllers: policies that nobody trained, usable wherever a trained one is.

Each is called with a `BatchedSignals` and gives phases `[1, A]`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rqe_mappo.envs.sumo_signals.batched import BatchedSignals

Controller = Callable[[BatchedSignals], np.ndarray]


def random(seed: int) -> Controller:
    """Uniform phases."""
    rng = np.random.default_rng(seed)
    return lambda env: rng.integers(0, env.action_space.counts)[None]


def fixed(shown_s: Sequence[float] | None = None) -> Controller:
    """Phases in turn, whatever comes, each for its time in `shown_s`, or as long as the net's own program shows it.

    Times include yellow and are rounded up to whole decisions; with several lights they are those of each. Nothing is
    coordinated between lights: all cycles begin with the episode.
    """

    def choose(env: BatchedSignals) -> np.ndarray:
        phases = []
        for light in env.world.lights:
            times = light.green_s if shown_s is None else shown_s
            ends = np.cumsum(np.ceil(np.divide(times, env.config.delta_time_s)))
            phases.append(int(np.searchsorted(ends, env.decisions % ends[-1], side="right")))
        return np.array([phases])

    return choose


def greedy(env: BatchedSignals) -> np.ndarray:
    """The phase that lets most standing vehicles go; the present one among equals."""
    phases = []
    for light in env.world.lights:
        halting = np.array([env.world.sumo.lane.getLastStepHaltingNumber(lane) for lane in light.lanes])
        served = light.served @ halting
        present = env.world.traffic_signals[light.name].green_phase
        phases.append(present if served[present] == served.max() else int(served.argmax()))
    return np.array([phases])
