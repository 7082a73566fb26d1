"""Scripted chasers: what can be reached without learning."""

from collections.abc import Callable

import numpy as np

from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.tag.dynamics import ACTIONS, Tag

ScriptedPolicy = Callable[[BatchedFixedLength], np.ndarray]
"""Actions `[E, A]` or, where they are continuous, `[E, A, 5]`, for the present state of an environment."""
AHEAD_S = 0.3  # how far chasers think ahead


def chase(env: BatchedFixedLength) -> np.ndarray:
    """Each chaser pushes towards where the prey nearest to it will be; learned prey stays.

    It pushes along the axis in which the difference to that place, and to its own, both 0.3 s ahead, is larger.
    """
    game = _tag(env)
    chaser = game.chaser
    later = game.x + AHEAD_S * game.v
    way = later[:, ~chaser][:, None] - later[:, chaser][:, :, None]  # [E, C, Q, 2]
    nearest = np.square(game.x[:, ~chaser][:, None] - game.x[:, chaser][:, :, None]).sum(-1).argmin(-1)
    wanted = np.take_along_axis(way, nearest[..., None, None], axis=2)[:, :, 0]
    sideways = np.abs(wanted[..., 0]) >= np.abs(wanted[..., 1])
    chosen = np.zeros(env.shape, np.int64)
    chosen[:, chaser[: game.agents]] = np.where(sideways, 1 + (wanted[..., 0] > 0), 3 + (wanted[..., 1] > 0))
    return _given(game, chosen)


def _tag(env: BatchedFixedLength) -> Tag:
    assert isinstance(env.game, Tag)
    return env.game


def _given(game: Tag, chosen: np.ndarray) -> np.ndarray:
    """Actions as the game takes them: of a continuous one the chosen push with full strength."""
    return np.eye(ACTIONS, dtype=np.float32)[chosen] if game.config.continuous else chosen


def by_name(name: str, seed: int = 0) -> ScriptedPolicy:
    """`chase`, `stay` or `random`; ValueError otherwise."""
    rng = np.random.default_rng(seed)
    policies: dict[str, ScriptedPolicy] = {
        "chase": chase,
        "stay": lambda env: _given(_tag(env), np.zeros(env.shape, np.int64)),
        "random": lambda env: _given(_tag(env), rng.integers(0, ACTIONS, env.shape)),
    }
    if name not in policies:
        raise ValueError(f"--driver {name} is unknown: use {', '.join(policies)}")
    return policies[name]
