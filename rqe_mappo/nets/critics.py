"""Critics: centralised, of the return's distribution or of its moments, for rows of agents."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.nets.contract import ReturnDistribution
from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.normaliser import Normaliser
from rqe_mappo.nets.value_norm import ValueNorm

EMPTY = 10.0  # nats below all other atoms


@dataclass(frozen=True, kw_only=True)
class CriticSpec:
    """All that is needed to build a critic again; hidden layers are ReLU.

    view, view_dim: it sees the state, or each agent's observation; how many features that has.
    memory: units of a GRU behind the hidden layers; 0: feed-forward.
    normalise: whether what it sees is normalised by running statistics.
    """

    view_dim: int
    n_agents: int
    hidden: tuple[int, ...]
    view: Literal["state", "obs"] = "state"
    memory: int = 0
    normalise: bool = False


@dataclass(frozen=True, kw_only=True)
class DistributionCriticSpec(CriticSpec):
    """n_atoms: atoms of the distribution; where they lie is kept with the weights."""

    n_atoms: int


@dataclass(frozen=True, kw_only=True)
class JointCriticSpec(DistributionCriticSpec):
    """joint_actions: how many joint actions are told apart."""

    joint_actions: int


@dataclass(frozen=True, kw_only=True)
class RiskPremiumSpec(CriticSpec):
    """values: how many numbers are predicted, the premium first."""

    values: int = 1


@dataclass(frozen=True, kw_only=True)
class ValueCriticSpec(CriticSpec):
    """values: how many numbers are predicted, the mean first."""

    values: int = 1


class _Critic(nn.Module):
    """The network of a critic, which sees the agent's identity too where there are several agents."""

    def __init__(self, spec: CriticSpec, outputs: int, last_gain: float):
        super().__init__()
        self.spec, self.view, self.view_dim = spec, spec.view, spec.view_dim
        self.memory_size = spec.memory
        self.normaliser = Normaliser(spec.view_dim) if spec.normalise else None
        inputs = spec.view_dim + (spec.n_agents if spec.n_agents > 1 else 0)
        self.nets = AgentNets.build((inputs, *spec.hidden, outputs), 1, nn.ReLU, last_gain, spec.memory)

    def inputs(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows I"]:
        """What the network sees."""
        if self.normaliser is not None:
            view = self.normaliser(view)
        if self.spec.n_agents == 1:
            return view
        return torch.cat((view, nn.functional.one_hot(agent, self.spec.n_agents).to(view.dtype)), -1)

    def outputs(
        self,
        view: Float[Tensor, "*rows V"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
    ) -> Float[Tensor, "*rows O"]:
        """The network's outputs; with nothing remembered, unless `memory` is given."""
        inputs = self.inputs(view, agent)
        if memory is None:
            memory = inputs.new_zeros(*inputs.shape[:-1], self.memory_size)
        return self.nets.step(inputs, agent, memory)[0]

    def remember(
        self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"], memory: Float[Tensor, "*rows H"]
    ) -> Float[Tensor, "*rows H"]:
        """What a critic with memory remembers after it has seen `view`."""
        return self.nets.step(self.inputs(view, agent), agent, memory)[1]


class CategoricalCritic(_Critic):
    """Logits of distributions on evenly spaced atoms, which may be laid anew.

    The initial distribution is a bell, first about the return 0 and an eighth of the support wide, then where `start`
    puts it: a uniform one would put enough mass on the lowest atoms to decide every risk-averse value.
    """

    atoms: Tensor

    def __init__(self, spec: DistributionCriticSpec, atoms: Float[Tensor, " atoms"] | None, distributions: int = 1):
        """atoms: None where they are loaded with the weights. distributions: how many are predicted at once."""
        super().__init__(spec, distributions * spec.n_atoms, 0.1)
        self.register_buffer("atoms", torch.zeros(spec.n_atoms) if atoms is None else atoms.clone())
        if atoms is not None:
            self.start(0.0, float(atoms[-1] - atoms[0]) / 8)

    @property
    def _last(self) -> nn.Linear:
        return [layer for layer in self.nets.modules() if isinstance(layer, nn.Linear)][-1]

    @torch.no_grad()
    def start(self, mean: float, std: float) -> None:
        """Begin with a bell about `mean`, or about the atom nearest to it, in every state; nothing at the edges."""
        middle = torch.full_like(self.atoms[0], mean).clamp(self.atoms[0], self.atoms[-1])
        bell = -0.5 * ((self.atoms - middle) / std) ** 2
        bell[0] = bell[-1] = bell[1:-1].min() - EMPTY
        self._last.bias.copy_(bell.repeat(len(self._last.bias) // len(bell)))

    @torch.no_grad()
    def move(self, atoms: Float[Tensor, " atoms"]) -> None:
        """Predict on other `atoms`, as many: by the logits between the old ones.

        Beyond these they fall by 1 from atom to atom, to no less than what is `EMPTY`: what lies much lower would take
        thousands of steps to raise, and returns have just been seen there.
        """
        old, count = self.atoms, len(self.atoms)
        place = (atoms - old[0]) / (old[1] - old[0])
        inside = place.clamp(0, count - 1)
        lower = inside.floor().clamp(max=count - 2).long()
        for name, weights in self._last.named_parameters():
            rows = weights.unflatten(0, (-1, count))
            share = (inside - lower).reshape(-1, *[1] * (weights.dim() - 1))
            moved = torch.lerp(rows[:, lower], rows[:, lower + 1], share)
            if name == "bias":
                fall = (place - inside).abs() / (place[1] - place[0])
                moved = moved - fall.clamp(max=EMPTY)
            weights.copy_(moved.flatten(0, 1))
        self.atoms = atoms.clone()


class DistributionCritic(CategoricalCritic):
    """Logits of the return's distribution."""

    kind = "distribution critic"
    predicts: Literal["distribution", "mean"] = "distribution"

    def __init__(self, spec: DistributionCriticSpec, atoms: Float[Tensor, " atoms"] | None = None):
        super().__init__(spec, atoms)

    def forward(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows atoms"]:
        """Logits."""
        return self.outputs(view, agent)

    def mean(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        return self.distribution(view, agent).mean

    def distribution(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> ReturnDistribution:
        return ReturnDistribution(self.atoms, self(view, agent).log_softmax(-1))


class JointCritic(CategoricalCritic):
    """Logits of the distribution of `r + gamma V(s')` for each joint action."""

    kind = "joint critic"

    def __init__(self, spec: JointCriticSpec, atoms: Float[Tensor, " atoms"] | None = None):
        super().__init__(spec, atoms, spec.joint_actions)
        self.joint_actions = spec.joint_actions

    def forward(
        self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows joint atoms"]:
        """Logits."""
        return self.outputs(view, agent).unflatten(-1, (self.joint_actions, -1))


class RiskPremium(_Critic):
    """What risk takes off the mean of the return, in units of its std, and what else a measure needs; 0 at first."""

    kind = "risk premium"

    def __init__(self, spec: RiskPremiumSpec):
        super().__init__(spec, spec.values, 0.0)

    def forward(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows values"]:
        """The premiums."""
        return self.outputs(view, agent)


class ValueCritic(_Critic):
    """The mean of the return, and what else is predicted of it.

    The network's own outputs are normalised, which its loss alone sees: `forward` gives them in units of the return, so
    that no caller can forget to undo the normalisation.
    """

    kind = "value critic"
    predicts: Literal["distribution", "mean"] = "mean"

    def __init__(self, spec: ValueCriticSpec):
        super().__init__(spec, spec.values, 1.0)
        self.norm = ValueNorm(spec.values)

    def forward(
        self,
        view: Float[Tensor, "*rows V"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
    ) -> Float[Tensor, "*rows values"]:
        """What is predicted, in units of the return."""
        return self.norm.restore(self.normalised(view, agent, memory))

    def normalised(
        self,
        view: Float[Tensor, "*rows V"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
    ) -> Float[Tensor, "*rows values"]:
        """The network's outputs, for its loss."""
        return self.outputs(view, agent, memory)

    def unrolled(
        self,
        view: Float[Tensor, "T S V"],
        agent: Int[Tensor, " S"],
        memory: Float[Tensor, "S H"],
        begins: Bool[Tensor, "T S"],
        active: Bool[Tensor, "T S"],
    ) -> tuple[Float[Tensor, "T S values"], Float[Tensor, "T S H"]]:
        """As `normalised`, along sequences; and the memory after each step."""
        inputs = self.inputs(view, agent.expand(view.shape[:-1]))
        return self.nets.unroll(inputs, agent, memory, begins, active)

    def mean(
        self,
        view: Float[Tensor, "*rows V"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
    ) -> Float[Tensor, "*rows"]:
        return self(view, agent, memory)[..., 0]

    def distribution(self, view: Float[Tensor, "*rows V"], agent: Int[Tensor, "*rows"]) -> None:
        """No distribution is predicted."""
        return None
