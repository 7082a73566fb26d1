"""Utilities of value methods as nodes of an ONNX graph.

A risk measure that is linear in sorted quantiles is a sort and a sum with constant weights. Others are refused:
programs of torch.export hold them all. Axes of sums are counted from the front: for a batch without rows onnxruntime
ignores negative ones.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rqe_mappo.deploy.onnx_graph import Graph
from rqe_mappo.functional.risk import CVaR, Neutral
from rqe_mappo.nets import (
    CategoricalUtilities,
    ImplicitUtilities,
    JointUtilities,
    LatentUtilities,
    LevelledUtilities,
    LevelUtilities,
    QuantileUtilities,
    Utilities,
)
from rqe_mappo.nets.distributional_utilities import LevelHead


def utility_nodes(graph: Graph, actor: Utilities) -> None:
    """`utilities`, and `next_memory` of an actor with memory. ValueError for what ONNX does not say simply."""
    if type(actor) not in KINDS:
        raise ValueError(f"{type(actor).__name__} cannot be written as .onnx: give a file that ends in .pt2")
    memory = "memory"
    if isinstance(actor, LatentUtilities):
        memory = _latent(graph, actor)
    every, after = graph.networks(actor.nets, graph.seen(actor.normaliser, _told(actor)), memory)
    found = KINDS[type(actor)](graph, actor, every)
    if actor.own is not None:
        found = graph.masked(found, graph.of_agent(actor.own, "own"))
    graph.node("Identity", [found], "utilities")
    remembered = [graph.chosen(after, "memories")] if after else []
    if isinstance(actor, LatentUtilities):
        remembered.append("latent")
    if remembered:
        graph.node("Concat", remembered, "next_memory", axis=-1)


def _told(actor: Utilities) -> Tensor:
    """What networks are told of each agent, `[agents, K]`: levels by which it acts, and who it is."""
    agents = actor.spec.n_agents
    parts = [torch.eye(agents)] if actor.named else []
    if isinstance(actor, LevelledUtilities):
        parts.insert(0, torch.tensor([[actor.spec.agent_level, actor.spec.env_level]]).expand(agents, -1))
    return torch.cat(parts, -1) if parts else torch.empty(agents, 0)


def _latent(graph: Graph, actor: LatentUtilities) -> str:
    """The `latent` that is remembered, or the usual one where there is none; gives the GRU's part of the memory."""
    node, constant = graph.node, graph.constant
    gru = kept = "memory"
    if actor.spec.memory:
        widths = constant(torch.tensor([actor.spec.memory, actor.spec.latents]), "memory.widths")
        gru, kept = graph.several("Split", ["memory", widths], ["memory.gru", "memory.latent"], axis=1)
    total = node("ReduceSum", [kept, constant(torch.tensor([1]), "memory.latent.axis")], "memory.latent.sum")
    there = node("Greater", [total, constant(torch.tensor(0.0), "memory.latent.none")], "memory.latent.there")
    usual = constant(torch.eye(actor.spec.latents)[actor.drawn.argmax()], "latent.usual")
    node("Where", [there, kept, usual], "latent")
    return gru


def _plain(graph: Graph, actor: Utilities, every: list[str]) -> str:
    return graph.chosen(every, "outputs")


def _joint(graph: Graph, actor: JointUtilities, every: list[str]) -> str:
    """For each agent the best of the joint actions that contain each of its own."""
    (values,), actions, agents = every, actor.spec.actions.outputs, actor.spec.n_agents
    parts = []
    for agent in range(agents):
        shape = torch.tensor([0, actions**agent, actions, actions ** (agents - 1 - agent)])
        apart = graph.node("Reshape", [values, graph.constant(shape, f"joint.{agent}.shape")], f"joint.{agent}")
        parts.append(graph.node("ReduceMax", [apart], f"parts.{agent}", axes=[1, 3], keepdims=0))
    return graph.chosen(parts, "parts")


def _weighed(graph: Graph, actor: LatentUtilities, every: list[str]) -> str:
    """Hidden units times weights that latent and agent choose."""
    node, constant = graph.node, graph.constant
    hidden = node("Relu", [graph.chosen(every, "outputs")], "hidden")
    who = graph.of_agent(torch.eye(actor.spec.n_agents), "who")
    chooses = node("Concat", ["latent", who], "chooses", axis=-1)
    flat = graph.linear(chooses, actor.weights.weight, None, "weights.flat")
    shape = constant(torch.tensor([0, actor.hidden, actor.spec.actions.outputs]), "weights.shape")
    weights = node("Reshape", [flat, shape], "weights")
    between = constant(torch.tensor([1]), "hidden.between")
    product = node("MatMul", [node("Unsqueeze", [hidden, between], "hidden.row"), weights], "weighed.row")
    return node("Squeeze", [product, between], "weighed")


