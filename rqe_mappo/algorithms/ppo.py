"""The actors' side of PPO, with a fixed entropy weight, and what PPO's critics learn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.algorithms.actor_critic import WIDEST, ActorCriticConfig, Moment
from rqe_mappo.algorithms.averages import MeanWeights, RunningMean
from rqe_mappo.algorithms.groups import AgentGroups
from rqe_mappo.algorithms.optimiser import Optimiser
from rqe_mappo.algorithms.stretches import Stretches
from rqe_mappo.config import ConfigError, TrainConfig, require, require_at_least_one, require_positive, require_range
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import policy_gradient
from rqe_mappo.functional.risk import RiskMeasure
from rqe_mappo.functional.rows import rows_of_each
from rqe_mappo.nets import ActionSpec, ActorSpec, PolicyActor
from rqe_mappo.nets.distributions import ActionDistribution, Squash

COOLING = 0.8  # share of the actors' learning after which the weight of the entropy bonus is eps
SCALARS = ("losses/policy_loss", "policy/entropy", "policy/approx_kl", "policy/clip_fraction")


@dataclass(frozen=True, kw_only=True)
class PPOConfig(ActorCriticConfig):
    """What proximal policy optimisation adds."""

    gae_lambda: float = 0.95
    """Lambda of the return targets and advantages."""
    num_minibatches: int = 4
    """Minibatches per epoch."""
    clip_coef: float = 0.2
    """PPO's clip range."""
    norm_adv: bool = True
    """Divide advantages by their std; the eps that then acts is logged as policy/effective_eps."""
    eps_start: float = 1.0
    """Times --eps: the weight of the entropy bonus at first; it falls to --eps in the first 80 % of the learning."""
    average: float = 0.0
    """Share of the actors' learning whose mean weights become the final policy; needs --settle."""
    average_of: Literal["last", "best"] = "last"
    """Which share, with --average: the last, or the one whose training episodes brought most by the agents' risk."""
    recurrent: bool = False
    """Actors with memory, a GRU behind the hidden layers; critics too, where they see observations."""
    gru_size: int = 64
    """Units of the GRU, with --recurrent."""
    normalise_obs: bool = False
    """Normalise what actors and critics see by running statistics, which are saved with the policy."""
    squash: Squash = "tanh"
    """Continuous actions: how a Gaussian's draws come into the bounds; none where there are no bounds."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, gru_size=(1, WIDEST))
        require_range(self, gae_lambda=(0, 1), average=(0, 0.5))
        require_positive(self, "clip_coef")
        require_range(self, eps_start=(1, 1e6))
        require_at_least_one(self, "num_minibatches")
        require(self, self.settle > 0 or not self.average, "average", "be 0 without --settle, in which it takes effect")

    def check_environment(self, env: BatchedEnv) -> None:
        try:
            actions = ActionSpec.of(env.action_space, self.squash)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if actions.kind == "box" and self.regulariser == "log-barrier":
            raise ConfigError("--regulariser log-barrier sums over actions that can be listed: use entropy")

    def stretches(self, env: BatchedEnv, measures: Sequence[RiskMeasure]) -> Stretches | None:
        """What chooses the weights to end with, by each agent's measure; None where those are the last."""
        best = self.average > 0 and self.average_of == "best"
        return Stretches(self.average, measures, env.num_envs) if best else None

    @property
    def memory(self) -> int:
        """Units of memory."""
        return self.gru_size if self.recurrent else 0

    def actor(self, env: BatchedEnv, groups: AgentGroups) -> PolicyActor:
        """The actor for `env`, at its beginning."""
        spec = ActorSpec(
            obs_dim=env.observation_space.shape[0],
            n_agents=len(env.possible_agents),
            actions=ActionSpec.of(env.action_space, self.squash),
            hidden=self.actor_hidden,
            shared=self.shared_actor,
            groups=groups.indices,
            memory=self.memory,
            normalise=self.normalise_obs,
        )
        return PolicyActor(spec)


