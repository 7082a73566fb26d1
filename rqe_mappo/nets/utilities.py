"""Utilities: what each agent's actions are worth to it, of which a mixer makes the value of the team."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.functional import q_learning
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets.contract import Acted
from rqe_mappo.nets.distributions import ActionSpec, Categorical
from rqe_mappo.nets.mixers import add_to_output
from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.normaliser import Normaliser


@dataclass(frozen=True, kw_only=True)
class UtilitySpec:
    """All that is needed to build utilities again.

    actions: one choice an agent.
    hidden: widths of the hidden layers (ReLU).
    shared: one network for all agents, which then sees who they are; else one each.
    memory: units of the GRU behind the hidden layers; 0: feed-forward.
    normalise: whether observations are normalised by running statistics.
    """

    obs_dim: int
    n_agents: int
    actions: ActionSpec
    hidden: tuple[int, ...]
    shared: bool = True
    memory: int = 0
    normalise: bool = False


class Utilities(nn.Module):
    """Acts by the greatest utility, or at random as often as it is told to explore."""

    kind = "utilities"
    draws = 2
    own: Tensor | None

    def __init__(self, spec: UtilitySpec):
        super().__init__()
        if spec.actions.kind != "discrete":
            raise ValueError(f"utilities are of one choice an agent (got {spec.actions.kind})")
        self.spec, self.memory_size = spec, spec.memory
        own = None
        if spec.actions.counts:
            own = torch.arange(spec.actions.outputs) < torch.tensor(spec.actions.counts)[:, None]
        self.register_buffer("own", own, persistent=False)  # known from the spec
        self.normaliser = Normaliser(spec.obs_dim) if spec.normalise else None
        inputs = spec.obs_dim + (spec.n_agents if self.named else 0)
        self.nets = self.network(inputs, 1 if spec.shared else spec.n_agents)

    @property
    def width(self) -> int:
        """Outputs of the networks for each action."""
        return 1

    def network(self, inputs: int, count: int) -> AgentNets:
        """`count` networks alike."""
        outputs = self.spec.actions.outputs * self.width
        return AgentNets.build((inputs, *self.spec.hidden, outputs), count, nn.ReLU, 0.1, self.spec.memory)

    @property
    def hidden(self) -> int:
        """Outputs of a `trunk`."""
        return self.spec.hidden[-1] if self.spec.hidden else self.spec.obs_dim

    def trunk(self, inputs: int, count: int) -> AgentNets:
        """Such networks as far as a last layer, before its ReLU, for utilities that have another."""
        return AgentNets.build((inputs, *self.spec.hidden, self.hidden), count, nn.ReLU, 2**0.5, self.spec.memory)

    @property
    def named(self) -> bool:
        """Whether the network sees which agent it is."""
        return self.spec.shared and self.spec.n_agents > 1

    def begin(
        self,
        memory: Float[Tensor, "E A H"],
        copies: Bool[Tensor, " E"],
        state: Float[Tensor, "E A S"] | None = None,
        uniform: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "E A H"]:
        """No memory of what was before."""
        return memory * ~copies[:, None, None]

    @torch.no_grad()
    def start(self, mean: float) -> None:
        """Begin at utilities of about `mean`."""
        for net in self.nets:
            add_to_output(net, mean)

    def seen(self, obs: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Observations as networks see them: normalised, if so specified."""
        return obs if self.normaliser is None else self.normaliser(obs)

    def inputs(self, obs: Float[Tensor, "*rows D"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows I"]:
        """What the networks see: the observation, and which agent it is of."""
        obs = self.seen(obs)
        if not self.named:
            return obs
        return torch.cat((obs, nn.functional.one_hot(agent, self.spec.n_agents).to(obs.dtype)), -1)

    def there(
        self, agent: Int[Tensor, "*rows"], avail: Bool[Tensor, "*rows actions"] | None
    ) -> Bool[Tensor, "*rows actions"] | None:
        """Which actions each agent has now; None where all have all."""
        if self.own is None:
            return avail
        return self.own[agent] if avail is None else self.own[agent] & avail

    def values(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
    ) -> tuple[Float[Tensor, "*rows actions"], Float[Tensor, "*rows H"]]:
        """The utility of each action, `NO_ACTION` for those that are not there, and the memory afterwards."""
        if memory is None:
            memory = obs.new_zeros(*obs.shape[:-1], self.memory_size)
        outputs, memory = self.nets.step(self.inputs(obs, agent), agent, memory)
        return q_learning.masked(self.decoded(outputs, agent), self.there(agent, avail)), memory

    def decoded(self, outputs: Float[Tensor, "*rows O"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """The utilities that the networks' outputs stand for."""
        return outputs

    def along(
        self, obs: Float[Tensor, "T B A D"], active: Bool[Tensor, "T B A"], avail: Tensor | None
    ) -> Float[Tensor, "T B A actions"]:
        """Utilities along B episodes from their first steps; who does not act forgets nothing and learns nothing."""
        agent = torch.arange(obs.shape[2], device=obs.device).expand(obs.shape[:3])
        return q_learning.masked(self.decoded(self.unrolled(obs, agent, active), agent), self.there(agent, avail))

    def unrolled(
        self, obs: Float[Tensor, "T B A D"], agent: Int[Tensor, "T B A"], active: Bool[Tensor, "T B A"]
    ) -> Float[Tensor, "T B A outputs"]:
        """What the networks give along episodes."""
        inputs = self.inputs(obs, agent)
        if not self.spec.memory:
            return self.nets(inputs, agent)
        nothing = obs.new_zeros(obs.shape[1] * obs.shape[2], self.spec.memory)
        begins = torch.zeros_like(active).flatten(1, 2)
        outputs, _ = self.nets.unroll(inputs.flatten(1, 2), agent[0].flatten(), nothing, begins, active.flatten(1, 2))
        return outputs.view(*obs.shape[:3], -1)

    def forward(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
    ) -> tuple[Categorical, Float[Tensor, "*rows H"]]:
        """The greedy policy, which leaves no probability to other actions, and the memory afterwards."""
        values, memory = self.values(obs, agent, memory, avail)
        best = nn.functional.one_hot(values.argmax(-1), values.shape[-1]).bool()
        logits = torch.zeros_like(values).masked_fill(~best, NO_ACTION)
        return Categorical(self.spec.actions, logits, masked=True), memory

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
        """See `rqe_mappo.nets.contract.Actor`; without `explore` the greedy actions, whatever is drawn."""
        values, memory = self.values(obs, agent, memory, avail)
        policy = Categorical(self.spec.actions, values, masked=True)  # whose mode is the greatest
        drawn = policy.mode()
        if uniform is not None and explore > 0:
            there = self.there(agent, avail)
            if there is None:
                there = torch.ones_like(values, dtype=torch.bool)
            drawn = q_learning.explored(drawn[..., 0], uniform, there, explore)[..., None]
        return Acted(policy.action(drawn), memory, {"drawn": drawn})
