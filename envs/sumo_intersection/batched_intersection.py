"""The intersection for the learner: K copies in one simulation, each with its own episodes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.envs.contract import ActionSpace, Observed, Step
from rqe_mappo.envs.sumo_intersection import observation
from rqe_mappo.envs.sumo_intersection.config import IntersectionConfig
from rqe_mappo.envs.sumo_intersection.dynamics import ACCEL_MPS2, ACTIONS_MPS2, HARD_BRAKE_MPS2, Intersections
from rqe_mappo.envs.sumo_intersection.reward import braked_hard, rewards


def dearest_crash(config: IntersectionConfig) -> float:
    """The most that a collision can cost an agent: it hits all others at once."""
    return config.collision_cost * (1 + config.blame * (config.n_agents - 1))


def return_bounds(config: IntersectionConfig) -> tuple[float, float]:
    """The lowest and highest return that an episode can give one agent.

    A hard brake takes at least 4 m/s2 for a decision and needs more than 1 m/s afterwards, and SUMO gives back at most
    3 m/s2, which bounds how many fit into the horizon.
    """
    lost, gained = -HARD_BRAKE_MPS2 * config.decision_s, ACCEL_MPS2 * config.decision_s
    brakes = (config.max_speed_mps + config.horizon * gained) / (lost + gained)
    brakes = min(config.horizon, int(brakes) + 1)
    low = config.time_cost * config.horizon_s + dearest_crash(config) + config.hard_brake_cost * brakes
    return -low, 0.0


def reward_step(config: IntersectionConfig) -> float | None:
    """The grid on which every reward lies, down to a hundredth; None where there is none so coarse."""
    crash, blame = config.collision_cost, config.blame * config.collision_cost
    costs = np.array([config.time_cost * config.decision_s, crash, blame, config.hard_brake_cost]) * 100
    if not np.allclose(costs, np.round(costs)):
        return None
    step = int(np.gcd.reduce(np.round(costs).astype(int))) / 100
    return step if step >= 0.1 else None


@dataclass(frozen=True)
class Outcome:
    """What one decision did to every agent, `[K, n_agents]`; zeros and False for those that did not act."""

    reward: np.ndarray
    terminated: np.ndarray
    crashed: np.ndarray
    timed_out: np.ndarray
    braked: np.ndarray


class BatchedIntersection:
    """A `BatchedEnv` of K intersections with agents `veh_0` to `veh_{n-1}`.

    Agents terminate when they are clear, crash, or run out of time: the time limit is part of the task and the elapsed
    time is observed. Nothing is truncated. Episode records add `collision`, `timed_out` (bool), `travel_time_s`,
    `hard_brakes`, `distance_m`, `impact_mps` (nan without a collision), `min_ttc_s` (inf without an encounter) and
    `pet_s` (nan without), all `[F, n_agents]`. Contents of arrays as in `IntersectionEnv`.
    """

    action_space: ActionSpace = Discrete(len(ACTIONS_MPS2))
    observation_space: Box
    state_space: Box
    time_in_observation = True
    common_reward = False

    def __init__(self, config: IntersectionConfig, num_envs: int):
        self.config, self.num_envs, self.horizon = config, num_envs, config.horizon
        self.world = Intersections(config, num_envs)
        self.possible_agents = tuple(f"veh_{i}" for i in range(config.n_agents))
        width = observation.OWN + observation.OTHER * config.neighbours
        self.observation_space = Box(-observation.LIMIT, observation.LIMIT, (width,), np.float32)
        self.state_space = Box(
            -np.inf, np.inf, (2 + observation.state_width(self.world) * config.n_vehicles,), np.float32
        )
        self.return_bounds, self.reward_step = return_bounds(config), reward_step(config)
        one_step = config.time_cost * config.decision_s + dearest_crash(config) + config.hard_brake_cost
        self.reward_bounds = (-one_step, 0.0)
        shape = (num_envs, config.n_agents)
        self.active = np.zeros(shape, bool)
        self.totals = {name: np.zeros(shape) for name in ("return", "length", "collision", "timed_out", "hard_brakes")}

    def reset(self, seed: int) -> Observed:
        """Start every copy from the beginning; the same seed and K give the same trajectories, in any process."""
        self.world.load(seed)
        return self.restart()

    def restart(self) -> Observed:
        """Start new episodes without reloading the simulation; random numbers continue."""
        self._begin(np.arange(self.num_envs))
        return self.observed()

    def _begin(self, which: np.ndarray) -> None:
        self.world.reset(which)
        self.active[which] = ~self.world.human[which]
        for total in self.totals.values():
            total[which] = 0

    def observed(self) -> Observed:
        """What can be seen now, with new noise."""
        self.perceived = observation.perceive(self.world)
        return Observed(
            observation.observe(self.world, self.perceived), observation.critic_view(self.world), self.active.copy()
        )

    def drive(self, actions: np.ndarray) -> Outcome:
        """Let active agents act for one decision, without starting new episodes."""
        acted = self.active.copy()
        with self.world.sim.guarded():
            crashed, clear = self.world.advance(actions, acted)
        late = acted & (self.world.time_s > self.config.horizon_s - 1e-6)[:, None]
        timed_out = late & ~crashed & ~clear
        braked = acted & braked_hard(self.world.accel_mps2, self.world.speed_mps[:, : self.config.n_agents])
        reward = rewards(self.config, acted, crashed, braked, self.world.hit_agents)
        for name, value in (("return", reward), ("length", acted), ("collision", crashed), ("timed_out", timed_out),
                            ("hard_brakes", braked)):  # fmt: skip
            self.totals[name] += value
        terminated = crashed | clear | timed_out
        self.active &= ~terminated
        return Outcome(reward, terminated, crashed, timed_out, braked)

    def safety(self, which: np.ndarray) -> dict[str, np.ndarray]:
        """How far agents of the copies `which` `[F]` have driven, and how close they came, `[F, n_agents]` each."""
        world, n = self.world, self.config.n_agents
        return {
            "distance_m": (world.pos_m + world.spawn_m)[which, :n],
            "impact_mps": world.impact_mps[which, :n],
            "min_ttc_s": world.encounters.min_ttc_s[which],
            "pet_s": world.encounters.pet_s(which),
        }

    def step(self, actions: np.ndarray) -> Step:
        """`actions`: int64 `[K, n_agents]`, indices into ACTIONS_MPS2."""
        outcome = self.drive(actions)
        totals = self.totals
        ended = np.flatnonzero(~self.active.any(1))
        episodes = {
            "copy": ended,
            **{name: totals[name][ended] for name in ("return", "hard_brakes")},
            "length": totals["length"][ended].astype(np.int64),
            "cost": totals["collision"][ended],
            "collision": totals["collision"][ended] > 0,
            "timed_out": totals["timed_out"][ended] > 0,
            "travel_time_s": totals["length"][ended] * self.config.decision_s,
            **self.safety(ended),
        }
        if len(ended):
            with self.world.sim.guarded():
                self._begin(ended)
        seen = self.observed()
        return Step(
            seen.obs, seen.state, seen.active,
            reward=outcome.reward.astype(np.float32), cost=outcome.crashed.astype(np.float32),
            terminated=outcome.terminated, truncated=np.zeros_like(outcome.terminated),
            final_obs=np.zeros((0, *self.observation_space.shape), np.float32),
            final_state=np.zeros((0, *self.state_space.shape), np.float32), episodes=episodes,
        )  # fmt: skip

    def snapshot(self) -> dict[str, Any] | None:
        """None: SUMO's state is not saved; a resumed run starts new episodes."""
        return None

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        """Never possible, see `snapshot`."""
        raise RuntimeError("a SUMO intersection cannot be restored: reset it")

    def close(self) -> None:
        self.world.close()
