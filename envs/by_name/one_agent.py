"""A Gymnasium environment as a PettingZoo one."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

from rqe_mappo.spaces import MASK


class Malformed(ValueError):
    """What a method gives is not what Gymnasium asks for."""


def parts_of(given: Any, method: str, parts: str) -> Any:
    """What a method gave, if it is as many values as Gymnasium asks for."""
    count = len(given) if isinstance(given, tuple | list) else 1
    if count != parts.count(",") + 1:
        raise Malformed(f"{method}() must give {parts}, as Gymnasium asks for (got {count} values)")
    return given


def _any(flag: Any) -> bool:
    """As `np.any`, which takes longer than a step of CartPole does."""
    return flag if isinstance(flag, bool) else bool(np.any(flag))


class OneAgent(ParallelEnv):
    """A Gymnasium environment whose only agent is `agent`.

    reset() and step() raise `Malformed` where it gives too few or too many values, as before Gym 0.26. The masks of an
    environment that has a method `action_masks`, as sb3-contrib asks for, are put into its infos.
    """

    def __init__(self, env: gymnasium.Env):
        self.env = env
        self.possible_agents = ["agent"]
        self.agents: list[str] = []
        self.metadata = env.metadata
        self.masks = env.get_wrapper_attr("action_masks") if env.has_wrapper_attr("action_masks") else None

    def _info(self, info: Any) -> Any:
        if self.masks is None or not isinstance(info, Mapping | None) or (info and MASK in info):
            return info
        return {**(info or {}), MASK: self.masks()}

    def observation_space(self, agent: str) -> gymnasium.Space:
        return self.env.observation_space

    def action_space(self, agent: str) -> gymnasium.Space:
        return self.env.action_space

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        obs, info = parts_of(self.env.reset(seed=seed, options=options), "reset", "observation, info")
        self.agents = ["agent"]
        return {"agent": obs}, {"agent": self._info(info)}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        given = parts_of(self.env.step(actions["agent"]), "step", "observation, reward, terminated, truncated, info")
        obs, reward, terminated, truncated, info = given
        if _any(terminated) or _any(truncated):  # of what is no flag, `Copy` complains
            self.agents = []
        seen, earned, info = {"agent": obs}, {"agent": reward}, {"agent": self._info(info)}
        return seen, earned, {"agent": terminated}, {"agent": truncated}, info

    def close(self) -> None:
        self.env.close()
