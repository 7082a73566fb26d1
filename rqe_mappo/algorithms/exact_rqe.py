"""Training towards the equilibrium itself, `--algo exact-rqe`, for games whose joint actions can be listed.

The critic predicts `r_i + gamma V_i(s')` for every joint action; `Q_i(s, a)` is its risk over what the environment may
do. Since the policies of all agents are at hand, what the others may do needs no samples: each actor climbs the exact
gradient of its strategic value (`functional.strategic`) plus eps times the regulariser, over all actions. Where that
comes to rest is a risk-averse quantal response equilibrium, the same that `rqe_mappo.equilibrium` computes; V_i is
nested, risk of the others within risk of the environment, step by step.

`--advantage rqe` is another spelling of it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rqe_mappo import schema
from rqe_mappo.algorithms.actor_critic import WIDEST, ActorCriticConfig, moment, step_sizes
from rqe_mappo.algorithms.averages import fetched
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.episode_returns import EpisodeReturns
from rqe_mappo.algorithms.groups import agent_groups
from rqe_mappo.algorithms.optimiser import Optimiser
from rqe_mappo.algorithms.risk_schedule import RiskConfig, RiskSchedule
from rqe_mappo.algorithms.support import Seen, choose_support, complete_returns, start
from rqe_mappo.config import ConfigError, TrainConfig, each_agent, require_positive, require_range, spelled
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import categorical, policy_gradient, strategic
from rqe_mappo.functional.risk import Entropic, RiskMeasure
from rqe_mappo.nets import ActionSpec, ActorSpec, JointCritic, JointCriticSpec, PolicyActor

MOST_JOINT_ACTIONS = 256  # each is a row of the critic's output


@dataclass(frozen=True, kw_only=True)
class ExactRqeConfig(ActorCriticConfig, RiskConfig):
    """Which adversary, and what the actor-critic shares with the others."""

    defaults: ClassVar[dict[str, Any]] = {"time_limit": "terminal"}  # values are of finite games

    rqe_form: Literal["action", "aggregate"] = "action"
    """Does the adversary see the agent's own action, or only its policy?"""
    rqe_penalty: Literal["kl", "reverse-kl"] = "kl"
    """The adversary's cost of departing from the others' policies; kl is entropic risk."""
    risk_clip: float = 3.0
    """Largest exponent of the entropic value, continued linearly beyond."""
    n_atoms: int = 201
    """Largest number of atoms of the return distribution, which lie between the environment's bounds."""

    @property
    def label(self) -> str:
        return f"__tau{spelled(self.tau)}__eps{spelled(self.eps)}"

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        self.check_risk()
        require_positive(self, "risk_clip")
        require_range(self, n_atoms=(5, WIDEST))
        for tau in each_agent(self.tau):
            try:
                Entropic(tau, self.risk_clip)
            except ValueError as error:
                raise ConfigError(str(error)) from None
        if run.time_limit != "terminal":
            raise ConfigError("--algo exact-rqe solves finite games: use --time-limit terminal")

    def check_environment(self, env: BatchedEnv) -> None:
        if not env.time_in_observation:
            raise ConfigError(
                "--algo exact-rqe solves finite games with --time-limit terminal, and this environment does not show "
                "the time left: use rqe-mappo"
            )
        agent_groups(self.tau, self.eps, len(env.possible_agents))
        joint_actions(env)


def joint_actions(env: BatchedEnv) -> int:
    """How many joint actions the critic must tell apart; ConfigError where they are too many, or cannot be listed."""
    actions = ActionSpec.of(env.action_space, "none")
    if actions.kind != "discrete":
        raise ConfigError(f"--algo exact-rqe lists joint actions, and {env.action_space} has no list: use rqe-mappo")
    count = actions.outputs ** len(env.possible_agents)
    if count > MOST_JOINT_ACTIONS:
        raise ConfigError(
            f"--algo exact-rqe lists at most {MOST_JOINT_ACTIONS} joint actions (here {count}): use rqe-mappo"
        )
    return count


