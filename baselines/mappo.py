"""MAPPO: PPO with a centralised critic of the mean return, `--algo mappo`.

Yu et al., 'The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games' (NeurIPS 2022, arXiv 2103.01955) and
its code, marlbenchmark/on-policy.

Kept: a critic of the agent's own view of the global state; value normalisation, value clipping and the Huber loss, both
in normalised units; GAE; advantages normalised by each rollout's mean and std over the rows in which agents acted;
masks for agents that left, whose view is all zeros but for their name; PPO's clip and entropy bonus; a policy shared by
agents (`--shared-actor`).

Dropped, in favour of what all algorithms here share, so that they differ in nothing else: the paper's networks
(LayerNorm of inputs, recurrence), step sizes and number of epochs, which are those of the environment's recipe; stacked
frames. Time limits are bootstrapped where the recipe says so: the paper's code took them for ends. Its statistics of
returns took in a rollout once a minibatch and epoch, here once; and its scripts for SMAC passed
`--use_value_active_masks`, which switched the masks off.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rqe_mappo.algorithms.rqe_mappo import Batch, Learner, RunningMean, spread
from rqe_mappo.config import ConfigError, Options, TrainConfig, each_agent, spelled
from rqe_mappo.data.collector import Rollout
from rqe_mappo.functional import returns
from rqe_mappo.functional.risk import RiskMeasure
from rqe_mappo.nets import Shapes


@dataclass(frozen=True)
class ScalarOptions(Options):
    """What the rivals with a critic of numbers share: the factors that the MAPPO paper names."""

    defaults: ClassVar[dict[str, Any]] = {"tau": math.inf, "advantage": "value"}
    critic_values: ClassVar[int] = 1

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

    def check(self, config: TrainConfig) -> None:
        if not self.huber_delta > 0:
            raise ConfigError(f"--huber-delta must be > 0 (got {self.huber_delta:g})")
        if not 0 <= self.adv_memory < 1:
            raise ConfigError(f"--adv-memory must be in [0, 1) (got {self.adv_memory:g})")
        if config.advantage != "value":
            raise ConfigError(f"--algo {config.algo} has no --advantage {config.advantage}: leave it out")
        if self.critic_sees_obs and config.time_limit == "bootstrap" and config.num_steps < 3:
            raise ConfigError(
                f"--num-steps must be at least 3 where the critic sees observations (got {config.num_steps}): "
                "the last step before a time limit is left out"
            )
        self.check_risk(config)

    def check_risk(self, config: TrainConfig) -> None:
        """Raise ConfigError for a measure that the algorithm would not heed."""
        if config.risk not in ("entropic", "neutral") or any(tau < math.inf for tau in each_agent(config.tau)):
            asked = f"--risk {config.risk} --tau {spelled(config.tau)}"
            raise ConfigError(f"--algo {config.algo} is risk-neutral and has no {asked}: leave them out")


@dataclass(frozen=True)
class MappoOptions(ScalarOptions):
    """MAPPO's own settings."""

    critic_input: Literal["state", "obs"] = "state"
    """What the critic sees: the global state from the agent's side, or the agent's observation alone."""

    @property
    def critic_sees_obs(self) -> bool:
        return self.critic_input == "obs"


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


@dataclass
class ValueBatch(Batch):
    """A `Batch` with `target` in normalised units; `old` is what the critic foretold before the update, in the same."""

    old: Float[Tensor, "R K"]


@dataclass(frozen=True)
class Foretold:
    """What the critic foretold at each step and at the one after it (the final state, if truncated)."""

    value: Float[Tensor, "T E A K"]
    next_value: Float[Tensor, "T E A K"]
    terminated: Bool[Tensor, "T E A"]
    ended: Bool[Tensor, "T E A"]


