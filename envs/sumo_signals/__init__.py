"""Traffic lights through sumo-rl: one or many lights as agents, and what they do to the waiting of every trip."""

from dataclasses import replace
from typing import Any

from pettingzoo import ParallelEnv

from rqe_mappo.envs.sumo_signals.batched_signals import BatchedSignals
from rqe_mappo.envs.sumo_signals.config import SCENARIOS, SignalsConfig
from rqe_mappo.envs.sumo_signals.env import SignalsEnv
from rqe_mappo.envs.sumo_signals.nets import NETS

__all__ = ["NETS", "SCENARIOS", "BatchedSignals", "SignalsConfig", "SignalsEnv", "parallel_env"]


def parallel_env(scenario: str = "default", **overrides: Any) -> ParallelEnv:
    """The PettingZoo environment of a named scenario, single settings of `SignalsConfig` overridden."""
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario {scenario!r} is unknown: use {', '.join(SCENARIOS)}")
    return SignalsEnv(replace(SCENARIOS[scenario], **overrides))
