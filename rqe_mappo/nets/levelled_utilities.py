"""Utilities at two levels of optimism, about teammates and about the environment: DRIMA's."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.nets.distributional_utilities import LevelHead
from rqe_mappo.nets.mixers import add_to_output, layers
from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.utilities import Utilities, UtilitySpec

LEVELS = 2  # about teammates, about the environment


@dataclass(frozen=True, kw_only=True)
class LevelledSpec(UtilitySpec):
    """agent_level, env_level: what agents act by."""

    agent_level: float
    env_level: float


class LevelledUtilities(Utilities):
    """Utilities that see the levels for which they hold; agents act by those of the spec."""

    kind = "levelled utilities"
    spec: LevelledSpec

    def __init__(self, spec: LevelledSpec):
        super().__init__(spec)
        if not (0 < spec.agent_level < 1 and 0 < spec.env_level < 1):
            raise ValueError("levels must be in (0, 1)")

    def network(self, inputs: int, count: int) -> AgentNets:
        return super().network(inputs + LEVELS, count)

    def at(self, obs: Float[Tensor, "*rows D"], levels: Float[Tensor, "*rows 2"] | None) -> Float[Tensor, "*rows D+2"]:
        """What is observed, and the levels; None: those that agents act by."""
        if levels is None:
            levels = obs.new_tensor((self.spec.agent_level, self.spec.env_level)).expand(*obs.shape[:-1], LEVELS)
        return torch.cat((obs, levels), -1)

    def seen(self, obs: Float[Tensor, "*rows D+2"]) -> Float[Tensor, "*rows D+2"]:
        """See `Utilities.seen`; levels are as they are."""
        width = self.spec.obs_dim
        return torch.cat((super().seen(obs[..., :width]), obs[..., width:]), -1)

    def values(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
    ) -> tuple[Float[Tensor, "*rows actions"], Float[Tensor, "*rows H"]]:
        """See `Utilities.values`."""
        return super().values(self.at(obs, None), agent, memory, avail)

    def along(
        self,
        obs: Float[Tensor, "T B A D"],
        active: Bool[Tensor, "T B A"],
        avail: Tensor | None,
        levels: Float[Tensor, "T B A 2"] | None = None,
    ) -> Float[Tensor, "T B A actions"]:
        """See `Utilities.along`."""
        return super().along(self.at(obs, levels), active, avail)


class JointQuantiles(nn.Module):
    """Quantiles of the return of a joint action, by the state and by what each agent sees and does.

    Agents are encoded one by one and summed, as in `JointValue`; levels as in `ImplicitUtilities`.
    """

    def __init__(self, obs_dim: int, state_dim: int, agents: int, actions: int, hidden: int):
        super().__init__()
        self.choices, width = actions, hidden + actions
        self.encoder = layers(obs_dim + agents + actions, width, width)
        self.trunk, self.head = layers(width + state_dim, hidden, hidden), LevelHead(hidden, 1)

    def forward(
        self,
        obs: Float[Tensor, "*rows A D"],
        action: Int[Tensor, "*rows A"],
        present: Bool[Tensor, "*rows A"],
        state: Float[Tensor, "*rows S"],
        levels: Float[Tensor, " N"],
    ) -> Float[Tensor, "*rows N"]:
        who = torch.eye(obs.shape[-2], dtype=obs.dtype, device=obs.device).expand(*obs.shape[:-1], -1)
        taken = nn.functional.one_hot(action, self.choices).to(obs.dtype)
        encoded = self.encoder(torch.cat((obs, who, taken), -1)) * present[..., None]
        hidden = self.trunk(torch.cat((encoded.sum(-2), state), -1)).relu()
        return self.head(hidden.flatten(0, -2), levels).view(*hidden.shape[:-1], -1)

    @torch.no_grad()
    def start(self, mean: float) -> None:
        """Begin at returns of about `mean`."""
        add_to_output(self.head, mean)
