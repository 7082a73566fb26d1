"""The nested value, `V(s) = rho(r + gamma V(s'))`, learned beside the critic (docs/risk.md).

It is no function of the distribution of the whole return, which the critic knows: that tells not which step brings what
risk. So the risk premium, the critic's mean less V, has a network of its own. It is 0 at first, as is the premium of a
run that is risk-neutral at first; and in units of the return's std it is the same for returns far from 0, large or
small. Targets reach one step ahead, with the premium that is known there: V does not depend on lambda.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.algorithms.advantages import OneStep
from rqe_mappo.algorithms.optimiser import Optimiser
from rqe_mappo.algorithms.ppo import Batch
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional.risk import RiskMeasure
from rqe_mappo.functional.rows import rows_of_each
from rqe_mappo.nets import RiskPremium, RiskPremiumSpec

PACE = 0.3  # of the critic's step size: logits move by several units where a premium moves by one


@dataclass(frozen=True)
class Known:
    """What premiums are learned from along a trajectory, in units of the return's std.

    measures: of each group of agents.
    mean, next_mean: of the return, by the critic, before and after each step.
    following: what the critic sees after each step, before any reset.
    discount: gamma, or 0 where the return ended.
    bounds: of returns, between which every value is kept.
    """

    measures: list[RiskMeasure]
    mean: Float[Tensor, "T E A"]
    next_mean: Float[Tensor, "T E A"]
    following: Float[Tensor, "T E A S"]
    reward: Float[Tensor, "T E A"]
    discount: Float[Tensor, "T E A"]
    bounds: tuple[float, float]

    def outcome(
        self,
        reward: Float[Tensor, "*rows"],
        discount: Float[Tensor, "*rows"],
        next_mean: Float[Tensor, "*rows"],
        premium: Float[Tensor, "*rows values"],
    ) -> Float[Tensor, "*rows"]:
        """`r + gamma V(s')`. Bounded, since what V errs by counts as risk, of which more error would come."""
        return reward + discount * (next_mean - premium[..., 0]).clamp(*self.bounds)


class NestedValue:
    """A network of risk premiums, and its optimiser."""

    def __init__(self, run: TrainConfig, env: BatchedEnv, group: Int[Tensor, " A"], elicited: int):
        """group: of each agent. elicited: how many numbers the measures need (`RiskMeasure.elicited`)."""
        self.run, self.group = run, group
        config = run.algorithm
        spec = RiskPremiumSpec(
            view_dim=env.state_space.shape[0],
            n_agents=len(env.possible_agents),
            hidden=config.critic_hidden,
            normalise=config.normalise_obs,
            values=elicited,
        )
        self.premium = RiskPremium(spec).to(torch.device(run.device))
        self.optimiser = Optimiser(self.premium, PACE * config.critic_learning_rate, 2 * config.max_grad_norm)

    def set_pace(self, critic_learning_rate: float) -> None:
        """Take up the step size of the critic's optimiser."""
        self.optimiser.learning_rate = PACE * critic_learning_rate

    def know(
        self,
        chunk: Trajectory,
        mean: Float[Tensor, "T E A"],
        next_mean: Float[Tensor, "T E A"],
        terminated: Bool[Tensor, "T E A"],
        cut: tuple[Tensor, ...],
        bounds: tuple[float, float],
        measures: list[RiskMeasure],
        unit: float,
    ) -> Known:
        """What is learned from a trajectory, given the critic's means and the measures in units of the return.

        cut: the places after which the return goes on from `final_state`.
        bounds: of returns, within which every value is kept.
        """
        following = chunk.state[1:]
        if len(cut[0]):
            following = following.clone()
            following[cut] = chunk.final_state
        return Known(
            measures=[measure.scaled(1 / unit) for measure in measures],
            mean=mean / unit,
            next_mean=next_mean / unit,
            following=following,
            reward=chunk.reward / unit,
            discount=self.run.gamma * ~terminated,
            bounds=(bounds[0] / unit, bounds[1] / unit),
        )

    def one_step(self, chunk: Trajectory, known: Known, unit: float) -> OneStep:
        """V along the trajectory, in units of the return."""
        agent = chunk.agent[:-1]
        values = known.mean[..., None] - self.premium(chunk.state[:-1], agent)
        outcome = known.outcome(known.reward, known.discount, known.next_mean, self.premium(known.following, agent))
        return OneStep(unit * values, unit * outcome)

    def step(self, batch: Batch, known: Known, rows: Int[Tensor, " M"]) -> dict[str, Tensor]:
        """Improve V on some rows: up where its identification is positive, down where it is negative."""
        where, agent = batch.rows[rows], batch.agent[rows]
        mean, next_mean, reward, discount, following = (
            flat(values)[where]
            for values in (known.mean, known.next_mean, known.reward, known.discount, known.following)
        )
        values = mean[:, None] - self.premium(flat(batch.chunk.state)[where], agent)
        with torch.no_grad():
            outcome = known.outcome(reward, discount, next_mean, self.premium(following, agent))
            surplus = self._identification(known.measures, outcome, values, agent)
        self.optimiser.descend(-(surplus * values).sum(-1).mean())
        return {"losses/nested_surplus": surplus[:, 0].mean()}

    def _identification(
        self,
        measures: list[RiskMeasure],
        outcome: Float[Tensor, " M"],
        values: Float[Tensor, "M K"],
        agent: Int[Tensor, " M"],
    ) -> Float[Tensor, "M K"]:
        """What each outcome says of the values, by the measure of its agent."""
        if len(measures) == 1:
            surplus = measures[0].identification(outcome, values)
            return torch.nn.functional.pad(surplus, (0, values.shape[1] - surplus.shape[1]))
        surplus = torch.zeros_like(values)
        for measure, mine in zip(measures, rows_of_each(self.group[agent], len(measures)), strict=True):
            surplus[mine, : measure.elicited] = measure.identification(outcome[mine], values[mine])
        return surplus

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state; the weights are saved apart."""
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state)
