"""QMIX's mixing network, for the methods that have one: its settings, and the network."""

from dataclasses import dataclass

from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.off_policy import OffPolicyConfig
from rqe_mappo.config import TrainConfig, require_range
from rqe_mappo.data.replay import team_state_size
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets.mixers import MonotonicMixer


@dataclass(frozen=True, kw_only=True)
class MonotonicConfig(OffPolicyConfig):
    """A mixture of the agents' values that grows with each of them."""

    mixer_embed: int = 32
    """Width of the mixing network."""
    hyper_hidden: int = 64
    """Hidden units of the networks that give its weights."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, mixer_embed=(1, WIDEST), hyper_hidden=(1, WIDEST))

    def mixer(self, env: BatchedEnv, more: int = 0) -> MonotonicMixer:
        """The network; its weights depend on the team's state and `more` features."""
        return MonotonicMixer(
            team_state_size(env) + more, len(env.possible_agents), self.mixer_embed, self.hyper_hidden
        )
