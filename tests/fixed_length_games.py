"""Games of fixed length in several settings, and play that reaches far in each."""

from dataclasses import replace

import numpy as np
from gymnasium.spaces import Box

from rqe_mappo import registry
from rqe_mappo.envs import kitchen, stag_hunt, tag
from rqe_mappo.envs.fixed_length.batched import BatchedFixedLength
from rqe_mappo.envs.fixed_length.parallel import FixedLengthEnv

FORMS = {
    "kitchen": (kitchen.batched_kitchen, kitchen.KitchenEnv),
    "stag-hunt": (stag_hunt.batched_hunt, stag_hunt.StagHuntEnv),
    "tag": (tag.batched_tag, tag.TagEnv),
}
CROWD = kitchen.KitchenConfig(n_agents=6, respawn_probability=0.7, horizon=16, move_cost=0.5, observe_time=True)
MANY = tag.TagConfig(n_chasers=4, n_prey=3, n_obstacles=4, prey="random", horizon=11, observe_time=True)
CASES = {
    "kitchen": ("kitchen", replace(kitchen.SCENARIOS["default"], horizon=14)),
    "kitchen, six cooks": ("kitchen", CROWD),
    "kitchen, one cook": ("kitchen", kitchen.KitchenConfig(n_agents=1, horizon=15)),
    "stag hunt": ("stag-hunt", replace(stag_hunt.SCENARIOS["default"], horizon=12)),
    "stag hunt, fined": ("stag-hunt", stag_hunt.StagHuntConfig(alone_reward=-3, horizon=10, observe_time=True)),
    "tag": ("tag", replace(tag.SCENARIOS["slow"], horizon=15)),
    "tag, mpe": ("tag", replace(tag.SCENARIOS["mpe"], horizon=12)),
    "tag, many": ("tag", MANY),
    "tag, learned, many": ("tag", replace(MANY, prey="learned", n_obstacles=0, reward_scale=1.0)),
    "tag, shaped": ("tag", replace(tag.SCENARIOS["shaped"], n_prey=2, prey="learned", horizon=13)),
    "tag, continuous": ("tag", tag.TagConfig(continuous=True, prey="learned", horizon=9)),
    "tag, continuous chasers": ("tag", tag.TagConfig(continuous=True, n_chasers=3, horizon=9)),
}
PUBLISHED = {
    "kitchen": ("kitchen", kitchen.SCENARIOS["default"]),
    "stag hunt": ("stag-hunt", stag_hunt.SCENARIOS["default"]),
}
PUBLISHED |= {f"tag, {name}": ("tag", config) for name, config in tag.SCENARIOS.items()}
GAMES = CASES | {f"{name}, as published": game for name, game in PUBLISHED.items()}


def batched(case: str, copies: int) -> BatchedFixedLength:
    """The batched form of a case."""
    name, config = GAMES[case]
    return FORMS[name][0](config, copies)


def single(case: str) -> FixedLengthEnv:
    """The PettingZoo form of a case."""
    name, config = GAMES[case]
    return FORMS[name][1](config)


def random_actions(env: BatchedFixedLength, rng: np.random.Generator) -> np.ndarray:
    """Uniform actions of all agents."""
    space = env.action_space
    if isinstance(space, Box):
        return rng.random((*env.shape, *space.shape), np.float32)
    return rng.integers(0, space.n, env.shape)


def mixed_actions(case: str, env: BatchedFixedLength, rng: np.random.Generator) -> np.ndarray:
    """In a third of the copies good play, in a third random, and in a third one action throughout, another by copy."""
    name, _ = GAMES[case]
    good = {"kitchen": "greedy", "stag-hunt": "hares", "tag": "chase"}[name]
    actions = random_actions(env, rng)
    driver = registry.load(registry.environment(name).drivers)(good, 0)
    kind = np.arange(env.num_envs) % 3
    actions[kind == 0] = driver(env)[kind == 0]
    stubborn = np.flatnonzero(kind == 2)
    for copy in stubborn:
        if isinstance(env.action_space, Box):
            actions[copy] = np.eye(5)[copy // 3 % 5]
        else:
            actions[copy] = copy // 3 % env.action_space.n
    return actions
