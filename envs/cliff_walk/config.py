"""Settings of the cliff walk and their named combinations."""

from dataclasses import dataclass
from typing import Literal, get_args

from rqe_mappo.envs.contract import LARGEST, WITHIN

World = Literal["6x6", "4x3"]
Pay = Literal["once", "every-step"]


@dataclass(frozen=True)
class CliffConfig:
    """Two agents walk past a cliff and are unsteady near each other."""

    world: World = "6x6"
    """6x6: down a ravine two cells wide, our choice; 4x3: past a cliff of two cells, as in the authors' code."""
    move_probability: float = 0.9
    """Chance that both agents move as intended; otherwise both slip to a neighbouring cell."""
    near_probability: float = 0.5
    """The same chance while the agents are within one cell of each other, diagonals included."""
    cliff_reward: float = -2.0
    """Reward of the cliff."""
    goal_reward: float = 1.0
    """Reward of the agent's goal."""
    step_reward: float = 0.0
    """Reward of a step that pays nothing else."""
    pay: Pay = "once"
    """once: cliff and goal pay on arrival, and the episode ends when both agents have arrived somewhere; every-step:
    they pay at every step spent there, to the end of the horizon."""
    stay: bool = True
    """Whether agents may choose to stay where they are."""
    horizon: int = 200
    """Time limit, in steps."""

    def __post_init__(self):
        for name, choices in (("world", get_args(World)), ("pay", get_args(Pay))):
            self._require(getattr(self, name) in choices, name, f"be {' or '.join(choices)}")
        for name in ("move_probability", "near_probability"):
            self._require(0 <= getattr(self, name) <= 1, name, "be in [0, 1]")
        for name in ("cliff_reward", "goal_reward", "step_reward"):
            self._require(abs(getattr(self, name)) <= LARGEST, name, WITHIN)
        self._require(isinstance(self.horizon, int) and self.horizon >= 1, "horizon", "be a whole number >= 1")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"--{name.replace('_', '-')} must {rule} (got {getattr(self, name)})")


SCENARIOS = {
    "default": CliffConfig(),
    "steep": CliffConfig(cliff_reward=-100.0, goal_reward=20.0, step_reward=-0.1, horizon=100),
    "authors": CliffConfig(world="4x3", step_reward=0.1, pay="every-step", stay=False, horizon=15),
}
