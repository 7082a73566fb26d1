"""Policies mixed at run time: train a safe and a fast one once, and choose the point between them while they act.

What a mixture of policies means is not one thing. `kind` says which, for weights `w` that sum to 1:

* `probability`: at every decision one policy is drawn for each agent, with probabilities `w`, and acts: actions are
  drawn from `sum_i w_i pi_i`. The default.
* `episode`: when an episode begins one policy is drawn, with probabilities `w`, and acts for all agents to its end. The
  distribution of returns is then exactly the mixture of the policies' distributions: its mean is linear in `w`, its
  CVaR no more than linear and often far less, for the worst episodes of the faster policy remain, only rarer.
* `logit`: actions are drawn in proportion to `prod_i pi_i^{w_i}`, the geometric mixture; of choices only.

With `deterministic` the most probable action of the mixture is taken, of several choices at once the most probable of
each. The first two kinds draw which policy acts, and so work for any actions; policies with memory all see everything,
and remember what they would have remembered alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.deploy.policy import ActingPolicy, Memory, Policy
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets.distributions import Categorical

Kind = Literal["probability", "episode", "logit"]
Alpha = float | Sequence[float] | Mapping[str, float] | Callable[[np.ndarray], Any]
Weights = Sequence[float] | Sequence[Sequence[float]] | Callable[[np.ndarray], Any]
ROUNDING = 1e-6  # by how much weights may miss a sum of 1


def interpolate(safe: Policy, neutral: Policy, alpha: Alpha = 0.5, kind: Kind = "probability") -> "Mixture":
    """The policy that is `alpha` of `safe` and `1 - alpha` of `neutral`; set its `alpha` anew at any time.

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


