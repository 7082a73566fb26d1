"""Environments of other packages: any PettingZoo parallel or Gymnasium environment, by its name or its factory."""

from rqe_mappo.envs.by_name.batched_copies import BatchedCopies
from rqe_mappo.envs.by_name.config import ByNameConfig
from rqe_mappo.envs.by_name.sources import batched_from, make

__all__ = ["SCENARIOS", "BatchedCopies", "ByNameConfig", "batched_from", "make"]

SCENARIOS = {"default": ByNameConfig()}
