"""RQE-MAPPO: PPO on the risk of a predicted distribution of returns, `--algo rqe-mappo`.

A categorical critic (C51; Bellemare et al., 'A Distributional Perspective on Reinforcement Learning', 2017) learns the
distribution of each agent's return from the global state, by lambda-mixtures of n-step target distributions. A risk
measure turns what it predicts into V_tau, and what a step changed of it into an advantage (`algorithms.advantages`,
docs/risk.md). Actors climb that advantage by PPO's clipped surrogate, with an entropy bonus of fixed weight eps:
bounded rationality, after risk-averse quantal response equilibria.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tyro.conf import arg

from rqe_mappo.algorithms.actor_critic import moment, passes, step_sizes
from rqe_mappo.algorithms.advantages import ESTIMATORS, AdvantageInputs, OneStep, SoFar, influence_by_age
from rqe_mappo.algorithms.averages import Moments, fetched
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.episode_returns import EpisodeReturns
from rqe_mappo.algorithms.groups import AgentGroups, agent_groups
from rqe_mappo.algorithms.nested import Known, NestedValue
from rqe_mappo.algorithms.optimiser import Optimiser
from rqe_mappo.algorithms.ppo import SCALARS, Batch, PolicyUpdate, PPOConfig, advantage_scalars
from rqe_mappo.algorithms.risk_schedule import RiskConfig, RiskSchedule
from rqe_mappo.algorithms.support import FollowingSupport, Predicted, SupportConfig, on_grid, promised_bounds
from rqe_mappo.config import ConfigError, TrainConfig, each_agent, require_positive, spelled
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.envs.history import History
from rqe_mappo.functional import categorical, returns
from rqe_mappo.functional.risk import GRAMMAR, RiskMeasure, parse_risk
from rqe_mappo.functional.rows import rows_of_each
from rqe_mappo.nets import DistributionCritic, DistributionCriticSpec

FINER = 4  # grid of discounted targets while the actors rest; with it throughout, averse CartPole runs fell more
ADVANTAGE_MEMORY = 0.97  # of the running variance of advantages, per rollout: about the last thirty


@dataclass(frozen=True, kw_only=True)
class RqeMappoConfig(PPOConfig, RiskConfig, SupportConfig):
    """RQE-MAPPO's settings."""

    risk: Annotated[str, arg(help=f"Risk measure: {GRAMMAR}; --tau counts for entropic and mean-variance.")] = (
        "entropic"
    )
    advantage: Literal["influence", "static", "nested", "value"] = "influence"
    """Whose risk: of states (influence), episodes (static), steps (nested); value: GAE on V_tau."""
    discount_tau: bool = False
    """Divide tau by gamma^t at step t: with --advantage influence the entropic risk of the episode."""
    risk_clip: float = 3.0
    """Largest exponent of the entropic influence, continued linearly beyond (keep clip * tau >= 1)."""

    @property
    def label(self) -> str:
        risk = "" if self.risk == "entropic" else "__" + self.risk.replace(":", "")
        return f"{risk}__tau{spelled(self.tau)}__eps{spelled(self.eps)}"

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        self.check_risk()
        require_positive(self, "risk_clip")
        self.check_support()
        for tau in each_agent(self.tau):
            self._measure(tau)
        if self.discount_tau and self.advantage != "influence":
            raise ConfigError("--discount-tau goes with --advantage influence only: leave it out")

    def _measure(self, tau: float) -> RiskMeasure:
        try:
            measure = parse_risk(self.risk, tau, clip=self.risk_clip)
            if measure.evaluation_only:
                raise ValueError(measure.evaluation_only)
            if self.advantage == "nested":
                measure.identification(torch.zeros(1), torch.zeros(1, measure.elicited))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return measure

    def schedule(self, groups: AgentGroups) -> RiskSchedule:
        """The risk measures of the run, in time."""
        description = {"name": self.risk, "tau": list(each_agent(self.tau)), "clip": self.risk_clip}
        return RiskSchedule(self, [self._measure(tau) for tau, _ in groups.pairs], description)

    def notes(self, env: BatchedEnv) -> list[str]:
        smallest = min(each_agent(self.tau))
        if self.risk != "entropic" or self.risk_clip * smallest >= 0.85:
            return []
        return [f"below 1 / --risk-clip a smaller --tau may be less averse, not more (got {smallest:g})"]

    def check_environment(self, env: BatchedEnv) -> None:
        super().check_environment(env)
        agent_groups(self.tau, self.eps, len(env.possible_agents))

    def wrap(self, env: BatchedEnv, gamma: float) -> BatchedEnv:
        """With its `History`, where the objective looks at an episode from its start."""
        static = self.advantage == "static"
        return History(env, gamma, shown=static) if static or self.discount_tau else env


