"""Strategic risk: the value of a mixed strategy to a player averse to the others' actions, but not to its own mixing.

`own` `[..., A]` is the player's policy, `others` `[..., O]` the distribution of the others' joint action, `payoff`
`[..., A, O]` the player's payoff for each pair, `tau` its tolerance, in units of payoff. An adversary replaces `others`
by `p` and pays `tau D(p, others)` for it. Risk-averse quantal response equilibria (Mazumdar, Panaganti & Shi, arXiv
2406.14156, eq. 3 and 4, whose tau is 1 / ours) are the fixed points of the best responses to such values with a
regulariser.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

BISECTIONS = 60

Payoffs = Float[Tensor, "*batch others"]


def value(
    payoff: Float[Tensor, "*batch own others"],
    own: Float[Tensor, "*batch own"],
    others: Float[Tensor, "*batch others"],
    tau: float,
    form: Literal["action", "aggregate"],
    penalty: Literal["kl", "reverse-kl"],
) -> Float[Tensor, "*batch"]:
    """The risk-adjusted value of `own`, differentiable in it.

    action: the adversary sees the action drawn, `sum_a pi_a inf_p {<payoff_a, p> + tau D}`, linear in `own`.
    aggregate: it sees the policy alone, `inf_p {sum_a pi_a <payoff_a, p> + tau D}`, never lower.
    tau = inf is the expected payoff in both.
    """
    if form == "action":
        return (own * worst_case(payoff, others[..., None, :].expand_as(payoff), tau, penalty)).sum(-1)
    return worst_case((own[..., None] * payoff).sum(-2), others, tau, penalty)


def worst_case(
    payoff: Payoffs, others: Payoffs, tau: float, penalty: Literal["kl", "reverse-kl"]
) -> Float[Tensor, "*batch"]:
    """The worst case `inf_p {<payoff, p> + tau D(p, others)}`.

    D is KL(p || others) for 'kl', which gives the entropic value, and KL(others || p) for 'reverse-kl'. tau = inf is
    the expected payoff.
    """
    if math.isinf(tau):
        return (others * payoff).sum(-1)
    if penalty == "kl":
        return -tau * torch.logsumexp(others.log() - payoff / tau, -1)
    adversary = reverse_kl_adversary(payoff.detach(), others, tau)  # by the envelope theorem a constant
    cost = torch.xlogy(others, others / adversary.clamp_min(torch.finfo(adversary.dtype).tiny)).sum(-1)
    return (adversary * payoff).sum(-1) + tau * cost


@torch.no_grad()
def reverse_kl_adversary(payoff: Payoffs, others: Payoffs, tau: float) -> Payoffs:
    """The minimiser `p_o = tau others_o / (payoff_o - min payoff + c)`, c > 0 such that it sums to 1, by bisection.

    Over what the others may do: where they never go the adversary does not either, whatever the payoff there.
    """
    possible = others > 0
    gap = payoff - payoff.masked_fill(~possible, torch.inf).amin(-1, keepdim=True)
    gap = gap.masked_fill(~possible, torch.inf)
    # at c = tau the sum is at most 1; at c = tau * others of a lowest payoff at least
    high = torch.full_like(gap[..., :1], tau)
    low = tau * torch.where(gap == 0, others, 0.0).amax(-1, keepdim=True)
    for _ in range(BISECTIONS):
        middle = low.sqrt() * high.sqrt()  # c may be as small as the least probability
        too_much = (tau * others / (gap + middle)).sum(-1, keepdim=True) > 1
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    found = tau * others / (gap + high)
    return found / found.sum(-1, keepdim=True)


def others_joint(policies: Float[Tensor, "*batch players actions"], player: int) -> Float[Tensor, "*batch others"]:
    """The distribution of the joint action of all but `player`, who act independently; the last one varies fastest."""
    joint = torch.ones_like(policies[..., 0, :1])
    for other in range(policies.shape[-2]):
        if other != player:
            joint = (joint[..., None] * policies[..., other, None, :]).flatten(-2)
    return joint


def from_own_side(
    joint: Float[Tensor, "*batch joint"], player: int, players: int
) -> Float[Tensor, "*batch own others"]:
    """Payoffs of joint actions (player 0's varying slowest) as `[own action, the others' joint action]`."""
    actions = round(joint.shape[-1] ** (1 / players))
    cube = joint.unflatten(-1, (actions,) * players)
    return cube.movedim(player - players, -players).flatten(-players + 1) if players > 1 else joint[..., None]
