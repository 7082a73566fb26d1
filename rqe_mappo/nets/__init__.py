"""Networks and how they are described in a policy file, from which `build` makes them again."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from rqe_mappo import schema
from rqe_mappo.nets.actors import ActorSpec, PolicyActor
from rqe_mappo.nets.critics import (
    DistributionCritic,
    DistributionCriticSpec,
    JointCritic,
    JointCriticSpec,
    RiskPremium,
    RiskPremiumSpec,
    ValueCritic,
    ValueCriticSpec,
)
from rqe_mappo.nets.distributional_utilities import (
    CategoricalUtilities,
    DistributionalSpec,
    ImplicitUtilities,
    QuantileUtilities,
)
from rqe_mappo.nets.distributions import ActionSpec
from rqe_mappo.nets.joint_utilities import JointUtilities
from rqe_mappo.nets.latent_utilities import LatentUtilities, LatentUtilitySpec
from rqe_mappo.nets.level_utilities import LevelSpec, LevelUtilities
from rqe_mappo.nets.levelled_utilities import LevelledSpec, LevelledUtilities
from rqe_mappo.nets.utilities import Utilities, UtilitySpec

__all__ = [
    "ActionSpec",
    "ActorSpec",
    "CategoricalUtilities",
    "DistributionCritic",
    "DistributionCriticSpec",
    "DistributionalSpec",
    "ImplicitUtilities",
    "JointCritic",
    "JointCriticSpec",
    "JointUtilities",
    "LatentUtilities",
    "LatentUtilitySpec",
    "LevelSpec",
    "LevelUtilities",
    "LevelledSpec",
    "LevelledUtilities",
    "PolicyActor",
    "QuantileUtilities",
    "RiskPremium",
    "RiskPremiumSpec",
    "Utilities",
    "UtilitySpec",
    "ValueCritic",
    "ValueCriticSpec",
    "build",
    "describe",
    "register",
    "restored",
]

NETWORKS: dict[str, tuple[type[nn.Module], type]] = {
    PolicyActor.kind: (PolicyActor, ActorSpec),
    DistributionCritic.kind: (DistributionCritic, DistributionCriticSpec),
    JointCritic.kind: (JointCritic, JointCriticSpec),
    RiskPremium.kind: (RiskPremium, RiskPremiumSpec),
    ValueCritic.kind: (ValueCritic, ValueCriticSpec),
    CategoricalUtilities.kind: (CategoricalUtilities, DistributionalSpec),
    ImplicitUtilities.kind: (ImplicitUtilities, DistributionalSpec),
    JointUtilities.kind: (JointUtilities, UtilitySpec),
    LatentUtilities.kind: (LatentUtilities, LatentUtilitySpec),
    LevelUtilities.kind: (LevelUtilities, LevelSpec),
    LevelledUtilities.kind: (LevelledUtilities, LevelledSpec),
    QuantileUtilities.kind: (QuantileUtilities, DistributionalSpec),
    Utilities.kind: (Utilities, UtilitySpec),
}
"""Networks that a policy file may hold, by their `kind`: the class, and the dataclass from which it is built."""


MOST_UNSAVED = 2**24  # numbers that a network makes of its description alone, such as which actions each agent has


class UnknownNetwork(ValueError):
    """A network of a kind that nobody has registered."""


def register(kind: str, network: type[nn.Module], spec: type) -> None:
    """Make policy files that hold a `network` of that `kind` loadable: it is built as `network(spec(...))`."""
    NETWORKS[kind] = network, spec


def describe(network: nn.Module) -> dict[str, Any] | None:
    """The `spec` of a network and its kind, as plain values; None for a network that does not describe itself."""
    kind, spec = getattr(network, "kind", None), getattr(network, "spec", None)
    return {"kind": kind, **dataclasses.asdict(spec)} if kind in NETWORKS and spec is not None else None


def build(description: dict[str, Any]) -> nn.Module:
    """The network that `describe` described, with weights of its own.

    UnknownNetwork for a kind that is not known; a network of a user's own is known once its module was imported.
    """
    settings = dict(description)
    kind = schema.read(str, settings.pop("kind", None), "kind")
    if kind not in NETWORKS:
        raise UnknownNetwork(f"no network of kind {kind!r} is known: import the module that registers it first")
    network, spec = NETWORKS[kind]
    return network(schema.read(spec, settings, kind))


def restored(description: dict[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """The network that `describe` described, with its `weights`.

    ValueError where these are not its weights: that is found out before anything of the described size is allocated.
    """
    check(description, weights)
    network = build(description)
    network.load_state_dict(weights)
    return network


def check(description: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """ValueError unless the network that is described has just these weights, and little else that takes memory.

    It is built without memory (PyTorch's device `meta`), and no further than the weights there are go: so its class has
    to make its tensors where PyTorch's default device is, as `torch.zeros` does, and not to look at their values.
    """
    left = 4 * len(weights) + 100  # a module may replace parameters of its parts

    def count(*registered: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"a network is described that has many more than its {len(weights)} arrays of weights")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            outline = build(description)
    finally:
        hook.remove()
    described, held = (
        {name: tuple(value.shape) for name, value in state.items()} for state in (outline.state_dict(), weights)
    )
    for name in sorted(described | held):
        if described.get(name) != held.get(name):
            shapes = [f"{one[name]}" if name in one else "missing" for one in (described, held)]
            raise ValueError(f"{name} is described as {shapes[0]}, and is {shapes[1]}")
    unsaved = sum(buffer.numel() for name, buffer in outline.named_buffers() if name not in described)
    if unsaved > MOST_UNSAVED:
        raise ValueError(f"a network is described that needs {unsaved} numbers beside its weights")
