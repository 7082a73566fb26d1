"""Scripted policies, usable wherever a trained one is.

Each is called with a `BatchedIntersection` and gives actions `[K, n_agents]`; they see what agents see, noise included.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np

from rqe_mappo.envs.sumo_intersection.batched_intersection import BatchedIntersection
from rqe_mappo.envs.sumo_intersection.dynamics import SUMO_DRIVES

HARD, BRAKE, KEEP, GO = range(4)
ScriptedPolicy = Callable[[BatchedIntersection], np.ndarray]


def always_go(env: BatchedIntersection) -> np.ndarray:
    """Always the highest acceleration."""
    return np.full(env.active.shape, GO)


def sumo(env: BatchedIntersection) -> np.ndarray:
    """SUMO's driver model: right of way, perfect perception, dry roads. A reference, not a fair competitor."""
    return np.full(env.active.shape, SUMO_DRIVES)


def random(seed: int) -> ScriptedPolicy:
    """Uniform actions."""
    rng = np.random.default_rng(seed)
    return lambda env: rng.integers(0, 4, env.active.shape)


def caution(level: float, patience_s: float = 2.0) -> ScriptedPolicy:
    """First come, first served with gap acceptance; `level` in [0, 1] sets gaps, approach speed and braking.

    From 0 to 1 the accepted gap grows from 0 to 3 s, the approach speed falls from 11 to 5 m/s, braking starts earlier
    and softer, and the stop lies farther before the conflict. An agent that waited `patience_s` goes before a standing
    background vehicle.
    """
    gap_s, speed_cap = 3.0 * level, 11.0 - 6.0 * level
    soft, hard, lead_m = 2.6 - 2.1 * level, 5.0 - 2.5 * level, 1.0 + 2.0 * level
    arrived: WeakKeyDictionary[BatchedIntersection, np.ndarray] = WeakKeyDictionary()

    def drive(env: BatchedIntersection) -> np.ndarray:
        world, seen, n = env.world, env.perceived, env.config.n_agents
        rank = arrived.setdefault(env, np.full(world.pos_m.shape, np.inf))
        rank[world.time_s == 0] = np.inf
        index = np.arange(world.pos_m.shape[1])
        near = (world.pos_m > -12) & np.isinf(rank)
        turn = world.time_s[:, None] + 1e-3 * index - 0.01 * np.maximum(world.pos_m + 12, 0)
        rank[near] = turn[near]
        order = np.where(np.isinf(rank), 1e5 + np.maximum(-world.pos_m, 0), rank)
        ahead = order[:, None] < order[:, :n, None]
        background = (index >= n)[None, None]

        speed = world.speed_mps[:, :n, None]

        def time_to(distance: np.ndarray) -> np.ndarray:
            distance = np.maximum(distance, 0)
            from_standstill = (-speed + np.sqrt(speed**2 + 4.4 * distance)) / 2.2
            return np.where(speed < 4, from_standstill, distance / np.maximum(speed, 4))

        own_in, own_out = time_to(seen.own_in_m), time_to(seen.own_out_m)
        their_speed = np.maximum(seen.speed_mps, 0.3)
        other_in, other_out = np.maximum(seen.other_in_m, 0) / their_speed, seen.other_out_m / their_speed
        conflict = seen.seen & (own_in - gap_s < other_out) & (other_in - gap_s < own_out)
        if level > 0:  # those before us in the queue may speed up
            soon = np.maximum(seen.other_in_m, 0) / np.maximum(seen.speed_mps, 6) < own_out + gap_s
            conflict |= seen.seen & ahead & ~background & soon & (seen.other_in_m < 25)
        inside = (seen.other_in_m < 0.5) & (seen.other_out_m > 0)
        stands = (
            background & (seen.speed_mps < 0.8) & (seen.other_in_m > 0) & (env.world.waited_s[..., None] > patience_s)
        )
        yields = conflict & (seen.own_in_m > 0.5) & ((~stands & (ahead | background)) | inside)

        distance = np.where(yields, seen.own_in_m - lead_m, np.inf).min(-1)
        own_speed = speed[..., 0]
        needed = own_speed**2 / (2 * np.maximum(distance, 0.3))
        action = np.full(env.active.shape, GO)
        must = np.isfinite(distance)
        action[must & (needed > 0.4 * soft)] = KEEP
        action[must & (needed > soft)] = BRAKE
        action[must & (needed > hard)] = HARD
        action[must & (distance < 2) & (own_speed < 1.5)] = BRAKE
        pos = world.pos_m[:, :n]
        approaching = (seen.seen & (seen.other_in_m < 45)).any(-1) & (pos < 2) & (pos > -35)
        action[approaching & (own_speed > speed_cap) & (action > BRAKE)] = BRAKE
        action[approaching & (own_speed > speed_cap - 0.7) & (action == GO)] = KEEP
        return action

    return drive


def by_name(name: str, seed: int = 0) -> ScriptedPolicy:
    """`always-go`, `random`, `caution:LEVEL` or `sumo`; ValueError otherwise."""
    if name.startswith("caution:"):
        try:
            level = float(name.removeprefix("caution:"))
        except ValueError:
            level = np.nan
        if not 0 <= level <= 1:
            raise ValueError(f"--driver {name} needs a level from 0 to 1, such as caution:0.5")
        return caution(level)
    known = {"always-go": always_go, "random": random(seed), "sumo": sumo}
    if name not in known:
        raise ValueError(f"--driver {name} is unknown: use {', '.join(known)} or caution:0.5")
    return known[name]
