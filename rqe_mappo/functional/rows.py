"""Rows that belong together, found at once: a device is waited for once, and not for every group of them."""

import torch
from jaxtyping import Int
from torch import Tensor


def rows_of_each(group: Int[Tensor, " R"], count: int) -> list[Int[Tensor, " _"]]:
    """The places in `group` of 0, of 1, ..., of `count - 1`, each in ascending order."""
    if count == 1:
        return [torch.arange(len(group), device=group.device)]
    sizes = (group == torch.arange(count, device=group.device)[:, None]).sum(-1)
    return list(group.argsort(stable=True).split(sizes.tolist()))
