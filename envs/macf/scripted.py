"""Scripted policies: what can be reached without learning."""

from collections.abc import Callable

import numpy as np

from rqe_mappo.envs.macf.batched_cars import BatchedCars
from rqe_mappo.envs.macf.config import CarFollowingConfig
from rqe_mappo.envs.macf.dynamics import (
    ACTIONS,
    ARRIVAL_REWARD,
    BOTH_REWARD,
    CARS,
    CRASH_RATE,
    GOAL,
    SPEED_LIMIT,
    STEP_S,
    TOP_SPEED,
)

HARD, HARDEST = 0.92, 0.95  # 1 / s^2; the strongest action is -1, and nothing would be left to correct errors with
UNITS, SPEEDS = 4200, 210  # from rest, positions are multiples of 1 / 4200 and speeds of 1 / 210 below the top speed
REACH = 41  # of these units around the goal: 42 are 0.01, at which rounding would decide who has arrived
ScriptedPolicy = Callable[[BatchedCars], np.ndarray]
"""Actions int64 `[E, 2]` for the present state of an environment."""


def cruise(cap: float, braking: float = HARD) -> ScriptedPolicy:
    """Each car drives at the speed `cap` and brakes into the goal.

    Its action is nearest to the acceleration that leads to min(cap, sqrt(2 braking d)) within a step, d what would be
    left to the goal after a step at its present speed.
    """

    def policy(env: BatchedCars) -> np.ndarray:
        x, v = env.dynamics.x, env.dynamics.v
        left = np.maximum(GOAL - x - v * STEP_S, 0)
        wanted = (np.minimum(cap, np.sqrt(2 * braking * left)) - v) / STEP_S
        return np.rint((wanted + 1) * ACTIONS / 2).clip(0, ACTIONS - 1).astype(np.int64)

    return policy


def plan(cap: float) -> ScriptedPolicy:
    """The best mean return of two cars that move alike, never reverse and never exceed `cap`, below the top speed."""
    best: dict[CarFollowingConfig, np.ndarray] = {}

    def policy(env: BatchedCars) -> np.ndarray:
        if env.config not in best:
            best[env.config] = planned(env.config, cap)[1]
        actions = best[env.config]
        place = np.rint(env.dynamics.x * UNITS), np.rint(env.dynamics.v * SPEEDS)
        x, v = (part.astype(int).clip(0, size - 1) for part, size in zip(place, actions.shape, strict=True))
        return actions[x, v].astype(np.int64)

    return policy


def planned(config: CarFollowingConfig, cap: float) -> tuple[float, np.ndarray]:
    """The mean return of `plan` without a time limit, exact, and its actions by position and speed, int8 `[X, V]`.

    Backward induction from the goal: action k leads from speed m / 210 to m' / 210, m' = m + 2 k - 21, and from
    position x / 4200 to (x + m + m') / 4200. Cars that move alike have the same x and v, and each its own chance.
    """
    goal, fastest = round(GOAL * UNITS), int(min(cap, TOP_SPEED - 1 / SPEEDS) * SPEEDS + 1e-9)
    v = np.arange(fastest + 1)
    risk = CRASH_RATE * np.maximum(v / SPEEDS - SPEED_LIMIT, 0)
    goes_on = (1 - risk) ** CARS if config.crash_ends else np.ones(len(v))
    to = v[:, None] + 2 * np.arange(ACTIONS) - ACTIONS
    allowed, to = (to >= 0) & (to <= fastest), to.clip(0, fastest)
    moved = v[:, None] + to
    last = goal + REACH
    worth = np.full((last + 1, len(v)), -np.inf)  # of a step that ends there, and of what follows
    actions = np.zeros(worth.shape, np.int8)
    value = np.zeros(len(v))
    for x in range(last, -1, -1):
        paid = -CARS * (abs(x - goal) / UNITS + config.crash_cost * risk)
        if x >= goal - REACH:
            worth[x] = paid + ARRIVAL_REWARD * CARS + BOTH_REWARD
            continue
        there = np.minimum(x + moved, last)
        options = np.where(allowed & (x + moved <= last), worth[there, to], -np.inf)
        actions[x], value = options.argmax(1), options.max(1)
        worth[x] = paid + goes_on * value
    return float(value[0]), actions


def by_name(name: str, seed: int = 0) -> ScriptedPolicy:
    """`cruise:CAP`, `cruise:CAP,BRAKING`, `plan:CAP` or `random`; ValueError otherwise."""
    if name == "random":
        rng = np.random.default_rng(seed)
        return lambda env: rng.integers(0, ACTIONS, (env.num_envs, CARS))
    kind, _, given = name.partition(":")
    if kind not in ("cruise", "plan"):
        raise ValueError(f"--driver {name} is unknown: use random, cruise:CAP, cruise:CAP,BRAKING or plan:CAP")
    cap, comma, braking = given.partition(",")
    speed = _number(cap)
    if not 0 < speed <= TOP_SPEED or (comma and kind == "plan"):
        raise ValueError(f"--driver {name} needs a speed of at most {TOP_SPEED}, such as {kind}:1.2")
    if kind == "plan":
        return plan(speed)
    deceleration = _number(braking) if comma else HARD
    if not 0 < deceleration <= HARDEST:
        raise ValueError(f"--driver {name} needs a braking of at most {HARDEST}, such as cruise:1.2,0.6")
    return cruise(speed, deceleration)


def _number(text: str) -> float:
    """NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return np.nan
