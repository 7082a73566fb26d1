"""Predators that catch prey only together, on a grid."""

from typing import Any

from rqe_mappo.envs.predator_prey.batched_predators import BatchedPredators
from rqe_mappo.envs.predator_prey.config import SCENARIOS, PredatorPreyConfig
from rqe_mappo.envs.predator_prey.env import PredatorPreyEnv
from rqe_mappo.envs.tabular.env import configure

__all__ = ["SCENARIOS", "BatchedPredators", "PredatorPreyConfig", "PredatorPreyEnv", "parallel_env"]


def parallel_env(scenario: str = "default", **overrides: Any) -> PredatorPreyEnv:
    """The PettingZoo environment of a named scenario, single settings of `PredatorPreyConfig` overridden."""
    return PredatorPreyEnv(configure(SCENARIOS, scenario, overrides))
