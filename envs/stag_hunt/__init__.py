"""Two hunters who carry stags or hares to each other."""

from typing import Any

from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.stag_hunt.config import SCENARIOS, StagHuntConfig
from rqe_mappo.envs.stag_hunt.dynamics import StagHunt
from rqe_mappo.envs.stag_hunt.env import StagHuntEnv
from rqe_mappo.envs.tabular.env import configure

__all__ = ["SCENARIOS", "StagHunt", "StagHuntConfig", "StagHuntEnv", "batched_hunt", "parallel_env"]


def batched_hunt(config: StagHuntConfig, num_envs: int) -> BatchedFixedLength:
    """`num_envs` hunts stepped as one. Array contents as in `StagHuntEnv`."""
    return BatchedFixedLength(StagHunt(config, num_envs))


def parallel_env(scenario: str = "default", **overrides: Any) -> StagHuntEnv:
    """The PettingZoo environment of a named scenario, single settings of `StagHuntConfig` overridden."""
    return StagHuntEnv(configure(SCENARIOS, scenario, overrides))
