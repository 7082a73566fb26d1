"""Two cars that drive to a goal together, faster than the limit at their own risk."""

from typing import Any

from rqe_mappo.envs.macf.batched_cars import BatchedCars
from rqe_mappo.envs.macf.config import SCENARIOS, CarFollowingConfig
from rqe_mappo.envs.macf.env import CarFollowingEnv
from rqe_mappo.envs.tabular.env import configure

__all__ = ["SCENARIOS", "BatchedCars", "CarFollowingConfig", "CarFollowingEnv", "parallel_env"]


def parallel_env(scenario: str = "default", **overrides: Any) -> CarFollowingEnv:
    """The PettingZoo environment of a named scenario, single settings of `CarFollowingConfig` overridden."""
    return CarFollowingEnv(configure(SCENARIOS, scenario, overrides))
