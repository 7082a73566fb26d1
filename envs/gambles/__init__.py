"""Gambles whose right choice is known exactly. Importing this registers `rqe/Gamble-v0`."""

import gymnasium

from rqe_mappo.envs.gambles.batched_gamble import BatchedGamble
from rqe_mappo.envs.gambles.config import SCENARIOS, GambleConfig, PathConfig
from rqe_mappo.envs.gambles.env import GambleEnv
from rqe_mappo.envs.gambles.model import RISKY, SAFE, gamble_game

gymnasium.register("rqe/Gamble-v0", entry_point="rqe_mappo.envs.gambles.env:GambleEnv")

__all__ = ["RISKY", "SAFE", "SCENARIOS", "BatchedGamble", "GambleConfig", "GambleEnv", "PathConfig", "gamble_game"]
