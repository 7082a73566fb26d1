"""How utilities of agents make the value of a team.

The last axis of utilities is the agents; of quantiles `[*rows, agents, N]` they are the last but one, and levels are
shared: agents do well and badly together.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.functional.policy_gradient import NO_ACTION


def monotonic(
    utilities: Float[Tensor, "*rows agents"],
    inner: Float[Tensor, "*rows agents embed"],
    inner_bias: Float[Tensor, "*rows embed"],
    outer: Float[Tensor, "*rows embed"],
    value: Float[Tensor, "*rows"],
) -> Float[Tensor, "*rows"]:
    """`|outer| . elu(|inner|' utilities + inner_bias) + value`, which no utility lowers when it rises.

    Rashid et al., 'QMIX' (2018), section 4.1.
    """
    hidden = torch.einsum("...a,...ae->...e", utilities, inner.abs()) + inner_bias
    return (outer.abs() * torch.nn.functional.elu(hidden)).sum(-1) + value


def duplex(
    chosen: Float[Tensor, "*rows agents"],
    best: Float[Tensor, "*rows agents"],
    importance: Float[Tensor, "*rows agents"],
) -> Float[Tensor, "*rows"]:
    """`sum_i Q_i(a_i) + sum_i (lambda_i - 1) A_i`, with `A_i = Q_i(a_i) - max Q_i <= 0` behind a stop-gradient.

    With `importance` lambda > 0 it is `sum_i max Q_i + sum_i lambda_i A_i`: greatest where every agent's utility is.
    With a lambda of each joint action it can be any table that is greatest there. The gradient reaches utilities
    through their plain sum only, as in the released code. Wang et al., 'QPLEX' (2021), eq. 10.
    """
    return chosen.sum(-1) + ((importance - 1) * (chosen - best).detach()).sum(-1)


def shape_of_sum(quantiles: Float[Tensor, "*rows agents N"], mean: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows N"]:
    """`sum_i (Z_i(w) - E Z_i) + mean`: the shape of the agents' sum about a mean of its own.

    Sun et al., 'DFAC Framework' (2021, arXiv 2102.07936), eq. 11 (DMIX).
    """
    return (quantiles - quantiles.mean(-1, keepdim=True)).sum(-2) + mean[..., None]


def quantile_mixture(
    quantiles: Float[Tensor, "*rows agents N"], weights: Float[Tensor, "*rows agents"], shift: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows N"]:
    """`sum_i k_i Z_i(w) + c` with weights k >= 0, for which VaR and distortions are greatest where each agent's is.

    Shen et al., 'RiskQ: Risk-sensitive Multi-Agent Reinforcement Learning Value Factorization' (2023, arXiv
    2311.01753), section 4.2.
    """
    return (weights[..., None] * quantiles).sum(-2) + shift[..., None]


def rigm_violations(
    worth: Float[Tensor, "*rows joint"], greedy: Int[Tensor, "*rows"], slack: float = 1e-5
) -> Bool[Tensor, "*rows"]:
    """Where some joint action is worth more to the team, by a risk measure, than that of the agents' own best actions.

    worth: of every joint action; -inf, or at most `NO_ACTION`, for those that are not there. greedy: the index of the
    one that agents take. slack: relative to the largest difference between joint actions in a row, what counts as
    equal; where values are 1e4 times as large as those differences, give float64: rounding of float32 would count.
    ValueError for a worth that is no number. 'Risk-sensitive individual-global-max' of RiskQ (Shen et al., 2023, arXiv
    2311.01753), definition 2; with the mean, IGM.
    """
    if bool(worth.isnan().any()):
        raise ValueError("the worth of some joint actions is not a number (nan); give -inf to those that are not there")
    at_greedy, most = worth.gather(-1, greedy[..., None]).squeeze(-1), worth.amax(-1)
    least = worth.masked_fill(worth <= NO_ACTION, math.inf).amin(-1)
    return most - at_greedy > slack * (most - least).clamp(min=0)
