"""Settings of the step games and their named combinations."""

from dataclasses import dataclass

from rqe_mappo.envs.contract import LARGEST, WITHIN

LONGEST = 1000  # steps: the tables hold a state for each step of each branch


@dataclass(frozen=True)
class TwoStepConfig:
    """The first agent picks a branch: a sure payoff, or a game that pays 8 if both dare."""

    sure: float = 7.0
    """What the safe branch pays, whatever the agents do there."""

    def __post_init__(self):
        if not abs(self.sure) <= LARGEST:
            raise ValueError(f"--sure must {WITHIN} (got {self.sure})")


@dataclass(frozen=True)
class MStepConfig:
    """The first joint action picks a branch, which pays as long as it is repeated."""

    steps: int = 10
    """Length m of the game, in steps."""
    good_branches: int = 2
    """How many of the four joint actions open a branch that pays: 2 (those in which both agents do the same) or 4."""

    def __post_init__(self):
        whole = isinstance(self.steps, int) and 2 <= self.steps <= LONGEST
        if not whole:
            raise ValueError(f"--steps must be a whole number from 2 to {LONGEST} (got {self.steps})")
        if self.good_branches not in (2, 4):
            raise ValueError(f"--good-branches must be 2 or 4 (got {self.good_branches})")


SCENARIOS: dict[str, TwoStepConfig | MStepConfig] = {
    "default": TwoStepConfig(),
    "two-step": TwoStepConfig(),
    "m-step": MStepConfig(),
}
