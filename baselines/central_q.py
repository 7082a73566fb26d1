"""Q-learning of joint actions, as one agent would: the measure of factorisation on small games, `--algo central-q`.

A value for each joint action (4096 at most) by what the first agent observes. It can be acted on by agents apart only
where all observe the same, and all act until the episode is over; anything else is refused.

Replay, double Q-learning, TD(lambda) and time limits are those of `vdn`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.off_policy import OffPolicy, OffPolicyConfig, squared, value_scalars
from rqe_mappo.config import ConfigError, TrainConfig, require
from rqe_mappo.data.replay import Episodes
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import BatchedEnv, action_counts
from rqe_mappo.functional import q_learning
from rqe_mappo.nets.joint_utilities import MOST_JOINT, JointUtilities

WRONG = "--algo central-q needs agents who all {}: use qmix"


@dataclass(frozen=True, kw_only=True)
class CentralQConfig(OffPolicyConfig):
    """Settings of Q-learning of joint actions."""

    defaults = OffPolicyConfig.defaults | {"shared_actor": True}

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require(self, self.shared_actor, "shared_actor", "be left on with --algo central-q")

    def check_environment(self, env: BatchedEnv) -> None:
        super().check_environment(env)
        agents, actions = len(env.possible_agents), int(getattr(env.action_space, "n", 0))
        if actions**agents > MOST_JOINT:
            raise ConfigError(
                f"--algo central-q tells at most {MOST_JOINT} joint actions apart (got {actions}^{agents}): use qmix"
            )
        if action_counts(env) is not None:
            raise ConfigError(WRONG.format("have the same actions"))
        shown = env.reset(0)  # before a folder is made; the run resets with its own seed
        avail = None if shown.avail is None else torch.as_tensor(shown.avail)
        require_the_same(torch.as_tensor(shown.obs), torch.as_tensor(shown.active), avail)


class CentralQ(OffPolicy):
    """Q-learning of joint actions at work."""

    Config = CentralQConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        actor = JointUtilities(run.algorithm.utilities(env))
        super().__init__(run, env, generator, {"actor": actor}, actor.start)
        self.places = actor.spec.actions.outputs ** torch.arange(len(env.possible_agents) - 1, -1, -1)

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        require_the_same(chunk.obs[:-1], chunk.active, None if chunk.avail is None else chunk.avail[:-1])
        return super().learn(chunk, progress)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The squared error of the joint action's value."""
        live = self.along(self.nets, batch)
        with torch.no_grad():
            kept = self.along(self.target, batch)
            best = (live if self.config.double_q else kept).argmax(-1)
            target = self.targets(batch, q_learning.of_actions(kept, best)[1:])
        value = q_learning.of_actions(live[:-1], (batch.action * self.places.to(self.device)).sum(-1))
        return squared(value, target, batch.filled), value_scalars(self, value, target, batch.filled)

    def along(self, nets: nn.ModuleDict, batch: Episodes) -> Float[Tensor, "T+1 B joint"]:
        """Values of joint actions along episodes."""
        actor, first = nets["actor"], batch.obs[:, :, :1]
        if not isinstance(actor, JointUtilities):
            raise TypeError("the actor must be of joint utilities")
        acting = torch.cat((batch.active, batch.present[-1:]))[:, :, :1]
        return actor.unrolled(first, torch.zeros_like(acting, dtype=torch.int64), acting).squeeze(2)


def require_the_same(
    obs: Float[Tensor, "*rows A D"], active: Bool[Tensor, "*rows A"], avail: Bool[Tensor, "*rows A actions"] | None
) -> None:
    """ConfigError where agents could not act together apart."""
    acting = active.any(-1)
    if not active[acting].all():
        raise ConfigError(WRONG.format("act until the episode is over"))
    if avail is not None and not avail[acting].all():
        raise ConfigError(WRONG.format("may always choose any action"))
    seen = obs[acting]
    if not torch.equal(seen, seen[:, :1].expand_as(seen)):
        raise ConfigError(WRONG.format("observe the same"))
