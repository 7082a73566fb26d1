"""Settings of the intersection, in SI units, and their named combinations."""

from dataclasses import dataclass
from typing import Literal

from rqe_mappo.envs.contract import LARGEST, WITHIN


@dataclass(frozen=True)
class IntersectionConfig:
    """Vehicles that must cross an unsignalised junction, a four-way intersection by default."""

    net: str = ""
    """Your own SUMO network (.net.xml), of which --junction is used; a built-in junction if empty."""
    junction: str = "cross"
    """Built-in: cross (four arms) or merge (an on-ramp joins a main road); with --net the id of a junction in it."""
    sumo_backend: Literal["libsumo", "traci", "gui"] = "libsumo"
    """libsumo: in this process; traci: in a separate one (slower, same trajectories); gui: as traci, with a window."""
    n_agents: int = 4
    """Controlled vehicles."""
    n_background: int = 2
    """Vehicles driven by SUMO, some of which ignore the right of way."""
    collision_cost: float = 30.0
    """Cost of a collision, in seconds of travel; 20 to 35 makes safety and speed compete."""
    blame: float = 0.0
    """Share of another agent's collision cost that an agent bears too for colliding with it; at 0 each bears its own,
    at 1 a collision costs each of two agents what it costs both."""
    time_cost: float = 1.0
    """Cost of a second until the vehicle is clear."""
    hard_brake_cost: float = 0.5
    """Cost of a decision that brakes harder than 4 m/s2."""
    horizon_s: float = 40.0
    """Time after which a vehicle that has not crossed gives up."""
    decision_s: float = 0.5
    """Time between decisions."""
    step_s: float = 0.1
    """Simulation step; above 0.2 SUMO misses collisions."""
    max_speed_mps: float = 11.0
    """Highest speed of every vehicle; the speed limits of a network hold too."""
    human_share: float = 0.0
    """Chance, drawn for each agent and episode, that its vehicle is driven by SUMO as a background vehicle is."""
    p_aggressive: float = 0.3
    """Chance that a background driver ignores the right of way."""
    min_friction: float = 0.4
    """Lowest road friction; each vehicle's is uniform from here to 1, hidden, and caps its braking at 9 times it."""
    accel_noise_mps2: float = 0.4
    """Std of the error between commanded and actual acceleration."""
    position_noise_m: float = 1.0
    """Std of perceived positions of others."""
    speed_noise_mps: float = 0.6
    """Std of perceived speeds of others."""
    miss_probability: float = 0.05
    """Chance per decision of not seeing a vehicle farther than 8 m from the conflict."""
    neighbours: int = 3
    """Conflicting vehicles that an agent observes."""
    spawn_near_m: float = 35.0
    """Nearest start before the junction."""
    spawn_far_m: float = 75.0
    """Farthest start of the first vehicle on an arm."""
    spawn_gap_m: float = 14.0
    """Least distance between vehicles that start on one arm; up to 12 m more are drawn."""
    spawn_slow_mps: float = 6.0
    """Lowest speed at the start."""
    spawn_fast_mps: float = 10.0
    """Highest speed at the start."""

    def __post_init__(self):
        for name, value in vars(self).items():
            self._require(not isinstance(value, float) or abs(value) <= LARGEST, name, WITHIN)
        for name in ("n_agents", "neighbours"):
            self._require(getattr(self, name) >= 1, name, "be at least 1")
        for name in ("n_background", "time_cost", "hard_brake_cost", "accel_noise_mps2", "position_noise_m",
                     "speed_noise_mps"):  # fmt: skip
            self._require(getattr(self, name) >= 0, name, "be >= 0")
        for name in ("blame", "p_aggressive", "miss_probability"):
            self._require(0 <= getattr(self, name) <= 1, name, "lie in [0, 1]")
        self._require(0 <= self.human_share < 1, "human_share", "lie in [0, 1)")
        self._require(self.collision_cost > 0, "collision_cost", "be > 0")
        self._require(0 < self.min_friction <= 1, "min_friction", "lie in (0, 1]")
        self._require(0 < self.step_s <= 0.2, "step_s", "lie in (0, 0.2]: larger steps miss collisions")
        for name, part in (("decision_s", "step_s"), ("horizon_s", "decision_s")):
            ratio = getattr(self, name) / getattr(self, part)
            whole = ratio >= 1 and abs(ratio - round(ratio)) < 1e-6
            self._require(whole, name, f"be a multiple of --{part.replace('_', '-')} {getattr(self, part)}")
        self._require(0 < self.spawn_near_m <= self.spawn_far_m, "spawn_near_m", "lie in (0, --spawn-far-m]")
        self._require(self.spawn_gap_m >= 6, "spawn_gap_m", "be at least 6: vehicles are 4.5 m long")
        self._require(0 <= self.spawn_slow_mps <= self.spawn_fast_mps, "spawn_slow_mps", "be <= --spawn-fast-mps")
        self._require(self.spawn_fast_mps <= self.max_speed_mps, "spawn_fast_mps", "be <= --max-speed-mps")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"--{name.replace('_', '-')} must {rule} (got {getattr(self, name)})")

    @property
    def n_vehicles(self) -> int:
        """Controlled and background vehicles of one intersection."""
        return self.n_agents + self.n_background

    @property
    def horizon(self) -> int:
        """Decisions until the time limit."""
        return round(self.horizon_s / self.decision_s)

    def room_m(self, arms: int) -> float:
        """Length of road before the junction that every arm needs: vehicles start on all of them in turn."""
        on_one_arm = -(-self.n_vehicles // arms)
        return max(120.0, self.spawn_far_m + (on_one_arm - 1) * (self.spawn_gap_m + 12) + 20)


SCENARIOS = {
    "default": IntersectionConfig(),
    "easy": IntersectionConfig(n_background=0),
    # a collision must cost about twice the mean travel time, or waiting vehicles make up the worst 5 %
    "dense": IntersectionConfig(n_agents=8, collision_cost=40.0, horizon_s=60.0),
    # an on-ramp: no turns, all vehicles end on the same lane
    "merge": IntersectionConfig(junction="merge"),
    # half of the agents' vehicles are human, drawn for every episode
    "mixed": IntersectionConfig(n_agents=6, n_background=0, human_share=0.5),
}
