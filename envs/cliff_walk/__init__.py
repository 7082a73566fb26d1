"""The two-agent cliff walk of the RQE literature."""

from typing import Any

from rqe_mappo.envs.cliff_walk.batched_cliff import BatchedCliff
from rqe_mappo.envs.cliff_walk.config import SCENARIOS, CliffConfig
from rqe_mappo.envs.cliff_walk.env import CliffEnv
from rqe_mappo.envs.cliff_walk.model import cliff_game
from rqe_mappo.envs.tabular.env import configure

__all__ = ["SCENARIOS", "BatchedCliff", "CliffConfig", "CliffEnv", "cliff_game", "parallel_env"]


def parallel_env(scenario: str = "default", **overrides: Any) -> CliffEnv:
    """The PettingZoo environment of a named scenario, single settings of `CliffConfig` overridden."""
    return CliffEnv(configure(SCENARIOS, scenario, overrides))
