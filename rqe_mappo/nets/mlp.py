"""Multilayer perceptrons, feed-forward or with a GRU before the last layer, and one of them for each agent."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo.functional.rows import own, rows_of_each

LONGEST = 64  # steps


def mlp(sizes: Sequence[int], activation: type[nn.Module], last_gain: float) -> nn.Sequential:
    """Linear layers of the given sizes, orthogonal weights, zero biases; `last_gain` scales the output layer."""
    layers: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = index == len(sizes) - 2
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, activation()]
    return nn.Sequential(*layers)


class RecurrentNet(nn.Module):
    """Hidden layers, a GRU of `memory` units, and a linear output.

    Its units begin with memories of 1 to `LONGEST` steps: with biases of zero each step would keep half, and nothing be
    learned from what was seen twenty steps ago. Tallec and Ollivier, 'Can Recurrent Neural Networks Warp Time?' (2018),
    with times evenly spread instead of drawn.
    """

    def __init__(self, sizes: Sequence[int], memory: int, activation: type[nn.Module], last_gain: float):
        super().__init__()
        *inner, n_out = sizes
        self.encoder = nn.Sequential(*mlp(inner, activation, 2**0.5), activation()) if len(inner) > 1 else nn.Identity()
        self.cell = nn.GRUCell(inner[-1], memory)
        for name, weights in self.cell.named_parameters():
            nn.init.orthogonal_(weights) if "weight" in name else nn.init.zeros_(weights)
        if not self.cell.bias_ih.is_meta:  # to compute for an outline would load PyTorch's compiler
            with torch.no_grad():  # the update gate is the second of three
                self.cell.bias_ih[memory : 2 * memory] = torch.linspace(1, LONGEST - 1, memory).log()
        self.output = mlp((memory, n_out), activation, last_gain)

    def forward(
        self, inputs: Float[Tensor, "*rows I"], memory: Float[Tensor, "*rows H"]
    ) -> tuple[Float[Tensor, "*rows O"], Float[Tensor, "*rows H"]]:
        """One step: outputs and the memory afterwards."""
        rows = math.prod(inputs.shape[:-1])  # none where an agent has a network of its own and is not called for
        seen = self.encoder(inputs).reshape(rows, self.cell.input_size)
        memory = self.cell(seen, memory.reshape(rows, self.cell.hidden_size)).view_as(memory)
        return self.output(memory), memory

    def unroll(
        self,
        inputs: Float[Tensor, "T S I"],
        memory: Float[Tensor, "S H"],
        begins: Bool[Tensor, "T S"],
        active: Bool[Tensor, "T S"],
    ) -> tuple[Float[Tensor, "T S O"], Float[Tensor, "T S H"]]:
        """See `AgentNets.unroll`; all but the GRU's own steps is computed at once."""
        seen, goes_on = self.encoder(inputs), ~begins[..., None]
        known, after = [], []
        for now, kept, acts in zip(seen, goes_on, active[..., None], strict=True):
            memory = memory * kept
            known.append(self.cell(now, memory))
            memory = torch.where(acts, known[-1], memory)
            after.append(memory)
        return self.output(torch.stack(known)), torch.stack(after)


class AgentNets(nn.ModuleList):
    """One network for all agents, or one each, called for rows of agents.

    A graph that is traced has no branches: there every row passes through all networks, and its agent's is picked.
    """

    def __init__(self, nets: Sequence[nn.Module], memory_size: int, outputs: int):
        super().__init__(nets)
        self.memory_size, self.outputs = memory_size, outputs

    @classmethod
    def build(
        cls, sizes: Sequence[int], count: int, activation: type[nn.Module], last_gain: float, memory_size: int = 0
    ) -> "AgentNets":
        """`count` networks alike, with a GRU of `memory_size` units if that is not 0."""
        if memory_size:
            nets = [RecurrentNet(sizes, memory_size, activation, last_gain) for _ in range(count)]
        else:
            nets = [mlp(sizes, activation, last_gain) for _ in range(count)]
        return cls(nets, memory_size, sizes[-1])

    def forward(self, inputs: Float[Tensor, "*rows I"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows O"]:
        """Outputs of feed-forward networks, each for the rows of its agent."""
        if len(self) == 1:
            return self[0](inputs)
        if torch.compiler.is_compiling():
            return own([net(inputs) for net in self], agent)
        rows = inputs.reshape(-1, inputs.shape[-1])
        outputs = rows.new_empty(len(rows), self.outputs)
        for net, mine in zip(self, rows_of_each(agent.flatten(), len(self)), strict=True):
            outputs[mine] = net(rows[mine])
        return outputs.reshape(*inputs.shape[:-1], self.outputs)

    def step(
        self, inputs: Float[Tensor, "*rows I"], agent: Int[Tensor, "*rows"], memory: Float[Tensor, "*rows H"]
    ) -> tuple[Float[Tensor, "*rows O"], Float[Tensor, "*rows H"]]:
        """Outputs and the memory afterwards; without memory as `forward`."""
        if not self.memory_size:
            return self(inputs, agent), memory
        if len(self) == 1:
            return self[0](inputs, memory)
        if torch.compiler.is_compiling():
            every, all_after = zip(*(net(inputs, memory) for net in self), strict=True)
            return own(every, agent), own(all_after, agent)
        rows, known = inputs.reshape(-1, inputs.shape[-1]), memory.reshape(-1, self.memory_size)
        outputs, after = rows.new_empty(len(rows), self.outputs), torch.empty_like(known)
        for net, mine in zip(self, rows_of_each(agent.flatten(), len(self)), strict=True):
            outputs[mine], after[mine] = net(rows[mine], known[mine])
        return outputs.reshape(*inputs.shape[:-1], self.outputs), after.view_as(memory)

    def unroll(
        self,
        inputs: Float[Tensor, "T S I"],
        agent: Int[Tensor, " S"],
        memory: Float[Tensor, "S H"],
        begins: Bool[Tensor, "T S"],
        active: Bool[Tensor, "T S"],
    ) -> tuple[Float[Tensor, "T S O"], Float[Tensor, "T S H"]]:
        """Outputs along S sequences, each of one agent, and the memory after each step.

        It is zero where an episode `begins`, and stays as it was where the agent is not `active`.
        """
        nets = [net for net in self if isinstance(net, RecurrentNet)]
        if len(nets) == 1:
            return nets[0].unroll(inputs, memory, begins, active)
        outputs = inputs.new_empty(*inputs.shape[:-1], self.outputs)
        after = inputs.new_empty(*inputs.shape[:-1], self.memory_size)
        for net, mine in zip(nets, rows_of_each(agent, len(nets)), strict=True):
            if len(mine):
                outputs[:, mine], after[:, mine] = net.unroll(
                    inputs[:, mine], memory[mine], begins[:, mine], active[:, mine]
                )
        return outputs, after
