"""ONNX files node by node: the graph, and networks as parts of it.

Networks are multilayer perceptrons, with a GRU at most, so this is shorter than what PyTorch's own exporter needs,
takes milliseconds instead of seconds, depends on `onnx` alone, and leaves no traces of the machine in the file. Where
agents have a network each, every row passes through all of them and the agent's own result is picked: the same numbers
as in training, where each network is called for its own rows only, but one graph without branches.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rqe_mappo.functional.policy_gradient import LEAST, NO_ACTION
from rqe_mappo.nets.mlp import AgentNets, RecurrentNet
from rqe_mappo.nets.normaliser import LARGEST, Normaliser

OPSET, IR_VERSION = 17, 8  # of 2022: nothing newer is needed, and older runtimes read them too
ACTIVATIONS: dict[type[nn.Module], str] = {nn.Tanh: "Tanh", nn.ReLU: "Relu"}


class Graph:
    """An ONNX graph; values are known by their names. Its inputs: `obs`, `agent`, and `memory` of who has some."""

    def __init__(self, onnx: ModuleType):
        self.onnx, self.nodes, self.constants = onnx, [], []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node with one output; gives the output's name."""
        return self.several(op, inputs, [output], **attributes)[0]

    def several(self, op: str, inputs: Sequence[str], outputs: list[str], **attributes: Any) -> list[str]:
        """A node with several outputs; gives their names."""
        self.nodes.append(self.onnx.helper.make_node(op, inputs, outputs, **attributes))
        return outputs

    def constant(self, value: Tensor, name: str) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(value.detach().contiguous().numpy(), name))
        return name

    def of_agent(self, table: Tensor, name: str) -> str:
        """Of a table with a row for each agent, the row's agent's."""
        return self.node("Gather", [self.constant(table, f"{name}.of_each"), "agent"], name)

    def masked(self, values: str, there: str) -> str:
        """See `rqe_mappo.functional.q_learning.masked`."""
        least, none = (
            self.constant(torch.tensor(each), name) for each, name in ((LEAST, "least"), (NO_ACTION, "none"))
        )
        return self.node("Where", [there, self.node("Max", [values, least], "kept"), none], "allowed")

    def linear(self, value: str, weight: Tensor, bias: Tensor | None, name: str) -> str:
        """`value @ weight.T + bias`."""
        parts = [(weight, "weight")] if bias is None else [(weight, "weight"), (bias, "bias")]
        weights = [self.constant(part, f"{name}.{kind}") for part, kind in parts]
        return self.node("Gemm", [value, *weights], name, transB=1)

    def layers(self, net: nn.Module, value: str, name: str) -> str:
        """Linear layers and activations, one after the other."""
        for number, layer in enumerate(net if isinstance(net, nn.Sequential) else ()):
            label = f"{name}.{number}"
            if isinstance(layer, nn.Linear):
                value = self.linear(value, layer.weight, layer.bias, label)
            else:
                value = self.node(ACTIVATIONS[type(layer)], [value], label)
        return value

    def gru(self, cell: nn.GRUCell, seen: str, memory: str, name: str) -> str:
        """The memory afterwards: gates `r` and `z`, candidate `n`, as PyTorch documents them."""
        parts = {}
        for part, value in (("ih", seen), ("hh", memory)):
            weight, bias = (getattr(cell, f"{kind}_{part}") for kind in ("weight", "bias"))
            every = self.linear(value, weight, bias, f"{name}.{part}")
            parts[part] = self.several("Split", [every], [f"{name}.{part}.{gate}" for gate in "rzn"], axis=1)
        (r_in, z_in, n_in), (r_kept, z_kept, n_kept) = parts["ih"], parts["hh"]
        r, z = (
            self.node("Sigmoid", [self.node("Add", pair, f"{name}.{gate}.sum")], f"{name}.{gate}")
            for gate, pair in (("r", [r_in, r_kept]), ("z", [z_in, z_kept]))
        )
        kept = self.node("Mul", [r, n_kept], f"{name}.kept")
        n = self.node("Tanh", [self.node("Add", [n_in, kept], f"{name}.n.sum")], f"{name}.n")
        change = self.node("Mul", [z, self.node("Sub", [memory, n], f"{name}.gap")], f"{name}.change")
        return self.node("Add", [n, change], f"{name}.after")

    def seen(self, normaliser: Normaliser | None, told: Float[Tensor, "agents K"] | None) -> str:
        """What networks see: `obs`, normalised if there is a `normaliser`, and what is `told` of the row's agent."""
        seen = "obs"
        if normaliser is not None:
            mean, std = (
                self.constant(value, f"obs.{name}")
                for name, value in zip(("mean", "std"), normaliser.moments, strict=True)
            )
            scaled = self.node("Div", [self.node("Sub", [seen, mean], "obs.centred"), std], "obs.scaled")
            bounds = [self.constant(torch.tensor(bound), f"obs.bound{bound:g}") for bound in (-LARGEST, LARGEST)]
            seen = self.node("Clip", [scaled, *bounds], "obs.normalised")
        if told is None or not told.shape[1]:
            return seen
        return self.node("Concat", [seen, self.of_agent(told, "told")], "seen", axis=-1)

    def networks(self, nets: AgentNets, seen: str, memory: str) -> tuple[list[str], list[str]]:
        """What each network gives, and remembers afterwards, if it has memory."""
        every, after = [], []
        for index, net in enumerate(nets):
            name = f"nets.{index}"
            if isinstance(net, RecurrentNet):
                encoded = self.layers(net.encoder, seen, f"{name}.encoder")
                after.append(self.gru(net.cell, encoded, memory, f"{name}.cell"))
                every.append(self.layers(net.output, after[-1], f"{name}.output"))
            else:
                every.append(self.layers(net, seen, name))
        return every, after

    def chosen(self, every: Sequence[str], name: str) -> str:
        """Of a value of each agent's own network, that of the row's agent; of one alone, that."""
        if len(every) == 1:
            return every[0]
        after_batch = self.constant(torch.tensor([1]), f"{name}.after_batch")
        rows = [self.node("Unsqueeze", [value, after_batch], f"{value}.row") for value in every]
        table = self.node("Concat", rows, f"{name}.every", axis=1)
        which = self.node("Unsqueeze", ["agent", after_batch], f"{name}.which")
        return self.node("GatherND", [table, which], f"{name}.chosen", batch_dims=1)

    def file(self, obs_dim: int, memory: int, outputs: Mapping[str, int], facts: Mapping[str, str]) -> bytes:
        """The file, with inputs and outputs of those widths, and `facts` as its metadata."""
        numbers, integers = self.onnx.TensorProto.FLOAT, self.onnx.TensorProto.INT64

        def described(name: str, kind: int, *shape: str | int) -> Any:
            return self.onnx.helper.make_tensor_value_info(name, kind, shape)

        inputs = [described("obs", numbers, "batch", obs_dim), described("agent", integers, "batch")]
        if memory:
            inputs.append(described("memory", numbers, "batch", memory))
        given = [described(name, numbers, "batch", width) for name, width in outputs.items()]
        model = self.onnx.helper.make_model(
            self.onnx.helper.make_graph(self.nodes, "policy", inputs, given, self.constants),
            producer_name="rqe-mappo",
            ir_version=IR_VERSION,
            opset_imports=[self.onnx.helper.make_opsetid("", OPSET)],
        )
        self.onnx.helper.set_model_props(model, dict(facts))
        self.onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()
