"""Mixers: networks that make the value of a team of its agents' utilities, by the state.

A mixer is called with the utilities of the actions that were taken, `[*rows, A]`, zero for agents that are not there,
and with the state `[*rows, S]`. All values are in units of the returns' std.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.functional import mixing

POSITIVE = 1e-10  # least importance of an advantage


def layers(n_in: int, hidden: int, n_out: int, count: int = 2) -> nn.Sequential:
    """`count` linear layers with ReLU between them, with PyTorch's own initial weights."""
    parts: list[nn.Module] = []
    for index in range(count):
        last = index == count - 1
        parts += [nn.Linear(n_in if index == 0 else hidden, n_out if last else hidden), *([] if last else [nn.ReLU()])]
    return nn.Sequential(*parts)


@torch.no_grad()
def add_to_output(net: nn.Module, number: float) -> None:
    """Raise all outputs of a network whose last linear layer gives them."""
    [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1].bias.add_(number)


class MonotonicMixer(nn.Module):
    """QMIX's mixer: two layers whose weights other networks, of the state, give, and which are never negative."""

    def __init__(self, state_dim: int, agents: int, embed: int, hidden: int):
        super().__init__()
        self.inner = layers(state_dim, hidden, agents * embed)
        self.inner_bias = nn.Linear(state_dim, embed)
        self.outer = layers(state_dim, hidden, embed)
        self.value = layers(state_dim, embed, 1)
        self.shape = agents, embed

    def forward(self, utilities: Float[Tensor, "*rows A"], state: Float[Tensor, "*rows S"]) -> Float[Tensor, "*rows"]:
        inner = self.inner(state).unflatten(-1, self.shape)
        return mixing.monotonic(
            utilities, inner, self.inner_bias(state), self.outer(state), self.value(state).squeeze(-1)
        )

    @torch.no_grad()
    def start(self, mean: float) -> None:
        """Begin at a value of about `mean`."""
        add_to_output(self.value, mean)


