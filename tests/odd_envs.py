"""Environments found by name whose agents see and do what no network takes as it is: one factory a kind."""

from functools import partial

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from pettingzoo import ParallelEnv

from tests.parallel_toy import Countdown, Echo

FEW = Box(0, 9, (2,))
MASKED = Dict({"observation": Box(0, 9, (2, 2)), "action_mask": Box(0, 1, (2,), np.int8)})

unequal = partial(
    Echo,
    {"a": Discrete(3, start=5), "b": Discrete(2, start=-1)},
    {"a": FEW, "b": Box(-9, 9, (5,), np.float64)},
)
image = partial(Echo, {"a": Discrete(2)}, {"a": Box(0, 255, (4, 4, 3), np.uint8)})
one_hot = partial(Echo, {"a": Discrete(2), "b": Discrete(2)}, {"a": Discrete(4, start=2), "b": MultiDiscrete([2, 3])})
several = partial(
    Echo,
    {"a": MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, 2]])},
    {"a": Tuple((Discrete(3), MultiBinary(3), Box(0, 1, (2, 1))))},
)
bits = partial(Echo, {"a": MultiBinary(3)}, {"a": MultiBinary((2, 2))})
nested = partial(
    Echo,
    {"a": Box(-1, 2, (2, 1), np.float64), "b": Box(0, 3, (1,))},
    {"a": Dict({"near": Discrete(3), "far": Dict({"x": Box(0, 1, (1,)), "y": Discrete(2)})}), "b": FEW},
)
masked = partial(
    Echo,
    {"a": Discrete(3, start=1), "b": Discrete(2, start=1)},
    {"a": FEW, "b": MASKED},
    {"b": [[0, 1], [1, 0], [1, 1], [1, 1]]},
)

goal = partial(Echo, {"a": Discrete(2)}, {"a": Dict({"achieved": Box(0, 1, (2,)), "desired": Box(0, 1, (2,))})})

KINDS = ("unequal", "image", "one_hot", "several", "bits", "nested", "masked", "goal")


class Endless(ParallelEnv):
    """One agent, rewards of 1, and no end."""

    possible_agents = ("a",)
    metadata = {"name": "endless_v0"}  # noqa: RUF012
    steps = 0

    def observation_space(self, agent):
        return FEW

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents = ["a"]
        return {"a": np.zeros(2, np.float32)}, {"a": {}}

    def step(self, actions):
        Endless.steps += 1
        return {"a": np.zeros(2, np.float32)}, {"a": 1.0}, {"a": False}, {"a": False}, {"a": {}}


class Fading(Countdown):
    """Gives no rewards any more after 400 steps, of all copies together."""

    steps = 0

    def step(self, actions):
        seen, rewards, *rest = super().step(actions)
        Fading.steps += 1
        return seen, dict.fromkeys(rewards) if Fading.steps > 400 else rewards, *rest
