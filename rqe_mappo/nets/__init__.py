"""Networks and how they are described in a policy file, from which `build` makes them again."""

import dataclasses
import typing
from typing import Any

from torch import nn

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
from rqe_mappo.nets.distributions import ActionSpec

__all__ = [
    "ActionSpec",
    "ActorSpec",
    "DistributionCritic",
    "DistributionCriticSpec",
    "JointCritic",
    "JointCriticSpec",
    "PolicyActor",
    "RiskPremium",
    "RiskPremiumSpec",
    "ValueCritic",
    "ValueCriticSpec",
    "build",
    "describe",
    "register",
]

NETWORKS: dict[str, tuple[type[nn.Module], type]] = {
    PolicyActor.kind: (PolicyActor, ActorSpec),
    DistributionCritic.kind: (DistributionCritic, DistributionCriticSpec),
    JointCritic.kind: (JointCritic, JointCriticSpec),
    RiskPremium.kind: (RiskPremium, RiskPremiumSpec),
    ValueCritic.kind: (ValueCritic, ValueCriticSpec),
}
"""Networks that a policy file may hold, by their `kind`: the class, and the dataclass from which it is built."""


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
    kind = settings.pop("kind")
    if kind not in NETWORKS:
        raise UnknownNetwork(f"no network of kind {kind!r} is known: import the module that registers it first")
    network, spec = NETWORKS[kind]
    return network(_filled(spec, settings))


def _filled(spec: type, settings: dict[str, Any]) -> Any:
    """A spec from plain values, in which tuples may have become lists."""
    types = typing.get_type_hints(spec)

    def filled(name: str, value: Any) -> Any:
        if isinstance(value, dict) and dataclasses.is_dataclass(types.get(name)):
            return _filled(types[name], value)
        return tuple(value) if isinstance(value, list) else value

    return spec(**{name: filled(name, value) for name, value in settings.items()})
