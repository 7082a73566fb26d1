"""Prey that follows a script."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rqe_mappo.envs.tag.dynamics import Tag

EDGE, HOME = 0.8, 10.0  # from here on prey turns back, the more strongly the further out it is
AVOIDED = 0.1  # weight of an obstacle, of which a chaser has 1
NEAREST = 0.05  # distances are taken to be at least this


def actions(game: "Tag", uniform: np.ndarray) -> np.ndarray:
    """What all prey does, int64 `[E, Q]`, as the setting `prey` says; `uniform` `[E, Q]` is for `random`."""
    shape = (game.num_envs, game.config.n_prey)
    if game.config.prey == "random":
        return (uniform * 5).astype(np.int64)
    return fleeing(game) if game.config.prey == "flee" else np.zeros(shape, np.int64)


def fleeing(game: "Tag") -> np.ndarray:
    """Away from all chasers, the near ones first, and not out of the field.

    Each chaser at distance d adds `1 / d^2` in the direction away from it, each obstacle a tenth of that, and each
    direction in which the prey is beyond 0.8 adds 10 times the excess, back. It pushes along the axis in which the sum
    is larger.
    """
    x = game.x[:, ~game.chaser]
    wanted = -HOME * np.sign(x) * np.maximum(np.abs(x) - EDGE, 0)
    for places, weight in ((game.x[:, game.chaser], 1.0), (game.obstacles, AVOIDED)):
        way = x[:, :, None] - places[:, None]
        distance = np.maximum(np.sqrt(np.square(way).sum(-1, keepdims=True)), NEAREST)
        wanted += weight * (way / distance**3).sum(2)
    sideways = np.abs(wanted[..., 0]) >= np.abs(wanted[..., 1])
    across, along = 1 + (wanted[..., 0] > 0), 3 + (wanted[..., 1] > 0)
    return np.where(sideways, across, along)