class ExactRqe:
    """Actors that follow the gradient of the risk-adjusted game."""

    Config = ExactRqeConfig
    explore = 0.0
    returns = None  # its critic knows risk-adjusted values of joint actions, not the returns of the policy

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        self.run, self.config = run, run.algorithm
        config, self.device = self.config, torch.device(run.device)
        self.groups = agent_groups(config.tau, config.eps, len(env.possible_agents))
        self.members = self.groups.members
        self.places = [torch.tensor(agents, device=self.device) for agents in self.members]
        self.eps = torch.tensor([self.groups.pairs[group][1] for group in self.groups.of])
        self.weight = self.eps.to(self.device)
        self.risk = RiskSchedule(
            config,
            [Entropic(tau, config.risk_clip) for tau, _ in self.groups.pairs],
            {"name": "entropic", "tau": list(each_agent(config.tau)), "clip": config.risk_clip},
        )
        spec = ActorSpec(
            obs_dim=env.observation_space.shape[0],
            n_agents=len(env.possible_agents),
            actions=ActionSpec.of(env.action_space),
            hidden=config.actor_hidden,
            shared=config.shared_actor,
            groups=self.groups.indices,
        )
        self.n_actions = spec.actions.outputs
        self.actor = PolicyActor(spec).to(self.device)
        atoms = choose_support(env, run.gamma, run.time_limit, config.n_atoms)
        critic_spec = JointCriticSpec(
            view_dim=env.state_space.shape[0],
            n_agents=len(env.possible_agents),
            hidden=config.critic_hidden,
            n_atoms=len(atoms),
            joint_actions=joint_actions(env),
        )
        self.critic = JointCritic(critic_spec, atoms).to(self.device)
        self.started, self.spacing = False, float(atoms[1] - atoms[0])  # whether the critic began where returns lie
        self.episodes = EpisodeReturns(run.gamma, (env.num_envs, len(env.possible_agents)), self.device)
        self.modules: dict[str, nn.Module] = {"actor": self.actor, "critic": self.critic}
        self.actor_optimiser = Optimiser(self.actor, config.learning_rate, config.max_grad_norm)
        self.critic_optimiser = Optimiser(self.critic, config.critic_learning_rate, 2 * config.max_grad_norm)

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Improve critic and actors on `chunk`; see `rqe_mappo.algorithms.contract.Algorithm`."""
        if chunk.avail is not None:
            raise ConfigError("--algo exact-rqe lists all joint actions, and here some are masked: use rqe-mappo")
        config, now = self.config, moment(self.config, progress)
        self.actor_optimiser.learning_rate, self.critic_optimiser.learning_rate = step_sizes(config, now)
        measures = self.risk.measures(now.share)
        self._see_returns(chunk, now.share)
        obs, state = chunk.obs[:-1].flatten(0, 1), chunk.state[:-1].flatten(0, 1)
        active = chunk.active.flatten(0, 1)
        rows = active.flatten().nonzero().squeeze(-1)  # in which an agent acted
        joint = self._joint(chunk.extras["drawn"].squeeze(-1).flatten(0, 1), active)
        target = self._targets(chunk, measures).flatten(0, 1)[rows]
        critic_steps = [self._critic_step(state, joint, rows, target) for _ in range(config.critic_epochs)]
        with torch.no_grad():
            payoff = self._payoffs(state, measures)
        steps = [self._actor_step(obs, active, rows, payoff, measures, now.acting) for _ in range(config.update_epochs)]
        value, entropy = torch.stack(steps).mean(0)
        low, high = categorical.edge_mass(target)
        scalars = {
            "critic/edge_mass_low": low.mean(),
            "critic/edge_mass_high": high.mean(),
            "risk/value": value,
            "policy/entropy": entropy,
            "losses/critic_cross_entropy": torch.stack(critic_steps).mean(),
        }
        acting = {
            "policy/effective_eps": float(self.eps.min()),
            "charts/learning_rate": self.actor_optimiser.learning_rate if now.acting else 0.0,
        }
        return fetched(scalars) | acting | self.risk.scalars(measures, self.groups.of, self.eps.tolist())

    def _see_returns(self, chunk: Trajectory, share: float) -> None:
        """Let the critic start where the first returns lie, and measure the unit of tau."""
        ends = chunk.terminated | chunk.truncated, chunk.terminated | chunk.truncated | chunk.lost
        if not self.started:
            self.started = True
            start(self.critic, Seen.of(*complete_returns(chunk, *ends, self.run.gamma)), self.spacing)
        unknown = torch.zeros_like(chunk.reward)  # the critic's values are of joint actions
        self.risk.observe(self.episodes.observe(chunk, unknown, unknown, *ends), share)

    def warnings(self) -> list[str]:
        return [text for text in (self.risk.shortfall,) if text]

    def _joint(self, action: Int[Tensor, "R A"], active: Tensor) -> Int[Tensor, " R"]:
        """The index of each joint action, agent 0's varying slowest; who does not act counts as action 0."""
        base = self.n_actions
        index = torch.zeros_like(action[:, 0])
        for agent in range(action.shape[1]):
            index = index * base + action[:, agent] * active[:, agent]
        return index

    def _policies(self, obs: Float[Tensor, "R A D"], active: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities `[R, A, actions]`; who does not act takes action 0."""
        agent = torch.arange(obs.shape[1], device=self.device).expand(obs.shape[:2])
        logits = self.actor.logits(obs, agent)
        still = torch.zeros_like(logits)
        still[..., 0] = 1.0
        return logits, torch.where(active[..., None], logits.softmax(-1), still)

    def _payoffs(self, state: Float[Tensor, "R A S"], measures: list[RiskMeasure]) -> Float[Tensor, "R A J"]:
        """`Q_i(s, a)` of every joint action: the risk over the environment's draws."""
        agent = torch.arange(state.shape[1], device=self.device).expand(state.shape[:2])
        log_probs = self.critic(state, agent).log_softmax(-1)
        payoff = torch.empty(log_probs.shape[:-1], device=self.device)
        for agents, measure in zip(self.places, measures, strict=True):
            payoff[:, agents] = measure.reference(self.critic.atoms, log_probs[:, agents])
        return payoff

    def _values(self, policies: Tensor, payoff: Tensor, measures: list[RiskMeasure]) -> Float[Tensor, "R A"]:
        """The strategic value of each agent's policy, differentiable in that policy alone."""
        players = policies.shape[1]
        fixed = policies.detach()
        values: list[Tensor] = [policies[:, 0, 0]] * players
        for agents, measure in zip(self.members, measures, strict=True):
            for player in agents:
                values[player] = strategic.value(
                    strategic.from_own_side(payoff[:, player], player, players),
                    policies[:, player],
                    strategic.others_joint(fixed, player),
                    getattr(measure, "tau", float("inf")),
                    self.config.rqe_form,
                    self.config.rqe_penalty,
                )
        return torch.stack(values, 1)

    @torch.no_grad()
    def _targets(self, chunk: Trajectory, measures: list[RiskMeasure]) -> Float[Tensor, "R A N"]:
        """The critic's targets for the joint actions taken: Diracs at `r + gamma V(s')`."""
        obs, state = chunk.obs[1:].flatten(0, 1), chunk.state[1:].flatten(0, 1)
        ended = chunk.terminated | chunk.truncated
        goes_on = (chunk.active & ~ended).flatten(0, 1)
        _, policies = self._policies(obs, goes_on)
        value = self._values(policies, self._payoffs(state, measures), measures)
        reward = chunk.reward.flatten(0, 1)
        return categorical.dirac(self.critic.atoms, reward + self.run.gamma * value * goes_on)

    def _critic_step(
        self, state: Tensor, joint: Tensor, rows: Int[Tensor, " M"], target: Float[Tensor, "M N"]
    ) -> Tensor:
        agent = torch.arange(state.shape[1], device=self.device).expand(state.shape[:2])
        taken = self.critic(state, agent)[torch.arange(len(joint), device=self.device), :, joint]
        loss = categorical.cross_entropy(target, taken.flatten(0, 1)[rows]).mean()
        self.critic_optimiser.descend(loss)
        return loss.detach()

    def _actor_step(
        self,
        obs: Tensor,
        active: Tensor,
        rows: Int[Tensor, " M"],
        payoff: Tensor,
        measures: list[RiskMeasure],
        acting: bool,
    ) -> Float[Tensor, "2"]:
        """One step up the exact gradient, if `acting`; gives mean value and mean entropy."""
        logits, policies = self._policies(obs, active)
        value = self._values(policies, payoff, measures)
        entropy = policy_gradient.entropy(logits)
        regular = policy_gradient.log_barrier(logits) if self.config.regulariser == "log-barrier" else entropy
        objective = ((value + self.weight * regular) * active).sum() / active.sum()
        if acting:
            self.actor_optimiser.descend(-objective)
        return torch.stack([each.flatten()[rows].mean() for each in (value, entropy)]).detach()

    def state_dict(self) -> dict[str, Any]:
        return {
            "actor_optimizer": self.actor_optimiser.state_dict(),
            "critic_optimizer": self.critic_optimiser.state_dict(),
            "risk": self.risk.state_dict(),
            "started": self.started,
            "episodes": self.episodes.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor_optimiser.load_state_dict(state["actor_optimizer"])
        self.critic_optimiser.load_state_dict(state["critic_optimizer"])
        self.risk.load_state_dict(state["risk"])
        self.started = schema.read(bool, state.get("started", True), "started")  # older files hold neither
        if "episodes" in state:
            self.episodes.load_state_dict(state["episodes"])
