"""The intersection as a PettingZoo parallel environment: one junction, agents that leave when they are clear."""

import secrets
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from rqe_mappo.envs.contract import ActionSpace
from rqe_mappo.envs.sumo_intersection import observation
from rqe_mappo.envs.sumo_intersection.batched_intersection import BatchedIntersection
from rqe_mappo.envs.sumo_intersection.config import IntersectionConfig

if TYPE_CHECKING:
    from rqe_mappo.envs.sumo_intersection.render import Camera


class IntersectionEnv(ParallelEnv):
    """Vehicles that must cross an unsignalised junction without a collision, a four-way intersection by default.

    Each agent drives one vehicle from 35 to 75 m before the junction along a route drawn in every episode (left,
    straight or right). Background vehicles cross too; with probability `p_aggressive` one ignores the right of way.
    SUMO moves the vehicles and detects the collisions; it keeps agents from running into the vehicle ahead on their
    lane, but not from crossing vehicles within the junction.

    **Hidden from agents and critic**: road friction, which caps each vehicle's braking at `9 * friction` m/s2 with
    friction uniform in [`min_friction`, 1], and which background drivers are aggressive.

    **Action**: Discrete(4), the acceleration until the next decision 0.5 s later, executed with an error of
    `accel_noise_mps2`.

    | action | 0 | 1 | 2 | 3 |
    |---|---|---|---|---|
    | m/s2 | -6 brake hard | -2 brake | 0 keep | 2.5 go |

    **Observation**: float32 `[9 + 8 * neighbours]`, clipped to ±5.

    | index | feature | unit, range |
    |---|---|---|
    | 0 | own speed | / `max_speed_mps`, 0 to 1 |
    | 1 | distance to the stop line, negative beyond it | / 50 m, -2 to 2 |
    | 2-4 | turn: left, straight, right | one-hot |
    | 5 | elapsed time | / `horizon_s`, 0 to 1 |
    | 6 | time spent below 0.5 m/s | / 10 s, at most 2 |
    | 7 | beyond the stop line | 0 or 1 |
    | 8 | last acceleration | / 6 m/s2 |
    | 9 + 8 i | for the i-th most urgent conflicting vehicle: perceived | 1, or the whole block is 0 |
    | + 1, + 2 | own and its distance to the conflict zone | / 30 m, -1 to 3 |
    | + 3 | its speed | / `max_speed_mps` |
    | + 4 | its arrival at the zone after ours | / 4 s, -3 to 3 |
    | + 5-7 | it comes from the left, ahead, or right | one-hot |

    Positions and speeds of others carry noise drawn at each decision, and one farther than 8 m from the zone is
    missed with probability `miss_probability`.

    **State**: float32 `[n_agents, 2 + (6 + arms) M]` for M vehicles, what the centralised critic takes, a row an agent:
    elapsed time, the agent's last acceleration, and for each vehicle, the agent's own first, its true position, speed,
    presence, turn and arm as seen from the agent's; nothing hidden. Rows of agents that left are 0.

    **Reward**, in seconds: `-time_cost` per second until clear (8 m beyond the junction), `-collision_cost` on a
    collision and `-blame * collision_cost` more for colliding with another agent, `-hard_brake_cost` for a decision
    that brakes harder than 4 m/s2 above 1 m/s.

    **End**: an agent terminates when it is clear, collides, or has not crossed by `horizon_s`. That limit is part of
    the task and the elapsed time is observed, so it is a termination; nothing is truncated.

    **Info** of each agent: `cost` (1 on a collision), `collision`, `timed_out`, `hard_brake`; and of the episode so far
    `travel_time_s`, `distance_m`, `min_ttc_s` (least time to collision, inf without an encounter); after a collision
    `impact_mps` (speed of the faster vehicle), after an encounter `pet_s` (least post-encroachment time).

    **Reset**: with a seed, SUMO is reloaded and the episode is a function of the seed; without one, vehicles are
    replaced on the running simulation, which is ten times faster and draws from the stream of the last seed.

    One simulation per process: a second open environment is refused. Use `BatchedIntersection` for many copies, and
    `parallel_env(own_process=True)` for environments side by side.
    """

    metadata = {"name": "sumo_intersection_v0", "render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012  (as PettingZoo declares it)

    def __init__(self, config: IntersectionConfig | None = None, render_mode: str | None = None):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown: use None or 'rgb_array'")
        self.config = config or IntersectionConfig()
        self.core = BatchedIntersection(self.config, 1)
        self.possible_agents = list(self.core.possible_agents)
        self.agents: list[str] = []
        self.render_mode = render_mode
        self.camera: Camera | None = None
        self.state_space = Box(-np.inf, np.inf, (self.config.n_agents, *self.core.state_space.shape), np.float32)
        self.seeded = False

    def observation_space(self, agent: str) -> Box:
        return self.core.observation_space

    def action_space(self, agent: str) -> ActionSpace:
        return self.core.action_space

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Start an episode; see the class for what a seed changes."""
        if seed is not None or not self.seeded:
            seen = self.core.reset(secrets.randbits(31) if seed is None else seed)
            self.seeded = True
        else:
            seen = self.core.restart()
        driven = zip(self.possible_agents, seen.obs[0], seen.active[0], strict=True)
        first = {agent: obs for agent, obs, active in driven if active}
        self.agents = list(first)
        return first, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        """Drive for one decision; agents that leave are in the returned dicts for the last time."""
        acting = self.agents
        missing = set(acting) - set(actions)
        if missing:
            raise ValueError(
                f"step() needs an action for every agent in env.agents (missing: {', '.join(sorted(missing))})"
            )
        chosen = np.zeros((1, self.config.n_agents), np.int64)
        index = {agent: self.possible_agents.index(agent) for agent in acting}
        for agent, i in index.items():
            chosen[0, i] = actions[agent]
        outcome = self.core.drive(chosen)
        seen = self.core.observed()
        self.agents = [agent for agent in acting if not outcome.terminated[0, index[agent]]]

        def per_agent(values: np.ndarray, kind: type) -> dict[str, Any]:
            return {agent: kind(values[0, i]) for agent, i in index.items()}

        safety = self.core.safety(np.array([0]))
        infos = {
            agent: {
                "cost": float(outcome.crashed[0, i]),
                "collision": bool(outcome.crashed[0, i]),
                "timed_out": bool(outcome.timed_out[0, i]),
                "hard_brake": bool(outcome.braked[0, i]),
                "travel_time_s": float(self.core.totals["length"][0, i] * self.config.decision_s),
                **{name: float(values[0, i]) for name, values in safety.items() if not np.isnan(values[0, i])},
            }
            for agent, i in index.items()
        }
        observations = {agent: seen.obs[0, i] for agent, i in index.items()}
        truncated = dict.fromkeys(acting, False)
        return observations, per_agent(outcome.reward, float), per_agent(outcome.terminated, bool), truncated, infos

    def state(self) -> np.ndarray:
        """What the centralised critic takes; see the class."""
        return observation.critic_view(self.core.world)[0]

    def render(self) -> np.ndarray | None:
        """The junction from above, uint8 `[480, 480, 3]`, or None without `render_mode="rgb_array"`."""
        if self.render_mode is None:
            return None
        from rqe_mappo.envs.sumo_intersection.render import Camera

        self.camera = self.camera or Camera(self.core)
        self.camera.look()
        return np.asarray(self.camera.frame(caption=f"{self.core.world.time_s[0]:.1f} s"))

    def close(self) -> None:
        self.core.close()
