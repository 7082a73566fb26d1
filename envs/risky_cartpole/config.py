"""Settings of Risky CartPole and their named combinations."""

from dataclasses import dataclass
from typing import Literal

from rqe_mappo.envs.contract import LARGEST


@dataclass(frozen=True)
class RiskyCartPoleConfig:
    """A cart-pole whose right side pays more and is windier."""

    reward: Literal["windy-side", "survival"] = "windy-side"
    """windy-side: 1 + bonus * x / 2.4 m a step, 0 on the falling one, more gusts to the right; survival: 1 a step, and
    rate0 + rate1 gusts per second everywhere."""
    bonus: float = 0.8
    """What the right edge of the track pays beyond its middle, per step (windy-side only)."""
    rate0_hz: float = 0.01
    """Gusts per second on the left half of the track."""
    rate1_hz: float = 0.5
    """Gusts per second that come on top at the right edge, growing linearly from the middle."""
    gust_median_n: float = 11.0
    """Median of the lognormal force of a gust, in newtons; the cart's own push is 10."""
    gust_sigma: float = 0.6
    """Standard deviation of the logarithm of a gust's force."""
    gust_steps: int = 5
    """Length of a gust, in steps of 0.02 s."""
    horizon: int = 500
    """Time limit, in steps of 0.02 s."""
    observation: Literal["scaled", "cartpole-v1"] = "scaled"
    """scaled: six features of order 1, wind and remaining time among them; cartpole-v1: Gymnasium's four, unscaled."""

    def __post_init__(self):
        for name, choices in (("reward", ("windy-side", "survival")), ("observation", ("scaled", "cartpole-v1"))):
            self._require(getattr(self, name) in choices, name, f"be {' or '.join(choices)}")
        for name in ("bonus", "rate0_hz", "rate1_hz", "gust_sigma"):
            self._require(0 <= getattr(self, name) <= LARGEST, name, f"lie within 0 and {LARGEST:g}")
        for name in ("gust_steps", "horizon"):
            value = getattr(self, name)
            self._require(isinstance(value, int) and value >= 1, name, "be a whole number >= 1")
        self._require(
            0 < self.gust_median_n <= LARGEST,
            "gust_median_n",
            f"be > 0 and at most {LARGEST:g}; for no wind set --rate0-hz and --rate1-hz to 0",
        )

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"--{name.replace('_', '-')} must {rule} (got {getattr(self, name)})")


SCENARIOS = {
    "calm": RiskyCartPoleConfig(rate0_hz=0.0, rate1_hz=0.0),
    "default": RiskyCartPoleConfig(),
    "storm": RiskyCartPoleConfig(rate1_hz=1.0),
    "cartpole-v1": RiskyCartPoleConfig(
        reward="survival", bonus=0.0, rate0_hz=0.0, rate1_hz=0.0, observation="cartpole-v1"
    ),
}
