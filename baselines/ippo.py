"""IPPO: independent PPO, `--algo ippo`. MAPPO whose critic sees what its agent observes, and nothing else.

De Witt et al., 'Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?' (2020, arXiv 2011.09533).

Kept: a critic of each agent's own observation, clipped as the policy is; parameters shared by agents, which are told
who they are; GAE. Dropped: the paper's networks and step sizes, in favour of the environment's recipe. Value
normalisation, the Huber loss and the masks are MAPPO's (`baselines.mappo`), as in the IPPO of the MAPPO paper.

What an agent would observe after a time limit is not known, only what the state would be. Where limits are
bootstrapped, the last step before one is left out (`baselines.mappo.local`).
"""

from dataclasses import dataclass

from rqe_mappo.baselines.mappo import ScalarOptions


@dataclass(frozen=True)
class IppoOptions(ScalarOptions):
    """IPPO's own settings."""

    @property
    def critic_sees_obs(self) -> bool:
        return True
