"""Utilities that depend on a latent, drawn for the team when an episode begins: MAVEN's."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.functional import q_learning
from rqe_mappo.nets.contract import Acted
from rqe_mappo.nets.mixers import layers
from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.utilities import Utilities, UtilitySpec


@dataclass(frozen=True, kw_only=True)
class LatentUtilitySpec(UtilitySpec):
    """latents: how many there are. state_dim: what the policy over latents sees. latent_hidden: its hidden units."""

    latents: int
    state_dim: int
    latent_hidden: int


class LatentUtilities(Utilities):
    """`Q_i = W(z, i) h_i`: hidden units `h_i` of what agent i observes, weighed by the latent z and who i is.

    The latent is kept in the memory of each agent, behind the GRU's, one-hot. Where there is none, as outside training,
    agents take the one that has been drawn most (`drawn`, running shares), all the same.
    """

    kind = "latent utilities"
    spec: LatentUtilitySpec
    drawn: Tensor

    def __init__(self, spec: LatentUtilitySpec):
        super().__init__(spec)
        self.weights = nn.Linear(spec.latents + spec.n_agents, self.hidden * spec.actions.outputs, bias=False)
        self.policy = layers(spec.state_dim, spec.latent_hidden, spec.latents)
        self.register_buffer("drawn", torch.full((spec.latents,), 1 / spec.latents))
        self.memory_size = spec.memory + spec.latents

    def network(self, inputs: int, count: int) -> AgentNets:
        return self.trunk(inputs, count)

    def latent_policy(self, state: Float[Tensor, "*rows S"]) -> Float[Tensor, "*rows latents"]:
        """Log-probabilities of latents, by the state in which an episode begins."""
        return self.policy(state).log_softmax(-1)

    @torch.no_grad()
    def begin(
        self,
        memory: Float[Tensor, "E A H"],
        copies: Bool[Tensor, " E"],
        state: Float[Tensor, "E A S"] | None = None,
        uniform: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "E A H"]:
        """No memory of what was before, and a latent drawn for each team."""
        memory = super().begin(memory, copies)
        if state is None or uniform is None:
            return memory
        first = (state != 0).any(-1).int().argmax(-1)  # of those who are there: others see nothing
        cumulative = self.latent_policy(state[torch.arange(len(state), device=state.device), first]).exp().cumsum(-1)
        latent = (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(-1).clamp(max=self.spec.latents - 1)
        drawn = nn.functional.one_hot(latent, self.spec.latents).to(memory.dtype)
        memory[..., self.spec.memory :] = torch.where(
            copies[:, None, None], drawn[:, None], memory[..., self.spec.memory :]
        )
        return memory

    def latent(self, memory: Float[Tensor, "*rows H"]) -> Float[Tensor, "*rows latents"]:
        """The latent that is remembered, or the usual one where there is none."""
        kept = memory[..., self.spec.memory :]
        usual = nn.functional.one_hot(self.drawn.argmax(), self.spec.latents).to(kept.dtype)
        return torch.where(kept.sum(-1, keepdim=True) > 0, kept, usual)

    def weights_by(
        self, latent: Float[Tensor, "*rows latents"], agent: Int[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows hidden actions"]:
        """What latent and agent weigh hidden units with."""
        who = nn.functional.one_hot(agent, self.spec.n_agents).to(latent.dtype)
        return self.weights(torch.cat((latent, who), -1)).unflatten(-1, (self.hidden, -1))

    def values(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
    ) -> tuple[Float[Tensor, "*rows actions"], Float[Tensor, "*rows H"]]:
        """See `Utilities.values`."""
        if memory is None:
            memory = obs.new_zeros(*obs.shape[:-1], self.memory_size)
        latent = self.latent(memory)
        hidden, after = self.nets.step(self.inputs(obs, agent), agent, memory[..., : self.spec.memory])
        values = torch.einsum("...h,...ha->...a", hidden.relu(), self.weights_by(latent, agent))
        return q_learning.masked(values, self.there(agent, avail)), torch.cat((after, latent), -1)

    def along(
        self,
        obs: Float[Tensor, "T B A D"],
        active: Bool[Tensor, "T B A"],
        avail: Tensor | None,
        latent: Float[Tensor, "B latents"] | None = None,
    ) -> Float[Tensor, "T B A actions"]:
        """See `Utilities.along`; `latent`: those of the episodes."""
        if latent is None:
            raise ValueError("latent utilities need the latents of the episodes")
        agent = torch.arange(obs.shape[2], device=obs.device).expand(obs.shape[:3])
        hidden = self.unrolled(obs, agent, active)
        weights = self.weights_by(latent[:, None].expand(*agent.shape[1:], -1), agent[0])  # the same at every step
        values = torch.einsum("tbih,biha->tbia", hidden.relu(), weights)
        return q_learning.masked(values, self.there(agent, avail))

    def act(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"],
        *,
        uniform: Float[Tensor, "*rows draws"] | None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
        explore: float = 0.0,
    ) -> Acted:
        """See `Utilities.act`; the latent goes to the learner."""
        acted = super().act(obs, agent, memory, uniform=uniform, avail=avail, explore=explore)
        acted.extras["latent"] = self.latent(memory).argmax(-1)
        return acted
