"""Rewards in seconds of travel, pure functions of arrays `[K, n_agents]`."""

import numpy as np

from rqe_mappo.envs.sumo_intersection.config import IntersectionConfig
from rqe_mappo.envs.sumo_intersection.dynamics import HARD_BRAKE_MPS2

MOVING_MPS = 1.0  # below this speed braking does not count as hard


def braked_hard(accel_mps2: np.ndarray, speed_mps: np.ndarray) -> np.ndarray:
    """Who braked harder than 4 m/s2 and still moves."""
    return (accel_mps2 < HARD_BRAKE_MPS2) & (speed_mps > MOVING_MPS)


def rewards(
    config: IntersectionConfig, acted: np.ndarray, crashed: np.ndarray, braked: np.ndarray, hit_agents: np.ndarray
) -> np.ndarray:
    """`-time_cost * decision_s` while on the way, `-collision_cost` on a crash, `-hard_brake_cost` on a hard brake.

    hit_agents: int, other agents in the crash; for each `-blame * collision_cost` more.
    """
    cost = config.time_cost * config.decision_s * acted
    crash = config.collision_cost * (crashed + config.blame * hit_agents)
    return -(cost + crash + config.hard_brake_cost * braked)
