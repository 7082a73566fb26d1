"""Policies of choices and of continuous actions as nodes of an ONNX graph."""

import torch

from rqe_mappo.deploy.onnx_graph import Graph
from rqe_mappo.nets import PolicyActor


def policy_nodes(graph: Graph, actor: PolicyActor) -> None:
    """All that a policy gives, and `next_memory` of an actor with memory."""
    every, after = graph.networks(actor.nets, graph.seen(actor.normaliser, actor.groups), "memory")
    found = graph.chosen(every, "outputs")
    own = None if actor.own is None else graph.of_agent(actor.own, "own")
    if actor.spec.actions.kind == "box":
        _gaussian(graph, actor, found, own)
    else:
        _choices(graph, actor, found, own)
    if after:
        graph.node("Identity", [graph.chosen(after, "memories")], "next_memory")


def _choices(graph: Graph, actor: PolicyActor, found: str, own: str | None) -> None:
    """`logits` and `probabilities`, those of each choice summing to 1."""
    node, sizes = graph.node, actor.spec.actions.sizes
    if own is not None:
        found = graph.masked(found, own)
    node("Identity", [found], "logits")
    if len(sizes) == 1:
        node("Softmax", [found], "probabilities", axis=-1)
        return
    widths = graph.constant(torch.tensor(sizes), "sizes")
    parts = graph.several("Split", [found, widths], [f"choice.{index}" for index in range(len(sizes))], axis=1)
    node("Concat", [node("Softmax", [part], f"{part}.probs", axis=-1) for part in parts], "probabilities", axis=-1)


def _gaussian(graph: Graph, actor: PolicyActor, found: str, own: str | None) -> None:
    """`mean`, `std` and `action`."""
    node, constant, actions = graph.node, graph.constant, actor.spec.actions
    node("Identity", [found], "mean")
    graph.of_agent(actor.stds.expand(actor.spec.n_agents, -1), "std")
    value = found
    if actions.squash != "none":
        low, high = (torch.tensor(side, dtype=torch.float32) for side in (actions.low, actions.high))
        if actions.squash == "tanh":
            value = node("Tanh", [value], "within")
        else:
            bounds = [constant(torch.tensor(bound), f"bound{bound:g}") for bound in (-1.0, 1.0)]
            value = node("Clip", [value, *bounds], "within")
        scaled = node("Mul", [value, constant((high - low) / 2, "half")], "scaled")
        value = node("Add", [scaled, constant((low + high) / 2, "centre")], "moved")
        value = node("Max", [value, constant(low, "low")], "above")
        value = node("Min", [value, constant(high, "high")], "inside")
    if own is not None:
        value = node("Where", [own, value, constant(torch.tensor(0.0), "nothing")], "had")
    node("Identity", [value], "action")
