"""Vehicles at an unsignalised intersection in SUMO, where collisions are real."""

from rqe_mappo.envs.sumo_intersection.batched import BatchedIntersection
from rqe_mappo.envs.sumo_intersection.config import SCENARIOS, IntersectionConfig

__all__ = ["SCENARIOS", "BatchedIntersection", "IntersectionConfig"]
