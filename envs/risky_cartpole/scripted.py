"""Scripted policies: what can be reached without learning."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_discrete_are

from rqe_mappo.envs.risky_cartpole.batched_cartpole import BatchedRiskyCartPole
from rqe_mappo.envs.risky_cartpole.dynamics import GRAVITY, HALF_POLE_M, POLE_KG, STEP_S, TOTAL_KG, X_LIMIT_M

POSITION_ERROR_M = 0.6  # a larger error would need a tilt at which the pole falls
ScriptedPolicy = Callable[[BatchedRiskyCartPole], np.ndarray]
"""Actions int64 `[E, 1]` for the present state of an environment."""


def lqr_gain() -> np.ndarray:
    """The gain K `[4]` of the linear-quadratic regulator about the upright rest, force u = -K z in N.

    Minimises the sum of z' diag(1, .1, 10, .1) z + .01 u^2 for the Euler discretisation of the linearised cart-pole,
    z = (x, x_dot, theta, theta_dot) in SI units.
    """
    pole = POLE_KG * HALF_POLE_M
    inertia_m = HALF_POLE_M * (4 / 3 - POLE_KG / TOTAL_KG)
    per_theta = GRAVITY / inertia_m
    per_force = -1 / (TOTAL_KG * inertia_m)
    a, b = np.eye(4), np.zeros((4, 1))
    a[0, 1] = a[2, 3] = STEP_S
    a[1, 2], a[3, 2] = -STEP_S * pole * per_theta / TOTAL_KG, STEP_S * per_theta
    b[1, 0], b[3, 0] = STEP_S * (1 - pole * per_force) / TOTAL_KG, STEP_S * per_force
    r = np.array([[0.01]])
    p = solve_discrete_are(a, b, np.diag([1, 0.1, 10, 0.1]), r)
    return np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)[0]


def lqr(setpoint_m: float) -> ScriptedPolicy:
    """Holds the cart at `setpoint_m`: full push with the sign of the LQR's force; it ignores the wind."""
    gain = lqr_gain()

    def policy(env: BatchedRiskyCartPole) -> np.ndarray:
        z = env.dynamics.values[:4].copy()
        z[0] = np.clip(z[0] - setpoint_m, -POSITION_ERROR_M, POSITION_ERROR_M)
        return (gain @ z < 0).astype(np.int64)[:, None]

    return policy


def by_name(name: str, seed: int = 0) -> ScriptedPolicy:
    """`lqr:SETPOINT_M` or `random`; ValueError otherwise."""
    if name == "random":
        rng = np.random.default_rng(seed)
        return lambda env: rng.integers(0, 2, (env.num_envs, 1))
    kind, _, setpoint = name.partition(":")
    if kind != "lqr":
        raise ValueError(f"--driver {name} is unknown: use random, or lqr:SETPOINT such as lqr:-0.1")
    try:
        position_m = float(setpoint)
    except ValueError:
        position_m = np.nan
    if not abs(position_m) <= X_LIMIT_M:
        raise ValueError(f"--driver {name} needs a position from -{X_LIMIT_M} to {X_LIMIT_M} m, such as lqr:-0.1")
    return lqr(position_m)


def first_episodes(env: BatchedRiskyCartPole, policy: ScriptedPolicy, seed: int) -> dict[str, np.ndarray]:
    """The record of each copy's first episode under `policy`, every entry `[E]` in the order of the copies.

    One episode a copy: what ends within a time window would count short episodes too often.
    """
    env.reset(seed)
    parts = []
    waiting = np.ones(env.num_envs, bool)
    while waiting.any():
        ended = env.step(policy(env)).episodes
        new = waiting[ended["copy"]]
        parts.append({key: value[new].reshape(-1) for key, value in ended.items()})
        waiting[ended["copy"]] = False
    records = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = records["copy"].argsort()
    return {key: value[order] for key, value in records.items()}
