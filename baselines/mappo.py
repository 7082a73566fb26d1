"""MAPPO: PPO with a centralised critic of the mean return, `--algo mappo`.

Yu et al., 'The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games' (NeurIPS 2022, arXiv 2103.01955) and
its code, marlbenchmark/on-policy.

Kept: a critic of the agent's own view of the global state; value normalisation, value clipping and the Huber loss, both
in normalised units; GAE; advantages normalised by each rollout's mean and std over the rows in which agents acted;
masks for agents that left, whose view is all zeros but for their name; PPO's clip and entropy bonus; a policy shared by
agents (`--shared-actor`).

Dropped, in favour of what all algorithms here share, so that they differ in nothing else: the paper's networks
(LayerNorm of inputs, recurrence), step sizes and number of epochs, which are those of the environment's recipe; stacked
frames. Time limits are bootstrapped where the recipe says so: the paper's code took them for ends. Its statistics of
returns took in a rollout once a minibatch and epoch, here once; and its scripts for SMAC passed
`--use_value_active_masks`, which switched the masks off.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from rqe_mappo.algorithms.actor_critic import moment, passes, step_sizes
from rqe_mappo.algorithms.averages import fetched
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.groups import agent_groups
from rqe_mappo.algorithms.ppo import SCALARS, Batch, PolicyUpdate, advantage_scalars
from rqe_mappo.algorithms.value_critic import Predicted, ValueCriticConfig, ValueUpdate, unmasked, value_scalars
from rqe_mappo.config import TrainConfig
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional.risk import Neutral

NEUTRAL = float("inf")


@dataclass(frozen=True, kw_only=True)
class MappoConfig(ValueCriticConfig):
    """MAPPO's settings."""

    critic_input: Literal["state", "obs"] = "state"
    """What the critic sees: the global state from the agent's side, or the agent's observation alone."""

    def check_environment(self, env: BatchedEnv) -> None:
        super().check_environment(env)
        agent_groups(NEUTRAL, self.eps, len(env.possible_agents))


class Mappo:
    """MAPPO at work."""

    Config = MappoConfig
    risk = None
    explore = 0.0

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        self.run, self.config, self.generator = run, run.algorithm, generator
        device = torch.device(run.device)
        groups = agent_groups(NEUTRAL, self.config.eps, len(env.possible_agents))
        self.actor = self.config.actor(env, groups).to(device)
        self.value = ValueUpdate(run, env, view=self.config.critic_input)
        self.critic = self.returns = self.value.critic
        self.modules: dict[str, nn.Module] = {"actor": self.actor, "critic": self.critic}
        stretches = self.config.stretches(env, [Neutral()] * len(env.possible_agents))
        self.policy = PolicyUpdate(self.config, self.actor, groups, device, self.config.adv_memory, stretches)

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Improve actors and critic on `chunk`; see `rqe_mappo.algorithms.contract.Algorithm`."""
        now = moment(self.config, progress)
        self.policy.optimiser.learning_rate, self.value.optimiser.learning_rate = step_sizes(self.config, now)
        self.policy.begin(now)
        batch, predicted, scalars = self.targets(chunk)
        old = flat(predicted.raw)[batch.rows]
        means = passes(
            self.config,
            lambda: batch.minibatches(self.config.num_minibatches, self.generator),
            lambda part: self.value.step(batch, old, part),
            (lambda part: self.policy.step(batch, part)) if now.acting else None,
        )
        self.policy.average(now, chunk)
        self.policy.observe(batch, now)
        self.value.observe(batch)
        self.value.ended(chunk, predicted)
        rate = self.policy.optimiser.learning_rate if now.acting else 0.0
        return dict.fromkeys(SCALARS, np.nan) | scalars | means | {"charts/learning_rate": rate}

    def warnings(self) -> list[str]:
        return [text for text in (self.value.episodes.warning,) if text]

    @torch.no_grad()
    def targets(self, chunk: Trajectory) -> tuple[Batch, Predicted, dict[str, float]]:
        """What to learn from a trajectory: the batch, what the critic predicted, scalars to log."""
        if not self.config.active_masks:
            chunk = unmasked(chunk)
        predicted = self.value.predict(chunk)
        value, following = predicted.value[..., 0], predicted.next_value[..., 0]
        advantage = predicted.gae(chunk.reward, value, following, self.run.gamma, self.config.gae_lambda)
        batch = Batch.of(chunk, advantage, (advantage + value)[..., None])
        scalars = advantage_scalars(batch.advantage) | value_scalars(value.flatten()[batch.rows], batch.target[:, 0])
        self.value.normalise(batch)
        return batch, predicted, fetched(scalars) | self.policy.scale(batch)

    def state_dict(self) -> dict[str, Any]:
        return {**self.policy.state_dict(), **self.value.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state)
        self.value.load_state_dict(state)
