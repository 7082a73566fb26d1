"""Settings of tag and their named combinations."""

from dataclasses import dataclass
from typing import Literal

from rqe_mappo.envs.fixed_length.game import require_whole

MOST = 20  # of each kind: every pair is a force
LONGEST = 100_000  # steps


@dataclass(frozen=True)
class TagConfig:
    """Chasers are paid for touching prey that is faster than they are; obstacles are in the way."""

    n_chasers: int = 2
    """How many chasers there are."""
    n_prey: int = 1
    """How many prey there are."""
    n_obstacles: int = 2
    """How many obstacles there are."""
    prey: Literal["flee", "random", "still", "learned"] = "flee"
    """Who moves the prey: a script, and then only chasers are agents, or the learner."""
    prey_speed: float = 1.0
    """Share of its top speed and acceleration that prey has: 1 makes it faster than chasers, 0.75 a little slower."""
    reward_scale: float = 0.1
    """What all rewards are multiplied by."""
    shaped: bool = False
    """Pay chasers for being near prey, and learned prey for being far from them; mpe2 has that in its source, off."""
    continuous: bool = False
    """Let agents choose how strongly they push: five numbers from 0 to 1 in place of one of five actions."""
    horizon: int = 100
    """Length of an episode, in steps of 0.1 s."""
    observe_time: bool = False
    """Show the time left, so that the time limit may be learned as an end; the published game does not."""

    def __post_init__(self):
        require_whole(self, "n_chasers", 1, MOST)
        require_whole(self, "n_prey", 1, MOST)
        require_whole(self, "n_obstacles", 0, MOST)
        require_whole(self, "horizon", 1, LONGEST)
        if not 0 < self.prey_speed <= 1:
            raise ValueError(f"--prey-speed must be in (0, 1] (got {self.prey_speed})")
        if not 0 < self.reward_scale <= 1000:
            raise ValueError(f"--reward-scale must be in (0, 1000] (got {self.reward_scale})")
        if self.prey not in ("flee", "random", "still", "learned"):
            raise ValueError(f"--prey must be flee, random, still or learned (got {self.prey})")


SCENARIOS = {
    "default": TagConfig(),
    "slow": TagConfig(prey_speed=0.75),
    "shaped": TagConfig(shaped=True),
    "mpe": TagConfig(n_chasers=3, prey="learned", reward_scale=1.0, horizon=25),
}
