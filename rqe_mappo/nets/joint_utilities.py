"""Values of joint actions, of which each agent plays its part: a centralised controller in agents who see the same."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.nets.utilities import Utilities

MOST_JOINT = 4096  # joint actions
TIE = 1e-6  # of a value, and of 1: how much less tied actions count that are no part of the one best joint action


class JointUtilities(Utilities):
    """A value for every joint action; each agent plays its part of the best one.

    All agents that act must observe the same, or they play parts of different joint actions. An agent's utility of an
    action is the value of the best joint action that contains it.
    """

    kind = "joint utilities"

    @property
    def joint_shape(self) -> tuple[int, ...]:
        """Actions of each agent."""
        return (self.spec.actions.outputs,) * self.spec.n_agents

    def network(self, inputs: int, count: int) -> AgentNets:
        """One, of joint actions; ValueError for too many of them."""
        actions, agents = self.spec.actions.outputs, self.spec.n_agents
        if actions**agents > MOST_JOINT:
            raise ValueError(f"{actions}^{agents} joint actions are too many to tell apart: {MOST_JOINT} at most")
        sizes = (inputs, *self.spec.hidden, math.prod(self.joint_shape))
        return AgentNets.build(sizes, 1, nn.ReLU, 0.1, self.spec.memory)

    @property
    def named(self) -> bool:
        """The network sees what all see."""
        return False

    def parts(self, joint: Float[Tensor, "*rows joint"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """Each agent's utilities, of the values of joint actions.

        Of joint actions that are equally good the first is the best, and the parts of others count `TIE` less: agents
        that broke ties apart could play parts of different ones.
        """
        every = joint.unflatten(-1, self.joint_shape)
        first = every.ndim - len(self.joint_shape)
        axes = range(first, every.ndim)
        others = [[axis for axis in axes if axis != own] for own in axes]  # of a single agent none
        of_agents = torch.stack([every.amax(part) if part else every for part in others], -2)
        actions, agents = self.joint_shape[0], len(self.joint_shape)
        places = actions ** torch.arange(agents - 1, -1, -1, device=joint.device)
        best = joint.argmax(-1, keepdim=True) // places % actions
        elsewhere = torch.arange(actions, device=joint.device) != best[..., None]
        tied = elsewhere & (of_agents == of_agents.amax(-1, keepdim=True))
        of_agents = of_agents - tied * TIE * (1 + of_agents.abs())
        return of_agents.gather(-2, agent[..., None, None].expand(*agent.shape, 1, self.joint_shape[0])).squeeze(-2)

    def decoded(self, outputs: Float[Tensor, "*rows O"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """Each agent's, of the values of joint actions."""
        return self.parts(outputs, agent)