class MappoLearner(Learner):
    """A `Learner` whose critic foretells numbers; same actors, optimisers and logs."""

    critic_scalar = "losses/critic_value"

    def __init__(self, config: TrainConfig, shapes: Shapes, atoms: Tensor, generator: torch.Generator):
        super().__init__(config, shapes, atoms, generator)
        self.options = config.options
        self.advantage_variance = [RunningMean(self.options.adv_memory) for _ in self.agents_of]

    def update(self, rollout: Rollout, measures: list[RiskMeasure], progress: float) -> dict[str, float]:
        """Improve actors and critic on `rollout`; see `Learner.update`."""
        if not self.options.active_masks:
            rollout = unmasked(rollout)
        if self.shapes.critic_sees_obs:
            rollout = local(rollout, bootstrapped=self.config.time_limit == "bootstrap")
        return super().update(rollout, measures, progress)

    @torch.no_grad()
    def _targets(
        self, rollout: Rollout, measures: list[RiskMeasure], finer: int = 1
    ) -> tuple[ValueBatch, dict[str, float]]:
        known, raw = self._foretold(rollout)
        target, advantage = self._judged(rollout, known, measures)
        rows = self._rows(rollout, advantage, target)
        if self.options.value_norm:
            self.critic.norm.update(rows.target)
        scalars = spread(rows.advantage) | self._describe_values(known.value[rollout.active], rows, measures)
        batch = ValueBatch(**vars(rows), old=raw[rollout.active])
        batch.target = self.critic.norm.normalise(batch.target)
        return batch, scalars | self._scale(batch)

    def _foretold(self, rollout: Rollout) -> tuple[Foretold, Float[Tensor, "T E A K"]]:
        """In units of the return; and in normalised ones."""
        states = torch.cat((rollout.state, rollout.next_state[None]))
        agent = torch.arange(states.shape[2], device=self.device).expand(states.shape[:3])
        raw = self.critic.normalised(states, agent)
        value = self.critic.norm.restore(raw)
        terminated, truncated = self._ends(rollout)
        following = value[1:].clone()
        if truncated.any():
            following[truncated] = self.critic(rollout.final_state, truncated.nonzero()[:, 2])
        return Foretold(value[:-1], following, terminated, terminated | truncated | rollout.lost), raw[:-1]

    def _judged(
        self, rollout: Rollout, known: Foretold, measures: list[RiskMeasure]
    ) -> tuple[Float[Tensor, "T E A K"], Float[Tensor, "T E A"]]:
        """The critic's targets, in units of the return, and the advantages."""
        advantage = self._gae(rollout.reward, known.value[..., 0], known.next_value[..., 0], known)
        return (advantage + known.value[..., 0])[..., None], advantage

    def _gae(self, reward: Tensor, value: Tensor, next_value: Tensor, known: Foretold, power: int = 1) -> Tensor:
        """GAE of `value`, of which gamma to the `power` is discounted a step."""
        gamma, lam = self.config.gamma**power, self.config.gae_lambda
        return returns.gae(reward, value, next_value, known.terminated, known.ended, gamma, lam)

    def _describe_values(
        self, value: Float[Tensor, "R K"], rows: Batch, measures: list[RiskMeasure]
    ) -> dict[str, float]:
        """Scalars to log of the critic, before the update and in units of the return."""
        error, target = rows.target[:, 0] - value[:, 0], rows.target[:, 0]
        explained = 1 - error.var() / target.var()
        return {"critic/mean": value[:, 0].mean().item(), "critic/explained_variance": explained.item()}

    def _critic_loss(self, batch: ValueBatch, rows: Tensor) -> Float[Tensor, ""]:
        value = self.critic.normalised(batch.state[rows], batch.agent[rows])
        clip = self.config.clip_coef if self.options.value_clip else math.inf
        return value_loss(value, batch.target[rows], batch.old[rows], clip, self.options.huber_delta).sum(-1).mean()


def unmasked(rollout: Rollout) -> Rollout:
    """The rollout in which empty places act too: their rows, all zeros, are steps to an end that is worth nothing."""
    empty = ~rollout.active & (rollout.state == 0).all(-1)
    return replace(rollout, active=rollout.active | empty, terminated=rollout.terminated | empty)


def local(rollout: Rollout, bootstrapped: bool) -> Rollout:
    """The rollout as a critic of observations sees it.

    What an agent would have observed after a time limit is not known. Where limits are `bootstrapped`, its last step is
    therefore left out, and the return of the steps before goes on from what it observed there.
    """
    seen = replace(rollout, state=rollout.obs, next_state=rollout.next_obs)
    if not bootstrapped:
        return seen
    cut = rollout.truncated
    lost = rollout.lost.clone()
    lost[:-1] |= cut[1:] & rollout.active[:-1]
    return replace(
        seen,
        active=rollout.active & ~cut,
        truncated=torch.zeros_like(cut),
        lost=lost,
        final_state=rollout.obs.new_empty(0, rollout.obs.shape[-1]),
    )
