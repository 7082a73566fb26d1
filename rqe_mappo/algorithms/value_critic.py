"""Critics of numbers, as MAPPO trains them: what the rivals share that predict moments of the return."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.algorithms.actor_critic import Optimiser
from rqe_mappo.algorithms.ppo import Batch, PPOConfig
from rqe_mappo.config import TrainConfig, require
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import returns
from rqe_mappo.nets import ValueCritic, ValueCriticSpec


@dataclass(frozen=True, kw_only=True)
class ValueCriticConfig(PPOConfig):
    """The factors that the MAPPO paper names."""

    value_norm: bool = True
    """Divide what the critic learns by the running std of returns."""
    value_clip: bool = True
    """Let the critic move by at most --clip-coef stds a rollout, as PPO's policy."""
    huber_delta: float = 10.0
    """Where the critic's loss turns from squared to linear, in stds of the return; inf: nowhere."""
    active_masks: bool = True
    """Learn only where agents act; else the rows of those that left count too, as a state worth 0."""
    adv_memory: float = 0.0
    """Memory of the std that divides advantages, per rollout; 0: each rollout's own. rqe-mappo has 0.97."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require(self, self.huber_delta > 0, "huber_delta", "be > 0")
        require(self, 0 <= self.adv_memory < 1, "adv_memory", "be in [0, 1)")


@dataclass(frozen=True)
class Predicted:
    """What the critic predicts, in units of the return, at each step and at the one after it (or the final state).

    raw: the former, in normalised units.
    """

    value: Float[Tensor, "T E A K"]
    next_value: Float[Tensor, "T E A K"]
    raw: Float[Tensor, "T E A K"]
    terminated: Bool[Tensor, "T E A"]
    ended: Bool[Tensor, "T E A"]

    def gae(
        self, reward: Tensor, value: Tensor, next_value: Tensor, gamma: float, lam: float
    ) -> Float[Tensor, "T E A"]:
        """Generalised advantages of some `value` of these, of which `gamma` is discounted a step."""
        return returns.gae(reward, value, next_value, self.terminated, self.ended, gamma, lam)


class ValueUpdate:
    """A `ValueCritic` and its optimiser: PPO's clipped value loss, in normalised units."""

    def __init__(self, run: TrainConfig, env: BatchedEnv, values: int = 1, view: str = "state"):
        self.run, self.config = run, run.algorithm
        space = env.observation_space if view == "obs" else env.state_space
        spec = ValueCriticSpec(
            view_dim=space.shape[0],
            n_agents=len(env.possible_agents),
            hidden=self.config.critic_hidden,
            view=view,
            values=values,
        )
        self.critic = ValueCritic(spec).to(torch.device(run.device))
        self.optimiser = Optimiser(self.critic, self.config.critic_learning_rate, 2 * self.config.max_grad_norm)

    def predict(self, chunk: Trajectory) -> Predicted:
        """What the critic predicts along a trajectory."""
        agent, view = chunk.agent, self.critic.view
        raw = self.critic.normalised(chunk.view(view), agent)
        value = self.critic.norm.restore(raw)
        terminated, truncated = chunk.ends(self.run.time_limit)
        following = value[1:].clone()
        if truncated.any():
            following[truncated] = self.critic(chunk.final_view(view), truncated.nonzero()[:, 2])
        ended = terminated | truncated | chunk.lost
        return Predicted(value[:-1], following, raw[:-1], terminated, ended)

    def normalise(self, batch: Batch) -> None:
        """Put the batch's targets into normalised units, of which they are part themselves."""
        if self.config.value_norm:
            self.critic.norm.update(batch.target)
        batch.target = self.critic.norm.normalise(batch.target)

    def step(self, batch: Batch, old: Float[Tensor, "R K"], rows: Int[Tensor, " M"]) -> dict[str, Tensor]:
        """Improve the critic on some rows; `old` is what it predicted before the update, in normalised units."""
        view = flat(batch.chunk.view(self.critic.view))[batch.rows[rows]]
        value = self.critic.normalised(view, batch.agent[rows])
        clip = self.config.clip_coef if self.config.value_clip else math.inf
        loss = value_loss(value, batch.target[rows], old[rows], clip, self.config.huber_delta).sum(-1).mean()
        self.optimiser.descend(loss)
        return {"losses/critic_value": loss.detach()}


def huber(error: Float[Tensor, "*batch"], delta: float) -> Float[Tensor, "*batch"]:
    """`error^2 / 2` up to `|error| = delta`, linear beyond; half the square everywhere for an infinite delta."""
    inner = error.abs().clamp(max=delta)
    return inner * (error.abs() - inner / 2)


def value_loss(
    value: Float[Tensor, "*batch"],
    target: Float[Tensor, "*batch"],
    old: Float[Tensor, "*batch"],
    clip: float,
    delta: float,
) -> Float[Tensor, "*batch"]:
    """The larger of the Huber losses of `value` and of `old + clip(value - old, -clip, clip)`; no clipping if infinite.

    Schulman et al.'s PPO code; Yu et al. (2022), appendix A.
    """
    near = old + (value - old).clamp(-clip, clip)
    return torch.maximum(huber(target - value, delta), huber(target - near, delta))


def value_scalars(value: Float[Tensor, " R"], target: Float[Tensor, " R"]) -> dict[str, float]:
    """Scalars to log of the predicted means before an update, and how much of the targets they explain."""
    explained = 1 - (target - value).var() / target.var()
    return {"critic/mean": value.mean().item(), "critic/explained_variance": explained.item()}


def unmasked(chunk: Trajectory) -> Trajectory:
    """The trajectory in which empty places act too: their rows, all zeros, are steps to an end worth nothing."""
    empty = ~chunk.active & (chunk.state[:-1] == 0).all(-1)
    return replace(chunk, active=chunk.active | empty, terminated=chunk.terminated | empty)
