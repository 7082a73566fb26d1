"""Policies mixed at run time: train a safe and a fast one once, and choose the point between them while they drive.

What a mixture of policies means is not one thing. `kind` says which, for weights `w` that sum to 1:

* `probability`: at every decision actions are drawn from `sum_i w_i pi_i`. The default.
* `episode`: when an episode begins one policy is drawn, with probabilities `w`, and drives all agents to its end. The
  law of returns is then exactly the mixture of the policies' laws: its mean is linear in `w`, its CVaR no
  more than linear and often far less, for the worst episodes of the faster policy remain, only rarer.
* `logit`: actions are drawn in proportion to `prod_i pi_i^{w_i}`, the geometric mixture.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rqe_mappo.deploy.policy import Decider, Policy
from rqe_mappo.functional.policy_gradient import NO_ACTION

Kind = Literal["probability", "episode", "logit"]
Alpha = float | Sequence[float] | Mapping[str, float] | Callable[[np.ndarray], Any]
Weights = Sequence[float] | Sequence[Sequence[float]] | Callable[[np.ndarray], Any]
ROUNDING = 1e-6  # by how much weights may miss a sum of 1


def interpolate(safe: Policy, neutral: Policy, alpha: Alpha = 0.5, kind: Kind = "probability") -> "Mixture":
    """The policy that is `alpha` of `safe` and `1 - alpha` of `neutral`; set its `alpha` anew whenever you like.

    alpha: a number in [0, 1]; one for each agent, in order or by name; or a function that gives `[...]` of them for
        observations `[..., D]`.
    kind: what a mixture means, see the module.
    ValueError where the policies do not belong to the same environment, agents and actions, or for another alpha.

    >>> mixture = interpolate(Policy.load("runs/safe"), Policy.load("runs/neutral"), alpha=0.5)
    >>> mixture.alpha = 1.0  # from the next decision on
    """
    mixture = Mixture((safe, neutral), (0.5, 0.5), kind)
    mixture.alpha = alpha
    return mixture


class Mixture(Decider):
    """Two or more policies with weights, which may be set at any time and act from the next decision on.

    Every policy sees the observation as it is and handles it in its own way. With the kind `episode` call `begin` when
    episodes begin. Agents share its draw; where their weights differ, the greater of two weights of a policy contains
    the smaller. Changed weights may thus change the driver of an episode that is under way.
    """

    def __init__(self, policies: Sequence[Policy], weights: Weights, kind: Kind = "probability"):
        super().__init__()
        if len(policies) < 2:
            raise ValueError(f"a mixture is of two policies or more (got {len(policies)})")
        if kind not in get_args(Kind):
            raise ValueError(f"a mixture of kind {kind!r} is unknown: use {', '.join(get_args(Kind))}")
        for policy in policies[1:]:
            _check_alike(policies[0], policy)
        self.policies, self.kind = tuple(policies), kind
        self.agents, self.shapes, self.device = policies[0].agents, policies[0].shapes, policies[0].device
        self._fates = torch.Generator().manual_seed(0)
        self._fate: Float[Tensor, " copies"] | None = None
        self.weights = weights

    @property
    def weights(self) -> Weights:
        """As they were set: `[P]`; `[A, P]`, a row an agent; or a function of observations `[..., D]` to `[..., P]`."""
        return self._given

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self._weigh = self._weigher(weights)
        self._given, self._alpha = weights, None

    @property
    def alpha(self) -> Any:
        """The weight of the first of two policies, in the form in which it was set."""
        self._check_two()
        return _first(self._given) if self._alpha is None else self._alpha

    @alpha.setter
    def alpha(self, alpha: Alpha) -> None:
        self._check_two()
        if isinstance(alpha, float | int) and 0 <= alpha <= 1:  # fast, for it may be turned before every decision
            plain = [float(alpha), 1.0 - alpha]
            self._given, self._weigh = plain, lambda obs, agent: plain
        elif callable(alpha):
            self.weights = lambda obs: _pair(alpha(obs))
        elif isinstance(alpha, Mapping):
            if set(alpha) != set(self.agents):
                raise ValueError(f"alpha must name each agent once: {', '.join(self.agents)} (got {', '.join(alpha)})")
            self.weights = _pair([alpha[name] for name in self.agents]).tolist()
        else:
            self.weights = _pair(alpha).tolist()
        self._alpha = alpha

    def seed(self, seed: int) -> None:
        """Seed the draws of `act` and of `begin`, which do not disturb each other."""
        super().seed(seed)
        self._fates.manual_seed(seed)

    def begin(self, copies: Sequence[int] | np.ndarray | None = None, of: int = 1) -> None:
        """Draw anew which policy drives, where episodes begin: in the `copies` of an environment of `of` copies, or in
        all of them. Observations then have the copies as their first axis, unless there is one."""
        if self._fate is None or len(self._fate) != of:
            self._fate, copies = torch.empty(of), None
        rows = range(of) if copies is None else copies
        self._fate[list(rows)] = torch.rand(len(rows), generator=self._fates)

    def logits(self, obs: Float[Tensor, "*rows obs"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        weights = self._weigh(obs, agent)
        if self.kind == "episode":
            weights = self._drawn(weights, obs)
        if isinstance(weights, Tensor):
            every = [policy.actor(obs, agent) for policy in self.policies]
            return self._mixed(every, list(weights.unbind(-1)))
        using = [(policy, weight) for policy, weight in zip(self.policies, weights, strict=True) if weight > 0]
        every = [policy.actor(obs, agent) for policy, _ in using]
        return every[0] if len(every) == 1 else self._mixed(every, [weight for _, weight in using])

    def _mixed(self, every: list[Tensor], weights: Sequence[float] | Sequence[Tensor]) -> Tensor:
        """Logits of the mixture; those of a policy with all the weight are its own to the last bit."""
        each = isinstance(weights[0], Tensor)
        if each:
            weights = [weight[..., None] for weight in weights]
        if self.kind == "logit":
            mixed = sum(weight * logits for weight, logits in zip(weights, every, strict=True))
        else:
            logs = [weight.log() if each else math.log(weight) for weight in weights]
            parts = [logits.log_softmax(-1) + log for log, logits in zip(logs, every, strict=True)]
            mixed = reduce(torch.logaddexp, parts)
        if each:
            for weight, logits in zip(weights, every, strict=True):
                mixed = torch.where(weight == 1, logits, mixed)
        return mixed if self.policies[0].actor.lacking is None else mixed.masked_fill(every[0] <= NO_ACTION, NO_ACTION)

    def _drawn(self, weights: Tensor | list[float], obs: Tensor) -> Tensor | list[float]:
        """All weight on the policy that each row's episode has drawn."""
        if self._fate is None:
            raise ValueError("kind 'episode' draws a policy for each episode: call begin() whenever one begins")
        if isinstance(weights, list) and len(self._fate) == 1:
            drawn = int((np.cumsum(weights) <= float(self._fate)).sum())
            return [float(index == drawn) for index in range(len(weights))]
        count = len(self._fate)
        if count > 1 and (obs.ndim < 2 or len(obs) != count):
            raise ValueError(f"episodes of {count} copies have begun: observations must have them as their first axis")
        fate = self._fate.to(self.device).reshape(-1, *(1 for _ in obs.shape[1:]))
        known = torch.as_tensor(weights, dtype=obs.dtype, device=self.device).expand(*obs.shape[:-1], -1)
        drawn = (known.cumsum(-1) <= fate).sum(-1).clamp(max=known.shape[-1] - 1)
        return torch.nn.functional.one_hot(drawn, known.shape[-1]).to(obs.dtype)

    def _weigher(self, weights: Weights) -> Callable[[Tensor, Tensor], Tensor | list[float]]:
        """A function from rows and their agents to weights: `[P]` as a list, or `[*rows, P]`."""
        if callable(weights):
            return lambda obs, agent: self._checked(weights(obs.cpu().numpy()), obs.shape[:-1])
        known = self._checked(weights, None)
        if known.ndim == 1:
            plain = known.tolist()
            return lambda obs, agent: plain
        return lambda obs, agent: known[agent]

    def _checked(self, weights: Any, rows: tuple[int, ...] | None) -> Tensor:
        """Weights as a tensor; `rows` are those of the observations they shall belong to."""
        known = torch.as_tensor(np.asarray(weights, dtype=np.float32))
        count, agents = len(self.policies), len(self.agents)
        shapes = [(*rows, count)] if rows is not None else [(count,), (agents, count)]
        if tuple(known.shape) not in shapes:
            wanted = " or ".join(map(str, shapes))
            raise ValueError(f"weights must have shape {wanted}, {count} policies (got {tuple(known.shape)})")
        if not bool((known >= 0).all() and ((known.sum(-1) - 1).abs() <= ROUNDING).all()):
            raise ValueError("weights must lie in [0, 1] and sum to 1, and so must alpha and 1 - alpha")
        return known.to(self.device)

    def _check_two(self) -> None:
        if len(self.policies) != 2:
            raise ValueError(
                f"alpha is the weight of the first of two policies, here are {len(self.policies)}: set weights"
            )


