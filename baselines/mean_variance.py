"""Mean-variance MAPPO: a critic of the return's mean and spread, `--algo mean-variance --tau 2`.

The objective is `E[G] - lambda Var[G]` with `lambda = 1 / (2 tau)`: tau as everywhere here, in units of the return's
std, with the same warm-up and annealing. Two forms, neither of which has official code:

* `--form gradient`: the policy gradient of the objective at the episode's start. With the advantages A_M of the mean
  and A_S of the second moment, the return C so far, and gamma^t = d, that of step t is
  `A_M - lambda (d A_S + 2 (C - M(s_0)) A_M)`, which follows from `G_0 = C + d G_t`.
  After Tamar et al., 'Policy Gradients with Variance Related Risk Criteria' (2012), and Prashanth and Ghavamzadeh,
  'Actor-Critic Algorithms for Risk-Sensitive MDPs' (2013), whose actor-critics it gives a critic and GAE. For an
  episode of one step it is `A_M - lambda (A_S - 2 M(s_0) A_M)`.
* `--form surrogate`: GAE on `V = M - lambda Var`, as forks of PPO do. Like every GAE on a risk-adjusted value it is
  blind to what is drawn within a step (docs/risk.md), and time-inconsistent; here to be measured.

Second moments obey `S = r^2 + 2 gamma r M' + gamma^2 S'`; the targets of both are moments of one lambda-mixture of
n-step returns. `--spread moment` learns S, and the variance is `max(0, S - M^2)`; `--spread deviation` learns the
variance itself, from `(G - M)^2` with M held fixed, which cancels no digits. Both heads share a torso and are
normalised apart.

Kept from MAPPO: everything else (`baselines.mappo`). Dropped: perturbed policies (SPSA) and separate time scales, the
step sizes being those of the recipe.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rqe_mappo.algorithms.actor_critic import moment, passes, step_sizes
from rqe_mappo.algorithms.averages import fetched
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.groups import agent_groups
from rqe_mappo.algorithms.ppo import SCALARS, Batch, PolicyUpdate, advantage_scalars
from rqe_mappo.algorithms.risk_schedule import RiskConfig, RiskSchedule
from rqe_mappo.algorithms.value_critic import Predicted, ValueCriticConfig, ValueUpdate, unmasked, value_scalars
from rqe_mappo.config import ConfigError, TrainConfig, each_agent, spelled
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.envs.history import History
from rqe_mappo.functional.risk import MeanVariance, RiskMeasure


@dataclass(frozen=True, kw_only=True)
class MeanVarianceConfig(ValueCriticConfig, RiskConfig):
    """The rivals' settings, and which form of mean-variance."""

    form: Literal["gradient", "surrogate"] = "gradient"
    """Climb E[G] - Var[G] / (2 tau) of the episode, or use GAE on the risk-adjusted value."""
    spread: Literal["moment", "deviation"] = "deviation"
    """What the critic's second head learns: the second moment of the return, or its variance."""

    @property
    def label(self) -> str:
        return f"__tau{spelled(self.tau)}__eps{spelled(self.eps)}"

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        self.check_risk()
        for tau in each_agent(self.tau):
            try:
                MeanVariance(tau)
            except ValueError as error:
                raise ConfigError(str(error)) from None

    def check_environment(self, env: BatchedEnv) -> None:
        super().check_environment(env)
        agent_groups(self.tau, self.eps, len(env.possible_agents))

    def wrap(self, env: BatchedEnv, gamma: float) -> BatchedEnv:
        """With its `History`, where the episode's variance is what counts."""
        return History(env, gamma, shown=False) if self.form == "gradient" else env