@dataclass
class Batch:
    """What is learned from the R rows of a trajectory in which an agent acted.

    rows: their places in `[T, E, A]`, flattened.
    target: what the critic shall predict.
    sequences: of a copy and an agent each, for networks with memory: their places in `[E, A]`, flattened, and which of
        them each row belongs to. Minibatches are then of whole sequences.
    """

    chunk: Trajectory
    rows: Int[Tensor, " R"]
    agent: Int[Tensor, " R"]
    advantage: Float[Tensor, " R"]
    target: Float[Tensor, "R K"]
    sequences: tuple[Int[Tensor, " S"], Int[Tensor, " R"]] | None

    @classmethod
    def of(
        cls,
        chunk: Trajectory,
        advantage: Float[Tensor, "T E A"],
        target: Float[Tensor, "T E A K"],
        counts: Bool[Tensor, "T E A"] | None = None,
    ) -> "Batch":
        """The rows in which an agent acted; where only some of them count, those."""
        rows = (chunk.active if counts is None else counts).flatten().nonzero().squeeze(-1)
        agent = chunk.agent[0].flatten()[rows % chunk.active[0].numel()]
        whole = chunk.memory.shape[-1] > 0
        sequences = (rows % chunk.active[0].numel()).unique(return_inverse=True) if whole else None
        return cls(chunk, rows, agent, advantage.flatten()[rows], flat(target)[rows], sequences)

    def minibatches(self, count: int, generator: torch.Generator) -> list["Minibatch"]:
        """The batch shuffled, in `count` parts or as many as it has rows (or sequences), of which none is empty."""
        if self.sequences is None:
            order = torch.randperm(len(self.rows), generator=generator).to(self.rows.device)
            return [Minibatch(rows) for rows in order.tensor_split(min(count, len(order)))]
        index, mine = self.sequences
        order = torch.randperm(len(index), generator=generator)
        count = min(count, len(order))
        part = torch.empty_like(order)
        for number, some in enumerate(order.tensor_split(count)):
            part[some] = number
        part, place = part.to(self.rows.device), torch.empty_like(index)
        every = rows_of_each(part, count)
        for some in every:
            place[some] = torch.arange(len(some), device=place.device)
        return [
            Minibatch(rows, Sequences.of(self.chunk, index[some], self.rows[rows], place[mine[rows]]))
            for some, rows in zip(every, rows_of_each(part[mine], count), strict=True)
        ]


