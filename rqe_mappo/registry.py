"""Names on the command line and what they stand for, imported only when asked for."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Environment:
    """Where an environment's parts are found, each as `module:name`.

    factory: `factory(knobs, num_envs)` gives a `BatchedEnv`.
    scenarios: dict of named settings (frozen dataclasses), one of them "default".
    recipe: `recipe(scenario, knobs)` gives the `TrainConfig` with the learner's defaults for this environment.
    drivers: `drivers(name, seed)` gives a policy that nobody trained, `policy(env)`; empty if there are none.
    camera: `camera(env)` draws an environment with one copy (`rqe_mappo.evaluation.film`); empty if it cannot be drawn.
    scene: `scene(env)` shows an environment with one copy on the live page (`rqe_mappo.live.scene_env`); empty if none.
    own_process: whether a process can hold one copy only, so that every copy gets a worker process of its own.
    """

    factory: str
    scenarios: str
    recipe: str
    own_process: bool = False
    drivers: str = ""
    camera: str = ""
    scene: str = ""


@dataclass(frozen=True)
class Algorithm:
    """Where an algorithm's parts are found, each as `module:name`.

    learner: the class of its learner, `Learner` or one that overrides parts of it.
    options: its own settings, a subclass of `rqe_mappo.config.Options`.
    """

    learner: str
    options: str


ENVIRONMENTS = {
    "cartpole": Environment(
        factory="rqe_mappo.envs.risky_cartpole:BatchedRiskyCartPole",
        scenarios="rqe_mappo.envs.risky_cartpole:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:cartpole",
        drivers="rqe_mappo.envs.risky_cartpole.drivers:by_name",
        scene="rqe_mappo.envs.risky_cartpole.scene:LiveScene",
    ),
    "sumo": Environment(
        factory="rqe_mappo.envs.sumo_intersection:BatchedIntersection",
        scenarios="rqe_mappo.envs.sumo_intersection:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:sumo",
        drivers="rqe_mappo.envs.sumo_intersection.drivers:by_name",
        camera="rqe_mappo.envs.sumo_intersection.render:Camera",
        scene="rqe_mappo.envs.sumo_intersection.scene:LiveScene",
    ),
    "sumo-signals": Environment(
        factory="rqe_mappo.envs.sumo_signals:BatchedSignals",
        scenarios="rqe_mappo.envs.sumo_signals:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:sumo_signals",
        drivers="rqe_mappo.envs.sumo_signals.controllers:by_name",
        own_process=True,
    ),
    "gamble": Environment(
        factory="rqe_mappo.envs.gambles:BatchedGamble",
        scenarios="rqe_mappo.envs.gambles:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:gamble",
    ),
    "matrix": Environment(
        factory="rqe_mappo.envs.matrix_games:BatchedMatrix",
        scenarios="rqe_mappo.envs.matrix_games:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:matrix",
    ),
    "cliff": Environment(
        factory="rqe_mappo.envs.cliff_walk:BatchedCliff",
        scenarios="rqe_mappo.envs.cliff_walk:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:cliff",
    ),
}

ALGORITHMS = {
    "rqe-mappo": Algorithm("rqe_mappo.algorithms.rqe_mappo:Learner", "rqe_mappo.config:Options"),
    "mappo": Algorithm("rqe_mappo.baselines.mappo:MappoLearner", "rqe_mappo.baselines.mappo:MappoOptions"),
    "ippo": Algorithm("rqe_mappo.baselines.mappo:MappoLearner", "rqe_mappo.baselines.ippo:IppoOptions"),
    "c51-cvar": Algorithm("rqe_mappo.algorithms.rqe_mappo:Learner", "rqe_mappo.baselines.c51_cvar:C51CvarOptions"),
    "mean-variance": Algorithm(
        "rqe_mappo.baselines.mean_variance:MeanVarianceLearner",
        "rqe_mappo.baselines.mean_variance:MeanVarianceOptions",
    ),
    "reward-shaped": Algorithm(
        "rqe_mappo.baselines.reward_shaped:ShapedLearner", "rqe_mappo.baselines.reward_shaped:ShapedOptions"
    ),
}


BY_NAME = Environment(
    factory="rqe_mappo.envs.by_name:BatchedByName",
    scenarios="rqe_mappo.envs.by_name:SCENARIOS",
    recipe="rqe_mappo.algorithms.recipes:by_name",
)


def environment(name: str) -> Environment:
    """The entry of `name`, which may also be gymnasium:ID or pettingzoo:MODULE; ValueError otherwise."""
    return BY_NAME if name.startswith(("gymnasium:", "pettingzoo:")) else _entry(ENVIRONMENTS, "env", name)


def algorithm(name: str) -> Algorithm:
    """The entry of `name`; ValueError with the known names otherwise."""
    return _entry(ALGORITHMS, "algo", name)


def _entry(known: dict[str, Entry], flag: str, name: str) -> Entry:
    if name not in known:
        *others, last = known
        raise ValueError(f"--{flag} {name} is unknown: use {', '.join(others)} or {last}")
    return known[name]


def load(path: str) -> Any:
    """The object at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
