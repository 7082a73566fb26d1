"""C51-CVaR: PPO with GAE on the CVaR of a categorical critic, `--algo c51-cvar --risk cvar:0.25`.

The critic is that of Bellemare et al., 'A Distributional Perspective on Reinforcement Learning' (2017); replacing the
value in GAE by the CVaR of what the critic foretells, `delta = r + gamma CVaR(Z') - CVaR(Z)`, is what risk-sensitive
forks of PPO do. It is rqe-mappo with `--risk cvar:LEVEL --advantage value`, number for number.

Kept: GAE on the value. It is blind to the risk of what is drawn within a step and, for lambda near 1, to all risk
(docs/risk.md); this rival is here to be measured. Dropped: 51 atoms between fixed bounds, in favour of the support that
fits the environment (`--n-atoms`); the mean over whole atoms below the level, which is empty where the lowest atom
holds more than the level: CVaR here takes the boundary atom's share. As for all measures the level goes from 1 to the
one asked for early in the run; `--warmup-fraction 0 --risk-anneal-fraction 0 --return-scale 1` has it in force from the
first step.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from rqe_mappo.config import ConfigError, Options, TrainConfig


@dataclass(frozen=True)
class C51CvarOptions(Options):
    """C51-CVaR has no settings of its own: its level is `--risk`'s."""

    defaults: ClassVar[dict[str, Any]] = {"risk": "cvar:0.25", "advantage": "value"}

    def check(self, config: TrainConfig) -> None:
        if not config.risk.startswith("cvar:"):
            raise ConfigError(f"--algo c51-cvar has no --risk {config.risk}: use cvar:LEVEL, for example cvar:0.25")
        if config.advantage != "value":
            raise ConfigError(f"--algo c51-cvar has no --advantage {config.advantage}: leave it out, or use rqe-mappo")
