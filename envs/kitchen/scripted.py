"""Scripted policies: what can be reached without learning, and what two cooks can reach at best."""

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.fixed_length.planning import Table, best_plan
from rqe_mappo.envs.kitchen.config import KitchenConfig
from rqe_mappo.envs.kitchen.dynamics import ACTIONS, CELLS, POT, STATIONS, STAY, TARGETS, Kitchen

ScriptedPolicy = Callable[[BatchedFixedLength], np.ndarray]
"""Actions int64 `[E, A]` for the present state of an environment."""
PAIR = np.array(list(itertools.product(range(ACTIONS), repeat=2)))  # joint actions of two cooks
FAR = 99


def code(game: Kitchen) -> np.ndarray:
    """The number of each copy's state `[E]`, below `STATES`, for two cooks."""
    bits = np.concatenate([game.carrying, game.stocked], axis=1) @ np.array([8, 4, 2, 1])
    return (game.cells[:, 0] * CELLS + game.cells[:, 1]) * 16 + bits


STATES = CELLS**2 * 16


def tabulated(config: KitchenConfig) -> Table:
    """Two cooks and the sum of their rewards: two orders to act in, and onions that come to each station or not."""
    game = Kitchen(config, STATES)
    cells, bits = np.divmod(np.arange(STATES), 16)
    known = {
        "cells": np.stack(np.divmod(cells, CELLS), axis=1),
        "carrying": bits[:, None] & np.array([8, 4]) > 0,
        "stocked": bits[:, None] & np.array([2, 1]) > 0,
    }
    outcomes = list(itertools.product(((0.2, 0.7), (0.7, 0.2)), (0, 1), (0, 1)))
    # Of the numbers 0, which brings an onion whatever its probability, and 1, which is never drawn and never does.
    chance = [config.respawn_probability, 1 - config.respawn_probability]
    prob = np.array([chance[first] * chance[second] / 2 for _, first, second in outcomes])
    shape = (STATES, len(PAIR), len(outcomes))
    next_state, reward = np.empty(shape, np.int32), np.empty(shape, np.float32)
    for (j, pair), (k, (order, *respawn)) in itertools.product(enumerate(PAIR), enumerate(outcomes)):
        for name, array in game.arrays.items():
            array[...] = known[name]
        uniform = np.tile([*order, *respawn], (STATES, 1))
        reward[:, j, k] = game.play(np.tile(pair, (STATES, 1)), uniform).reward.sum(1)
        next_state[:, j, k] = code(game)
    return Table(next_state, prob, reward, _starts(config))


def _starts(config: KitchenConfig) -> np.ndarray:
    game, start = Kitchen(config, 2), np.zeros(STATES)
    game.begin(np.array([[0.2, 0.7], [0.7, 0.2]]))
    start[code(game)] = 0.5
    return start


@lru_cache(maxsize=4)
def planned(config: KitchenConfig, solo: bool = False) -> tuple[float, np.ndarray]:
    """The best mean sum of two cooks' returns and its joint actions `[H, S]`, as `best_plan` gives them.

    solo: `cook_1` does nothing.
    """
    return best_plan(tabulated(config), config.horizon, PAIR[:, 1] == STAY if solo else None)


def plan(solo: bool = False) -> ScriptedPolicy:
    """What `planned` found."""

    def policy(env: BatchedFixedLength) -> np.ndarray:
        game = _kitchen(env)
        if game.config.n_agents != 2:
            raise ValueError(f"--driver plan and solo are for --n-agents 2 (got {game.config.n_agents}): use greedy")
        _, actions = planned(game.config, solo)
        return PAIR[actions[env.horizon - 1 - env.t, code(game)]]

    return policy


def _kitchen(env: BatchedFixedLength) -> Kitchen:
    assert isinstance(env.game, Kitchen)
    return env.game


def _distances(goals: np.ndarray) -> np.ndarray:
    """Steps from each cell to the nearest of `goals`, around the pot `[25]`."""
    distance = np.full(CELLS, FAR)
    distance[goals] = 0
    for _ in range(CELLS):
        distance = np.minimum(distance, 1 + distance[TARGETS].min(1))
        distance[POT] = 0 if POT in goals else FAR
    return distance


def greedy(seed: int = 0) -> ScriptedPolicy:
    """Each cook goes the shortest way to the nearest station, or to the pot, and waits where another is in it.

    Of actions that bring it nearer and meet no cook it takes the first; where there is none, it steps aside at random
    or stays.
    """
    rng = np.random.default_rng(seed)
    to_pot, to_station = _distances(np.array([POT])), _distances(STATIONS)

    def policy(env: BatchedFixedLength) -> np.ndarray:
        game = _kitchen(env)
        there = TARGETS[game.cells]  # [E, A, 5]
        ahead = np.where(game.carrying[..., None], to_pot[there], to_station[there])
        other = (there[..., None] == game.cells[:, None, None]).any(-1) & (there != game.cells[..., None])
        now = np.where(game.carrying, to_pot[game.cells], to_station[game.cells])[..., None]
        nearer = ~other & (ahead < now)
        aside = ~other & (there != POT) & (rng.random(there.shape) < 0.5)
        aside[..., STAY] = True
        wanted = np.where(nearer.any(-1, keepdims=True), nearer, aside)
        waiting = (now[..., 0] == 0) & ~game.carrying  # on a station, for its onion
        return np.where(waiting, STAY, (wanted * (1 + rng.random(there.shape))).argmax(-1))

    return policy


def by_name(name: str, seed: int = 0) -> ScriptedPolicy:
    """`plan`, `solo`, `greedy`, `stay` or `random`; ValueError otherwise."""
    rng = np.random.default_rng(seed)
    policies: dict[str, ScriptedPolicy] = {
        "plan": plan(),
        "solo": plan(solo=True),
        "greedy": greedy(seed),
        "stay": lambda env: np.full(env.shape, STAY),
        "random": lambda env: rng.integers(0, ACTIONS, env.shape),
    }
    if name not in policies:
        raise ValueError(f"--driver {name} is unknown: use {', '.join(policies)}")
    return policies[name]
