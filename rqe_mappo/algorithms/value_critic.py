"""Critics of numbers, as MAPPO trains them: what the rivals share that predict moments of the return."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.algorithms.averages import Moments
from rqe_mappo.algorithms.episode_returns import EpisodeReturns
from rqe_mappo.algorithms.optimiser import Optimiser
from rqe_mappo.algorithms.ppo import Batch, Minibatch, PPOConfig, Sequences
from rqe_mappo.algorithms.support import complete_returns
from rqe_mappo.config import ConfigError, TrainConfig, require
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import LARGEST, BatchedEnv
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
    """Memory of the std that divides advantages, per rollout; 0: each rollout's own. rqe-mappo uses 0.97."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require(self, self.huber_delta > 0, "huber_delta", "be > 0")
        fits = self.huber_delta <= LARGEST or math.isinf(self.huber_delta)
        require(self, fits, "huber_delta", f"be at most {LARGEST:g}, or inf")
        require(self, 0 <= self.adv_memory < 1, "adv_memory", "be in [0, 1)")
        if self.recurrent and not self.active_masks:
            raise ConfigError(
                "--no-active-masks needs actors without memory, which rests where nobody acts: leave it out"
            )


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
    """A `ValueCritic` and its optimiser: PPO's clipped value loss, in normalised units.

    The first prediction is in units of the returns of the first trajectory already. Otherwise, where returns are small,
    actors would learn from the critic's first errors alone, and Adam would remember their size.
    """

    def __init__(
        self,
        run: TrainConfig,
        env: BatchedEnv,
        values: Callable[[Float[Tensor, " R"]], Float[Tensor, "R K"]] = lambda found: found[:, None],
        view: Literal["state", "obs"] = "state",
    ):
        """values: what is predicted, of some returns."""
        self.run, self.config, self.values = run, run.algorithm, values
        space = env.observation_space if view == "obs" else env.state_space
        spec = ValueCriticSpec(
            view_dim=space.shape[0],
            n_agents=len(env.possible_agents),
            hidden=self.config.critic_hidden,
            view=view,
            values=values(torch.zeros(1)).shape[1],
            memory=self.config.memory if view == "obs" else 0,
            normalise=self.config.normalise_obs,
        )
        rows = env.num_envs * len(env.possible_agents)
        self.memory = torch.zeros(rows, spec.memory, device=run.device)  # of the critic, before the next trajectory
        self.before = self.memory  # and before the one that is being learned from
        self.critic = ValueCritic(spec).to(torch.device(run.device))
        self.optimiser = Optimiser(self.critic, self.config.critic_learning_rate, 2 * self.config.max_grad_norm)
        self.started = False
        shape = env.num_envs, len(env.possible_agents)
        self.episodes = EpisodeReturns(run.gamma, shape, torch.device(run.device))

    def predict(self, chunk: Trajectory) -> Predicted:
        """What the critic predicts along a trajectory."""
        critic = self.critic
        view, final = chunk.view(critic.view), chunk.final_view(critic.view)
        terminated, truncated = chunk.ends(self.run.time_limit)
        ended = terminated | truncated | chunk.lost
        if self.config.value_norm and not self.started:
            found, counts = complete_returns(chunk, terminated, ended, self.run.gamma)
            critic.norm.update(self.values(found[counts]))
        self.started = True
        raw, memory = self._along(chunk) if critic.memory_size else (critic.normalised(view, chunk.agent), None)
        value = critic.norm.restore(raw)
        following = value[1:].clone()
        cut = truncated.nonzero(as_tuple=True)
        if len(cut[0]):
            following[cut] = critic(final, cut[2], None if memory is None else memory[cut])
        return Predicted(value[:-1], following, raw[:-1], terminated, ended)

    def _along(self, chunk: Trajectory) -> tuple[Float[Tensor, "T+1 E A K"], Float[Tensor, "T E A H"]]:
        """What a critic with memory predicts, in normalised units, and what it remembers after each step."""
        critic, (t, e, a) = self.critic, chunk.active.shape
        self.before = self.memory
        agent = chunk.agent[0].flatten()
        active, begins = chunk.active.flatten(1, 2), chunk.begins.repeat_interleave(a, 1)
        more = active.new_zeros(1, e * a)  # the entry after the last step begins nothing that counts, and is not kept
        raw, memory = critic.unrolled(
            chunk.view(critic.view).flatten(1, 2),
            agent,
            self.memory,
            torch.cat((begins, more)),
            torch.cat((active, more)),
        )
        self.memory = memory[t - 1]
        return raw.unflatten(1, (e, a)), memory[:t].unflatten(1, (e, a))

    def normalise(self, batch: Batch) -> None:
        """Put the batch's targets into normalised units, of which they are part themselves."""
        if self.config.value_norm:
            self.critic.norm.update(batch.target)
        batch.target = self.critic.norm.normalise(batch.target)

    def step(self, batch: Batch, old: Float[Tensor, "R K"], part: Minibatch) -> dict[str, Tensor]:
        """Improve the critic on some rows; `old` is what it predicted before the update, in normalised units."""
        rows = part.rows
        value = self._predicted(batch.chunk, batch.rows[rows], batch.agent[rows], part.sequences)
        clip = self.config.clip_coef if self.config.value_clip else math.inf
        loss = value_loss(value, batch.target[rows], old[rows], clip, self.config.huber_delta).sum(-1).mean()
        self.optimiser.descend(loss)
        return {"losses/critic_value": loss.detach()}

    def _predicted(
        self, chunk: Trajectory, where: Int[Tensor, " M"], agent: Int[Tensor, " M"], part: Sequences | None
    ) -> Float[Tensor, "M K"]:
        """What the critic predicts now, in normalised units, at some rows."""
        view = chunk.view(self.critic.view)
        if part is None or not self.critic.memory_size:
            return self.critic.normalised(flat(view)[where], agent)
        memory = self.before[part.index]
        raw, _ = self.critic.unrolled(part.along(view), part.agent, memory, part.begins, part.active)
        return raw[part.step, part.place]

    def ended(self, chunk: Trajectory, predicted: Predicted) -> list[Moments]:
        """Each agent's returns of the episodes that ended in a trajectory."""
        value, next_value = predicted.value[..., 0], predicted.next_value[..., 0]
        return self.episodes.observe(chunk, value, next_value, predicted.terminated, predicted.ended)

    def observe(self, batch: Batch) -> None:
        """Take what was seen into the running statistics, once everything is learned from it."""
        if self.critic.normaliser is not None:
            self.critic.normaliser.update(flat(batch.chunk.view(self.critic.view))[batch.rows])

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, and what a critic with memory remembers."""
        return {
            "critic_optimizer": self.optimiser.state_dict(),
            "critic_memory": self.memory,
            "started": self.started,
            "episodes": self.episodes.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["critic_optimizer"])
        if "critic_memory" in state:  # older files hold none, and critics had no memory
            memory = schema.read(Tensor, state["critic_memory"], "critic_memory")
            if memory.shape != self.memory.shape:
                raise ValueError(
                    f"critic_memory must have shape {tuple(self.memory.shape)} (got {tuple(memory.shape)})"
                )
            self.memory = memory.to(self.run.device)
        self.started = schema.read(bool, state.get("started", True), "started")
        if "episodes" in state:
            self.episodes.load_state_dict(state["episodes"])


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


def value_scalars(value: Float[Tensor, " R"], target: Float[Tensor, " R"]) -> dict[str, Tensor]:
    """Scalars to log of the predicted means before an update, and how much of the targets they explain."""
    explained = 1 - (target - value).var() / target.var()
    return {"critic/mean": value.mean(), "critic/explained_variance": explained}


def unmasked(chunk: Trajectory) -> Trajectory:
    """The trajectory in which empty places act too: their rows, all zeros, are steps to an end worth nothing."""
    empty = ~chunk.active & (chunk.state[:-1] == 0).all(-1)
    return replace(chunk, active=chunk.active | empty, terminated=chunk.terminated | empty)
