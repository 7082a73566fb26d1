"""Adversaries that play the partners of each agent while it trains: strategic risk, risk of what the others do.

The copies of the environment are dealt out among the agents, one after the other. In the copies of agent i it acts by
its own policy, and all others act by its adversary phi_i, which is paid -r_i and pays tau times its divergence from the
partners' own policies. A network of an adversary plays a pair (agent, partner); pairs count as agents, number i A + j.

Qu, Zhang, Lanzetti and Mazumdar, arXiv 2602.21515, algorithm 1 and equations 8 and 9, whose tau is 1 / ours.
"""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo import schema
from rqe_mappo.algorithms.actor_critic import Moment, Step, passes, step_sizes
from rqe_mappo.algorithms.groups import AgentGroups
from rqe_mappo.algorithms.ppo import Batch, Minibatch, PolicyUpdate, Sequences
from rqe_mappo.algorithms.value_critic import ValueUpdate
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets import PolicyActor
from rqe_mappo.nets.contract import Acted
from rqe_mappo.nets.distributions import ActionDistribution
from rqe_mappo.schema import Positive

Penalty = Literal["kl", "reverse-kl"]
PACE = 0.05  # log of tau, per update, at most, while it follows a target of the divergence
SCALARS = tuple(f"adversary/{name}" for name in ("kl", "entropy", "policy_loss", "value_loss", "effective_tau", "tau"))


class PairActor(PolicyActor):
    """Actors of pairs. Checkpoints keep their weights, and no policy that is loaded has them: they have no kind."""

    kind = ""


def copy_for_pairs(actor: PolicyActor) -> PairActor:
    """Actors of all pairs (agent, partner), each at first the policy of the partner.

    A network that pairs share sees which pair it plays.
    """
    spec, count = actor.spec, actor.spec.n_agents
    pairs = count * count
    copy = PairActor(
        replace(
            spec,
            n_agents=pairs,
            actions=replace(spec.actions, counts=spec.actions.counts * count),
            groups=tuple(range(pairs)) if spec.shared else (),
        )
    ).to(next(actor.parameters()).device)
    partner = torch.arange(pairs) % count
    with torch.no_grad():
        for pair, net in enumerate(copy.nets):
            known = actor.nets[0 if spec.shared else int(partner[pair])].state_dict()
            for name, weights in net.named_parameters():
                if weights.shape == known[name].shape:
                    weights.copy_(known[name])
                    continue
                seen, group = known[name].split((spec.obs_dim, known[name].shape[1] - spec.obs_dim), 1)
                if actor.groups is None:
                    weights.copy_(torch.cat((seen, seen.new_zeros(len(seen), pairs)), 1))
                else:
                    weights.copy_(torch.cat((seen, group @ actor.groups[partner].T), 1))
        if copy.log_std is not None and actor.log_std is not None:
            copy.log_std.copy_(actor.log_std if spec.shared else actor.log_std.repeat(count, 1))
    return copy


