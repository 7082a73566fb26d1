"""Cooks who share what is delivered, and pay for their own steps."""

from typing import Any

from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.kitchen.config import SCENARIOS, KitchenConfig
from rqe_mappo.envs.kitchen.dynamics import Kitchen
from rqe_mappo.envs.kitchen.env import KitchenEnv
from rqe_mappo.envs.tabular.env import configure

__all__ = ["SCENARIOS", "Kitchen", "KitchenConfig", "KitchenEnv", "batched_kitchen", "parallel_env"]


def batched_kitchen(config: KitchenConfig, num_envs: int) -> BatchedFixedLength:
    """`num_envs` kitchens stepped as one. Array contents as in `KitchenEnv`."""
    return BatchedFixedLength(Kitchen(config, num_envs))


def parallel_env(scenario: str = "default", **overrides: Any) -> KitchenEnv:
    """The PettingZoo environment of a named scenario, single settings of `KitchenConfig` overridden."""
    return KitchenEnv(configure(SCENARIOS, scenario, overrides))
