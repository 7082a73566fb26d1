"""Multi-agent car following as a PettingZoo parallel environment."""

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from pettingzoo import ParallelEnv

from rqe_mappo.envs.macf.config import CarFollowingConfig
from rqe_mappo.envs.macf.dynamics import ACTIONS, CARS, CarFollowingDynamics


class CarFollowingEnv(ParallelEnv):
    """Two cars start at 0 and drive to the goal at 2.5, near each other; speeding is paid for by chance.

    The game "MACF" of RiskQ (Shen et al., arXiv 2311.01753), after the authors' release.

    **Action**: Discrete(21): action k accelerates by -1 + 2 k / 21, so that neither 0 nor 1 is among them.

    **A step** is 0.1 s of constant acceleration. A car that would reach the top speed 1.8 accelerates until then, for a
    time that is rounded to 0.01 s, and goes on at 1.8. Cars may reverse, and drive past the goal. A car that ends a
    step less than 0.01 from the goal, at whatever speed, has arrived: in the steps that follow it stands at 2.5.

    **Reward**, the same for both: -1 less the distances of both cars from the goal; +1 where the cars are at most 0.3
    apart; +5 for each car that arrives; +10 when both have. And each car whose speed v is beyond 1 has a crash with
    probability 0.4 (v - 1), at most 0.32, each of which costs `crash_cost`. Cars that reverse have none.

    **Observation**: x and v of `car_0`, then of `car_1`; zeros for the other car where it is more than 0.3 away; with
    `observe_time` the time left, 1 to 0: float32 `[4 (+ 1)]`, in the units of the game.

    **State**, a row a car and the same for both: x and v of `car_0`, then of `car_1`, and the time left likewise.

    **End**: both cars terminate when both have arrived and, with `crash_ends`, at a crash. Truncated after `horizon`
    steps. A car that has arrived goes on acting, without effect, until then.

    **Info** of each agent, after a step: `cost`, 1.0 if the car had a crash and else 0.0.

    Ours: seeds, the time limit as a truncation (the release ends there for good), and `crash_ends`.
    """

    metadata = {  # noqa: RUF012  (as PettingZoo declares it)
        "name": "macf_v0",
        "render_modes": [],
        "common_reward": True,
    }

    def __init__(self, config: CarFollowingConfig | None = None):
        self.config = config or CarFollowingConfig()
        self.dynamics = CarFollowingDynamics(self.config, 1)
        self.possible_agents = [f"car_{i}" for i in range(CARS)]
        self.agents: list[str] = []
        self.render_mode = None
        space = self.dynamics.space
        self.state_space = Box(np.tile(space.low, (CARS, 1)), np.tile(space.high, (CARS, 1)))
        self.actions = {agent: Discrete(ACTIONS) for agent in self.possible_agents}
        self.observations = dict.fromkeys(self.possible_agents, space)
        self.rng = np.random.default_rng()

    def observation_space(self, agent: str) -> Space:
        return self.observations[agent]

    def action_space(self, agent: str) -> Space:
        return self.actions[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode; without a seed the random numbers go on where they are."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.dynamics.reset()
        self.agents = self.possible_agents[:]
        return self._shown(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """One decision of both cars; ValueError if one is missing or does not exist."""
        acting = self.agents
        if missing := [agent for agent in acting if agent not in actions]:
            raise ValueError(f"step() needs an action for every agent in env.agents (missing: {', '.join(missing)})")
        if not acting:
            return {}, {}, {}, {}, {}
        moved = self.dynamics.step(np.array([[actions[agent] for agent in acting]]), self.rng)
        rewards = dict.fromkeys(acting, float(moved.reward[0]))
        terminated = dict.fromkeys(acting, bool(moved.terminated[0]))
        truncated = dict.fromkeys(acting, bool(moved.truncated[0]))
        infos = {agent: {"cost": float(crashed)} for agent, crashed in zip(acting, moved.crashed[0], strict=True)}
        if moved.terminated[0] or moved.truncated[0]:
            self.agents = []
        return self._shown(), rewards, terminated, truncated, infos

    def _shown(self) -> dict[str, np.ndarray]:
        return dict(zip(self.possible_agents, self.dynamics.obs()[0], strict=True))

    def state(self) -> np.ndarray:
        """What a centralised critic takes; see the class."""
        return self.dynamics.state()[0]
