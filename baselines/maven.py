"""MAVEN: QMIX whose utilities follow a latent that the team keeps for an episode, `--algo maven`.

Mahajan et al., 'MAVEN: Multi-Agent Variational Exploration' (2019, arXiv 1910.07483).

Kept: a latent (`--latents`), drawn for the whole team when an episode begins; utilities whose last layer it decides; a
mixer that sees it; a discriminator that tells it from the state and the softmax of all utilities, step by step, whose
cross-entropy is lowered by the utilities too (`--mi-weight`); a policy over latents by the first state, improved by
REINFORCE on the returns that followed, with an entropy bonus. `--latent-policy uniform` leaves that policy as it
begins, as all released settings do.

Different: REINFORCE has a baseline, the running mean of the returns before, and steps once on the episodes that have
just ended, not on a buffer of 512. The discriminator has no GRU. Two-layer networks give the mixer's weights, the
released ones had one layer; a shared trunk's own output layer is not computed and thrown away. Outside training agents
take the latent that was drawn most of late, where the released code draws one at random.
What differs in replay, targets and observations is said in `vdn`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rqe_mappo import schema
from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.monotonic import MonotonicConfig
from rqe_mappo.algorithms.off_policy import OffPolicy, squared, utility, value_scalars
from rqe_mappo.algorithms.optimiser import Optimiser
from rqe_mappo.config import TrainConfig, require, require_positive, require_range
from rqe_mappo.data.replay import Episodes, team_state_size
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import q_learning
from rqe_mappo.nets.latent_utilities import LatentUtilities, LatentUtilitySpec
from rqe_mappo.nets.mixers import layers

RECENT = 0.99  # memory of the shares of latents, per episode
MOST_LATENTS = 10_000


@dataclass(frozen=True, kw_only=True)
class MavenConfig(MonotonicConfig):
    """MAVEN's settings."""

    latents: int = 16
    """How many latents there are."""
    latent_policy: Literal["learned", "uniform"] = "learned"
    """How they are drawn: by a policy that learns which lead to high returns, or each as often."""
    latent_hidden: int = 64
    """Hidden units of that policy, and of the discriminator."""
    latent_entropy: float = 0.001
    """Weight of that policy's entropy, in stds of the team's return."""
    latent_learning_rate: float = 1e-3
    """Adam step size of that policy."""
    mi_weight: float = 1.0
    """Weight of the discriminator's cross-entropy."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require_range(self, latents=(2, MOST_LATENTS), latent_hidden=(1, WIDEST))
        require_positive(self, "latent_learning_rate")
        for name in ("latent_entropy", "mi_weight"):
            require(self, 0 <= getattr(self, name) < float("inf"), name, "be in [0, inf)")


class Maven(OffPolicy):
    """MAVEN at work."""

    Config = MavenConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, agents, state_dim = run.algorithm, len(env.possible_agents), team_state_size(env)
        own = {"latents": config.latents, "latent_hidden": config.latent_hidden}
        spec = config.utilities(env, LatentUtilitySpec, state_dim=env.state_space.shape[0], **own)
        actor, actions = LatentUtilities(spec), spec.actions.outputs
        if config.latent_policy == "uniform":
            for weights in actor.policy.parameters():
                nn.init.zeros_(weights)
        self.mixer = config.mixer(env, more=config.latents)
        self.discriminator = layers(state_dim + agents * actions, config.latent_hidden, config.latents)
        nets: dict[str, nn.Module] = {"actor": actor, "mixer": self.mixer, "discriminator": self.discriminator}
        super().__init__(run, env, generator, nets, self.mixer.start, extras=("latent",))
        by_loss = [weights for name, weights in self.nets.named_parameters() if not name.startswith("actor.policy.")]
        self.optimiser = Optimiser(nn.ParameterList(by_loss), config.learning_rate, config.max_grad_norm)
        self.latent_optimiser = Optimiser(actor.policy, config.latent_learning_rate, config.max_grad_norm)
        self.earned: float | None = None

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        before = self.replay.count
        scalars = super().learn(chunk, progress)
        ended = min(self.replay.count - before, len(self.replay))
        return scalars | (self.improve(self.replay.newest(ended)) if ended and self.unit is not None else {})

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """QMIX's loss, and the discriminator's cross-entropy."""
        latent = nn.functional.one_hot(self.latents(batch), self.config.latents).float()
        agents = utility(self, batch, latent)
        state = torch.cat((batch.state, latent.expand(*batch.state.shape[:2], -1)), -1)
        total = self.mixer(agents.chosen, state[:-1])
        with torch.no_grad():
            target = self.targets(batch, self.target["mixer"](agents.following, state[1:]))
        td = squared(total, target, batch.filled)
        said = self.discriminated(batch, agents.live[:-1])[batch.filled]
        known = self.latents(batch).expand(batch.filled.shape)[batch.filled]
        information = nn.functional.cross_entropy(said, known)
        scalars = value_scalars(self, total, target, batch.filled)
        scalars |= {"losses/td": td.detach(), "losses/discriminator": information.detach()}
        return td + self.config.mi_weight * information, scalars

    def latents(self, batch: Episodes) -> Int[Tensor, " B"]:
        """The latent of each episode, which all agents that act at its first step have."""
        first = batch.active[0].int().argmax(-1, keepdim=True)
        return batch.extras["latent"][0].gather(-1, first).squeeze(-1)

    def discriminated(self, batch: Episodes, live: Float[Tensor, "T B A actions"]) -> Float[Tensor, "T B latents"]:
        """Logits of latents, by the state and by how agents would act."""
        policies = live.softmax(-1) * batch.active[..., None]
        return self.discriminator(torch.cat((batch.state[:-1], policies.flatten(-2)), -1))

    def improve(self, ended: Episodes) -> dict[str, float]:
        """A step of REINFORCE for the policy over latents, and what is drawn of late."""
        latent, own = self.latents(ended).to(self.device), self.actor.spec.state_dim
        log_policy = self.actor.latent_policy(ended.state[0, :, :own].to(self.device))
        shares = nn.functional.one_hot(latent, self.config.latents).float().mean(0)
        self.actor.drawn.lerp_(shares, 1 - RECENT ** len(latent))
        entropy = -(log_policy.exp() * log_policy).sum(-1).mean()
        if self.config.latent_policy == "learned":
            nothing = torch.zeros_like(ended.reward)
            to_go = q_learning.lambda_returns(ended.reward, nothing, ended.ended, ended.ended, self.run.gamma, 1.0)
            mean = float(to_go[0].mean())
            before = mean if self.earned is None else self.earned  # of others: one episode alone has to teach too
            self.earned = before + (1 - RECENT ** len(latent)) * (mean - before)
            gain = (to_go[0] - before).to(self.device) / (self.unit or 1.0)
            taken = log_policy.gather(-1, latent[:, None]).squeeze(-1)
            self.latent_optimiser.descend(-(taken * gain).mean() - self.config.latent_entropy * entropy)
        return {"latent/entropy": float(entropy.detach()), "latent/most_drawn": float(self.actor.drawn.max())}

    def state_dict(self) -> dict[str, Any]:
        own = {"latent_optimiser": self.latent_optimiser.state_dict(), "earned": self.earned}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = dict(state)
        self.earned = schema.read(float | None, own.pop("earned", None), "earned")
        self.latent_optimiser.load_state_dict(own.pop("latent_optimiser", None))
        super().load_state_dict(own)
