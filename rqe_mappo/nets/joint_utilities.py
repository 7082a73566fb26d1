"""Values of joint actions, of which each agent plays its part: a centralised controller in agents who see the same."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.utilities import Utilities, UtilitySpec

MOST_JOINT = 4096  # joint actions


class JointUtilities(Utilities):
    """A value for every joint action; each agent plays its part of the best one.

    All agents that act must observe the same, or they play parts of different joint actions. An agent's utility of an
    action is the value of the best joint action that contains it.
    """

    kind = "joint utilities"

    def __init__(self, spec: UtilitySpec):
        super().__init__(spec)
        actions, agents = spec.actions.outputs, spec.n_agents
        if actions**agents > MOST_JOINT:
            raise ValueError(f"{actions}^{agents} joint actions are too many to tell apart: {MOST_JOINT} at most")
        self.joint_shape = (actions,) * agents
        sizes = (spec.obs_dim, *spec.hidden, math.prod(self.joint_shape))
        self.nets = AgentNets.build(sizes, 1, nn.ReLU, 0.1, spec.memory)

    @property
    def named(self) -> bool:
        """The network sees what all see."""
        return False

    def parts(self, joint: Float[Tensor, "*rows joint"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """Each agent's utilities, of the values of joint actions."""
        every = joint.unflatten(-1, self.joint_shape)
        first = every.ndim - len(self.joint_shape)
        axes = range(first, every.ndim)
        others = [[axis for axis in axes if axis != own] for own in axes]  # of a single agent none
        of_agents = torch.stack([every.amax(part) if part else every for part in others], -2)
        return of_agents.gather(-2, agent[..., None, None].expand(*agent.shape, 1, self.joint_shape[0])).squeeze(-2)

    def values(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        memory: Float[Tensor, "*rows H"] | None = None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
    ) -> tuple[Float[Tensor, "*rows actions"], Float[Tensor, "*rows H"]]:
        """See `Utilities.values`."""
        if memory is None:
            memory = obs.new_zeros(*obs.shape[:-1], self.memory_size)
        joint, memory = self.nets.step(obs, agent, memory)
        return self.parts(joint, agent), memory