class RqeMappo:
    """RQE-MAPPO at work."""

    Config = RqeMappoConfig
    explore = 0.0

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        self.run, self.config, self.generator = run, run.algorithm, generator
        config, device = self.config, torch.device(run.device)
        self.groups = agent_groups(config.tau, config.eps, len(env.possible_agents))
        self.members = [torch.tensor(agents, device=device) for agents in self.groups.members]
        self.risk = config.schedule(self.groups)
        self.actor = config.actor(env, self.groups).to(device)
        atoms = config.atoms(env, run)
        spec = DistributionCriticSpec(
            view_dim=env.state_space.shape[0],
            n_agents=len(env.possible_agents),
            hidden=config.critic_hidden,
            n_atoms=len(atoms),
            normalise=config.normalise_obs,
        )
        self.critic = self.returns = DistributionCritic(spec, atoms).to(device)
        given = config.return_low is not None
        exact = not given and on_grid(atoms, env, run.gamma)
        self.support = FollowingSupport(self.critic, given or exact, exact, promised_bounds(run, env))
        self.episodes = EpisodeReturns(run.gamma, (env.num_envs, len(env.possible_agents)), device)
        self.modules: dict[str, nn.Module] = {"actor": self.actor, "critic": self.critic}
        stretches = config.stretches(env, [self.risk.full[group] for group in self.groups.of])
        self.policy = PolicyUpdate(config, self.actor, self.groups, device, ADVANTAGE_MEMORY, stretches)
        self.critic_optimiser = Optimiser(self.critic, config.critic_learning_rate, 2 * config.max_grad_norm)
        self.nested: NestedValue | None = None
        self.known: Known | None = None  # of the trajectory that is being learned from
        if config.advantage == "nested" and not self.risk.neutral:
            elicited = max(measure.elicited for measure in self.risk.full)
            self.nested = NestedValue(run, env, self.policy.group, elicited)
            self.modules["premium"] = self.nested.premium

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Improve actors and critic on `chunk`; see `rqe_mappo.algorithms.contract.Algorithm`."""
        now = moment(self.config, progress)
        self.policy.optimiser.learning_rate, self.critic_optimiser.learning_rate = step_sizes(self.config, now)
        if self.nested is not None:
            self.nested.set_pace(self.critic_optimiser.learning_rate)
        self.policy.begin(now)
        measures = self.risk.measures(now.share)
        predicted = self.predict(chunk)
        batch, scalars = self.targets(chunk, predicted, measures, finer=1 if now.acting else FINER)
        self.support.note(*(scalars[f"critic/{name}"] for name in ("edge_mass_low", "edge_mass_high", "std_in_atoms")))
        means = passes(
            self.config,
            lambda: batch.minibatches(self.config.num_minibatches, self.generator),
            lambda part: self._critic_step(batch, part.rows),
            (lambda part: self.policy.step(batch, part)) if now.acting else None,
        )
        self.policy.average(now, chunk, self.risk.ripe(now.share))
        self.policy.observe(batch, now)
        for net in (self.critic, None if self.nested is None else self.nested.premium):
            if net is not None and net.normaliser is not None:
                net.normaliser.update(flat(chunk.state)[batch.rows])
        rate = self.policy.optimiser.learning_rate if now.acting else 0.0
        eps = (self.policy.eps_now * scalars["advantage/scale"]).tolist()
        shown = self.risk.scalars(measures, self.groups.of, eps)
        self.risk.observe(self._ended(chunk, predicted), now.share)
        return dict.fromkeys(SCALARS, np.nan) | scalars | means | {"charts/learning_rate": rate} | shown

    def _ended(self, chunk: Trajectory, predicted: Predicted) -> list[Moments]:
        """Each agent's returns of the episodes that ended in a trajectory."""
        return self.episodes.observe(chunk, *predicted.means(self.critic.atoms), predicted.terminated, predicted.ended)

    def warnings(self) -> list[str]:
        few = "" if self.risk.neutral else self.support.warning(self.risk.unit)
        return [text for text in (self.risk.shortfall, self.episodes.warning, few) if text]

    @torch.no_grad()
    def targets(
        self, chunk: Trajectory, predicted: Predicted, measures: list[RiskMeasure], finer: int = 1
    ) -> tuple[Batch, dict[str, float]]:
        """Target distributions and advantages, once per trajectory, with the critic as it is before the update.

        measures: of each group of agents, in units of reward.
        finer: how much finer the grid is on which discounted targets are carried.
        Also gives scalars to log.
        """
        atoms, next_probs = self.critic.atoms, predicted.next_probs
        terminated, ended = predicted.terminated, predicted.ended
        target = returns.lambda_targets(
            atoms, chunk.reward, next_probs, terminated, ended, self.run.gamma, self.config.gae_lambda, finer
        )
        inputs = AdvantageInputs(
            atoms, chunk.reward, terminated, ended, predicted.log_probs[:-1], next_probs, target,
            gamma=self.run.gamma, lam=self.config.gae_lambda, so_far=self._so_far(chunk),
            one_step=self._one_step(chunk, predicted, measures),
        )  # fmt: skip
        batch = Batch.of(chunk, self._advantage(inputs, measures), target)
        scalars = advantage_scalars(batch.advantage)
        scalars |= self._describe(batch, predicted.log_probs[0], chunk.active[0], measures)
        if inputs.one_step is not None:
            acts = chunk.active[0]
            value = (inputs.one_step.values[0, ..., 0] * acts).sum() / acts.sum()
            scalars |= {"risk/value": value, "risk/mean_minus_value": scalars["critic/mean"] - value}
        return batch, fetched(scalars) | self.policy.scale(batch)

    @torch.no_grad()
    def predict(self, chunk: Trajectory) -> Predicted:
        """What the critic predicts along a trajectory, its atoms laid where returns are seen."""
        predicted = self._predict(chunk)
        if not self.support.follow(chunk, predicted, self.run.gamma):
            return predicted
        self.critic_optimiser.forget()
        return self._predict(chunk)

    def _predict(self, chunk: Trajectory) -> Predicted:
        log_probs = self.critic(chunk.state, chunk.agent).log_softmax(-1)
        next_probs = log_probs[1:].exp()
        terminated, truncated = chunk.ends(self.run.time_limit)
        cut = truncated.nonzero(as_tuple=True)
        if len(cut[0]):
            next_probs = next_probs.clone()
            next_probs[cut] = self.critic(chunk.final_state, cut[2]).softmax(-1)
        return Predicted(log_probs, next_probs, terminated, terminated | truncated | chunk.lost, cut)

    def _one_step(self, chunk: Trajectory, predicted: Predicted, measures: list[RiskMeasure]) -> OneStep | None:
        """The nested value, where it is learned; while the unit of tau is not known, there is no risk."""
        unit, self.known = self.risk.return_scale, None
        if self.nested is None or unit is None:
            return None
        mean, next_mean = predicted.means(self.critic.atoms)
        self.known = self.nested.know(
            chunk, mean, next_mean, predicted.terminated, predicted.cut, self.support.bounds, measures, unit
        )
        return self.nested.one_step(chunk, self.known, unit)

    def _so_far(self, chunk: Trajectory) -> SoFar | None:
        """What the episodes have brought, with the critic's view of their start where the advantage asks for it."""
        past = chunk.past
        if past is None:
            return None
        start = chunk.reward.new_empty(*chunk.reward.shape, 0)
        if self.config.advantage == "static":
            start = self.critic(past.start, chunk.agent[:-1]).log_softmax(-1)
        return SoFar(past.past, past.discount[..., None].expand_as(past.past), start)

    def _advantage(self, inputs: AdvantageInputs, measures: list[RiskMeasure]) -> Float[Tensor, "T E A"]:
        estimate = influence_by_age if self.config.discount_tau else ESTIMATORS[self.config.advantage]
        if len(measures) == 1:
            return estimate(inputs, measures[0])
        advantage = torch.empty_like(inputs.reward)
        for agents, measure in zip(self.members, measures, strict=True):
            advantage[:, :, agents] = estimate(inputs.of(agents), measure)
        return advantage

    def _describe(
        self, batch: Batch, log_probs: Float[Tensor, "E A N"], active: Bool[Tensor, "E A"], measures: list[RiskMeasure]
    ) -> dict[str, Tensor]:
        """Scalars to log of the targets, and of the critic at the trajectory's first step."""
        atoms, rows = self.critic.atoms, active.flatten().nonzero().squeeze(-1)
        first = log_probs.flatten(0, 1)[rows]
        probs = first.exp()
        low, high = categorical.edge_mass(batch.target)
        spread = categorical.variance(atoms, batch.target.mean(0)).sqrt()
        group = self.policy.group
        mean = categorical.mean(atoms, probs).mean()
        values = [
            measure.reference(atoms, first[mine])
            for measure, mine in zip(measures, rows_of_each(group[rows % len(group)], len(measures)), strict=True)
        ]
        value = torch.cat(values).mean()
        return {
            "critic/edge_mass_low": low.mean(),
            "critic/edge_mass_high": high.mean(),
            "critic/std_in_atoms": spread / (atoms[1] - atoms[0]),
            "critic/mean": mean,
            "critic/std": categorical.variance(atoms, probs).mean().sqrt(),
            "risk/value": value,
            "risk/mean_minus_value": mean - value,
        }

    def _critic_step(self, batch: Batch, rows: Int[Tensor, " M"]) -> dict[str, Tensor]:
        """Descend the cross-entropy between target and predicted distribution (C51, algorithm 1)."""
        logits = self.critic(flat(batch.chunk.state)[batch.rows[rows]], batch.agent[rows])
        loss = categorical.cross_entropy(batch.target[rows], logits).mean()
        self.critic_optimiser.descend(loss)
        shown = {"losses/critic_cross_entropy": loss.detach()}
        if self.nested is not None and self.known is not None:
            shown |= self.nested.step(batch, self.known, rows)
        return shown

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.policy.state_dict(),
            "critic_optimizer": self.critic_optimiser.state_dict(),
            "risk": self.risk.state_dict(),
            "support": self.support.state_dict(),
            "episodes": self.episodes.state_dict(),
            **({} if self.nested is None else {"nested": self.nested.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state)
        self.critic_optimiser.load_state_dict(state["critic_optimizer"])
        self.risk.load_state_dict(state["risk"])
        if "support" in state:  # older files hold neither, and their supports stayed where they were
            self.support.load_state_dict(state["support"])
            self.episodes.load_state_dict(state["episodes"])
        else:
            self.support.stay()
        if self.nested is not None:
            self.nested.load_state_dict(state["nested"])
