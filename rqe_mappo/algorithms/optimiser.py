"""Adam on one network, with clipped gradients: what every learner descends by."""

import inspect
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from rqe_mappo import schema


class AdamMoments(TypedDict):
    """What Adam keeps of one array of weights."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class AdamState(TypedDict):
    """Adam's state as PyTorch gives it: moments of each array, by its number, and settings of groups of arrays."""

    state: dict[int, AdamMoments]
    param_groups: list[dict[str, Any]]


class Adam(torch.optim.Adam):
    """Adam without the wrappers by which its methods can be compiled.

    They load PyTorch's compiler when they are first called, which took a third of the time to begin a run.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)


class Optimiser:
    """Adam on one network, with clipped gradients."""

    def __init__(self, net: nn.Module, learning_rate: float, max_grad_norm: float):
        self.weights, self.max_grad_norm = list(net.parameters()), max_grad_norm
        self.adam = Adam(self.weights, lr=learning_rate, fused=True, eps=1e-5)

    @property
    def learning_rate(self) -> float:
        return self.adam.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.adam.param_groups[0]["lr"] = value

    def forget(self) -> None:
        """Drop what was remembered of gradients, after the network was changed by other means."""
        self.adam.state.clear()

    def descend(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`."""
        self.adam.zero_grad()
        loss.backward()
        clip_grad_norm_(self.weights, self.max_grad_norm)
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the moments of `state`, under this optimiser's own settings; ValueError if of another network."""
        moments, weights = schema.read(AdamState, state, "Adam")["state"], self.weights
        for number, known in moments.items():
            wanted = weights[number].shape if 0 <= number < len(weights) else None
            if {known["exp_avg"].shape, known["exp_avg_sq"].shape} != {wanted} or known["step"].numel() != 1:
                raise ValueError(f"Adam's moments of array {number} are those of another network")
        if moments and len(moments) != len(weights):
            raise ValueError(f"Adam has moments of {len(moments)} arrays, and there are {len(weights)}")
        self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})
