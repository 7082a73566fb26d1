"""Rows that belong together, found at once: a device is waited for once, and not for every group of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rows_of_each(group: Int[Tensor, " R"], count: int) -> list[Int[Tensor, " _"]]:
    """The places in `group` of 0, of 1, ..., of `count - 1`, each in ascending order."""
    if count == 1:
        return [torch.arange(len(group), device=group.device)]
    sizes = (group == torch.arange(count, device=group.device)[:, None]).sum(-1)
    return list(group.argsort(stable=True).split(sizes.tolist()))


def own(every: Sequence[Float[Tensor, "*rows N"]], group: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows N"]:
    """Of what every row has from each group, that of its own: row r of `every[group[r]]`."""
    index = group[..., None, None].expand(*group.shape, 1, every[0].shape[-1])
    return torch.stack(list(every), -2).gather(-2, index).squeeze(-2)