class Mixture(ActingPolicy):
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
        self.agents, self.spec, self.device = policies[0].agents, policies[0].spec, policies[0].device
        self.spaces = next((policy.spaces for policy in policies if policy.spaces), None)
        if kind == "logit" and self.spec.actions.kind == "box":
            raise ValueError("kind 'logit' needs actions with logits, and these are continuous: use probability")
        self._choices = torch.Generator().manual_seed(_another(0))
        self._episode_draws: Float[Tensor, " copies"] | None = None
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
        """Seed the draws of actions and of which policy acts, which do not disturb each other."""
        super().seed(seed)
        self._choices.manual_seed(_another(seed))

    def begin(self, copies: Sequence[int] | np.ndarray | None = None, of: int = 1) -> None:
        """Draw anew which policy drives, where episodes begin: in the `copies` of an environment of `of` copies, or in
        all of them. Observations then have the copies as their first axis, unless there is one."""
        for policy in self.policies:
            policy.begin(copies, of)
        if self._episode_draws is None or len(self._episode_draws) != of:
            self._episode_draws, copies = torch.empty(of), None
        rows = range(of) if copies is None else copies
        if self.kind == "episode":
            self._episode_draws[list(rows)] = torch.rand(len(rows), generator=self._choices)

    @property
    def memory(self) -> tuple[Memory, ...]:
        """What each of the policies remembers."""
        return tuple(policy.memory for policy in self.policies)

    @memory.setter
    def memory(self, memory: tuple[Memory, ...]) -> None:
        for policy, own in zip(self.policies, memory, strict=True):
            policy.memory = own

    @property
    def _remembers(self) -> bool:
        return any(policy._remembers for policy in self.policies)

    def _act(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        uniform: Float[Tensor, "*rows draws"] | None,
        avail: Bool[Tensor, "*rows actions"] | None,
        active: Bool[Tensor, "*rows"] | None,
    ) -> Tensor:
        weights = self._weights_of(obs, agent)
        if self.kind == "logit":
            mixed = self._choices_of(obs, agent, weights, avail)
            self._let_all_remember(obs, agent, avail, active)
            return mixed.action(mixed.mode() if uniform is None else mixed.sample(uniform))
        if uniform is None and self.spec.actions.kind != "box":  # the most probable action of the mixture
            mixed = self._choices_of(obs, agent, weights, avail)
            self._let_all_remember(obs, agent, avail, active)
            return mixed.action(mixed.mode())
        chosen = self._chosen(weights, obs.shape[:-1])
        found: list[Tensor] = []
        for index, policy in enumerate(self.policies):
            mine = chosen == index
            if policy._remembers or mine.any():
                theirs = policy.step(obs, agent, uniform, avail, active).action
                each = mine.reshape(mine.shape + (1,) * (theirs.ndim - mine.ndim))
                found.append(torch.where(each, theirs, found[-1]) if found else theirs)
        return found[-1]

    def _chosen(self, weights: Tensor | list[float], rows: tuple[int, ...]) -> Int[Tensor, "*rows"]:
        """Which policy acts for each row."""
        if isinstance(weights, list) and max(weights) == 1:
            return torch.full(rows, weights.index(1), device=self.device)
        draws = torch.rand(rows, generator=self._choices).to(self.device)
        known = torch.as_tensor(weights, dtype=draws.dtype, device=self.device).expand(*rows, -1)
        return (known.cumsum(-1) <= draws[..., None]).sum(-1).clamp(max=known.shape[-1] - 1)

    def _let_all_remember(self, obs: Tensor, agent: Tensor, avail: Tensor | None, active: Tensor | None) -> None:
        for policy in self.policies:
            if policy._remembers:
                policy.step(obs, agent, None, avail, active)

    def _probabilities(self, obs: Tensor, agent: Tensor, avail: Tensor | None) -> Tensor:
        return self._choices_of(obs, agent, self._weights_of(obs, agent), avail).probs

    def _weights_of(self, obs: Tensor, agent: Tensor) -> Tensor | list[float]:
        weights = self._weigh(obs, agent)
        return self._drawn(weights, obs) if self.kind == "episode" else weights

    def _choices_of(
        self, obs: Tensor, agent: Tensor, weights: Tensor | list[float], avail: Tensor | None = None
    ) -> Categorical:
        """The mixture's own distribution, of choices."""
        if isinstance(weights, Tensor):
            using = list(zip(self.policies, weights.unbind(-1), strict=True))
        else:
            pairs = zip(self.policies, weights, strict=True)
            using = [(policy, obs.new_tensor(weight)) for policy, weight in pairs if weight > 0]
        every = [policy.choices(obs, agent, avail) for policy, _ in using]
        if len(every) == 1:
            return every[0]
        logits = self._mixed([each.logits for each in every], [weight[..., None] for _, weight in using])
        masked = any(each.masked for each in every)
        if masked:  # an action is not there if nobody has it: who acts by values gives that logit to all but the best
            there = reduce(torch.logical_or, [each.logits > NO_ACTION for each in every])
            logits = logits.masked_fill(~there, NO_ACTION)
        return replace(every[0], logits=logits, masked=masked)

    def _mixed(self, every: list[Tensor], weights: list[Tensor]) -> Float[Tensor, "*rows outputs"]:
        """Logits of the mixture; those of a policy with all the weight are its own to the last bit."""
        if self.kind == "logit":
            parts = [weight * logits for weight, logits in zip(weights, every, strict=True)]
            mixed = reduce(torch.add, parts)
        else:
            parts = [self._log_probs(logits) + weight.log() for weight, logits in zip(weights, every, strict=True)]
            mixed = reduce(torch.logaddexp, parts)
        for weight, logits in zip(weights, every, strict=True):
            mixed = torch.where(weight == 1, logits, mixed)
        return mixed

    def _log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities, those of each choice apart."""
        return torch.cat([part.log_softmax(-1) for part in logits.split(self.spec.actions.sizes, -1)], -1)

    def _drawn(self, weights: Tensor | list[float], obs: Tensor) -> Tensor | list[float]:
        """All weight on the policy that each row's episode has drawn."""
        if self._episode_draws is None:
            raise ValueError("kind 'episode' draws a policy for each episode: call begin() whenever one begins")
        if isinstance(weights, list) and len(self._episode_draws) == 1:
            drawn = min(int((np.cumsum(weights) <= float(self._episode_draws)).sum()), len(weights) - 1)
            return [float(index == drawn) for index in range(len(weights))]
        count = len(self._episode_draws)
        if count > 1 and (obs.ndim < 2 or len(obs) != count):
            raise ValueError(f"episodes of {count} copies have begun: observations must have them as their first axis")
        draw = self._episode_draws.to(self.device).reshape(-1, *(1 for _ in obs.shape[1:]))
        known = torch.as_tensor(weights, dtype=obs.dtype, device=self.device).expand(*obs.shape[:-1], -1)
        drawn = (known.cumsum(-1) <= draw).sum(-1).clamp(max=known.shape[-1] - 1)
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


def _another(seed: int) -> int:
    """A seed of numbers that have nothing to do with those of `seed`: which policy acts must not tell how it acts."""
    return int(np.random.SeedSequence((abs(seed), int(seed < 0), 1)).generate_state(1, np.uint64)[0] >> 1)


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
        "features of an observation": [policy.spec.obs_dim for policy in (one, other)],
        "actions": [policy.spec.actions for policy in (one, other)],
        "devices": [policy.device for policy in (one, other)],
    }
    if all(config["algorithm"].get("advantage") == "static" for config in configs):  # they see discounted returns
        pairs["discounts (gamma) of the return so far"] = [config.get("gamma") for config in configs]
    for what, (first, second) in pairs.items():
        if first != second:
            raise ValueError(f"policies cannot be mixed, their {what} differ: {first} and {second}")
    if None not in (one.spaces, other.spaces) and one.spaces != other.spaces:
        raise ValueError(
            "policies cannot be mixed, their agents observe or act in other spaces: train them in the same"
        )