class Rollout:
    """Who acts while trajectories are collected: in each copy one agent by itself, the others by its adversary.

    The memory holds the actors' first, then the adversaries'; both see all that happens.

    own: who acts by itself. pair: which pair each place is.
    """

    def __init__(self, actor: PolicyActor, adversary: PolicyActor, own: Bool[Tensor, "E A"], pair: Int[Tensor, "E A"]):
        self.actor, self.adversary, self.own, self.pair = actor, adversary, own, pair
        self.spec, self.draws = actor.spec, actor.draws
        self.memory_size = actor.memory_size + adversary.memory_size

    def begin(
        self,
        memory: Float[Tensor, "E A H"],
        copies: Bool[Tensor, " E"],
        state: Float[Tensor, "E A S"] | None = None,
        uniform: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "E A H"]:
        """No memory of what was before."""
        return self.actor.begin(memory, copies, state, uniform)

    def act(
        self,
        obs: Float[Tensor, "E A D"],
        agent: Int[Tensor, "E A"],
        memory: Float[Tensor, "E A H"],
        *,
        uniform: Float[Tensor, "E A draws"] | None,
        avail: Bool[Tensor, "E A actions"] | None = None,
        explore: float = 0.0,
    ) -> Acted:
        """See `rqe_mappo.nets.contract.Actor`; extras are those of whoever acts in each place."""
        remembered = memory.split((self.actor.memory_size, self.adversary.memory_size), -1)
        mine = self.actor.act(obs, agent, remembered[0], uniform=uniform, avail=avail)
        theirs = self.adversary.act(obs, self.pair, remembered[1], uniform=uniform, avail=avail)

        def chosen(one: Tensor, other: Tensor) -> Tensor:
            return torch.where(self.own.reshape(self.own.shape + (1,) * (one.dim() - 2)), one, other)

        return Acted(
            chosen(mine.action, theirs.action),
            torch.cat((mine.memory, theirs.memory), -1),
            {name: chosen(value, theirs.extras[name]) for name, value in mine.extras.items()},
        )


class AdversaryUpdate(PolicyUpdate):
    """PPO of the adversaries: the clipped surrogate, and tau times the divergence from the partners' policies.

    tau: its weight, beside advantages as they are scaled, like eps.
    """

    def __init__(self, run: TrainConfig, actor: PolicyActor, agents: PolicyUpdate):
        """agents: whose policies the partners have; they must not change while adversaries learn from a batch."""
        pairs = actor.spec.n_agents
        groups = AgentGroups(((math.inf, 0.0),), (0,) * pairs)
        super().__init__(run.algorithm, actor, groups, torch.device(run.device), run.algorithm.adv_memory)
        self.agents, self.count = agents, agents.actor.spec.n_agents
        self.tau, self.penalty = run.algorithm.strategic_tau, run.algorithm.strategic_penalty
        self.divergence = torch.zeros(())

    def step(self, batch: Batch, part: Minibatch) -> dict[str, Tensor]:
        """Improve the adversaries on some rows of the batch."""
        shown = super().step(batch, part)
        known = {"adversary/policy_loss": shown["losses/policy_loss"], "adversary/entropy": shown["policy/entropy"]}
        return known | {"adversary/kl": self.divergence}

    def _bonus(
        self, batch: Batch, part: Minibatch, policy: ActionDistribution, entropy: Float[Tensor, " M"]
    ) -> Float[Tensor, ""]:
        """What the divergence costs, as a loss."""
        with torch.no_grad():
            partner = self.partner(batch, part)
        divergence = (policy.kl(partner) if self.penalty == "kl" else partner.kl(policy)).mean()
        self.divergence = divergence.detach()
        return -self.tau * divergence

    def partner(self, batch: Batch, part: Minibatch) -> ActionDistribution:
        """The partners' own policies at some rows."""
        chunk, agent = batch.chunk, batch.agent[part.rows] % self.count
        mine = replace(chunk, memory=chunk.memory[..., : self.agents.actor.memory_size])
        sequences = part.sequences
        if sequences is not None:
            sequences = replace(sequences, agent=sequences.agent % self.count)
        return self.agents._policy(mine, batch.rows[part.rows], agent, sequences)

    def _policy(
        self, chunk: Trajectory, where: Int[Tensor, " M"], agent: Int[Tensor, " M"], part: Sequences | None
    ) -> ActionDistribution:
        """The adversaries' policy, whose memory comes behind that of the actors."""
        memory = chunk.memory[..., self.agents.actor.memory_size :]
        return super()._policy(replace(chunk, memory=memory), where, agent, part)


