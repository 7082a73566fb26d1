"""DRIMA-style: risk of teammates and risk of the environment apart, `--algo drima`. Not checked against official code.

Son et al., 'Disentangling Sources of Risk for Distributional Multi-Agent Reinforcement Learning' (ICML 2022, PMLR 162).
No code of it was found, and its abstract alone was read; this is what its idea asks for on the parts that are here.

Kept: a level for what teammates may do (`--agent-level`) and one for what the environment may do (`--env-level`), both
learned for all levels and chosen when acting. A joint value without factorisation has quantiles of the return, whose
level is the environment's. QMIX of utilities that see both levels is drawn towards it by an asymmetric squared error,
an expectile: near 1 the agent's level ignores what is low because a teammate explored, near 0 it expects the worst of
them. So optimism about teammates needs none about the environment.

Chosen here: expectiles for the agent's level, and VaR for the environment's; levels drawn for each episode of a batch;
next actions by the levels of acting; at least one hidden layer in utilities. What differs in replay and observations is
said in `vdn`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from tyro.conf import Suppress

from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.distributional import QuantileConfig, QuantileRegression
from rqe_mappo.algorithms.monotonic import MonotonicConfig
from rqe_mappo.algorithms.off_policy import utility
from rqe_mappo.config import TrainConfig, require, require_range
from rqe_mappo.data.replay import Episodes, team_state_size
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import q_learning
from rqe_mappo.nets.levelled_utilities import LEVELS, JointQuantiles, LevelledSpec, LevelledUtilities

EDGE = 0.01  # levels of learning stay so far from 0 and 1, where nothing would draw from one side


@dataclass(frozen=True, kw_only=True)
class DrimaConfig(QuantileConfig, MonotonicConfig):
    """Settings of the DRIMA-style method."""

    # Recipes of tables have no hidden layers, and utilities would be linear in the levels.
    defaults: ClassVar[dict[str, Any]] = QuantileConfig.defaults | {"actor_hidden": (64, 64)}

    risk: Suppress[str] = "neutral"
    tau: Suppress[float] = float("inf")
    return_scale: Suppress[float | None] = None
    levels: Suppress[Literal["fixed", "sampled"]] = "sampled"
    agent_level: float = 0.75
    """Optimism about teammates by which agents act: near 1 they expect the best of them."""
    env_level: float = 0.25
    """Optimism about the environment by which agents act: the level of the return's quantile."""
    joint_hidden: int = 64
    """Hidden units of the joint value."""

    @property
    def label(self) -> str:
        return f"__agents{self.agent_level:g}__env{self.env_level:g}"

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        for name in ("agent_level", "env_level"):
            require(self, 0 < getattr(self, name) < 1, name, "be in (0, 1)")
        require(self, len(self.actor_hidden) > 0, "actor_hidden", "have a layer, as utilities see levels")
        require_range(self, joint_hidden=(1, WIDEST))


class Drima(QuantileRegression):
    """The DRIMA-style method at work."""

    Config = DrimaConfig

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        config, agents, state_dim = run.algorithm, len(env.possible_agents), team_state_size(env)
        own = {"agent_level": config.agent_level, "env_level": config.env_level}
        actor = LevelledUtilities(config.utilities(env, LevelledSpec, **own))
        choices = actor.spec.actions.outputs
        self.joint = JointQuantiles(actor.spec.obs_dim, state_dim, agents, choices, config.joint_hidden)
        self.mixer = config.mixer(env, more=LEVELS)

        def start(mean: float) -> None:
            self.joint.start(mean)
            self.mixer.start(mean)

        super().__init__(run, env, generator, {"actor": actor, "joint": self.joint, "mixer": self.mixer}, start)

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The joint value's quantile loss, and the asymmetric error of what is mixed."""
        levels, count = self.levels(), batch.filled.shape[1]
        place = torch.randint(len(levels), (count,), generator=self.generator).to(self.device)
        optimism = (EDGE + (1 - 2 * EDGE) * torch.rand(count, generator=self.generator)).to(self.device)
        obs = self.actor.seen(batch.obs)
        joint = self.joint(obs[:-1], batch.action, batch.active, batch.state[:-1], levels)
        with torch.no_grad():
            best = utility(self, batch).best
            following = self.target["joint"](obs[1:], best[1:], batch.present[1:], batch.state[1:], self.levels())
            target = self.distribution_targets(batch, following)
        regression, scalars = self.regression(joint, target, levels, batch.filled)
        asked = torch.stack((optimism, levels[place]), -1)  # [B, 2]
        seen = asked[:, None].expand(*batch.obs.shape[:3], LEVELS)
        present = torch.cat((batch.active, batch.present[-1:]))
        live = self.actor.along(batch.obs, present, batch.avail, seen)[:-1]
        chosen = q_learning.of_actions(live, batch.action) * batch.active
        state = torch.cat((batch.state[:-1], seen[:-1, :, 0]), -1)
        mixed = self.mixer(chosen, state)
        wanted = joint.detach().gather(-1, place[:, None].expand(len(joint), -1, 1)).squeeze(-1)
        away = (wanted - mixed)[batch.filled]
        sides = (optimism.expand(len(joint), -1)[batch.filled] - (away.detach() < 0).to(away.dtype)).abs()
        tie = (sides * away**2).mean()
        scalars |= {"losses/regression": regression.detach(), "losses/tie": tie.detach()}
        return regression + tie, scalars
