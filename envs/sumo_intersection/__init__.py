"""Vehicles at an unsignalised intersection in SUMO, where collisions are real."""

from dataclasses import replace
from typing import Any

from pettingzoo import ParallelEnv

from rqe_mappo.envs.sumo_intersection.batched_intersection import BatchedIntersection
from rqe_mappo.envs.sumo_intersection.config import SCENARIOS, IntersectionConfig
from rqe_mappo.envs.sumo_intersection.env import IntersectionEnv
from rqe_mappo.envs.sumo_intersection.process import IntersectionProcess

__all__ = [
    "SCENARIOS",
    "BatchedIntersection",
    "IntersectionConfig",
    "IntersectionEnv",
    "IntersectionProcess",
    "parallel_env",
]


def parallel_env(
    scenario: str = "default", own_process: bool = False, render_mode: str | None = None, **overrides: Any
) -> ParallelEnv:
    """The PettingZoo environment of a named scenario, single settings of `IntersectionConfig` overridden.

    own_process: keep the simulation in a separate process; libsumo allows one per process.
    render_mode: "rgb_array" lets render() draw.
    """
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario {scenario!r} is unknown: use {', '.join(SCENARIOS)}")
    config = replace(SCENARIOS[scenario], **overrides)
    return (IntersectionProcess if own_process else IntersectionEnv)(config, render_mode)
