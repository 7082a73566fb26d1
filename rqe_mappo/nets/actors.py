"""Actors: decentralised policies, from what each agent observes, feed-forward or with memory."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.functional import q_learning
from rqe_mappo.nets.contract import Acted
from rqe_mappo.nets.distributions import ActionDistribution, ActionSpec, Categorical, Gaussian
from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.normaliser import Normaliser


@dataclass(frozen=True, kw_only=True)
class ActorSpec:
    """All that is needed to build an actor again.

    hidden: widths of the hidden layers (tanh).
    shared: one network for all agents, else one each.
    groups: which tau and eps each agent has, as an index; empty if all have the same. A shared actor sees it.
    memory: units of the GRU behind the hidden layers; 0: a feed-forward actor.
    normalise: whether observations are normalised by running statistics.
    """

    obs_dim: int
    n_agents: int
    actions: ActionSpec
    hidden: tuple[int, ...]
    shared: bool = True
    groups: tuple[int, ...] = ()
    memory: int = 0
    normalise: bool = False


class PolicyActor(nn.Module):
    """Draws actions from a policy: a softmax of choices, or a Gaussian with a std that no observation changes.

    The logit of an action that an agent does not have is `NO_ACTION`.
    """

    kind = "actor"
    groups: Tensor | None
    own: Tensor | None

    def __init__(self, spec: ActorSpec):
        super().__init__()
        self.spec, self.memory_size, self.draws = spec, spec.memory, spec.actions.draws
        actions, count = spec.actions, 1 if spec.shared else spec.n_agents
        self.normaliser = Normaliser(spec.obs_dim) if spec.normalise else None
        groups = torch.tensor(spec.groups if spec.shared else (), dtype=torch.int64)
        seen = nn.functional.one_hot(groups, 1 + max(spec.groups)).float() if len(groups) else None
        self.register_buffer("groups", seen, persistent=False)  # these two are known from the spec, not learned
        own = None
        if actions.counts:
            own = torch.arange(actions.outputs) < torch.tensor(actions.counts)[:, None]
        self.register_buffer("own", own, persistent=False)
        inputs = spec.obs_dim + (0 if seen is None else seen.shape[1])
        self.nets = AgentNets.build((inputs, *spec.hidden, actions.outputs), count, nn.Tanh, 0.01, spec.memory)
        self.log_std = nn.Parameter(torch.zeros(count, actions.outputs)) if actions.kind == "box" else None

    def begin(
        self,
        memory: Float[Tensor, "E A H"],
        copies: Bool[Tensor, " E"],
        state: Float[Tensor, "E A S"] | None = None,
        uniform: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "E A H"]:
        """No memory of what was before."""
        return memory * ~copies[:, None, None]

    def forward(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
    ) -> tuple[ActionDistribution, Float[Tensor, "*rows H"]]:
        """The policy for each row, and the memory afterwards."""
        if memory is None:
            memory = obs.new_zeros(*obs.shape[:-1], self.memory_size)
        outputs, memory = self.nets.step(self.inputs(obs, agent), agent, memory)
        return self.distribution(outputs, agent, avail), memory

    def inputs(self, obs: Float[Tensor, "*rows D"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows I"]:
        """What the networks see: the observation, normalised if so specified, and the agent's group."""
        if self.normaliser is not None:
            obs = self.normaliser(obs)
        return obs if self.groups is None else torch.cat((obs, self.groups[agent]), -1)

    def distribution(
        self, outputs: Float[Tensor, "*rows O"], agent: Int[Tensor, "*rows"], avail: Tensor | None = None
    ) -> ActionDistribution:
        """The policy that the networks' outputs stand for."""
        own = None if self.own is None else self.own[agent]
        if self.log_std is not None:
            log_std = self.log_std[0] if self.spec.shared else self.log_std[agent]
            return Gaussian(self.spec.actions, outputs, log_std.expand_as(outputs), own)
        there = avail if own is None else own if avail is None else own & avail
        return Categorical(self.spec.actions, q_learning.masked(outputs, there), masked=there is not None)

    @property
    def stds(self) -> Float[Tensor, "nets U"]:
        """Of the normal numbers that become continuous actions; one row for all agents, or one each."""
        if self.log_std is None:
            raise ValueError("choices have no std")
        return self.log_std.exp()

    def logits(self, obs: Float[Tensor, "*rows D"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """Logits of the choices of a feed-forward actor."""
        policy, _ = self(obs, agent)
        if not isinstance(policy, Categorical):
            raise ValueError("continuous actions have no logits")
        return policy.logits

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
        """See `rqe_mappo.nets.contract.Actor`; `explore` changes nothing: the policy is what explores."""
        policy, memory = self(obs, agent, memory, avail)
        drawn = policy.mode() if uniform is None else policy.sample(uniform)
        return Acted(policy.action(drawn), memory, {"drawn": drawn, "log_prob": policy.log_prob(drawn)})
