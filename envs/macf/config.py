"""Settings of multi-agent car following and their named combinations."""

from dataclasses import dataclass

LONGEST = 100_000  # steps: a car that reverses throughout is 50 million away by then
DEAREST = 1_000_000.0


@dataclass(frozen=True)
class CarFollowingConfig:
    """Two cars drive to a goal, close together; who exceeds the speed limit may crash."""

    crash_cost: float = 1.0
    """What each crash costs both cars."""
    crash_ends: bool = False
    """End the episode with a crash; the published game goes on."""
    horizon: int = 200
    """Time limit, in steps of 0.1 s."""
    observe_time: bool = False
    """Show the time left, so that the time limit may be learned as an end; the published game does not."""

    def __post_init__(self):
        if not 0 <= self.crash_cost <= DEAREST:
            raise ValueError(f"--crash-cost must be in [0, {DEAREST:g}] (got {self.crash_cost})")
        if not isinstance(self.horizon, int) or not 1 <= self.horizon <= LONGEST:
            raise ValueError(f"--horizon must be a whole number from 1 to {LONGEST} (got {self.horizon})")


SCENARIOS = {
    "default": CarFollowingConfig(),
    "hard": CarFollowingConfig(crash_cost=10.0, crash_ends=True),
}
