"""SRPO: policies that are averse to what their partners may do, `--algo srpo`.

Qu, Zhang, Lanzetti and Mazumdar, 'Training Generalizable Collaborative Agents via Strategic Risk Aversion' (2026, arXiv
2602.21515), and its code, crqu/srpo.

While agent i trains, an adversary plays its partners, paid -r_i less tau times its divergence from the partners' own
policies, which act nowhere but in evaluation (`algorithms.adversaries`):

    agent       L_CLIP(theta_i, phi_i) - eps H(theta_i)             equation 8
    adversary   -L_CLIP(theta_i, phi_i) + tau KL(phi_i || theta_-i)  equation 9, tau = 1 / theirs

Kept: algorithm 1, both losses by PPO on one trajectory, the divergence in the loss and not in the reward, adversaries
that begin as copies of the partners, agents' critics of what each sees. With tau = inf it is IPPO. Dropped: the paper's
networks and step sizes, in favour of the environment's recipe (that of the kitchen keeps them for actors). The
adversary's critic sees the state. With `--tau` (or a `--risk` that is averse by itself) the agents' critic, then of the
state too, and their advantage are those of `rqe-mappo`: risk of the world beside that of partners.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rqe_mappo.algorithms.actor_critic import moment
from rqe_mappo.algorithms.adversaries import Adversaries, Penalty
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.groups import agent_groups
from rqe_mappo.algorithms.rqe_mappo import RqeMappo, RqeMappoConfig
from rqe_mappo.baselines.ippo import Ippo, IppoConfig
from rqe_mappo.config import ConfigError, PerAgent, TrainConfig, require, require_positive
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import BatchedEnv


@dataclass(frozen=True, kw_only=True)
class SrpoConfig(IppoConfig, RqeMappoConfig):
    """SRPO's settings: IPPO's, those of risk, and the adversaries'."""

    tau: PerAgent = math.inf
    """Risk tolerance of the whole return, as in rqe-mappo; inf: risk of partners alone, with a critic of the mean."""
    strategic_tau: float = 1.0  # the paper's settings are 0.1 and 100
    """Tolerance of what partners do, beside advantages like --eps: inf is ippo, small averse; 1 / the paper's tau."""
    strategic_penalty: Penalty = "kl"
    """Divergence that adversaries pay: KL(adversary || partner), or reverse-kl, KL(partner || adversary)."""
    strategic_kl: float | None = None
    """Change --strategic-tau during the run so that the mean divergence stays here, in nats."""

    @property
    def label(self) -> str:
        return f"{super().label}__stau{self.strategic_tau:g}"

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        tau = self.strategic_tau
        require(self, tau > 0, "strategic_tau", "be > 0 (inf is ippo)")
        if math.isfinite(tau):
            require_positive(self, "strategic_tau")
        if self.strategic_kl is not None:
            require_positive(self, "strategic_kl")
            require(self, math.isfinite(tau), "strategic_tau", "be finite with --strategic-kl, which begins there")
        if math.isfinite(tau) and not self.active_masks:
            raise ConfigError("--no-active-masks goes with --strategic-tau inf only: leave it out")

    def check_environment(self, env: BatchedEnv) -> None:
        super().check_environment(env)
        agents = len(env.possible_agents)
        if self.adversarial(env) and env.num_envs < agents:
            raise ConfigError(
                f"--num-envs must be at least {agents}, for each agent trains in copies of its own (got {env.num_envs})"
            )

    def notes(self, env: BatchedEnv) -> list[str]:
        alone = math.isfinite(self.strategic_tau) and not self.adversarial(env)
        return [*super().notes(env), *["one agent has no partners: --strategic-tau changes nothing"] * alone]

    def adversarial(self, env: BatchedEnv) -> bool:
        """Whether partners are played by adversaries at all."""
        return math.isfinite(self.strategic_tau) and len(env.possible_agents) > 1


class Srpo:
    """IPPO or RQE-MAPPO beside adversaries.

    agents: what learns from the rows of those who act by their own policies.
    returns: None beside adversaries, for the critic then knows returns that no evaluation shows.
    """

    Config = SrpoConfig
    explore = 0.0

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        self.config: SrpoConfig = run.algorithm
        groups = agent_groups(self.config.tau, self.config.eps, len(env.possible_agents))
        learner = Ippo if self.config.schedule(groups).neutral else RqeMappo
        self.agents = learner(run, env, generator)
        self.actor = self.rollout = self.agents.actor
        self.risk, self.returns = self.agents.risk, self.agents.returns
        self.modules: dict[str, nn.Module] = dict(self.agents.modules)
        self.adversaries: Adversaries | None = None
        if self.config.adversarial(env):
            self.adversaries = Adversaries(run, env, generator, self.agents.policy)
            self.rollout, self.returns = self.adversaries.rollout, None
            self.modules |= self.adversaries.modules

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Improve adversaries, agents and critics on `chunk`; see `rqe_mappo.algorithms.contract.Algorithm`.

        The adversaries first: what they are tied to is the policies that played.
        """
        if self.adversaries is None:
            return self.agents.learn(chunk, progress)
        shown = self.adversaries.learn(chunk, moment(self.config, progress))
        mine = self.adversaries.own_part(chunk)
        return self.agents.learn(mine, progress) | shown if mine.active.any() else shown

    def warnings(self) -> list[str]:
        return self.agents.warnings()

    def state_dict(self) -> dict[str, Any]:
        known = {} if self.adversaries is None else {"adversaries": self.adversaries.state_dict()}
        return self.agents.state_dict() | known

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.agents.load_state_dict(state)
        if self.adversaries is not None:
            self.adversaries.load_state_dict(state["adversaries"])