class MeanVarianceMappo:
    """MAPPO with a second head of the critic and an averse advantage."""

    Config = MeanVarianceConfig
    explore = 0.0

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        self.run, self.config, self.generator = run, run.algorithm, generator
        config, self.device = self.config, torch.device(run.device)
        self.groups = agent_groups(config.tau, config.eps, len(env.possible_agents))
        self.risk = RiskSchedule(
            config,
            [MeanVariance(tau) for tau, _ in self.groups.pairs],
            {"name": "mean-variance", "tau": list(each_agent(config.tau)), "clip": None},
        )
        self.actor = config.actor(env, self.groups).to(self.device)
        self.value = ValueUpdate(run, env, self._moments)
        self.critic = self.returns = self.value.critic
        self.modules: dict[str, nn.Module] = {"actor": self.actor, "critic": self.critic}
        stretches = config.stretches(env, [self.risk.full[group] for group in self.groups.of])
        self.policy = PolicyUpdate(config, self.actor, self.groups, self.device, config.adv_memory, stretches)

    def _moments(self, found: Float[Tensor, " R"]) -> Float[Tensor, "R 2"]:
        """What the critic predicts, of some returns."""
        centre = found.mean() if self.config.spread == "deviation" else 0.0
        return torch.stack((found, (found - centre) ** 2), -1)

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Improve actors and critic on `chunk`; see `rqe_mappo.algorithms.contract.Algorithm`."""
        now = moment(self.config, progress)
        self.policy.optimiser.learning_rate, self.value.optimiser.learning_rate = step_sizes(self.config, now)
        self.policy.begin(now)
        measures = self.risk.measures(now.share)
        batch, predicted, scalars = self.targets(chunk, measures)
        old = flat(predicted.raw)[batch.rows]
        means = passes(
            self.config,
            lambda: batch.minibatches(self.config.num_minibatches, self.generator),
            lambda part: self.value.step(batch, old, part),
            (lambda part: self.policy.step(batch, part)) if now.acting else None,
        )
        self.policy.average(now, chunk, self.risk.ripe(now.share))
        self.policy.observe(batch, now)
        self.value.observe(batch)
        self.risk.observe(self.value.ended(chunk, predicted), now.share)
        rate = self.policy.optimiser.learning_rate if now.acting else 0.0
        eps = (self.policy.eps_now * scalars["advantage/scale"]).tolist()
        shown = self.risk.scalars(measures, self.groups.of, eps)
        return dict.fromkeys(SCALARS, np.nan) | scalars | means | {"charts/learning_rate": rate} | shown

    def warnings(self) -> list[str]:
        return [text for text in (self.risk.shortfall, self.value.episodes.warning) if text]

    @torch.no_grad()
    def targets(self, chunk: Trajectory, measures: list[RiskMeasure]) -> tuple[Batch, Predicted, dict[str, float]]:
        """What to learn from a trajectory: the batch, what the critic predicted, scalars to log."""
        if not self.config.active_masks:
            chunk = unmasked(chunk)
        predicted, gamma, lam = self.value.predict(chunk), self.run.gamma, self.config.gae_lambda
        mean, next_mean = predicted.value[..., 0], predicted.next_value[..., 0]
        reward = chunk.reward
        mean_advantage = predicted.gae(reward, mean, next_mean, gamma, lam)
        mean_target = mean_advantage + mean
        square, next_square = self._second_moment(predicted.value), self._second_moment(predicted.next_value)
        # r^2 + 2 r (mean of what follows, discounted), which is r^2 alone where nothing does
        crossed = 2 * reward * mean_target - reward**2
        square_advantage = predicted.gae(crossed, square, next_square, gamma**2, lam)
        square_target = square_advantage + square
        if self.config.spread == "deviation":
            square_target = square_target - 2 * mean * mean_target + mean**2
        aversion = self._aversion(measures)
        if self.config.form == "surrogate":
            advantage = self._surrogate(chunk, predicted, aversion)
        else:
            advantage = self._gradient(chunk, mean_advantage, square_advantage, aversion)
        batch = Batch.of(chunk, advantage, torch.stack((mean_target, square_target), -1))
        scalars = advantage_scalars(batch.advantage)
        scalars = fetched(scalars | self._describe(flat(predicted.value)[batch.rows], batch, aversion))
        scalars["risk/value"] = scalars["critic/mean"] - scalars["risk/mean_minus_value"]
        self.value.normalise(batch)
        return batch, predicted, scalars | self.policy.scale(batch)

    def _gradient(
        self,
        chunk: Trajectory,
        mean_advantage: Float[Tensor, "T E A"],
        square_advantage: Float[Tensor, "T E A"],
        aversion: Float[Tensor, " A"],
    ) -> Float[Tensor, "T E A"]:
        if chunk.past is None:
            raise ValueError("--form gradient looks at episodes from their start: wrap the environment in its History")
        past, discount = chunk.past.past, chunk.past.discount[..., None]
        expected = self.critic(chunk.past.start, chunk.agent[:-1])[..., 0]  # at the episode's first state
        cross = 2 * (past - expected) * mean_advantage
        return mean_advantage - aversion * (discount * square_advantage + cross)

    def _surrogate(
        self, chunk: Trajectory, predicted: Predicted, aversion: Float[Tensor, " A"]
    ) -> Float[Tensor, "T E A"]:
        here, following = (
            value[..., 0] - aversion * self._variance(value) for value in (predicted.value, predicted.next_value)
        )
        return predicted.gae(chunk.reward, here, following, self.run.gamma, self.config.gae_lambda)

    def _second_moment(self, value: Float[Tensor, "*rows 2"]) -> Float[Tensor, "*rows"]:
        mean, second = value.unbind(-1)
        return second if self.config.spread == "moment" else second + mean**2

    def _variance(self, value: Float[Tensor, "*rows 2"]) -> Float[Tensor, "*rows"]:
        mean, second = value.unbind(-1)
        return (second - mean**2 if self.config.spread == "moment" else second).clamp(min=0)

    def _aversion(self, measures: list[RiskMeasure]) -> Float[Tensor, " A"]:
        """lambda of each agent, in units of 1/reward; 0 while the schedule is neutral."""
        each = [1 / (2 * getattr(measures[group], "tau", math.inf)) for group in self.groups.of]
        return torch.tensor(each, device=self.device)

    def _describe(self, value: Float[Tensor, "R 2"], batch: Batch, aversion: Float[Tensor, " A"]) -> dict[str, Tensor]:
        """Scalars to log of the critic, before the update and in units of the return."""
        variance = self._variance(value)
        return value_scalars(value[:, 0], batch.target[:, 0]) | {
            "critic/std": variance.mean().sqrt(),
            "risk/mean_minus_value": (aversion[batch.agent] * variance).mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.policy.state_dict(),
            **self.value.state_dict(),
            "risk": self.risk.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state)
        self.value.load_state_dict(state)
        self.risk.load_state_dict(state["risk"])
