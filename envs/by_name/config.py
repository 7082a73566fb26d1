"""Settings of an environment of another package."""

from dataclasses import dataclass

from rqe_mappo.envs.contract import LARGEST, WITHIN


@dataclass(frozen=True)
class ByNameConfig:
    """An environment of another package, and from which rewards the critic's atoms begin."""

    name: str = "gymnasium:CartPole-v1"
    """gymnasium:ID, pettingzoo:MODULE such as pettingzoo:mpe2.simple_spread_v3, or MODULE:FACTORY; set by --env."""
    max_steps: int = 500
    """Decisions after which an episode is truncated, if the environment has not ended it before."""
    reward_low: float | None = None
    """Lowest reward of one step; measured with random actions, with a margin, unless given here."""
    reward_high: float | None = None
    """Highest reward of one step; likewise."""

    def __post_init__(self):
        if self.max_steps < 1:
            raise ValueError(f"--max-steps must be at least 1 (got {self.max_steps})")
        if (self.reward_low is None) != (self.reward_high is None):
            raise ValueError("--reward-low and --reward-high go together: give both or neither")
        if self.reward_low is not None and self.reward_high is not None:
            for flag, value in (("--reward-low", self.reward_low), ("--reward-high", self.reward_high)):
                if not abs(value) <= LARGEST:
                    raise ValueError(f"{flag} must {WITHIN} (got {value:g})")
            if not self.reward_low < self.reward_high:
                raise ValueError(f"--reward-low {self.reward_low:g} must be below --reward-high {self.reward_high:g}")