class PolicyUpdate:
    """Actors and their optimiser: PPO's clipped surrogate with an entropy bonus of fixed weight.

    eps: that weight, of each agent; `weight` the same where the networks live.
    variance: the running variance of the advantages of each group of agents.
    """

    def __init__(
        self,
        config: PPOConfig,
        actor: PolicyActor,
        groups: AgentGroups,
        device: torch.device,
        memory: float,
        stretches: Stretches | None = None,
    ):
        """memory: of the running variance of advantages, per rollout; 0: each rollout's own."""
        self.config, self.actor, self.members, self.stretches = config, actor, groups.members, stretches
        self.device = device
        self.eps = torch.tensor([groups.pairs[group][1] for group in groups.of])
        self.weight, self.group = self.eps.to(device), torch.tensor(groups.of, device=device)
        self.optimiser = Optimiser(actor, config.learning_rate, config.max_grad_norm)
        self.variance = [RunningMean(memory) for _ in groups.pairs]
        self.mean_weights = MeanWeights()
        self.warmth = 1.0  # times eps, now

    def begin(self, now: Moment) -> None:
        """Set what depends on how far the learning is; at its end, rest."""
        self.warmth = self.config.eps_start ** max(0.0, 1 - now.share / COOLING)
        if now.phase == "settle":
            self.rest()

    @property
    def eps_now(self) -> Float[Tensor, " A"]:
        """The weight of each agent's entropy bonus, of which `eps` is the last."""
        return self.eps * self.warmth

    def scale(self, batch: Batch) -> dict[str, float]:
        """Centre and scale the advantages of `batch`, if so configured; what that did, for the log."""
        scales = self._normalise(batch) if self.config.norm_adv else [1.0] * len(self.members)
        effective = [float(self.eps_now[agents[0]]) * scale for agents, scale in zip(self.members, scales, strict=True)]
        found = {"advantage/scale": sum(scales) / len(scales), "policy/effective_eps": min(effective)}
        if self.stretches is not None:
            found["policy/stretch"] = math.nan if self.stretches.chosen is None else self.stretches.chosen
        return found

    def _normalise(self, batch: Batch) -> list[float]:
        """Centre and scale the advantages, those of each group by themselves; gives the scales.

        Running scales: a rollout's own std is ten times larger with a rare crash in it than without, so that dividing
        by it would teach little from the crash and much from every rollout that lacks one.
        """
        if len(batch.rows) < 2:  # one row has no std
            return [1.0] * len(self.members)
        if len(self.members) == 1:
            scale = self.variance[0].add(batch.advantage.std().item() ** 2) ** 0.5
            batch.advantage = policy_gradient.normalise(batch.advantage, scale)
            return [scale]
        scales = [1.0] * len(self.members)
        of_each = rows_of_each(self.group[batch.agent], len(scales))
        known = [(index, rows) for index, rows in enumerate(of_each) if len(rows) > 1]
        stds = torch.stack([batch.advantage[rows].std() for _, rows in known]).tolist() if known else []
        for (index, rows), std in zip(known, stds, strict=True):
            scales[index] = self.variance[index].add(std**2) ** 0.5
            batch.advantage[rows] = policy_gradient.normalise(batch.advantage[rows], scales[index])
        return scales

    def step(self, batch: Batch, part: "Minibatch") -> dict[str, Tensor]:
        """Improve the actors on some rows of the batch."""
        chunk, rows = batch.chunk, part.rows
        where, agent = batch.rows[rows], batch.agent[rows]
        policy = self._policy(chunk, where, agent, part.sequences)
        drawn, before = (flat(chunk.extras[name])[where] for name in ("drawn", "log_prob"))
        losses, log_ratio = policy_loss(policy, drawn, before, batch.advantage[rows], self.config.clip_coef)
        loss = losses.mean()
        entropy = policy.entropy()
        self.optimiser.descend(loss - self._bonus(batch, part, policy, entropy))
        with torch.no_grad():
            clipped = ((log_ratio.exp() - 1).abs() > self.config.clip_coef).float().mean()
            return {
                "losses/policy_loss": loss.detach(),
                "policy/entropy": entropy.mean().detach(),
                "policy/approx_kl": policy_gradient.approx_kl(log_ratio).mean(),
                "policy/clip_fraction": clipped,
            }

    def _policy(
        self, chunk: Trajectory, where: Int[Tensor, " M"], agent: Int[Tensor, " M"], part: "Sequences | None"
    ) -> ActionDistribution:
        """The actors' policy now, at some rows; those with memory go along the sequences that these belong to."""
        avail = None if chunk.avail is None else flat(chunk.avail)[where]
        if part is None:
            return self.actor(flat(chunk.obs)[where], agent, avail=avail)[0]
        inputs = self.actor.inputs(part.along(chunk.obs), part.agents)
        memory = chunk.memory.flatten(0, 1)[part.index]
        outputs, _ = self.actor.nets.unroll(inputs, part.agent, memory, part.begins, part.active)
        return self.actor.distribution(outputs[part.step, part.place], agent, avail)

    def observe(self, batch: Batch, now: Moment) -> None:
        """Take what was seen into the running statistics, once everything is learned from it.

        Not while the actors settle: other statistics would make another policy of the same weights.
        """
        if self.actor.normaliser is not None and now.phase != "settle":
            self.actor.normaliser.update(flat(batch.chunk.obs)[batch.rows])

    def _bonus(
        self, batch: Batch, part: "Minibatch", policy: ActionDistribution, entropy: Float[Tensor, " M"]
    ) -> Float[Tensor, ""]:
        """The regulariser's mean over rows, weighed by eps."""
        one_eps = len(self.members) == 1
        eps = self.warmth * (self.weight[0] if one_eps else self.weight[batch.agent[part.rows]])
        if self.config.regulariser == "log-barrier":
            return (eps * policy.log_barrier()).mean()
        return eps * entropy.mean() if one_eps else (eps * entropy).mean()

    def average(self, now: Moment, chunk: Trajectory, ripe: bool = True) -> None:
        """Look at the actors' weights after an update that may count for those they end with, if so configured.

        ripe: whether all the aversion that was asked for acts.
        """
        if not now.acting:
            return
        if self.stretches is not None:
            self.stretches.look(self.actor, chunk, now.share, ripe)
        elif now.share < 1 - self.config.average:
            self.mean_weights = MeanWeights()  # those of a run that was lengthened are no longer late
        elif self.config.average:
            self.mean_weights.add(self.actor)

    def rest(self) -> None:
        """Give the actors, whose learning is over, the mean of their late or best weights, if there is one."""
        if self.stretches is not None:
            self.stretches.give(self.actor)
        if self.mean_weights.count:
            self.mean_weights.give(self.actor)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, the advantages' scale, and the mean of weights; the weights are saved apart."""
        return {
            "actor_optimizer": self.optimiser.state_dict(),
            "advantage_variance": [variance.state_dict() for variance in self.variance],
            "mean_weights": self.mean_weights.state_dict(),
            **({} if self.stretches is None else {"stretches": self.stretches.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for variance, saved in zip(self.variance, state["advantage_variance"], strict=True):
            variance.load_state_dict(saved)
        self.mean_weights.load_state_dict(state["mean_weights"], self.actor)
        if self.stretches is not None:
            self.stretches.load_state_dict(state["stretches"], self.actor)
        self.optimiser.load_state_dict(state["actor_optimizer"])


@dataclass(frozen=True)
class Minibatch:
    """Some rows of a batch, and, for networks with memory, the sequences that they are."""

    rows: Int[Tensor, " M"]
    sequences: "Sequences | None" = None


@dataclass(frozen=True)
class Sequences:
    """The S sequences, of a copy and an agent each, through some rows of a trajectory.

    index: their places in `[E, A]`, flattened. step, place: of each row, in `[T, S]`.
    """

    index: Int[Tensor, " S"]
    step: Int[Tensor, " M"]
    place: Int[Tensor, " M"]
    agent: Int[Tensor, " S"]
    begins: Bool[Tensor, "T S"]
    active: Bool[Tensor, "T S"]

    @classmethod
    def of(
        cls, chunk: Trajectory, index: Int[Tensor, " S"], where: Int[Tensor, " M"], place: Int[Tensor, " M"]
    ) -> "Sequences":
        """Those at `index`; each of the rows `where` of `[T, E, A]`, flattened, lies on that at its `place`."""
        _, copies, agents = chunk.active.shape
        begins, active = chunk.begins[:, index // agents], chunk.active.flatten(1, 2)[:, index]
        return cls(index, where // (copies * agents), place, chunk.agent[0].flatten()[index], begins, active)

    @property
    def agents(self) -> Int[Tensor, "T S"]:
        """The agent of each entry."""
        return self.agent.expand(self.active.shape)

    def along(self, values: Float[Tensor, "T+1 E A V"]) -> Float[Tensor, "T S V"]:
        """What belongs to the sequences, of something that is seen before each step and after the last."""
        return values[:-1].flatten(1, 2)[:, self.index]


def policy_loss(
    policy: ActionDistribution,
    drawn: Tensor,
    before: Float[Tensor, "*rows"],
    advantage: Float[Tensor, "*rows"],
    clip: float,
) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """PPO's clipped surrogate of each row, and the log-probability of what was `drawn` less that of `before`."""
    log_ratio = policy.log_prob(drawn) - before
    return policy_gradient.clipped_surrogate(log_ratio, advantage, clip), log_ratio


def advantage_scalars(advantage: Float[Tensor, " R"]) -> dict[str, Tensor]:
    """Scalars to log of the advantages as they come."""
    std = advantage.std()
    kurtosis = (((advantage - advantage.mean()) / (std + 1e-8)) ** 4).mean()
    return {"advantage/std": std, "advantage/kurtosis": kurtosis}
