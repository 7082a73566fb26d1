"""Adam on one network, with clipped gradients: what every learner descends by."""

import inspect
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from rqe_mappo import schema

ALIGNED = 16  # numbers; what is multiplied begins at a multiple of 64 bytes, as arrays of their own do
TINY = 1e-6  # as in PyTorch's clip_grad_norm_
MOMENTS = ("exp_avg", "exp_avg_sq")


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
    """Adam without the wrappers by which its methods can be compiled and profiled.

    The ones load PyTorch's compiler when they are first called, which took a third of the time to begin a run; the
    others take as long as a step of a small network.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    step.hooked = True  # PyTorch puts its profiling around what does not say so
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)


class Optimiser:
    """Adam on one network, with clipped gradients.

    The network's weights and their gradients become views of two long arrays, so that clipping and Adam are a few
    operations and not some for each layer: of small networks these took a fifth of a learning step. Weights that a loss
    does not depend on have a gradient of zero, and go on by their momentum.
    """

    def __init__(self, net: nn.Module, learning_rate: float, max_grad_norm: float):
        self.weights, self.max_grad_norm = list(net.parameters()), max_grad_norm
        apart = [nn.functional.pad(array.detach().flatten(), (0, -array.numel() % ALIGNED)) for array in self.weights]
        self.sizes = [len(array) for array in apart]
        self.all = torch.cat(apart)
        self.all.grad = self.gradient = torch.zeros_like(self.all)
        self.views = list(zip(self.weights, self.parts(self.all), self.parts(self.gradient), strict=True))
        self.tie()
        self.adam = Adam([self.all], lr=learning_rate, fused=True, eps=1e-5)

    def parts(self, long: Tensor) -> list[Tensor]:
        """What of a long array belongs to each array of weights, in its shape."""
        parts = zip(long.split(self.sizes), self.weights, strict=True)
        return [part[: array.numel()].view(array.shape) for part, array in parts]

    @torch.no_grad()
    def tie(self) -> None:
        """Let weights and gradients be views, also of a network that was moved, copied or lent to another optimiser."""
        for array, place, gradient in self.views:
            if array.data_ptr() != place.data_ptr():
                place.copy_(array)
                array.data = place
            array.grad = gradient

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
        self.gradient.zero_()
        self.tie()
        loss.backward()
        self.gradient.mul_((self.max_grad_norm / (self.gradient.norm() + TINY)).clamp(max=1))
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        known = self.adam.state_dict()
        if not known["state"]:
            return known
        (moments,) = known["state"].values()
        apart = zip(*(self.parts(moments[name]) for name in MOMENTS), strict=True)
        state = {
            number: {"step": moments["step"].clone(), **dict(zip(MOMENTS, own, strict=True))}  # Adam counts in place
            for number, own in enumerate(apart)
        }
        (group,) = known["param_groups"]
        return {"state": state, "param_groups": [group | {"params": list(state)}]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the moments of `state`, under this optimiser's own settings; ValueError if of another network."""
        moments, weights = schema.read(AdamState, state, "Adam")["state"], self.weights
        for number, known in moments.items():
            wanted = weights[number].shape if 0 <= number < len(weights) else None
            if {known["exp_avg"].shape, known["exp_avg_sq"].shape} != {wanted} or known["step"].numel() != 1:
                raise ValueError(f"Adam's moments of array {number} are those of another network")
        if moments and len(moments) != len(weights):
            raise ValueError(f"Adam has moments of {len(moments)} arrays, and there are {len(weights)}")
        together: dict[int, Any] = {}
        if moments:
            long = {name: torch.zeros_like(self.all) for name in MOMENTS}
            for name, array in long.items():
                for number, own in enumerate(self.parts(array)):
                    own.copy_(moments[number][name])
            together = {0: {"step": moments[0]["step"].clone(), **long}}
        self.adam.load_state_dict({"state": together, "param_groups": self.adam.state_dict()["param_groups"]})
