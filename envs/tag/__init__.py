"""Chasers that catch faster prey on a plane: simple_tag of the multi-agent particle environments, in arrays."""

from typing import Any

from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.tabular.env import configure
from rqe_mappo.envs.tag.config import SCENARIOS, TagConfig
from rqe_mappo.envs.tag.dynamics import Tag
from rqe_mappo.envs.tag.env import TagEnv

__all__ = ["SCENARIOS", "Tag", "TagConfig", "TagEnv", "batched_tag", "parallel_env"]


def batched_tag(config: TagConfig, num_envs: int) -> BatchedFixedLength:
    """`num_envs` games stepped as one. Array contents as in `TagEnv`."""
    return BatchedFixedLength(Tag(config, num_envs))


def parallel_env(scenario: str = "default", **overrides: Any) -> TagEnv:
    """The PettingZoo environment of a named scenario, single settings of `TagConfig` overridden."""
    return TagEnv(configure(SCENARIOS, scenario, overrides))