def _pair(alpha: Any) -> np.ndarray:
    """Weights of two policies: `[..., 2]` for alphas `[...]`."""
    first = np.asarray(alpha, dtype=np.float64)
    return np.stack((first, 1 - first), -1)


def _first(weights: Weights) -> Any:
    """The first policy's share of weights in any of their forms."""
    if callable(weights):
        return lambda obs: np.asarray(weights(obs))[..., 0]
    return np.asarray(weights)[..., 0].tolist()


def _check_alike(one: Policy, other: Policy) -> None:
    """ValueError unless both see and do the same."""
    configs = [json.loads(policy.config_json) for policy in (one, other)]
    pairs = {
        "environments": [config.get("env") for config in configs],
        "agents": [policy.agents for policy in (one, other)],
        "features of an observation": [policy.shapes.obs_dim for policy in (one, other)],
        "actions": [policy.shapes.n_actions for policy in (one, other)],
        "actions of each agent": [policy.shapes.action_counts for policy in (one, other)],
        "devices": [policy.device for policy in (one, other)],
    }
    if all(config.get("advantage") == "static" for config in configs):  # the return so far is observed, discounted
        pairs["discounts (gamma) of the return so far"] = [config.get("gamma") for config in configs]
    for what, (first, second) in pairs.items():
        if first != second:
            raise ValueError(f"policies cannot be mixed, their {what} differ: {first} and {second}")
