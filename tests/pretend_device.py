"""A device that lives on the CPU: it refuses what a card refuses, and counts what makes the CPU wait for a card.

Importing this makes `torch.device("pretend")` a device on which tensors can be made and networks can live. The CPU does
all its work, so that numbers are the CPU's to the last bit; but its tensors mix with the CPU's no more than a card's
do, and are no numpy arrays. `with waits() as counted:` counts by place in the package what would interrupt a card.
"""

import collections
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave",
}  # fmt: skip
"""What gives a Python number, or a tensor whose shape depends on numbers."""
JOINED = {"aten::cat", "aten::stack"}
"""What refuses even single numbers of the CPU, which other operations take."""
SENT = "to the device"
FETCHED = "from the device"

Counted = collections.Counter[tuple[str, str]]
_counters: list[Counted] = []


@contextlib.contextmanager
def waits() -> Iterator[Counted]:
    """Counts (what, file and line) of each wait, and of each copy to the device, while it is open."""
    counted = Counted()
    _counters.append(counted)
    try:
        yield counted
    finally:
        _counters.remove(counted)


class Held(torch.Tensor):
    """A tensor on the pretend device; `held` is the CPU's."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, requires_grad: bool = False) -> "Held":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE,
            requires_grad=requires_grad,
        )  # fmt: skip
        tensor.held = held
        return tensor

    @property
    def data(self) -> torch.Tensor:
        """Without what it is to PyTorch, in the same memory; may be given other memory, as a network's weights are."""
        return self.detach()

    @data.setter
    def data(self, other: "Held") -> None:
        self.held = other.held

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """PyTorch's own copies the storage of whatever has a place in memory, and this has none."""
        if id(self) not in memo:
            copied = self.detach().clone()
            parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if parameter else copied
        return memo[id(self)]

    def __repr__(self) -> str:
        return f"{NAME}: {self.held}"

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {NAME} device type tensor to numpy: use Tensor.cpu()")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, *args, **(kwargs or {}))


def _run(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What the device does: the CPU's work, on what it holds."""
    name = function._schema.name
    tensors: list[torch.Tensor] = []
    _each(lambda value: tensors.append(value) if isinstance(value, torch.Tensor) else None, [args, *kwargs.values()])
    held = {id(value.held): value for value in tensors if isinstance(value, Held)}
    wanted = kwargs.get("device")
    here = isinstance(args[0], Held) if name == "aten::copy_" else wanted is None or wanted.type == NAME
    if wanted is not None:
        kwargs["device"] = torch.device("cpu")
    _look(name, args, tensors, here)
    found = function(*_each(_held, args), **dict(zip(kwargs, _each(_held, list(kwargs.values())), strict=True)))
    if not here:
        return found

    def on_device(value: Any) -> Any:  # a tensor that was written in place stays the same object
        if not isinstance(value, torch.Tensor):
            return value
        return held[id(value)] if id(value) in held else Held(value)

    return _each(on_device, (found,))[0]


def _each(change: Callable[[Any], Any], values: Any) -> Any:
    """`values` with every one changed, in lists and tuples too."""
    return type(values)([_each(change, v) if isinstance(v, list | tuple) else change(v) for v in values])


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Held) else value


def _look(name: str, args: Any, tensors: list[torch.Tensor], here: bool) -> None:
    """Count what waits; RuntimeError for what a card refuses."""
    strangers = [value for value in tensors if not isinstance(value, Held)]
    indexed = name in INDEXED
    if name in {"aten::copy_", "aten::_to_copy"}:
        if strangers and here:
            _count(SENT)
        elif not here and len(strangers) < len(tensors):
            _count(FETCHED)
        return
    if indexed:
        mine = isinstance(args[0], Held)
        for index in (value for value in args[1] if value is not None):
            if mine and not isinstance(index, Held):
                _count(SENT)
            elif index.dtype == torch.bool:
                _count(name)
        strangers = [value for value in strangers if not mine or all(value is not index for index in args[1])]
    if name in WAITS:
        _count(name)
    if any(value.dim() or name in JOINED for value in strangers):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} found some on cpu ({_place()})")


def _count(what: str) -> None:
    for counted in _counters:
        counted[what, _place()] += 1


def _place() -> str:
    """The line of the package that is running."""
    frame = sys._getframe()
    while frame is not None and not any(part in frame.f_code.co_filename for part in PACKAGE):
        frame = frame.f_back
    return "?" if frame is None else f"{'/'.join(frame.f_code.co_filename.split('/')[-2:])}:{frame.f_lineno}"


def _gru_cell(inputs, memory, input_weights, memory_weights, input_bias=None, memory_bias=None):
    """The CPU's own formula: PyTorch gives other devices a fused one, which rounds differently."""
    linear = torch.nn.functional.linear
    seen = linear(inputs, input_weights, input_bias).unsafe_chunk(3, 1)
    known = linear(memory, memory_weights, memory_bias).unsafe_chunk(3, 1)
    reset, update = (known[gate].add_(seen[gate]).sigmoid_() for gate in range(2))
    new = seen[2].add(known[2].mul_(reset)).tanh_()
    return (memory - new).mul_(update).add_(new)


PACKAGE = ("/rqe_mappo/", "/baselines/", "/envs/")
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
_fallback = torch.library.Library("_", "IMPL")
_fallback.fallback(_run, "PrivateUse1")
_own = torch.library.Library("aten", "IMPL")
_own.impl("copy_", lambda *args: _run(torch.ops.aten.copy_.default, *args), "PrivateUse1")
_own.impl("gru_cell", _gru_cell, "AutogradPrivateUse1")
