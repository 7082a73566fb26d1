"""A small PettingZoo environment that gives what is not finite at a chosen step.

`--env pettingzoo:benchmarks.faults.poisoned`;
POISON in the environment of the process says what, and when: `observation nan 100`.
"""

import os

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

HORIZON = 10
TRIED = 300  # steps that the first copy may play before the run begins, to learn the bounds of rewards
FROM_DOUBLE = 1e39  # finite, but not in single precision


class Poisoned(ParallelEnv):
    """Two agents that guess; every episode has ten steps. Steps are counted over all episodes of a copy.

    The first copy counts from its 300th on, so that the poison comes when the run has begun.
    """

    metadata = {"name": "poisoned"}  # noqa: RUF012 (PettingZoo's way)
    possible_agents = ["one", "two"]  # noqa: RUF012

    made = 0

    def __init__(self, render_mode=None):
        self.render_mode, self.steps = render_mode, 0
        what, value, at = os.environ.get("POISON", "nothing nan 0").split()
        self.what, self.value, self.at = what, float(value), int(at) + TRIED * (Poisoned.made == 0)
        Poisoned.made += 1
        self.rng = np.random.default_rng(0)

    def observation_space(self, agent):
        return Box(-np.inf, np.inf, (3,), np.float64)

    def action_space(self, agent):
        return Discrete(2)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.steps += 1
        self.time += 1
        ended = self.time == HORIZON
        rewards = {agent: float(action) for agent, action in actions.items()}
        observations = self._observations()
        due = ended and self.steps >= self.at if self.what == "final" else self.steps == self.at
        if due and self.what == "reward":
            rewards["two"] = self.value
        elif due and self.what != "nothing":
            observations["two"][1] = self.value
        result = (
            observations,
            rewards,
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, ended),
            {agent: {} for agent in self.agents},
        )
        if ended:
            self.agents = []
        return result

    def _observations(self):
        return {agent: self.rng.random(3) for agent in self.agents}


def parallel_env(**settings):
    return Poisoned(**settings)
