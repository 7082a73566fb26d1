"""IPPO: independent PPO, `--algo ippo`. MAPPO whose critic sees what its agent observes, and nothing else.

De Witt et al., 'Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?' (2020, arXiv 2011.09533).

Kept: a critic of each agent's own observation, clipped as the policy is; parameters shared by agents, which are told
who they are; GAE. Dropped: the paper's networks and step sizes, in favour of the environment's recipe. Value
normalisation, the Huber loss and the masks are MAPPO's (`baselines.mappo`), as in the IPPO of the MAPPO paper.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from rqe_mappo.algorithms.value_critic import ValueCriticConfig
from rqe_mappo.baselines.mappo import Mappo


@dataclass(frozen=True, kw_only=True)
class IppoConfig(ValueCriticConfig):
    """IPPO's settings."""

    critic_input: ClassVar[Literal["obs"]] = "obs"


class Ippo(Mappo):
    """IPPO at work."""

    Config = IppoConfig
