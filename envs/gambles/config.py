"""Settings of the gambles and their named combinations."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from rqe_mappo.envs.contract import LARGEST, WITHIN

Kind = Literal["at-once", "late", "shown-prize", "hidden-prize", "delayed"]


@dataclass(frozen=True)
class GambleConfig:
    """A choice between a sure reward and a gamble, and what stands around the choice."""

    kind: Kind = "at-once"
    """at-once: the gamble is drawn in the step of the choice; late: steps later; shown-prize, hidden-prize: a prize is
    drawn before the choice, and seen or not; delayed: the choice comes after an idle step."""
    win: float = 4.0
    """Reward of a gamble won."""
    loss: float = -2.0
    """Reward of a gamble lost."""
    win_probability: float = 0.5
    """Chance to win the gamble."""
    sure: float = 0.5
    """Reward of the safe action."""
    prize: float = 10.0
    """Reward of the prize, else 0 (shown-prize and hidden-prize only)."""
    prize_probability: float = 0.5
    """Chance of the prize (shown-prize and hidden-prize only)."""

    late_steps: int = 1
    """How many steps after the choice the reward is drawn (late only)."""

    def __post_init__(self):
        _require(self, self.kind in get_args(Kind), "kind", f"be {', '.join(get_args(Kind)[:-1])} or delayed")
        for name in ("win", "loss", "sure", "prize"):
            _require(self, abs(getattr(self, name)) <= LARGEST, name, WITHIN)
        for name in ("win_probability", "prize_probability"):
            _require(self, 0 <= getattr(self, name) <= 1, name, "be in [0, 1]")
        steps = self.late_steps
        _require(self, isinstance(steps, int) and steps >= 1, "late_steps", "be a whole number >= 1")
        _require(self, self.win >= self.loss, "win", f"be at least --loss {self.loss}")


@dataclass(frozen=True)
class PathConfig:
    """A choice between a long path and a short one along a cliff."""

    long_steps: int = 20
    """Steps of the safe path to the goal."""
    short_steps: int = 3
    """Steps of the path along the cliff to the goal."""
    slip_probability: float = 0.05
    """Chance to fall in each step along the cliff; the episode then ends."""
    fall_reward: float = -10.0
    """Reward of a fall, on top of the step's."""
    goal_reward: float = 5.0
    """Reward of the goal, on top of the last step's."""
    step_reward: float = -0.2
    """Reward of every step, the last one too."""

    def __post_init__(self):
        for name in ("long_steps", "short_steps"):
            value = getattr(self, name)
            _require(self, isinstance(value, int) and value >= 1, name, "be a whole number >= 1")
        _require(self, 0 <= self.slip_probability <= 1, "slip_probability", "be in [0, 1]")
        for name in ("fall_reward", "goal_reward", "step_reward"):
            _require(self, abs(getattr(self, name)) <= LARGEST, name, WITHIN)


def _require(config: Any, holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise ValueError(f"--{name.replace('_', '-')} must {rule} (got {getattr(config, name)})")


SCENARIOS: dict[str, GambleConfig | PathConfig] = {
    "default": GambleConfig(),
    "m1": GambleConfig(),
    "m2": GambleConfig(kind="late"),
    "m3": GambleConfig(kind="shown-prize", win=4.0, loss=-1.0, sure=1.0, prize=10.0),
    "m3b": GambleConfig(kind="hidden-prize", win=9.0, loss=-3.0, sure=1.0, prize=6.0),
    "m4": GambleConfig(kind="delayed"),
    "m5": PathConfig(),
    "m6": GambleConfig(kind="late", late_steps=3),
}
