"""Finite Markov games: one model, read by a sampler for learning and by exact computations."""

from rqe_mappo.envs.tabular.batched_tabular import BatchedTabular
from rqe_mappo.envs.tabular.exact import joint_policy, nested_values, return_bounds, return_distribution
from rqe_mappo.envs.tabular.model import FiniteGame

__all__ = ["BatchedTabular", "FiniteGame", "joint_policy", "nested_values", "return_bounds", "return_distribution"]
