"""Training towards the equilibrium itself: `--advantage rqe`, for games whose joint actions can be listed.

The critic foretells `r_i + gamma V_i(s')` for every joint action; `Q_i(s, a)` is its risk over what the environment may
do. Since the policies of all agents are at hand, what the others may do needs no samples: each actor climbs the exact
gradient of its strategic value (`functional.strategic`) plus eps times the regulariser, over all actions. Where that
comes to rest is a risk-averse quantal response equilibrium, the same that `rqe_mappo.equilibrium` computes; V_i is
nested, risk of the others within risk of the environment, step by step.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rqe_mappo.algorithms.rqe_mappo import Learner
from rqe_mappo.config import ConfigError
from rqe_mappo.data.collector import Rollout
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import categorical, policy_gradient, strategic
from rqe_mappo.functional.risk import RiskMeasure

MOST_JOINT_ACTIONS = 256  # each is a row of the critic's output


def joint_actions(env: BatchedEnv) -> int:
    """How many joint actions the critic must tell apart; ConfigError where they are too many."""
    count = int(env.action_space.n) ** len(env.possible_agents)
    if count > MOST_JOINT_ACTIONS:
        raise ConfigError(
            f"--advantage rqe lists at most {MOST_JOINT_ACTIONS} joint actions (here {count}): use influence"
        )
    return count


class ExactLearner(Learner):
    """A `Learner` whose actors follow the gradient of the risk-adjusted game; same networks, optimisers and logs."""

    def update(self, rollout: Rollout, measures: list[RiskMeasure], progress: float) -> dict[str, float]:
        """Improve critic and actors on `rollout`; see `Learner.update`."""
        config = self.config
        acting = self._anneal(progress)
        obs = rollout.obs.flatten(0, 1)
        active = rollout.active.flatten(0, 1)
        state = rollout.state.flatten(0, 1)
        joint = self._joint(rollout.action.flatten(0, 1), active)
        target = self._foretold(rollout, measures)
        critic_steps = [self._joint_critic_step(state, joint, active, target) for _ in range(config.critic_epochs)]
        with torch.no_grad():
            payoff = self._payoffs(state, measures)
        steps = [self._exact_step(obs, active, payoff, measures, acting) for _ in range(config.update_epochs)]
        value, entropy = torch.stack(steps).mean(0).tolist()
        low, high = categorical.edge_mass(target[active])
        return {
            "critic/edge_mass_low": low.mean().item(),
            "critic/edge_mass_high": high.mean().item(),
            "risk/value": value,
            "policy/entropy": entropy,
            "policy/effective_eps": float(self.eps.min()),
            "losses/critic_cross_entropy": torch.stack(critic_steps).mean().item(),
            "charts/learning_rate": self.actor_optimizer.param_groups[0]["lr"] if acting else 0.0,
        }

    def _joint(self, action: Int[Tensor, "R A"], active: Tensor) -> Int[Tensor, " R"]:
        """The index of each joint action, agent 0's varying slowest; who does not act counts as action 0."""
        base = self.shapes.n_actions
        index = torch.zeros_like(action[:, 0])
        for agent in range(action.shape[1]):
            index = index * base + action[:, agent] * active[:, agent]
        return index

    def _policies(self, obs: Float[Tensor, "R A D"], active: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities `[R, A, actions]`; who does not act takes action 0."""
        agent = torch.arange(obs.shape[1], device=self.device).expand(obs.shape[:2])
        logits = self.actor(obs, agent)
        still = torch.zeros_like(logits)
        still[..., 0] = 1.0
        return logits, torch.where(active[..., None], logits.softmax(-1), still)

    def _payoffs(self, state: Float[Tensor, "R A S"], measures: list[RiskMeasure]) -> Float[Tensor, "R A J"]:
        """`Q_i(s, a)` of every joint action: the risk over the environment's draws."""
        agent = torch.arange(state.shape[1], device=self.device).expand(state.shape[:2])
        log_probs = self.critic(state, agent).log_softmax(-1)
        payoff = torch.empty(log_probs.shape[:-1], device=self.device)
        for agents, measure in zip(self.agents_of, measures, strict=True):
            payoff[:, agents] = measure.reference(self.critic.atoms, log_probs[:, agents])
        return payoff

    def _values(self, policies: Tensor, payoff: Tensor, measures: list[RiskMeasure]) -> Float[Tensor, "R A"]:
        """The strategic value of each agent's policy, differentiable in that policy alone."""
        players = policies.shape[1]
        fixed = policies.detach()
        values: list[Tensor] = [policies[:, 0, 0]] * players
        for agents, measure in zip(self.agents_of, measures, strict=True):
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
    def _foretold(self, rollout: Rollout, measures: list[RiskMeasure]) -> Float[Tensor, "R A N"]:
        """The critic's targets for the joint actions taken: Diracs at `r + gamma V(s')`."""
        obs = torch.cat((rollout.obs[1:], rollout.next_obs[None])).flatten(0, 1)
        state = torch.cat((rollout.state[1:], rollout.next_state[None])).flatten(0, 1)
        ended = rollout.terminated | rollout.truncated
        goes_on = (rollout.active & ~ended).flatten(0, 1)
        _, policies = self._policies(obs, goes_on)
        value = self._values(policies, self._payoffs(state, measures), measures)
        reward = rollout.reward.flatten(0, 1)
        return categorical.dirac(self.critic.atoms, reward + self.config.gamma * value * goes_on)

    def _joint_critic_step(self, state: Tensor, joint: Tensor, active: Tensor, target: Tensor) -> Tensor:
        agent = torch.arange(state.shape[1], device=self.device).expand(state.shape[:2])
        taken = self.critic(state, agent)[torch.arange(len(joint), device=self.device), :, joint]
        loss = categorical.cross_entropy(target[active], taken[active]).mean()
        self.critic_optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(self.critic.parameters(), 2 * self.config.max_grad_norm)
        self.critic_optimizer.step()
        return loss.detach()

    def _exact_step(
        self, obs: Tensor, active: Tensor, payoff: Tensor, measures: list[RiskMeasure], acting: bool
    ) -> Float[Tensor, "2"]:
        """One step up the exact gradient, if `acting`; gives mean value and mean entropy."""
        logits, policies = self._policies(obs, active)
        value = self._values(policies, payoff, measures)
        entropy = policy_gradient.entropy(logits)
        regular = policy_gradient.log_barrier(logits) if self.config.regulariser == "log-barrier" else entropy
        objective = ((value + self.eps * regular) * active).sum() / active.sum()
        if acting:
            self.actor_optimizer.zero_grad()
            (-objective).backward()
            clip_grad_norm_(self.actor.parameters(), self.config.max_grad_norm)
            self.actor_optimizer.step()
        return torch.stack((value[active].mean(), entropy[active].mean())).detach()
