"""One update of actors and critic from one rollout, made of `functional` and nothing else."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rqe_mappo.config import TrainConfig
from rqe_mappo.envs.batched import BatchedEnv
from rqe_mappo.functional import categorical, policy_gradient, returns
from rqe_mappo.functional.risk import Neutral, RiskMeasure
from rqe_mappo.nets import Actor, Critic, Shapes
from rqe_mappo.rollout import Rollout

LR_FLOOR = 0.05  # annealed step sizes end here
ADVANTAGE_MEMORY = 0.97  # of the running variance of advantages, per rollout: about the last thirty


def choose_support(config: TrainConfig, env: BatchedEnv) -> Float[Tensor, " atoms"]:
    """Atoms that hold every return the environment can give under the run's discount.

    Where rewards lie on a grid and returns are not discounted, the atoms lie on that grid too, and projecting a
    target onto them is exact. Zero, the return after the end, is always an atom. One atom lies beyond each bound, so
    that mass on an edge atom always means a tail that was cut off.
    """
    gamma, horizon = config.gamma, env.horizon
    if config.time_limit == "bootstrap":
        steps = 1 / (1 - gamma)
        low, high = (bound * steps for bound in env.reward_bounds)
    else:
        steps = horizon if gamma == 1 else (1 - gamma**horizon) / (1 - gamma)
        low = max(min(env.return_bounds[0], 0.0), env.reward_bounds[0] * steps)
        high = min(max(env.return_bounds[1], 0.0), env.reward_bounds[1] * steps)
    low, high = min(low, 0.0), max(high, 0.0)
    if env.reward_step is not None and gamma == 1:
        return categorical.aligned_support(
            low - env.reward_step, high + env.reward_step, env.reward_step, config.n_atoms
        )
    step = (high - low) / (config.n_atoms - 4)
    return categorical.aligned_support(low - step, high + step, step, config.n_atoms)


@dataclass
class Batch:
    """The rows of a rollout in which an agent acted, `R` of them, with what the losses need."""

    obs: Float[Tensor, "R D"]
    state: Float[Tensor, "R S"]
    agent: Int[Tensor, " R"]
    action: Int[Tensor, " R"]
    log_prob: Float[Tensor, " R"]
    advantage: Float[Tensor, " R"]
    target: Float[Tensor, "R N"]


class RunningMean:
    """An exponential moving average, corrected for its start as in Adam."""

    def __init__(self, memory: float):
        self.memory, self.total, self.weight = memory, 0.0, 0.0

    def add(self, value: float) -> float:
        """Take `value` in; gives the average."""
        self.total = self.memory * self.total + (1 - self.memory) * value
        self.weight = self.memory * self.weight + (1 - self.memory)
        return self.total / self.weight


class Learner:
    """Actors, critic, their optimisers, and the update."""

    def __init__(self, config: TrainConfig, shapes: Shapes, atoms: Tensor, generator: torch.Generator):
        self.config, self.shapes, self.generator = config, shapes, generator
        self.device = torch.device(config.device)
        self.actor = Actor(shapes).to(self.device)
        self.critic = Critic(shapes, atoms).to(self.device)
        fused = {"fused": True, "eps": 1e-5}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate, **fused)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=config.critic_learning_rate, **fused)
        self.advantage_variance = RunningMean(ADVANTAGE_MEMORY)

    def update(self, rollout: Rollout, measure: RiskMeasure, progress: float) -> dict[str, float]:
        """Improve actors and critic on `rollout` under `measure` (in units of reward); gives the scalars to log.

        progress: the share of the run that is over, for annealing the step sizes.
        """
        config = self.config
        rate = max(LR_FLOOR, 1 - progress) if config.anneal_lr else 1.0
        self.actor_optimizer.param_groups[0]["lr"] = config.learning_rate * rate
        self.critic_optimizer.param_groups[0]["lr"] = config.critic_learning_rate * rate
        batch, scalars = self._targets(rollout, measure)
        sums: dict[str, Tensor | float] = {}
        counts = {"actor": 0, "critic": 0}
        for epoch in range(max(config.update_epochs, config.critic_epochs)):
            order = torch.randperm(len(batch.agent), generator=self.generator).to(self.device)
            for rows in order.tensor_split(min(config.num_minibatches, len(order))):  # none is empty
                losses = {}
                if epoch < config.critic_epochs:
                    losses |= self._critic_step(batch, rows)
                    counts["critic"] += 1
                if epoch < config.update_epochs:
                    losses |= self._actor_step(batch, rows)
                    counts["actor"] += 1
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value
        means = {name: float(value) / counts["critic" if "critic" in name else "actor"] for name, value in sums.items()}
        means["policy/effective_eps"] = config.eps * scalars["advantage/scale"]
        return scalars | means | {"charts/learning_rate": config.learning_rate * rate}

    @torch.no_grad()
    def _targets(self, rollout: Rollout, measure: RiskMeasure) -> tuple[Batch, dict[str, float]]:
        """Return-distribution targets and advantages, once per rollout, with the critic as it is before the update."""
        config, atoms = self.config, self.critic.atoms
        t, e, a = rollout.reward.shape
        agent = torch.arange(a, device=self.device).expand(t + 1, e, a)
        states = torch.cat((rollout.state, rollout.next_state[None]))
        log_probs = self.critic(states, agent).log_softmax(-1)
        probs = log_probs.exp()
        next_probs = probs[1:]
        terminated, truncated = rollout.terminated, rollout.truncated
        if config.time_limit == "terminal":
            terminated, truncated = terminated | truncated, torch.zeros_like(truncated)
        elif len(rollout.final_state):
            next_probs = next_probs.clone()
            where = rollout.truncated.nonzero()
            next_probs[rollout.truncated] = self.critic(rollout.final_state, where[:, 2]).softmax(-1)
        ended = terminated | truncated
        target = returns.lambda_targets(
            atoms, rollout.reward, next_probs, terminated, ended, config.gamma, config.gae_lambda
        )
        if config.advantage == "influence":
            # step by step: a whole rollout's temporaries would not fit the cache (three times slower)
            steps = zip(log_probs, target, probs, strict=False)
            advantage = torch.stack(
                [returns.influence_advantage(measure.influence(atoms, lp), q, p) for lp, q, p in steps]
            )
        else:
            value = measure.reference(atoms, log_probs[:-1])
            next_value = measure.reference(atoms, next_probs.clamp_min(1e-38).log())
            utility = {"utility": measure.utility} if config.advantage == "nested" else {}
            advantage = returns.gae(
                rollout.reward, value, next_value, terminated, ended, config.gamma, config.gae_lambda, **utility
            )
        acted = rollout.active
        batch = Batch(
            obs=rollout.obs[acted],
            state=rollout.state[acted],
            agent=agent[:-1][acted],
            action=rollout.action[acted],
            log_prob=rollout.log_prob[acted],
            advantage=advantage[acted],
            target=target[acted],
        )
        scalars = self._describe(batch, log_probs[0][acted[0]], measure)
        scalars["advantage/scale"] = 1.0
        if config.norm_adv:
            # A running scale: a rollout's own std is ten times larger with a rare crash in it than without, so that
            # dividing by it would teach little from the crash and much from every rollout that lacks one.
            scale = self.advantage_variance.add(scalars["advantage/std"] ** 2) ** 0.5
            batch.advantage = policy_gradient.normalise(batch.advantage, scale)
            scalars["advantage/scale"] = scale
        return batch, scalars

    def _describe(self, batch: Batch, log_probs: Float[Tensor, "rows N"], measure: RiskMeasure) -> dict[str, float]:
        """Scalars to log of the targets, the advantages, and the critic at the rollout's first step."""
        atoms, probs, advantage = self.critic.atoms, log_probs.exp(), batch.advantage
        std = advantage.std()
        low, high = categorical.edge_mass(batch.target)
        mean, value = categorical.mean(atoms, probs).mean(), measure.reference(atoms, log_probs).mean()
        return {
            "advantage/std": std.item(),
            "advantage/kurtosis": (((advantage - advantage.mean()) / (std + 1e-8)) ** 4).mean().item(),
            "critic/edge_mass_low": low.mean().item(),
            "critic/edge_mass_high": high.mean().item(),
            "critic/mean": mean.item(),
            "critic/std": categorical.variance(atoms, probs).mean().sqrt().item(),
            "risk/value": value.item(),
            "risk/mean_minus_value": (mean - value).item(),
        }

    def _critic_step(self, batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        logits = self.critic(batch.state[rows], batch.agent[rows])
        loss = categorical.cross_entropy(batch.target[rows], logits).mean()
        self.critic_optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.critic.parameters(), 2 * self.config.max_grad_norm)
        self.critic_optimizer.step()
        return {"losses/critic_cross_entropy": loss.detach()}

    def _actor_step(self, batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        logits = self.actor(batch.obs[rows], batch.agent[rows])
        log_prob = logits.log_softmax(-1).gather(-1, batch.action[rows][:, None]).squeeze(-1)
        log_ratio = log_prob - batch.log_prob[rows]
        policy_loss = policy_gradient.clipped_surrogate(log_ratio, batch.advantage[rows], self.config.clip_coef).mean()
        entropy = policy_gradient.entropy(logits).mean()
        self.actor_optimizer.zero_grad()
        (policy_loss - self.config.eps * entropy).backward()
        clip_grad_norm_(self.actor.parameters(), self.config.max_grad_norm)
        self.actor_optimizer.step()
        with torch.no_grad():
            clipped = ((log_ratio.exp() - 1).abs() > self.config.clip_coef).float().mean()
            return {
                "losses/policy_loss": policy_loss.detach(),
                "policy/entropy": entropy.detach(),
                "policy/approx_kl": policy_gradient.approx_kl(log_ratio).mean(),
                "policy/clip_fraction": clipped,
            }

    def state_dict(self) -> dict[str, Any]:
        """Optimisers' state and the advantages' scale; the networks' weights are saved apart, with the policy."""
        return {
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "advantage_variance": dict(vars(self.advantage_variance)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self.advantage_variance).update(state["advantage_variance"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])


class RiskSchedule:
    """From risk-neutral to the full measure: warm-up, then 1/tau grows linearly.

    The warm-up is risk-neutral and measures the return's std, the unit of tau; it then stays frozen for the run: a
    running std shrinks as an averse policy succeeds and would make it ever more averse. Returns of the first half of
    the warm-up, when the policy is still random, do not count.
    """

    FEWEST_RETURNS = 100  # below, the std is too uncertain (about 7 % at 100) and the warm-up goes on

    def __init__(self, config: TrainConfig):
        self.config, self.full = config, config.measure()
        self.return_scale = config.return_scale
        self.started: float | None = 0.0 if config.return_scale is not None else None
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def observe(self, episode_returns: Tensor, progress: float) -> None:
        """Take in the returns of agents whose episodes ended; freeze the unit when the warm-up is over."""
        if self.return_scale is not None or progress < self.config.warmup_fraction / 2:
            return
        returns_ = episode_returns.double()
        self.count += len(returns_)
        self.total += float(returns_.sum())
        self.squares += float((returns_**2).sum())
        if progress >= self.config.warmup_fraction and self.count >= self.FEWEST_RETURNS:
            variance = self.squares / self.count - (self.total / self.count) ** 2
            self.return_scale = math.sqrt(variance) if variance > 0 else 1.0
            self.started = progress

    def measure(self, progress: float) -> RiskMeasure:
        """The measure that acts when `progress` of the run is over, in units of reward."""
        if self.return_scale is None or self.started is None:
            return Neutral()
        span = self.config.risk_anneal_fraction
        fraction = min(1.0, (progress - self.started) / span) if span > 0 else 1.0
        return self.full.scaled(self.return_scale).annealed(fraction)

    def state_dict(self) -> dict[str, Any]:
        names = ("return_scale", "started", "count", "total", "squares")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