def _by_action(graph: Graph, actor: Any, value: str) -> str:
    """`[batch, actions, N]` of distributional utilities."""
    shape = graph.constant(torch.tensor([0, actor.spec.actions.outputs, actor.spec.size]), "distributions.shape")
    return graph.node("Reshape", [value, shape], "distributions")


def _sum(graph: Graph, values: str, weights: str) -> str:
    """`sum_i w_i x_i` of values `[batch, actions, N]`."""
    last = graph.constant(torch.tensor([2]), "worth.axis")
    return graph.node("ReduceSum", [graph.node("Mul", [values, weights], "worth.terms"), last], "worth", keepdims=0)


def _ascending(graph: Graph, actor: QuantileUtilities, value: str) -> str:
    """Quantiles `[batch, actions, N]`, sorted."""
    all_of_them = graph.constant(torch.tensor([actor.spec.size]), "quantiles.count")
    names = ["quantiles", "quantiles.places"]
    return graph.several("TopK", [_by_action(graph, actor, value), all_of_them], names, axis=-1, largest=0)[0]


def _quantiles(graph: Graph, actor: QuantileUtilities, every: list[str]) -> str:
    """Sorted quantiles, weighed as a comonotonic measure does."""
    if actor.weights is None:
        raise _refusal(actor.measure.name)
    ascending = _ascending(graph, actor, graph.chosen(every, "outputs"))
    return _sum(graph, ascending, graph.constant(actor.weights, "weights"))


def _implicit(graph: Graph, actor: ImplicitUtilities, every: list[str]) -> str:
    """Quantiles at fixed levels: what heads make of levels is constant, and weighs hidden units."""
    found, heads = [], [head for head in actor.heads if isinstance(head, LevelHead)]
    for index, (head, value) in enumerate(zip(heads, every, strict=True)):
        hidden = graph.node("Relu", [value], f"heads.{index}.hidden")
        weight, bias = head.weights(actor.levels()), head.output.bias.repeat_interleave(actor.spec.size)
        found.append(graph.linear(hidden, weight.flatten(0, 1), bias, f"heads.{index}"))
    return _quantiles(graph, actor, found)


def _levels(graph: Graph, actor: LevelUtilities, every: list[str]) -> str:
    """The CVaR of sorted quantiles at the likeliest level, or at the only one."""
    node, constant = graph.node, graph.constant
    found = graph.chosen(every, "outputs")
    if not actor.logits:
        return _sum(graph, _ascending(graph, actor, found), constant(actor.table, "table"))
    widths = constant(torch.tensor([actor.spec.actions.outputs * actor.spec.size, actor.logits]), "outputs.widths")
    raw, logits = graph.several("Split", [found, widths], ["quantiles.raw", "levels.logits"], axis=1)
    likely = node("Softmax", [logits], "levels.likely", axis=-1)
    level = node("ArgMax", [likely], "level", axis=1, keepdims=1)
    weights = node("Gather", [constant(actor.table, "table"), level], "weights")  # [batch, 1, N]
    return _sum(graph, _ascending(graph, actor, raw), weights)


def _categorical(graph: Graph, actor: CategoricalUtilities, every: list[str]) -> str:
    """The mean of atoms, or that of their worst share."""
    node, constant = graph.node, graph.constant
    logits = _by_action(graph, actor, graph.chosen(every, "outputs"))
    weights = probs = node("Softmax", [logits], "probs", axis=-1)
    match actor.measure:
        case Neutral():
            pass
        case CVaR(level=share):
            level = constant(torch.tensor(share), "level")
            upto = node("CumSum", [probs, constant(torch.tensor(-1), "atoms.axis")], "upto")
            before = node("Min", [node("Sub", [upto, probs], "before"), level], "before.worst")
            within = node("Sub", [node("Min", [upto, level], "upto.worst"), before], "within")
            weights = node("Div", [within, level], "shares")
        case other:
            raise _refusal(other.name)
    return _sum(graph, weights, constant(actor.atoms, "atoms"))


def _refusal(measure: str) -> ValueError:
    return ValueError(f"--risk {measure} cannot be written as .onnx for this --algo: give a file that ends in .pt2")


KINDS: dict[type, Callable[[Graph, Any, list[str]], str]] = {
    Utilities: _plain,
    LevelledUtilities: _plain,
    JointUtilities: _joint,
    LatentUtilities: _weighed,
    QuantileUtilities: _quantiles,
    ImplicitUtilities: _implicit,
    LevelUtilities: _levels,
    CategoricalUtilities: _categorical,
}
"""What makes utilities of what each network gives; a class of one's own has to say so itself."""
