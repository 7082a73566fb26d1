"""One update of actors and critic from one rollout, made of `functional` and nothing else."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from rqe_mappo.algorithms.advantages import ESTIMATORS, Evidence
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.collector import Rollout
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import categorical, policy_gradient, returns
from rqe_mappo.functional.risk import Neutral, RiskMeasure
from rqe_mappo.nets import Actor, Shapes, critic_of

LR_FLOOR = 0.05  # annealed step sizes end here
ACTOR_SCALARS = ("losses/policy_loss", "policy/entropy", "policy/approx_kl", "policy/clip_fraction")
FINER = 4  # grid of discounted targets while the actors rest; with it throughout, averse CartPole runs fell more
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
        inner = categorical.aligned_support(low, high, env.reward_step, config.n_atoms - 2)
        spacing = float(inner[1] - inner[0])
        return categorical.aligned_support(low - spacing, high + spacing, spacing, config.n_atoms)
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


class MeanWeights:
    """The mean of a network's weights over the moments at which it was looked at.

    Source: Polyak and Juditsky, 'Acceleration of Stochastic Approximation by Averaging' (1992). A policy near a cliff
    of its return swings about its best weights, and where it stops is chance.
    """

    def __init__(self) -> None:
        self.total: dict[str, Tensor] = {}
        self.count = 0

    def add(self, net: nn.Module) -> None:
        """Look at the weights of `net` now."""
        for name, weights in net.named_parameters():
            now = weights.detach()
            self.total[name] = self.total[name] + now if self.count else now.clone()
        self.count += 1

    @torch.no_grad()
    def give(self, net: nn.Module) -> None:
        """Set the weights of `net` to the mean, and begin anew."""
        for name, weights in net.named_parameters():
            weights.copy_(self.total[name] / self.count)
        self.total, self.count = {}, 0


class Learner:
    """Actors, critic, their optimisers, and the update.

    Rivals override parts: `_targets`, what is learned from a rollout, `_critic_loss`, and what these are made of.
    """

    critic_scalar = "losses/critic_cross_entropy"

    def __init__(self, config: TrainConfig, shapes: Shapes, atoms: Tensor, generator: torch.Generator):
        self.config, self.shapes, self.generator = config, shapes, generator
        self.device = torch.device(config.device)
        pairs, attitude = config.attitudes(shapes.n_agents)
        self.eps = torch.tensor([pairs[index][1] for index in attitude], device=self.device)
        self.agents_of = [[a for a, index in enumerate(attitude) if index == pair] for pair in range(len(pairs))]
        self.actor = Actor(shapes).to(self.device)
        self.critic = critic_of(shapes, atoms).to(self.device)
        fused = {"fused": True, "eps": 1e-5}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate, **fused)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=config.critic_learning_rate, **fused)
        self.advantage_variance = [RunningMean(ADVANTAGE_MEMORY) for _ in pairs]
        self.mean_weights = MeanWeights()

    def update(self, rollout: Rollout, measures: list[RiskMeasure], progress: float) -> dict[str, float]:
        """Improve actors and critic on `rollout`; gives the scalars to log.

        measures: the risk measure of each attitude, in units of reward.
        progress: the share of the run that is over, for annealing the step sizes; above 1 only the critic learns.
        """
        config = self.config
        acting = self._anneal(progress)
        if progress >= 1 and self.mean_weights.count:
            self.mean_weights.give(self.actor)
        batch, scalars = self._targets(rollout, measures, finer=1 if acting else FINER)
        sums: dict[str, Tensor | float] = {}
        counts = {"actor": 0, "critic": 0}
        for epoch in range(max(config.update_epochs, config.critic_epochs)):
            order = torch.randperm(len(batch.agent), generator=self.generator).to(self.device)
            for rows in order.tensor_split(min(config.num_minibatches, len(order))):  # none is empty
                losses = {}
                if epoch < config.critic_epochs:
                    losses |= self._critic_step(batch, rows)
                    counts["critic"] += 1
                if epoch < config.update_epochs and acting:
                    losses |= self._actor_step(batch, rows)
                    counts["actor"] += 1
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value
        if acting and config.average and progress >= 1 - config.average:
            self.mean_weights.add(self.actor)
        means = {name: float(value) / counts["critic" if "critic" in name else "actor"] for name, value in sums.items()}
        rate = self.actor_optimizer.param_groups[0]["lr"] if acting else 0.0
        return dict.fromkeys(ACTOR_SCALARS, math.nan) | scalars | means | {"charts/learning_rate": rate}

    def _anneal(self, progress: float) -> bool:
        """Set the step sizes of this update; False while the actors rest (`critic_first`, `settle`)."""
        config = self.config
        first = config.critic_first
        acting = first <= progress < 1

        def rate(done: float) -> float:
            return max(LR_FLOOR, 1 - done) if config.anneal_lr else 1.0

        main = rate((progress - first) / (1 - first)) if progress >= first else 1.0
        self.actor_optimizer.param_groups[0]["lr"] = config.learning_rate * main
        if progress >= 1:  # the policy has come to rest: large steps once more, to forget earlier ones
            main = rate((progress - 1) * (1 - config.settle) / config.settle)
        self.critic_optimizer.param_groups[0]["lr"] = config.critic_learning_rate * main
        return acting

    @torch.no_grad()
    def _targets(self, rollout: Rollout, measures: list[RiskMeasure], finer: int = 1) -> tuple[Batch, dict[str, float]]:
        """Return-distribution targets and advantages, once per rollout, with the critic as it is before the update."""
        config, atoms = self.config, self.critic.atoms
        t, e, a = rollout.reward.shape
        agent = torch.arange(a, device=self.device).expand(t + 1, e, a)
        states = torch.cat((rollout.state, rollout.next_state[None]))
        log_probs = self.critic(states, agent).log_softmax(-1)
        next_probs = log_probs[1:].exp()
        terminated, truncated = self._ends(rollout)
        if truncated.any():
            next_probs = next_probs.clone()
            next_probs[truncated] = self.critic(rollout.final_state, truncated.nonzero()[:, 2]).softmax(-1)
        ended = terminated | truncated | rollout.lost
        target = returns.lambda_targets(
            atoms, rollout.reward, next_probs, terminated, ended, config.gamma, config.gae_lambda, finer
        )
        seen = Evidence(atoms, rollout.reward, terminated, ended, log_probs[:-1], next_probs, target)
        if rollout.history is not None:
            seen = self._with_history(seen, rollout, agent[:-1])
        batch = self._rows(rollout, self._advantage(seen, measures), target)
        scalars = spread(batch.advantage) | self._describe(batch, log_probs[0], rollout.active[0], measures)
        return batch, scalars | self._scale(batch)

    def _ends(self, rollout: Rollout) -> tuple[Bool[Tensor, "T E A"], Bool[Tensor, "T E A"]]:
        """Whose return ends at a step, and whose goes on from the final state: by `time_limit`, at the horizon."""
        if self.config.time_limit == "terminal":
            return rollout.terminated | rollout.truncated, torch.zeros_like(rollout.truncated)
        return rollout.terminated, rollout.truncated

    def _rows(self, rollout: Rollout, advantage: Float[Tensor, "T E A"], target: Float[Tensor, "T E A N"]) -> Batch:
        """The rows in which an agent acted."""
        acted = rollout.active
        return Batch(
            obs=rollout.obs[acted],
            state=rollout.state[acted],
            agent=torch.arange(acted.shape[2], device=self.device).expand_as(acted)[acted],
            action=rollout.action[acted],
            log_prob=rollout.log_prob[acted],
            advantage=advantage[acted],
            target=target[acted],
        )

    def _scale(self, batch: Batch) -> dict[str, float]:
        """Normalise the advantages, if so configured; what that did, for the log."""
        scales = self._normalise(batch) if self.config.norm_adv else [1.0] * len(self.agents_of)
        effective = [float(self.eps[agents[0]]) * scale for agents, scale in zip(self.agents_of, scales, strict=True)]
        return {"advantage/scale": sum(scales) / len(scales), "policy/effective_eps": min(effective)}

    def _with_history(self, seen: Evidence, rollout: Rollout, agent: Int[Tensor, "T E A"]) -> Evidence:
        past, discount, start = rollout.history.past, rollout.history.discount, rollout.history.start
        return replace(
            seen,
            past=past,
            discount=discount[..., None].expand_as(past),
            start=self.critic(start, agent).log_softmax(-1) if self.config.advantage == "static" else None,
        )

    def _advantage(self, seen: Evidence, measures: list[RiskMeasure]) -> Float[Tensor, "T E A"]:
        estimate = ESTIMATORS[self.config.advantage]
        if len(measures) == 1:
            return estimate(seen, measures[0], self.config)
        advantage = torch.empty_like(seen.reward)
        for agents, measure in zip(self.agents_of, measures, strict=True):
            advantage[:, :, agents] = estimate(seen.of(agents), measure, self.config)
        return advantage

    def _normalise(self, batch: Batch) -> list[float]:
        """Centre and scale the advantages, those of each attitude by themselves; gives the scales.

        Running scales: a rollout's own std is ten times larger with a rare crash in it than without, so that dividing
        by it would teach little from the crash and much from every rollout that lacks one.
        """
        if len(self.agents_of) == 1:
            scale = self.advantage_variance[0].add(batch.advantage.std().item() ** 2) ** 0.5
            batch.advantage = policy_gradient.normalise(batch.advantage, scale)
            return [scale]
        scales = []
        for agents, variance in zip(self.agents_of, self.advantage_variance, strict=True):
            rows = torch.isin(batch.agent, torch.tensor(agents, device=self.device))
            if rows.sum() > 1:
                scales.append(variance.add(batch.advantage[rows].std().item() ** 2) ** 0.5)
                batch.advantage[rows] = policy_gradient.normalise(batch.advantage[rows], scales[-1])
            else:
                scales.append(1.0)
        return scales

    def _describe(
        self, batch: Batch, log_probs: Float[Tensor, "E A N"], active: Bool[Tensor, "E A"], measures: list[RiskMeasure]
    ) -> dict[str, float]:
        """Scalars to log of the targets, and of the critic at the rollout's first step."""
        atoms, probs = self.critic.atoms, log_probs[active].exp()
        low, high = categorical.edge_mass(batch.target)
        mean = categorical.mean(atoms, probs).mean()
        values = [
            measure.reference(atoms, log_probs[:, agents][active[:, agents]])
            for agents, measure in zip(self.agents_of, measures, strict=True)
        ]
        value = torch.cat(values).mean()
        return {
            "critic/edge_mass_low": low.mean().item(),
            "critic/edge_mass_high": high.mean().item(),
            "critic/mean": mean.item(),
            "critic/std": categorical.variance(atoms, probs).mean().sqrt().item(),
            "risk/value": value.item(),
            "risk/mean_minus_value": (mean - value).item(),
        }

    def _critic_step(self, batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        loss = self._critic_loss(batch, rows)
        self.critic_optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.critic.parameters(), 2 * self.config.max_grad_norm)
        self.critic_optimizer.step()
        return {self.critic_scalar: loss.detach()}

    def _critic_loss(self, batch: Batch, rows: Tensor) -> Float[Tensor, ""]:
        logits = self.critic(batch.state[rows], batch.agent[rows])
        return categorical.cross_entropy(batch.target[rows], logits).mean()

    def _actor_step(self, batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        logits = self.actor(batch.obs[rows], batch.agent[rows])
        log_prob = logits.log_softmax(-1).gather(-1, batch.action[rows][:, None]).squeeze(-1)
        log_ratio = log_prob - batch.log_prob[rows]
        policy_loss = policy_gradient.clipped_surrogate(log_ratio, batch.advantage[rows], self.config.clip_coef).mean()
        entropy = policy_gradient.entropy(logits).mean()
        self.actor_optimizer.zero_grad()
        (policy_loss - self._bonus(logits, entropy, batch.agent[rows])).backward()
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

    def _bonus(self, logits: Tensor, entropy: Tensor, agent: Tensor) -> Tensor:
        """The regulariser's mean over rows, weighed by eps."""
        one_eps = len(self.agents_of) == 1
        eps = self.eps[0] if one_eps else self.eps[agent]
        if self.config.regulariser == "log-barrier":
            return (eps * policy_gradient.log_barrier(logits)).mean()
        return eps * entropy if one_eps else (eps * policy_gradient.entropy(logits)).mean()

    def state_dict(self) -> dict[str, Any]:
        """Optimisers' state and the advantages' scale; the networks' weights are saved apart, with the policy."""
        return {
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "advantage_variance": [dict(vars(variance)) for variance in self.advantage_variance],
            "mean_weights": dict(vars(self.mean_weights)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for variance, saved in zip(self.advantage_variance, state["advantage_variance"], strict=True):
            vars(variance).update(saved)
        if known := state.get("mean_weights"):  # older files hold none
            self.mean_weights.total = {name: weights.to(self.device) for name, weights in known["total"].items()}
            self.mean_weights.count = known["count"]
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])


def spread(advantage: Float[Tensor, " R"]) -> dict[str, float]:
    """Scalars to log of the advantages as they come."""
    std = advantage.std()
    kurtosis = (((advantage - advantage.mean()) / (std + 1e-8)) ** 4).mean()
    return {"advantage/std": std.item(), "advantage/kurtosis": kurtosis.item()}


class RiskSchedule:
    """From risk-neutral to the full measure: warm-up, then 1/tau grows linearly.

    The warm-up is risk-neutral and measures the return's std, the unit of tau; it then stays frozen for the run: a
    running std shrinks as an averse policy succeeds and would make it ever more averse. Returns of the first half of
    the warm-up, when the policy is still random, do not count.
    """

    FEWEST_RETURNS = 100  # below, the std is too uncertain (about 7 % at 100) and the warm-up goes on

    def __init__(self, config: TrainConfig):
        self.config, self.full = config, config.measures()
        self.return_scale = config.return_scale
        self.started: float | None = 0.0 if config.return_scale is not None else None
        self.count, self.total, self.squares = 0, 0.0, 0.0

    @property
    def neutral(self) -> bool:
        """Whether no agent is to become averse, so that the unit of tau does not matter."""
        return all(full.name == "neutral" or getattr(full, "tau", 0.0) == math.inf for full in self.full)

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

    def measures(self, progress: float) -> list[RiskMeasure]:
        """The measures, one an attitude, that act when `progress` of the run is over, in units of reward."""
        if self.return_scale is None or self.started is None:
            return [Neutral() for _ in self.full]
        span = self.config.risk_anneal_fraction
        fraction = min(1.0, (progress - self.started) / span) if span > 0 else 1.0
        return [full.scaled(self.return_scale).annealed(fraction) for full in self.full]

    def state_dict(self) -> dict[str, Any]:
        names = ("return_scale", "started", "count", "total", "squares")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
