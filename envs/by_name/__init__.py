"""Environments of other packages by their name: any PettingZoo parallel environment, any Gymnasium environment."""

from rqe_mappo.envs.by_name.batched_by_name import BatchedByName
from rqe_mappo.envs.by_name.config import ByNameConfig

__all__ = ["SCENARIOS", "BatchedByName", "ByNameConfig"]

SCENARIOS = {"default": ByNameConfig()}
