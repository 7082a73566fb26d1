"""Utilities that are distributions: what each agent's actions may bring it, and how a risk measure ranks them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.functional import q_learning, quantile
from rqe_mappo.functional.risk import RiskMeasure, parse_risk, quantile_weights
from rqe_mappo.functional.rows import own, rows_of_each
from rqe_mappo.nets.mixers import add_to_output
from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.utilities import Utilities, UtilitySpec

COSINES = 64  # features of a level
EMPTY = 10.0  # nats below all other atoms


@dataclass(frozen=True, kw_only=True)
class DistributionalSpec(UtilitySpec):
    """risk, tau: the measure that ranks actions, as `--risk` spells it; tau as it was asked for, in its own unit.

    size: quantiles, or atoms, of each action's distribution.
    """

    size: int
    risk: str = "neutral"
    tau: float = 1.0


class DistributionalUtilities(Utilities):
    """Acts by the greatest value of a risk measure.

    A distribution is `[*rows, actions, N]`; `worth` makes a number of it. tau: of the measure, in units of utilities.
    """

    spec: DistributionalSpec
    tau: Tensor
    fixed: RiskMeasure | None = None

    def __init__(self, spec: DistributionalSpec):
        super().__init__(spec)
        parse_risk(spec.risk, spec.tau, clip=None)  # ValueError now, not when it acts
        self.register_buffer("tau", torch.tensor(spec.tau))

    @property
    def width(self) -> int:
        return self.spec.size

    @property
    def measure(self) -> RiskMeasure:
        """What ranks actions."""
        return self.fixed or parse_risk(self.spec.risk, float(self.tau))

    def fix_measure(self) -> None:
        """Rank actions by today's measure whatever becomes of tau: a graph that is traced reads no tensors."""
        self.fixed = self.measure

    def worth(self, predicted: Float[Tensor, "*rows actions N"]) -> Float[Tensor, "*rows actions"]:
        """The risk measure's value of each distribution."""
        raise NotImplementedError

    def ranked(
        self,
        predicted: Float[Tensor, "*rows actions N"],
        agent: Int[Tensor, "*rows"],
        avail: Bool[Tensor, "*rows actions"] | None,
    ) -> Float[Tensor, "*rows actions"]:
        """The same, so low for actions that are not there that none of them is the greatest."""
        return q_learning.masked(self.worth(predicted), self.there(agent, avail))

    def of_actions(self, outputs: Float[Tensor, "*rows O"]) -> Float[Tensor, "*rows actions N"]:
        """The networks' outputs by action, `raw`."""
        return outputs.unflatten(-1, (self.spec.actions.outputs, self.spec.size))

    def shaped(self, raw: Float[Tensor, "*rows N"]) -> Float[Tensor, "*rows N"]:
        """The distributions that numbers stand for which the networks gave, each for itself."""
        raise NotImplementedError

    def decoded(self, outputs: Float[Tensor, "*rows O"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """Each distribution's worth."""
        return self.worth(self.shaped(self.of_actions(outputs)))

    def raw(
        self, obs: Float[Tensor, "T B A D"], active: Bool[Tensor, "T B A"], levels: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "T B A actions N"]:
        """What the networks give along B episodes from their first steps, as `Utilities.along`; yet to be `shaped`.

        levels: those of the quantiles, for networks that take them.
        """
        agent = torch.arange(obs.shape[2], device=obs.device).expand(obs.shape[:3])
        return self.of_actions(self.unrolled(obs, agent, active))

    def distributions(
        self, obs: Float[Tensor, "T B A D"], active: Bool[Tensor, "T B A"], levels: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "T B A actions N"]:
        """Distributions along B episodes; see `raw`."""
        return self.shaped(self.raw(obs, active, levels))


class CategoricalUtilities(DistributionalUtilities):
    """Probabilities of N evenly spaced atoms; a distribution is their logarithms.

    Bellemare et al., 'A Distributional Perspective on Reinforcement Learning' (2017).
    """

    kind = "categorical utilities"
    atoms: Tensor

    def __init__(self, spec: DistributionalSpec):
        super().__init__(spec)
        self.register_buffer("atoms", torch.zeros(spec.size))
        if not self.atoms.is_meta:  # to compute for an outline would load PyTorch's compiler
            torch.linspace(-1, 1, spec.size, out=self.atoms)

    @torch.no_grad()
    def lay(self, atoms: Float[Tensor, " N"], mean: float, std: float) -> None:
        """Put the atoms somewhere, and begin with bells there: a uniform distribution would look risky everywhere."""
        self.atoms.copy_(atoms)
        bell = (-(((self.atoms - mean) / std) ** 2) / 2).clamp(min=-EMPTY)
        for net in self.nets:
            last = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1]
            last.bias.copy_(bell.repeat(self.spec.actions.outputs))

    def shaped(self, raw: Float[Tensor, "*rows N"]) -> Float[Tensor, "*rows N"]:
        return raw.log_softmax(-1)

    def worth(self, predicted: Float[Tensor, "*rows actions N"]) -> Float[Tensor, "*rows actions"]:
        """The measure's value; of the entropic one that of its clipped utility.

        A softmax leaves e^-13 or so on every atom, which would decide once the lowest is that many tau away.
        """
        return self.measure.zero_utility_value(self.atoms, predicted)


class QuantileUtilities(DistributionalUtilities):
    """N quantiles at fixed levels, the middles of N equal shares; sorted, so that a network's do not cross.

    Dabney et al., 'Distributional Reinforcement Learning with Quantile Regression' (2018).
    """

    kind = "quantile utilities"
    weights: Tensor | None

    def __init__(self, spec: DistributionalSpec):
        super().__init__(spec)
        measure = parse_risk(spec.risk, spec.tau, clip=None)
        weights = quantile_weights(measure, spec.size) if measure.comonotonic else None
        self.register_buffer("weights", weights, persistent=False)  # known from the spec

    def levels(self) -> Float[Tensor, " N"]:
        """Those of the quantiles."""
        return quantile.midpoint_levels(self.spec.size, device=next(self.parameters()).device)

    def shaped(self, raw: Float[Tensor, "*rows N"]) -> Float[Tensor, "*rows N"]:
        return quantile.ascending(raw)

    def worth(self, predicted: Float[Tensor, "*rows actions N"]) -> Float[Tensor, "*rows actions"]:
        """Of quantiles that stand for equal shares, whatever their number."""
        if self.weights is not None and predicted.shape[-1] == self.spec.size:
            return predicted @ self.weights
        return self.measure.value(*quantile.as_atoms(predicted))


class ImplicitUtilities(QuantileUtilities):
    """Quantiles at any levels: hidden units times features of the level, `cos(pi i level)`, i = 0 .. 63.

    Outside of learning the levels are the middles of N equal shares. In learning all rows share their levels, so that
    the features weigh the last layer's weights once, and not each row's hidden units.
    Dabney et al., 'Implicit Quantile Networks for Distributional Reinforcement Learning' (2018), eq. 4.
    """

    kind = "implicit utilities"

    def __init__(self, spec: DistributionalSpec):
        super().__init__(spec)
        self.heads = nn.ModuleList(LevelHead(self.hidden, spec.actions.outputs) for _ in range(len(self.nets)))

    def network(self, inputs: int, count: int) -> AgentNets:
        return self.trunk(inputs, count)

    @torch.no_grad()
    def start(self, mean: float) -> None:
        for head in self.heads:
            add_to_output(head, mean)

    def at_levels(
        self, hidden: Float[Tensor, "*rows hidden"], agent: Int[Tensor, "*rows"], levels: Float[Tensor, " N"]
    ) -> Float[Tensor, "*rows actions N"]:
        """Quantiles of ascending levels; a network's may cross."""
        rows = hidden.relu().reshape(-1, self.hidden)
        if len(self.heads) == 1:
            found = self.heads[0](rows, levels)
        elif torch.compiler.is_compiling():  # see AgentNets
            every = [head(rows, levels).flatten(1) for head in self.heads]
            found = self.of_actions(own(every, agent.flatten()))
        else:
            found = rows.new_empty(len(rows), self.spec.actions.outputs, len(levels))
            for head, mine in zip(self.heads, rows_of_each(agent.flatten(), len(self.heads)), strict=True):
                found[mine] = head(rows[mine], levels)
        return found.view(*hidden.shape[:-1], *found.shape[1:])

    def decoded(self, outputs: Float[Tensor, "*rows O"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """The worth of each distribution, at the middles of equal shares."""
        return self.worth(self.shaped(self.at_levels(outputs, agent, self.levels())))

    def raw(
        self, obs: Float[Tensor, "T B A D"], active: Bool[Tensor, "T B A"], levels: Float[Tensor, " N"] | None = None
    ) -> Float[Tensor, "T B A actions N"]:
        agent = torch.arange(obs.shape[2], device=obs.device).expand(obs.shape[:3])
        return self.at_levels(self.unrolled(obs, agent, active), agent, self.levels() if levels is None else levels)


class LevelHead(nn.Module):
    """Quantiles of actions, of hidden units and of levels.

    Features of levels are smooth (ELU) and not the paper's ReLU, whose units all go out where a quantile is far from
    the others: of a gamble that loses 20 one time in ten, the one at 0.05 then moved by 0.6 in 1000 learning steps.
    """

    def __init__(self, hidden: int, actions: int):
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(COSINES, hidden), nn.ELU())
        self.output = nn.Linear(hidden, actions)

    def forward(
        self, hidden: Float[Tensor, "rows hidden"], levels: Float[Tensor, " N"]
    ) -> Float[Tensor, "rows actions N"]:
        weights = self.weights(levels)
        return (hidden @ weights.flatten(0, 1).T).unflatten(-1, weights.shape[:2]) + self.output.bias[:, None]

    def weights(self, levels: Float[Tensor, " N"]) -> Float[Tensor, "actions N hidden"]:
        """What hidden units are weighed with at each level."""
        waves = torch.arange(COSINES, dtype=levels.dtype, device=levels.device) * torch.pi
        embedded = self.embedding((levels[:, None] * waves).cos())
        return embedded[None] * self.output.weight[:, None]
