"""One collector for all environments: T decisions of E copies with A agents each, as tensors `[T, E, A, ...]`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.envs.contract import BatchedEnv, Observed, Step
from rqe_mappo.envs.history import History
from rqe_mappo.nets import Actor, sample


@dataclass
class PastOfRollout:
    """What the episodes under way had brought before each step; see `History`."""

    past: Float[Tensor, "T E A"]
    discount: Float[Tensor, "T E"]
    start: Float[Tensor, "T E A S"]


@dataclass
class Rollout:
    """What the learner sees of T steps; rows with `active` False hold nothing.

    next_obs, next_state: what actors and critic see after the last step.
    final_state: what the critic sees after each truncation, in the order of `truncated.nonzero()`.
    lost: the simulation was lost after this step: the return goes on from what the next row's `state` holds, in which
        nobody is active.
    history: the past of each step's episode, where the environment keeps it.
    """

    obs: Float[Tensor, "T E A D"]
    state: Float[Tensor, "T E A S"]
    action: Int[Tensor, "T E A"]
    log_prob: Float[Tensor, "T E A"]
    reward: Float[Tensor, "T E A"]
    cost: Float[Tensor, "T E A"]
    active: Bool[Tensor, "T E A"]
    terminated: Bool[Tensor, "T E A"]
    truncated: Bool[Tensor, "T E A"]
    lost: Bool[Tensor, "T E A"]
    next_obs: Float[Tensor, "E A D"]
    next_state: Float[Tensor, "E A S"]
    final_state: Float[Tensor, "M S"]
    history: PastOfRollout | None


class Collector:
    """Steps the environments with the current actors and keeps what the learner needs.

    Random numbers are drawn on the CPU, so that runs on different devices see the same ones.
    """

    def __init__(self, env: BatchedEnv, num_steps: int, device: torch.device, generator: torch.Generator):
        self.env, self.num_steps, self.device, self.generator = env, num_steps, device, generator
        e, a = env.num_envs, len(env.possible_agents)
        self.agent = torch.arange(a, device=device).expand(e, a)
        self.observed: Observed | None = None

    def start(self, observed: Observed) -> None:
        """Go on from what the environment shows after `reset` or `restore`."""
        self.observed = observed

    @torch.no_grad()
    def collect(self, actor: Actor) -> tuple[Rollout, list[dict[str, np.ndarray]]]:
        """A rollout, and the records of the episodes that ended in it."""
        env, device = self.env, self.device
        e, a = env.num_envs, len(env.possible_agents)

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(self.num_steps, e, a, *shape, dtype=dtype)

        kept: dict[str, Any] = {
            "obs": empty(env.observation_space.shape[0]),
            "state": empty(env.state_space.shape[0]),
            "reward": empty(),
            "cost": empty(),
            **{name: empty(dtype=torch.bool) for name in ("active", "terminated", "truncated")},
            "lost": torch.zeros(self.num_steps, e, a, dtype=torch.bool),
        }
        action = torch.empty(self.num_steps, e, a, dtype=torch.int64, device=device)
        logits = torch.empty(self.num_steps, e, a, actor.n_actions, device=device)
        final_states, episodes, pasts = [], [], []
        for t in range(self.num_steps):
            seen = self.observed
            for name in ("obs", "state", "active"):
                kept[name][t] = torch.from_numpy(getattr(seen, name))
            if isinstance(env, History):
                pasts.append((env.past, env.discount, env.start))
            logits[t] = actor(kept["obs"][t].to(device), self.agent)
            uniform = torch.rand(e, a, generator=self.generator).to(device)
            action[t] = sample(logits[t], uniform)
            step = env.step(action[t].cpu().numpy())
            for name in ("reward", "cost", "terminated", "truncated"):
                kept[name][t] = torch.from_numpy(getattr(step, name))
            final_state = step.final_state
            if step.sim_crashed is not None:
                final_state = _take_back(kept, t, step)
            if len(final_state):
                final_states.append(torch.from_numpy(final_state.copy()))
            if len(step.episodes["copy"]):
                episodes.append(step.episodes)
            self.observed = step
        final_state = torch.cat(final_states) if final_states else torch.empty(0, env.state_space.shape[0])
        rollout = Rollout(
            **{name: value.to(device) for name, value in kept.items()},
            action=action,
            log_prob=logits.log_softmax(-1).gather(-1, action[..., None]).squeeze(-1),
            next_obs=torch.from_numpy(self.observed.obs.copy()).to(device),
            next_state=torch.from_numpy(self.observed.state.copy()).to(device),
            final_state=final_state.to(device),
            history=PastOfRollout(*(torch.from_numpy(np.stack(part)).to(device) for part in zip(*pasts, strict=True)))
            if pasts
            else None,
        )
        return rollout, episodes


def _take_back(kept: dict[str, Any], t: int, step: Step) -> np.ndarray:
    """Leave nothing to learn of the copies that did not play step t; gives the final states of all others.

    Their episodes are cut after the step before, where the critic's view is the one kept at t. (At t = 0 that step was
    the last of the rollout before, which ended there anyway.)
    """
    gone = torch.from_numpy(step.sim_crashed)
    if t > 0:
        kept["lost"][t - 1][gone] = kept["active"][t][gone]
    for name in ("active", "truncated"):
        kept[name][t][gone] = False
    copy, _ = np.nonzero(step.truncated)
    return step.final_state[~step.sim_crashed[copy]]
