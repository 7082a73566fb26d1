"""Risky CartPole: the windy side of the track pays more. Importing this registers `rqe/RiskyCartPole-v0`."""

import gymnasium

from rqe_mappo.envs.risky_cartpole.batched_cartpole import BatchedRiskyCartPole
from rqe_mappo.envs.risky_cartpole.config import SCENARIOS, RiskyCartPoleConfig
from rqe_mappo.envs.risky_cartpole.env import RiskyCartPoleEnv, RiskyCartPoleVectorEnv

gymnasium.register(
    "rqe/RiskyCartPole-v0",
    entry_point="rqe_mappo.envs.risky_cartpole.env:RiskyCartPoleEnv",
    vector_entry_point="rqe_mappo.envs.risky_cartpole.env:RiskyCartPoleVectorEnv",
)

__all__ = [
    "SCENARIOS",
    "BatchedRiskyCartPole",
    "RiskyCartPoleConfig",
    "RiskyCartPoleEnv",
    "RiskyCartPoleVectorEnv",
]