class Adversaries:
    """One adversary an agent: its networks, its critic of -r_i, and what they learn."""

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator, agents: PolicyUpdate):
        self.run, self.config, self.generator, self.agents = run, run.algorithm, generator, agents
        self.count, device = len(env.possible_agents), torch.device(run.device)
        places = torch.arange(self.count, device=device)
        self.whose = torch.arange(env.num_envs, device=device) % self.count  # the agent of each copy
        self.own = self.whose[:, None] == places
        self.pair = self.whose[:, None] * self.count + places
        self.actor = copy_for_pairs(agents.actor)
        self.rollout = Rollout(agents.actor, self.actor, self.own, self.pair)
        self.policy = AdversaryUpdate(run, self.actor, agents)
        self.value = ValueUpdate(run, env)
        self.modules: dict[str, nn.Module] = {"adversary": self.actor, "adversary_critic": self.value.critic}

    def own_part(self, chunk: Trajectory) -> Trajectory:
        """What the agents learn from: the rows of those that act by themselves."""
        return chunk.part(self.own, self.agents.actor.memory_size)

    def learn(self, chunk: Trajectory, now: Moment) -> dict[str, float]:
        """Improve the adversaries on `chunk`, against the partners' policies as they are; gives scalars to log."""
        self.policy.optimiser.learning_rate, self.value.optimiser.learning_rate = step_sizes(self.config, now)
        self.policy.begin(now)
        paid, batch, old = self.targets(chunk)
        shown = dict.fromkeys(SCALARS, math.nan) | {"adversary/tau": self.policy.tau}
        if len(paid.rows):
            self.value.normalise(paid)
            found = self._passes(paid, lambda part: self.value.step(paid, old, part), None)
            shown["adversary/value_loss"] = found["losses/critic_value"]
        if len(batch.rows):
            shown["adversary/effective_tau"] = self.policy.tau * self.policy.scale(batch)["advantage/scale"]
            if now.acting:
                shown |= self._passes(batch, None, lambda part: self.policy.step(batch, part))
                self._follow(shown["adversary/kl"])
        self.policy.average(now, chunk)
        self.policy.observe(batch, now)
        self.value.observe(paid)
        return shown

    @torch.no_grad()
    def targets(self, chunk: Trajectory) -> tuple[Batch, Batch, Float[Tensor, "R 1"]]:
        """What the critic learns from, what the adversaries do, and what the critic predicts in normalised units.

        An adversary is paid along its agent's own time: what a partner did counts until that agent's end, also where
        the partner left before, and what it does while that agent is not there counts for nothing.
        """
        paid = replace(self.own_part(chunk), reward=-chunk.reward)
        predicted = self.value.predict(paid)
        value, following = predicted.value[..., 0], predicted.next_value[..., 0]
        advantage = predicted.gae(paid.reward, value, following, self.run.gamma, self.config.gae_lambda)
        critics = Batch.of(paid, advantage, (advantage + value)[..., None])
        whose = self.whose[None, :, None].expand(*chunk.active.shape[:2], 1)
        there = paid.active.gather(2, whose)
        of_pair = advantage.gather(2, whose).expand_as(advantage)
        adversaries = Batch.of(
            replace(chunk, who=self.pair), of_pair, of_pair[..., None], chunk.active & ~self.own & there
        )
        return critics, adversaries, flat(predicted.raw)[critics.rows]

    def _passes(
        self, batch: Batch, critic_step: Step[Minibatch] | None, actor_step: Step[Minibatch] | None
    ) -> dict[str, float]:
        parts = self.config.num_minibatches
        return passes(self.config, lambda: batch.minibatches(parts, self.generator), critic_step, actor_step)

    def _follow(self, divergence: float) -> None:
        """A dual step of tau, up where the divergence is above its target: gradient of `tau (KL - target)` in log tau.

        Relative to the target, and no longer than PACE.
        """
        target = self.config.strategic_kl
        if target is not None:
            self.policy.tau *= math.exp(PACE * max(-1.0, min(1.0, divergence / target - 1)))

    def state_dict(self) -> dict[str, Any]:
        return {"policy": self.policy.state_dict(), "value": self.value.state_dict(), "tau": self.policy.tau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])
        self.policy.tau = schema.read(Positive, state["tau"], "adversaries.tau")