class DuplexMixer(nn.Module):
    """QPLEX's mixer: utilities scaled and shifted by the state, advantages weighed by state and joint action.

    heads: how many attention heads the importance is the sum of. depth: linear layers of each of its parts.
    """

    def __init__(self, state_dim: int, agents: int, actions: int, hidden: int, heads: int, depth: int):
        super().__init__()
        self.scale = layers(state_dim, hidden, agents)
        self.shift = layers(state_dim, hidden, agents)
        self.key = layers(state_dim, hidden, heads, depth)
        self.agents = layers(state_dim, hidden, heads * agents, depth)
        self.actions = layers(state_dim + agents * actions, hidden, heads * agents, depth)
        self.shape, self.choices = (heads, agents), actions

    def forward(
        self,
        chosen: Float[Tensor, "*rows A"],
        best: Float[Tensor, "*rows A"],
        state: Float[Tensor, "*rows S"],
        action: Int[Tensor, "*rows A"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows"]:
        """chosen, best: utilities of the joint `action`, and of each agent's best one."""
        return self.weighed(chosen, best, state, self.importance(state, action, present), present)

    def weighed(
        self,
        chosen: Float[Tensor, "*rows A"],
        best: Float[Tensor, "*rows A"],
        state: Float[Tensor, "*rows S"],
        importance: Float[Tensor, "*rows A"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows"]:
        """The same, for an importance that is known."""
        scale, shift = self.scale(state).abs() + POSITIVE, self.shift(state)
        chosen, best = ((scale * part + shift) * present for part in (chosen, best))
        return mixing.duplex(chosen, best, importance)

    def importance(
        self, state: Float[Tensor, "*rows S"], action: Int[Tensor, "*rows A"], present: Bool[Tensor, "*rows A"]
    ) -> Float[Tensor, "*rows A"]:
        """Lambda, above 0."""
        taken = nn.functional.one_hot(action, self.choices) * present[..., None]
        joint = torch.cat((state, taken.flatten(-2).to(state.dtype)), -1)
        key = self.key(state).abs() + POSITIVE
        of_agents = self.agents(state).unflatten(-1, self.shape).sigmoid()
        of_actions = self.actions(joint).unflatten(-1, self.shape).sigmoid()
        return (key[..., None] * of_agents * of_actions).sum(-2)

    @torch.no_grad()
    def start(self, mean: float) -> None:
        """Begin at a value of about `mean`, in equal parts."""
        add_to_output(self.shift, mean / self.shape[1])


class QuantileMixer(nn.Module):
    """RiskQ's mixer: weights that are never negative, by the state and by what each agent sees, and a shift.

    attention: whether a softmax over agents shares a weight of the state between them; else the state gives each its
    own.
    """

    def __init__(self, state_dim: int, obs_dim: int, agents: int, hidden: int, keys: int, attention: bool):
        super().__init__()
        self.shift, self.attention = layers(state_dim, hidden, 1), attention
        self.weight = layers(state_dim, hidden, 1 if attention else agents)
        if attention:
            self.query, self.key = layers(state_dim, hidden, keys), nn.Linear(obs_dim + agents, keys)

    def forward(
        self,
        quantiles: Float[Tensor, "*rows A N"],
        state: Float[Tensor, "*rows S"],
        obs: Float[Tensor, "*rows A D"],
        present: Bool[Tensor, "*rows A"],
    ) -> Float[Tensor, "*rows N"]:
        return mixing.quantile_mixture(quantiles, self.weights(state, obs, present), self.shift(state).squeeze(-1))

    def weights(
        self, state: Float[Tensor, "*rows S"], obs: Float[Tensor, "*rows A D"], present: Bool[Tensor, "*rows A"]
    ) -> Float[Tensor, "*rows A"]:
        """Of the agents, the same for all their quantiles and for all actions."""
        weight = self.weight(state).abs()
        if not self.attention:
            return weight
        who = torch.eye(obs.shape[-2], dtype=obs.dtype, device=obs.device).expand(*obs.shape[:-1], -1)
        keys = self.key(torch.cat((obs, who), -1))
        scores = (keys * self.query(state)[..., None, :]).sum(-1) / keys.shape[-1] ** 0.5
        return weight * scores.masked_fill(~present, -1e9).softmax(-1)

    @torch.no_grad()
    def start(self, mean: float) -> None:
        """Begin at a value of about `mean`."""
        add_to_output(self.shift, mean)


class JointValue(nn.Module):
    """QTRAN's value of a joint action, without any factorisation: of the state, and of what each agent sees and does.

    Agents are encoded one by one and summed, so that their number does not matter.
    """

    def __init__(self, obs_dim: int, state_dim: int, agents: int, actions: int, hidden: int):
        super().__init__()
        self.choices, width = actions, hidden + actions
        self.encoder = layers(obs_dim + agents + actions, width, width)
        self.value = layers(width + state_dim, hidden, 1, 3)

    def forward(
        self,
        obs: Float[Tensor, "*rows A D"],
        action: Int[Tensor, "*rows A"],
        present: Bool[Tensor, "*rows A"],
        state: Float[Tensor, "*rows S"],
    ) -> Float[Tensor, "*rows"]:
        who = torch.eye(obs.shape[-2], dtype=obs.dtype, device=obs.device).expand(*obs.shape[:-1], -1)
        taken = nn.functional.one_hot(action, self.choices).to(obs.dtype)
        encoded = self.encoder(torch.cat((obs, who, taken), -1)) * present[..., None]
        return self.value(torch.cat((encoded.sum(-2), state), -1)).squeeze(-1)

    @torch.no_grad()
    def start(self, mean: float) -> None:
        """Begin at a value of about `mean`."""
        add_to_output(self.value, mean)


class StateValue(nn.Module):
    """A value of the state alone."""

    def __init__(self, state_dim: int, hidden: int):
        super().__init__()
        self.value = layers(state_dim, hidden, 1, 3)

    def forward(self, state: Float[Tensor, "*rows S"]) -> Float[Tensor, "*rows"]:
        return self.value(state).squeeze(-1)
