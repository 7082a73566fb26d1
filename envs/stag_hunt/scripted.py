"""Scripted policies: the best that two hunters can reach together, for what they believe hunts to be worth."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.fixed_length.planning import Table, best_plan
from rqe_mappo.envs.stag_hunt.config import StagHuntConfig
from rqe_mappo.envs.stag_hunt.dynamics import ACTIONS, CELLS, HUNTERS, STARTS, STAY, StagHunt

ScriptedPolicy = Callable[[BatchedFixedLength], np.ndarray]
"""Actions int64 `[E, 2]` for the present state of an environment."""
PAIR = np.array(list(itertools.product(range(ACTIONS), repeat=HUNTERS)))  # joint actions
STATES = CELLS**2 * 9


def code(game: StagHunt) -> np.ndarray:
    """The number of each copy's state `[E]`, below `STATES`."""
    return (game.cells @ [CELLS, 1]) * 9 + game.carried @ [3, 1]


def tabulated(config: StagHuntConfig) -> Table:
    """The game for the sum of both rewards; nothing is drawn but starts."""
    game = StagHunt(config, STATES)
    cells, carried = np.divmod(np.arange(STATES), 9)
    next_state, reward = np.empty((STATES, len(PAIR), 1), np.int32), np.empty((STATES, len(PAIR), 1), np.float32)
    for j, pair in enumerate(PAIR):
        game.cells[...] = np.stack(np.divmod(cells, CELLS), axis=1)
        game.carried[...] = np.stack(np.divmod(carried, 3), axis=1)
        played = game.play(np.tile(pair, (STATES, 1)), np.zeros((STATES, HUNTERS)))
        reward[:, j, 0] = played.reward.sum(1)
        next_state[:, j, 0] = np.where(played.counts["meetings"], STATES, code(game))
    start = np.zeros(STATES)
    drawn = StagHunt(config, len(STARTS) * (len(STARTS) - 1))
    places = [(np.arange(size) + 0.5) / size for size in (len(STARTS), len(STARTS) - 1)]
    drawn.begin(np.array(list(itertools.product(*places))))
    start[code(drawn)] = 1 / drawn.num_envs
    return Table(next_state, np.ones(1), reward, start)


@lru_cache(maxsize=4)
def planned(config: StagHuntConfig) -> tuple[float, np.ndarray]:
    """The best mean sum of both returns and its joint actions `[H, S]`, as `best_plan` gives them."""
    return best_plan(tabulated(config), config.horizon)


def plan(**believed: float) -> ScriptedPolicy:
    """The best plan for these payoffs in place of the game's own."""

    def policy(env: BatchedFixedLength) -> np.ndarray:
        assert isinstance(env.game, StagHunt)
        _, actions = planned(replace(env.game.config, **believed))
        return PAIR[actions[env.horizon - 1 - env.t, code(env.game)]]

    return policy


def by_name(name: str, seed: int = 0) -> ScriptedPolicy:
    """`plan`, `stags` and `hares` (the best plans where the others are worth nothing), `stay` or `random`."""
    rng = np.random.default_rng(seed)
    policies: dict[str, ScriptedPolicy] = {
        "plan": plan(),
        "stags": plan(hare_reward=0.0),
        "hares": plan(stag_reward=0.0),
        "stay": lambda env: np.full(env.shape, STAY),
        "random": lambda env: rng.integers(0, ACTIONS, env.shape),
    }
    if name not in policies:
        raise ValueError(f"--driver {name} is unknown: use {', '.join(policies)}")
    return policies[name]
