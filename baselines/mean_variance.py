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
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rqe_mappo.algorithms.rqe_mappo import Batch
from rqe_mappo.baselines.mappo import Foretold, MappoLearner, ScalarOptions
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data.collector import Rollout
from rqe_mappo.functional.risk import RiskMeasure


@dataclass(frozen=True)
class MeanVarianceOptions(ScalarOptions):
    """The rivals' settings, and which form of mean-variance."""

    defaults: ClassVar[dict[str, Any]] = {"risk": "mean-variance", "advantage": "value"}
    critic_values: ClassVar[int] = 2

    form: Literal["gradient", "surrogate"] = "gradient"
    """Climb E[G] - Var[G] / (2 tau) of the episode, or use GAE on the risk-adjusted value."""
    spread: Literal["moment", "deviation"] = "moment"
    """What the critic's second head learns: the second moment of the return, or its variance."""

    @property
    def keeps_past(self) -> bool:
        return self.form == "gradient"

    def check_risk(self, config: TrainConfig) -> None:
        if config.risk != "mean-variance":
            raise ConfigError(f"--algo mean-variance has no --risk {config.risk}: leave it out, --tau says how averse")


class MeanVarianceLearner(MappoLearner):
    """A `MappoLearner` with a second head and an averse advantage."""

    def _judged(
        self, rollout: Rollout, known: Foretold, measures: list[RiskMeasure]
    ) -> tuple[Float[Tensor, "T E A 2"], Float[Tensor, "T E A"]]:
        mean, next_mean = known.value[..., 0], known.next_value[..., 0]
        reward = rollout.reward
        mean_advantage = self._gae(reward, mean, next_mean, known)
        mean_target = mean_advantage + mean
        square, next_square = self._second_moment(known.value), self._second_moment(known.next_value)
        # r^2 + 2 r (mean of what follows, discounted), which is r^2 alone where nothing does
        crossed = 2 * reward * mean_target - reward**2
        square_advantage = self._gae(crossed, square, next_square, known, power=2)
        square_target = square_advantage + square
        if self.options.spread == "deviation":
            square_target = square_target - 2 * mean * mean_target + mean**2
        aversion = self._aversion(measures)
        if self.options.form == "surrogate":
            here = mean - aversion * self._variance(known.value)
            following = next_mean - aversion * self._variance(known.next_value)
            advantage = self._gae(reward, here, following, known)
        else:
            past, discount = rollout.history.past, rollout.history.discount[..., None]
            expected = self._start(rollout)
            cross = 2 * (past - expected) * mean_advantage
            advantage = mean_advantage - aversion * (discount * square_advantage + cross)
        return torch.stack((mean_target, square_target), -1), advantage

    def _start(self, rollout: Rollout) -> Float[Tensor, "T E A"]:
        """The mean foretold at the episode's first state."""
        start = rollout.history.start
        agent = torch.arange(start.shape[2], device=self.device).expand(start.shape[:3])
        return self.critic(start, agent)[..., 0]

    def _second_moment(self, value: Float[Tensor, "*rows 2"]) -> Float[Tensor, "*rows"]:
        mean, second = value.unbind(-1)
        return second if self.options.spread == "moment" else second + mean**2

    def _variance(self, value: Float[Tensor, "*rows 2"]) -> Float[Tensor, "*rows"]:
        mean, second = value.unbind(-1)
        return (second - mean**2 if self.options.spread == "moment" else second).clamp(min=0)

    def _aversion(self, measures: list[RiskMeasure]) -> Float[Tensor, " A"]:
        """lambda of each agent, in units of 1/reward; 0 while the schedule is neutral."""
        aversion = torch.zeros(self.shapes.n_agents, device=self.device)
        for agents, measure in zip(self.agents_of, measures, strict=True):
            aversion[agents] = 1 / (2 * getattr(measure, "tau", math.inf))
        return aversion

    def _describe_values(
        self, value: Float[Tensor, "R 2"], rows: Batch, measures: list[RiskMeasure]
    ) -> dict[str, float]:
        variance = self._variance(value)
        taken_off = (self._aversion(measures)[rows.agent] * variance).mean()
        described = super()._describe_values(value, rows, measures)
        return described | {
            "critic/std": variance.mean().sqrt().item(),
            "risk/value": described["critic/mean"] - taken_off.item(),
            "risk/mean_minus_value": taken_off.item(),
        }
