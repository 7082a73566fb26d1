"""The traffic lights as a PettingZoo parallel environment."""

import secrets
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

from rqe_mappo.envs.sumo_signals import observation
from rqe_mappo.envs.sumo_signals.batched_signals import BatchedSignals
from rqe_mappo.envs.sumo_signals.config import SignalsConfig


class SignalsEnv(ParallelEnv):
    """Traffic lights of a network, each an agent that chooses its next green phase every `delta_time_s` seconds.

    SUMO drives the vehicles; lights keep sumo-rl's rules, with `yellow_time_s` of yellow at each change and at
    least `min_green_s` of green, before which a light keeps its phase whatever it chooses.

    **Hidden from agents and critic**: SUMO's random drivers, and with `demand_spread` the scale of the episode's
    demand. Lights do not see vehicles that cannot enter a full road.

    **Action**: Discrete(green phases of the light), the phase to show next, of those of the program that SUMO runs when
    the episode begins. `config.PROGRAM` (-1) instead, in all decisions of an episode, leaves the light to its program.

    **Observation**: float32 `[3 + P + 3 L]`, P and L the most green phases and incoming lanes of any light of
    the network; columns that a light does not have are 0.

    | index | feature | unit, range |
    |---|---|---|
    | 0 | elapsed time | / `num_seconds`, 0 to 1 |
    | 1 | the phase may change | 0 or 1 |
    | 2 | time since the last change | minutes, at most 5 |
    | 3 to 2 + P | phase, the coming one during yellow | one-hot |
    | next L | vehicles on each incoming lane | / what fits on it at 7.5 m each, 0 to 1 |
    | next L | standing ones (below 0.1 m/s) | / the same, 0 to 1 |
    | next L | how long these have stood on average | minutes, at most 5 |

    **State**: float32 `[A, A (4 + P + 3 L)]`, what the centralised critic takes, a row an agent: all observations, its
    own first, each followed by the vehicles that wait outside before that light's roads (/ 20, at most 5).

    **Reward**: `reward` of `SignalsConfig`; see docs/signals.md.

    **End**: after `num_seconds` every agent is truncated: traffic would go on. No agent terminates or leaves.

    **Info** of each agent: `cost`, the number of vehicles that newly collided anywhere; at the end also the episode's
    `trips.METRICS`, of all trips.

    **Reset**: with a seed, the episode is a function of it; without one, the next of the last seed's stream.

    One simulation per process: a second open environment, of vehicles too, is refused.
    """

    metadata = {"name": "sumo_signals_v0", "render_modes": []}  # noqa: RUF012  (as PettingZoo declares it)

    def __init__(self, config: SignalsConfig | None = None):
        self.core = BatchedSignals(config or SignalsConfig())
        self.config = self.core.config
        self.possible_agents = list(self.core.possible_agents)
        self.agents: list[str] = []
        self.render_mode = None
        counts = zip(self.possible_agents, self.core.counts, strict=True)
        self.actions = {agent: Discrete(count) for agent, count in counts}
        rows = (len(self.possible_agents), *self.core.state_space.shape)
        self.state_space = Box(0.0, observation.LIMIT, rows, np.float32)
        self.seeded = False

    def observation_space(self, agent: str) -> Box:
        return self.core.observation_space

    def action_space(self, agent: str) -> Discrete:
        return self.actions[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode; see the class for what a seed does."""
        if seed is None and self.seeded:
            self.seen = self.core.begin()
        else:
            self.seen = self.core.reset(secrets.randbits(31) if seed is None else seed)
            self.seeded = True
        self.agents = self.possible_agents[:]
        return dict(zip(self.agents, self.seen.obs[0], strict=True)), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Choose phases for one decision."""
        agents = self.agents
        missing = set(agents) - set(actions)
        if missing:
            raise ValueError(
                f"step() needs an action for every agent in env.agents (missing: {', '.join(sorted(missing))})"
            )
        if not agents:
            return {}, {}, {}, {}, {}
        reward, collided = self.core.drive(np.array([int(actions[agent]) for agent in agents]))
        self.seen = self.core.observed()
        over = self.core.over
        info: dict[str, Any] = {"cost": float(collided)}
        if over:
            info |= self.core.finish()
            self.agents = []
        return (
            dict(zip(agents, self.seen.obs[0], strict=True)),
            {agent: float(value) for agent, value in zip(agents, reward, strict=True)},
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: dict(info) for agent in agents},
        )

    def state(self) -> np.ndarray:
        """What the centralised critic takes; see the class."""
        return self.seen.state[0]

    def close(self) -> None:
        self.core.close()
