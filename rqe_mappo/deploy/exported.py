"""What a file gives of a policy, and whether it does: its outputs, and how far they are from PyTorch's."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rqe_mappo.deploy.policy import Policy
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets import CategoricalUtilities, PolicyActor, Utilities
from rqe_mappo.nets.distributions import Categorical, Gaussian

TOLERANCE = 1e-5
Outputs = tuple[np.ndarray, ...]
Run = Callable[..., Outputs]
"""The outputs by the order of `outputs_of`, for observations `[B, D]`, agents `[B]`, and the memory `[B, H]` if any."""


def actor_of(policy: Policy) -> PolicyActor | Utilities:
    """The policy's actor; ValueError for one of another kind than files here can hold."""
    if not isinstance(policy.actor, PolicyActor | Utilities):
        raise ValueError(
            f"policies of --algo {policy.algo} cannot be exported: use Policy.load, which needs no environment"
        )
    return policy.actor


def outputs_of(policy: Policy) -> dict[str, int]:
    """What the file gives, in order, and how wide each output is."""
    actor, actions = actor_of(policy), policy.spec.actions
    if isinstance(actor, Utilities):
        names = ("utilities",)
    else:
        names = ("mean", "std", "action") if actions.kind == "box" else ("logits", "probabilities")
    known = dict.fromkeys(names, actions.outputs)
    return known | {"next_memory": actor.memory_size} if actor.memory_size else known


def computed(
    actor: PolicyActor | Utilities,
    obs: Float[Tensor, "batch D"],
    agent: Int[Tensor, " batch"],
    memory: Float[Tensor, "batch H"] | None = None,
) -> tuple[Tensor, ...]:
    """What the file gives, in the order of `outputs_of`, by PyTorch."""
    if isinstance(actor, Utilities):
        values, after = actor.values(obs, agent, memory)
        given = (values,)
    else:
        policy, after = actor(obs, agent, memory)
        match policy:
            case Gaussian():
                given = (policy.mean, policy.log_std.exp(), policy.action(policy.mean))
            case Categorical():
                given = (policy.logits, policy.probs)
            case _:
                raise ValueError(f"a {type(policy).__name__} cannot be exported")
    return (*given, after) if actor.memory_size else given


def random_inputs(width: int, n_agents: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[count, width]` and agents `[count]`: zeros, single features at ±10, and normal and uniform ones.

    Most are standard normal, the scale for which environments here make their features; a quarter is uniform in ±5, the
    bound of those that have one.
    """
    rng = np.random.default_rng(seed)
    obs = rng.standard_normal((count, width), np.float32)
    obs[::4] = rng.uniform(-5, 5, obs[::4].shape)
    corners = np.concatenate((np.zeros((1, width)), 10 * np.eye(width), -10 * np.eye(width)))[:count]
    obs[: len(corners)] = corners
    return obs, rng.integers(0, n_agents, count)


def random_memory(width: int, count: int, seed: int, latents: int = 0) -> np.ndarray:
    """What an actor may remember, `[count, width + latents]`; in a fifth of the rows nothing.

    Of a GRU, `width` numbers within ±1; of which of the `latents` was drawn, one-hot.
    """
    rng = np.random.default_rng([seed, 1])
    memory = rng.uniform(-1, 1, (count, width)).astype(np.float32)
    if latents:
        memory = np.concatenate((memory, np.eye(latents, dtype=np.float32)[rng.integers(0, latents, count)]), -1)
    memory[::5] = 0
    return memory


@torch.no_grad()
def largest_difference(policy: Policy, run: Run, inputs: int, seed: int) -> float:
    """The largest difference between `run` and the policy, of any output on `inputs` random inputs.

    Observations are in units of the running statistics of those that the policy was trained on, if it has some. Of
    continuous actions and of utilities beyond ±1 the difference is relative, but for actions that the agent lacks; of
    utilities that are sums over atoms it is relative to the largest atom.
    """
    actor, spec = actor_of(policy), policy.spec
    obs, agent = random_inputs(spec.obs_dim, spec.n_agents, inputs, seed)
    if actor.normaliser is not None:
        mean, std = (part.numpy() for part in actor.normaliser.moments)
        obs = mean + std * obs
    given = [obs, agent]
    if actor.memory_size:
        given.append(random_memory(spec.memory, inputs, seed, latents=actor.memory_size - spec.memory))
    relative, worst = spec.actions.kind == "box" or isinstance(actor, Utilities), 0.0
    least = max(1.0, float(actor.atoms.abs().max())) if isinstance(actor, CategoricalUtilities) else 1.0
    due = computed(actor, *map(torch.from_numpy, given))
    for got, expected in zip(run(*given), (value.numpy() for value in due), strict=True):
        gap, size = np.abs(got - expected), np.abs(expected)
        scale = np.where(relative & (expected != NO_ACTION), np.maximum(least, size), 1)
        worst = max(worst, float((gap / scale).max()))
        if np.isnan(gap).any():
            return math.nan
    return worst
