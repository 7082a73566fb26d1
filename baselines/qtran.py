"""QTRAN-base: a joint value without factorisation, and utilities whose sum is tied to it, `--algo qtran`.

Son et al., 'QTRAN: Learning to Factorize with Transformation for Cooperative Multi-Agent Reinforcement Learning' (2019,
arXiv 1905.05408).

Kept: `Q_jt(s, a)` learned by TD, at the agents' greedy actions; a value `V(s)`; the sum of utilities less `Q_jt` plus
`V` is drawn to 0 at the greedy joint action (opt), and to 0 or more at the one that was taken (nopt), both with squared
penalties and with `Q_jt` fixed. Weights of 1 for both, as in the paper; PyMARL has `--nopt-weight 0.1`.

Different: `Q_jt` sees observations, actions and the state, in PyMARL the hidden states of the agents' GRUs. The TD
target of PyMARL and PyMARL2 chooses by the live utilities, and so does `--double-q` here.

Left out: PyMARL2's reshaping of hidden states, which gave 83 % of agents and steps those of others; the authors' own L1
penalties.

Nothing makes utilities and `Q_jt` agree on what is best. `qtran/agreement` logs how often they do: of all joint actions
where these are at most 1024, else against those in which one agent acts otherwise.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.off_policy import OffPolicy, OffPolicyConfig, squared, utility, value_scalars
from rqe_mappo.config import TrainConfig, require, require_range
from rqe_mappo.data.replay import Episodes, team_state_size
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.nets.mixers import JointValue, StateValue
from rqe_mappo.nets.utilities import Utilities

MOST_JOINT = 1024  # joint actions that are all compared
COMPARED = 16  # steps of a batch in which they are


@dataclass(frozen=True, kw_only=True)
class QtranConfig(OffPolicyConfig):
    """QTRAN's settings."""

    joint_hidden: int = 64
    """Hidden units of the joint value and of the state's."""
    opt_weight: float = 1.0
    """Weight of the loss at greedy joint actions."""
    nopt_weight: float = 1.0
    """Weight of the loss at joint actions that were taken."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, joint_hidden=(1, WIDEST))
        for name in ("opt_weight", "nopt_weight"):
            require(self, 0 <= getattr(self, name) < float("inf"), name, "be in [0, inf)")


class Qtran(OffPolicy):
    """QTRAN-base at work."""

    Config = QtranConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, agents, actor = run.algorithm, len(env.possible_agents), Utilities(run.algorithm.utilities(env))
        self.choices = actor.spec.actions.outputs
        self.joint = JointValue(actor.spec.obs_dim, team_state_size(env), agents, self.choices, config.joint_hidden)
        self.value = StateValue(team_state_size(env), config.joint_hidden)

        def start(mean: float) -> None:
            self.joint.start(mean)
            actor.start(mean / agents)

        super().__init__(run, env, generator, {"actor": actor, "joint": self.joint, "value": self.value}, start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """TD of the joint value, and what ties the utilities to it."""
        agents, filled, acting = utility(self, batch), batch.filled, batch.active
        seen, state, best = self.actor.seen(batch.obs), batch.state[:-1], agents.live[:-1].argmax(-1)
        obs = seen[:-1]
        joint = self.joint(obs, batch.action, acting, state)
        with torch.no_grad():
            following = self.target["joint"](seen[1:], agents.best[1:], batch.present[1:], batch.state[1:])
            target = self.targets(batch, following)
            at_best = self.joint(obs, best, acting, state)
        value = self.value(state)
        greatest = (agents.live[:-1].amax(-1) * acting).sum(-1)
        opt = squared(greatest + value, at_best, filled)
        nopt = (agents.chosen.sum(-1) + value - joint.detach()).clamp(max=0)[filled].square().mean()
        td = squared(joint, target, filled)
        scalars = value_scalars(self, joint, target, filled)
        scalars |= {"losses/td": td.detach(), "losses/opt": opt.detach(), "losses/nopt": nopt.detach()}
        if self.steps % self.config.target_interval == 0:
            avail = agents.live[:-1] > NO_ACTION
            some = torch.linspace(0, int(filled.sum()) - 1, COMPARED, device=filled.device).long()  # of all steps
            rows = (part[filled][some] for part in (obs, best, acting, state, avail))
            scalars["qtran/agreement"] = self.agreement(*rows)
        return td + self.config.opt_weight * opt + self.config.nopt_weight * nopt, scalars

    @torch.no_grad()
    def agreement(
        self,
        obs: Float[Tensor, "R A D"],
        best: Int[Tensor, "R A"],
        acting: Bool[Tensor, "R A"],
        state: Float[Tensor, "R S"],
        avail: Bool[Tensor, "R A actions"],
    ) -> Float[Tensor, ""]:
        """How often no joint action that is compared has a greater joint value than the greedy one."""
        others = self.others(best)  # [C, R, A]
        obs_of, acting_of, state_of, avail_of = (
            part.expand(len(others), *part.shape) for part in (obs, acting, state, avail)
        )
        possible = (avail_of.gather(-1, others[..., None]).squeeze(-1) | ~acting_of).all(-1)
        found = self.joint(obs_of, others, acting_of, state_of).masked_fill(~possible, -torch.inf).amax(0)
        return (self.joint(obs, best, acting, state) >= found - 1e-6).float().mean()

    def others(self, best: Int[Tensor, "R A"]) -> Int[Tensor, "C R A"]:
        """The joint actions with which the greedy one is compared."""
        agents, choices = best.shape[1], torch.arange(self.choices, device=best.device)
        if self.choices**agents <= MOST_JOINT:
            digit = self.choices ** torch.arange(agents, device=best.device)
            every = torch.arange(self.choices**agents, device=best.device)[:, None] // digit % self.choices
            return every[:, None].expand(-1, len(best), -1)
        others = best.expand(agents, self.choices, *best.shape).clone()
        for agent in range(agents):
            others[agent, :, :, agent] = choices[:, None]
        return others.flatten(0, 1)
