"""QMIX: the team's value is a monotonic function of its agents' utilities, by the state, `--algo qmix`.

Rashid et al., 'QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement Learning' (2018, arXiv
1803.11485).

Kept: two mixing layers, `--mixer-embed` wide, with ELU between them; their weights come from two-layer networks of the
state, made non-negative by their absolute value; a bias of the state at the end.

Different, as in the released code: absolute values allow weights of 0, with which the greatest value is no longer
taken at one joint action alone; the networks that give the weights have a hidden layer (`--hyper-hidden`), which that
code's first version did not.
What differs in replay, targets and observations is said in `vdn`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.off_policy import OffPolicy, OffPolicyConfig, squared, utility, value_scalars
from rqe_mappo.config import TrainConfig, require_range
from rqe_mappo.data.replay import Episodes, team_state_size
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets.mixers import MonotonicMixer
from rqe_mappo.nets.utilities import Utilities


@dataclass(frozen=True, kw_only=True)
class QmixConfig(OffPolicyConfig):
    """QMIX's settings."""

    mixer_embed: int = 32
    """Width of the mixing network."""
    hyper_hidden: int = 64
    """Hidden units of the networks that give its weights."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, mixer_embed=(1, WIDEST), hyper_hidden=(1, WIDEST))


class Qmix(OffPolicy):
    """QMIX at work."""

    Config = QmixConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, agents = run.algorithm, len(env.possible_agents)
        actor = Utilities(config.utilities(env))
        self.mixer = MonotonicMixer(team_state_size(env), agents, config.mixer_embed, config.hyper_hidden)
        super().__init__(run, env, generator, {"actor": actor, "mixer": self.mixer}, self.mixer.start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error of the mixed value."""
        agents = utility(self, batch)
        total = self.mixer(agents.chosen, batch.state[:-1])
        with torch.no_grad():
            target = self.targets(batch, self.target["mixer"](agents.following, batch.state[1:]))
        return squared(total, target, batch.filled), value_scalars(self, total, target, batch.filled)
