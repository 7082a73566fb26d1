"""Cooperative games of a few steps whose best play is known: the two-step game, and the m-step game."""

from typing import Any

from rqe_mappo.envs.step_games.batched_steps import BatchedStepGame
from rqe_mappo.envs.step_games.config import SCENARIOS, MStepConfig, TwoStepConfig
from rqe_mappo.envs.step_games.env import StepGameEnv
from rqe_mappo.envs.step_games.model import step_game
from rqe_mappo.envs.tabular.env import configure

__all__ = ["SCENARIOS", "BatchedStepGame", "MStepConfig", "StepGameEnv", "TwoStepConfig", "parallel_env", "step_game"]


def parallel_env(scenario: str = "default", **overrides: Any) -> StepGameEnv:
    """The PettingZoo environment of a named scenario, single settings overridden."""
    return StepGameEnv(configure(SCENARIOS, scenario, overrides))
