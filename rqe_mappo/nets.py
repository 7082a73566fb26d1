"""Networks: decentralised actors and centralised critics, of the return's law or of its moments, on rows of agents."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rqe_mappo.functional.policy_gradient import NO_ACTION


@dataclass(frozen=True)
class Shapes:
    """All that is needed to build a run's networks again.

    attitudes: which pair of tau and eps each agent has, as an index; empty if all are alike. A shared actor is told.
    joint_actions: the critic foretells the return of each joint action, that many; 0 if of the state alone.
    action_counts: how many of the actions each agent has; empty if all have all of them.
    critic_values: the critic foretells that many numbers, the mean first; 0 if the whole law.
    critic_sees_obs: the critic sees each agent's observation (of `state_dim` features, too) instead of the state.
    """

    obs_dim: int
    state_dim: int
    n_actions: int
    n_agents: int
    n_atoms: int
    actor_hidden: tuple[int, ...]
    critic_hidden: tuple[int, ...]
    shared_actor: bool
    attitudes: tuple[int, ...] = ()
    joint_actions: int = 0
    action_counts: tuple[int, ...] = ()
    critic_values: int = 0
    critic_sees_obs: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def mlp(sizes: Sequence[int], activation: type[nn.Module], last_gain: float) -> nn.Sequential:
    """Linear layers of the given sizes, orthogonal weights, zero biases; `last_gain` scales the output layer."""
    layers: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = index == len(sizes) - 2
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, activation()]
    return nn.Sequential(*layers)


class Actor(nn.Module):
    """Action logits from one agent's observation: one network for all agents, or one each.

    The logit of an action that an agent does not have is `NO_ACTION`.
    """

    def __init__(self, shapes: Shapes):
        super().__init__()
        told = shapes.attitudes if shapes.shared_actor else ()
        self.told = nn.functional.one_hot(torch.tensor(told)).float() if told else None
        sizes = (shapes.obs_dim + (0 if self.told is None else self.told.shape[1]), *shapes.actor_hidden)
        self.n_actions = shapes.n_actions
        lacking = None
        if shapes.action_counts:
            lacking = torch.arange(shapes.n_actions) >= torch.tensor(shapes.action_counts)[:, None]
        self.register_buffer("lacking", lacking, persistent=False)  # said by the shapes, not learned
        self.nets = nn.ModuleList(
            mlp((*sizes, shapes.n_actions), nn.Tanh, last_gain=0.01)
            for _ in range(1 if shapes.shared_actor else shapes.n_agents)
        )

    def forward(self, obs: Float[Tensor, "*rows obs"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """`agent`: which agent each row belongs to (0 to A - 1)."""
        logits = self._all_logits(obs, agent)
        return logits if self.lacking is None else logits.masked_fill(self.lacking[agent], NO_ACTION)

    def _all_logits(self, obs: Tensor, agent: Tensor) -> Tensor:
        if self.told is not None:
            obs = torch.cat((obs, self.told.to(obs)[agent]), -1)
        if len(self.nets) == 1:
            return self.nets[0](obs)
        logits = obs.new_empty(*obs.shape[:-1], self.n_actions)
        for index, net in enumerate(self.nets):
            rows = agent == index
            logits[rows] = net(obs[rows])
        return logits


def sample(logits: Float[Tensor, "*rows actions"], uniform: Float[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
    """Actions by inversion of the cumulative probabilities: one uniform number a row, equal on every device.

    Actions that an agent does not have come last, and are never drawn, however the sum is rounded.
    """
    below = (logits.softmax(-1).cumsum(-1) < uniform[..., None]).sum(-1)
    if (logits[..., -1] > NO_ACTION).all():
        return below.clamp(max=logits.shape[-1] - 1)
    last = (~(logits <= NO_ACTION)).sum(-1) - 1  # nan, of a diverged run, counts as there
    return torch.minimum(below, last)


class Critic(nn.Module):
    """Logits of the return's distribution from the global state and the agent's identity.

    The initial distribution is a bell around zero return, an eighth of the support wide: a uniform one would put
    enough mass on the lowest atoms to decide every risk-averse value.
    """

    def __init__(self, shapes: Shapes, atoms: Float[Tensor, " atoms"]):
        super().__init__()
        self.n_agents, self.joint_actions = shapes.n_agents, shapes.joint_actions
        laws = shapes.joint_actions or 1
        self.net = mlp((_inputs(shapes), *shapes.critic_hidden, laws * shapes.n_atoms), nn.ReLU, last_gain=0.1)
        self.register_buffer("atoms", atoms)
        width = (atoms[-1] - atoms[0]) / 8
        with torch.no_grad():
            self.net[-1].bias.copy_((-0.5 * (atoms / width) ** 2).repeat(laws))

    def forward(self, state: Float[Tensor, "*rows state"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*out atoms"]:
        """Logits `[*rows, atoms]`, or `[*rows, joint actions, atoms]` of a critic of joint actions."""
        logits = self.net(_named(state, agent, self.n_agents))
        return logits.unflatten(-1, (self.joint_actions, -1)) if self.joint_actions else logits


class ValueNorm(nn.Module):
    """Running mean and std of what a critic foretells; 0 and 1 until the first `update`.

    Moments are exponential averages over rollouts, corrected for their start; with so long a memory nearly plain ones.
    Yu et al., 'The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games' (2022), and its code.
    """

    MEMORY = 0.99999
    LEAST_VARIANCE = 1e-2

    def __init__(self, values: int):
        super().__init__()
        for name, shape in (("first", (values,)), ("second", (values,)), ("weight", ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))  # second - first^2 cancels digits

    def update(self, returns: Float[Tensor, "rows values"]) -> None:
        """Take in the returns of one rollout."""
        returns = returns.double()
        for total, moment in ((self.first, returns.mean(0)), (self.second, (returns**2).mean(0))):
            total.mul_(self.MEMORY).add_((1 - self.MEMORY) * moment)
        self.weight.mul_(self.MEMORY).add_(1 - self.MEMORY)

    def _mean_and_std(self) -> tuple[Float[Tensor, " values"], Float[Tensor, " values"]]:
        if self.weight == 0:
            return torch.zeros_like(self.first).float(), torch.ones_like(self.first).float()
        mean, square = self.first / self.weight, self.second / self.weight
        return mean.float(), (square - mean**2).clamp(min=self.LEAST_VARIANCE).sqrt().float()

    def normalise(self, returns: Float[Tensor, "*rows values"]) -> Float[Tensor, "*rows values"]:
        """Returns less their mean, over their std."""
        mean, std = self._mean_and_std()
        return (returns - mean) / std

    def restore(self, normalised: Float[Tensor, "*rows values"]) -> Float[Tensor, "*rows values"]:
        """The reverse of `normalise`."""
        mean, std = self._mean_and_std()
        return normalised * std + mean


class ValueCritic(nn.Module):
    """The mean of the return, and what else is foretold of it, from the critic's view and the agent's identity.

    The network's own outputs are normalised, which its loss alone gets to see: `forward` gives them in units of the
    return, so that no caller can forget to undo the normalisation.
    """

    def __init__(self, shapes: Shapes):
        super().__init__()
        self.n_agents = shapes.n_agents
        self.net = mlp((_inputs(shapes), *shapes.critic_hidden, shapes.critic_values), nn.ReLU, last_gain=1.0)
        self.norm = ValueNorm(shapes.critic_values)

    def forward(
        self, state: Float[Tensor, "*rows state"], agent: Int[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows values"]:
        """What is foretold, in units of the return."""
        return self.norm.restore(self.normalised(state, agent))

    def normalised(
        self, state: Float[Tensor, "*rows state"], agent: Int[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows values"]:
        """The network's outputs, for its loss."""
        return self.net(_named(state, agent, self.n_agents))


def critic_of(shapes: Shapes, atoms: Float[Tensor, " atoms"]) -> Critic | ValueCritic:
    """The critic that `shapes` describes; of the return's law on `atoms`, if of its law."""
    return ValueCritic(shapes) if shapes.critic_values else Critic(shapes, atoms)


def _inputs(shapes: Shapes) -> int:
    return shapes.state_dim + (shapes.n_agents if shapes.n_agents > 1 else 0)


def _named(state: Float[Tensor, "*rows state"], agent: Int[Tensor, "*rows"], n_agents: int) -> Tensor:
    """What critics see, with the one-hot identity of the agent where there are several."""
    if n_agents == 1:
        return state
    return torch.cat((state, nn.functional.one_hot(agent, n_agents).to(state.dtype)), -1)
