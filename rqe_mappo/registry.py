"""Names on the command line and what they stand for, imported only when asked for."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rqe_mappo.algorithms.contract import AlgorithmClass

Entry = TypeVar("Entry")
Part = Any
"""`module:name`, or the object itself."""


@dataclass(frozen=True)
class Environment:
    """Where an environment's parts are found, each as `module:name` or as the object itself.

    factory: `factory(env_config, num_envs)` gives a `BatchedEnv`.
    scenarios: dict of named settings (frozen dataclasses), one of them "default".
    recipe: `recipe(scenario)` gives settings of runs and algorithms that train well, by their names.
    drivers: `drivers(name, seed)` gives a scripted policy, `policy(env)`; empty if there are none.
    camera: `camera(env)` draws an environment with one copy (`rqe_mappo.evaluation.film`); empty if it cannot be drawn.
    scene: `scene(env)` shows an environment with one copy on the live page (`rqe_mappo.live.scene_env`); empty if none.
    own_process: whether a process can hold one copy only, so that every copy gets a worker process of its own.
    """

    factory: Part
    scenarios: Part
    recipe: Part
    own_process: bool = False
    drivers: Part = ""
    camera: Part = ""
    scene: Part = ""


ENVIRONMENTS: dict[str, Environment] = {
    "cartpole": Environment(
        factory="rqe_mappo.envs.risky_cartpole:BatchedRiskyCartPole",
        scenarios="rqe_mappo.envs.risky_cartpole:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:cartpole",
        drivers="rqe_mappo.envs.risky_cartpole.scripted:by_name",
        scene="rqe_mappo.envs.risky_cartpole.scene:LiveScene",
    ),
    "sumo": Environment(
        factory="rqe_mappo.envs.sumo_intersection:BatchedIntersection",
        scenarios="rqe_mappo.envs.sumo_intersection:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:sumo",
        drivers="rqe_mappo.envs.sumo_intersection.scripted:by_name",
        camera="rqe_mappo.envs.sumo_intersection.render:Camera",
        scene="rqe_mappo.envs.sumo_intersection.scene:LiveScene",
    ),
    "sumo-signals": Environment(
        factory="rqe_mappo.envs.sumo_signals:BatchedSignals",
        scenarios="rqe_mappo.envs.sumo_signals:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:sumo_signals",
        drivers="rqe_mappo.envs.sumo_signals.scripted:by_name",
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
    "step-games": Environment(
        factory="rqe_mappo.envs.step_games:BatchedStepGame",
        scenarios="rqe_mappo.envs.step_games:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:step_games",
    ),
    "predator-prey": Environment(
        factory="rqe_mappo.envs.predator_prey:BatchedPredators",
        scenarios="rqe_mappo.envs.predator_prey:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:predator_prey",
    ),
    "macf": Environment(
        factory="rqe_mappo.envs.macf:BatchedCars",
        scenarios="rqe_mappo.envs.macf:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:macf",
        drivers="rqe_mappo.envs.macf.scripted:by_name",
    ),
    "kitchen": Environment(
        factory="rqe_mappo.envs.kitchen:batched_kitchen",
        scenarios="rqe_mappo.envs.kitchen:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:kitchen",
        drivers="rqe_mappo.envs.kitchen.scripted:by_name",
    ),
    "stag-hunt": Environment(
        factory="rqe_mappo.envs.stag_hunt:batched_hunt",
        scenarios="rqe_mappo.envs.stag_hunt:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:stag_hunt",
        drivers="rqe_mappo.envs.stag_hunt.scripted:by_name",
    ),
    "tag": Environment(
        factory="rqe_mappo.envs.tag:batched_tag",
        scenarios="rqe_mappo.envs.tag:SCENARIOS",
        recipe="rqe_mappo.algorithms.recipes:tag",
        drivers="rqe_mappo.envs.tag.scripted:by_name",
    ),
}

ALGORITHMS: dict[str, Part] = {
    "rqe-mappo": "rqe_mappo.algorithms.rqe_mappo:RqeMappo",
    "exact-rqe": "rqe_mappo.algorithms.exact_rqe:ExactRqe",
    "mappo": "rqe_mappo.baselines.mappo:Mappo",
    "ippo": "rqe_mappo.baselines.ippo:Ippo",
    "srpo": "rqe_mappo.baselines.srpo:Srpo",
    "fcp": "rqe_mappo.baselines.fcp:Fcp",
    "c51-cvar": "rqe_mappo.baselines.c51_cvar:C51Cvar",
    "mean-variance": "rqe_mappo.baselines.mean_variance:MeanVarianceMappo",
    "reward-shaped": "rqe_mappo.baselines.reward_shaped:RewardShapedMappo",
    "iql": "rqe_mappo.baselines.iql:Iql",
    "central-q": "rqe_mappo.baselines.central_q:CentralQ",
    "vdn": "rqe_mappo.baselines.vdn:Vdn",
    "qmix": "rqe_mappo.baselines.qmix:Qmix",
    "qtran": "rqe_mappo.baselines.qtran:Qtran",
    "qplex": "rqe_mappo.baselines.qplex:Qplex",
    "maven": "rqe_mappo.baselines.maven:Maven",
    "c51": "rqe_mappo.baselines.c51:C51",
    "qr-dqn": "rqe_mappo.baselines.qr_dqn:QrDqn",
    "ddn": "rqe_mappo.baselines.ddn:Ddn",
    "dmix": "rqe_mappo.baselines.dmix:Dmix",
    "riskq": "rqe_mappo.baselines.riskq:Riskq",
    "rmix": "rqe_mappo.baselines.rmix:Rmix",
    "drima": "rqe_mappo.baselines.drima:Drima",
}
"""Classes that keep the contract of `rqe_mappo.algorithms.contract`."""

BY_NAME = Environment(
    factory="rqe_mappo.envs.by_name:make",
    scenarios="rqe_mappo.envs.by_name:SCENARIOS",
    recipe="rqe_mappo.algorithms.recipes:by_name",
)
"""Environments of other packages: gymnasium:ID, pettingzoo:MODULE, MODULE:FACTORY."""


def environment(name: str) -> Environment:
    """The entry of `name`; of MODULE:ENTRY, an `Environment` in a module of the user's own. ValueError otherwise."""
    if ":" not in name:
        if name not in ENVIRONMENTS and (meant := _meant(name)):
            raise ValueError(f"--env {name} is unknown: use {meant}")
        return _entry(ENVIRONMENTS, "env", name)
    if name.startswith(("gymnasium:", "pettingzoo:")):
        if not SAFE.fullmatch(name):
            look_here()
        return BY_NAME
    found = load_own("env", name)
    return found if isinstance(found, Environment) else BY_NAME


def scenarios(name: str) -> Mapping[str, Any]:
    """The named settings of an environment."""
    entry = environment(name)
    found = load(entry.scenarios)
    return {key: replace(config, name=name) for key, config in found.items()} if entry is BY_NAME else found


def algorithm(name: str) -> "AlgorithmClass":
    """The class of `name`, or of MODULE:CLASS in a module of the user's own; ValueError otherwise."""
    if ":" not in name:
        return load(_entry(ALGORITHMS, "algo", name))
    found = load_own("algo", name)
    settings = getattr(found, "Config", None)
    if not (hasattr(settings, "check_environment") and hasattr(found, "learn")):  # which an AlgorithmConfig has
        raise ValueError(
            f"--algo {name} is no algorithm: it needs a method learn, and a Config that is an AlgorithmConfig"
        )
    return found


def _entry(known: dict[str, Entry], flag: str, name: str) -> Entry:
    if name not in known:
        *others, last = known
        raise ValueError(f"--{flag} {name} is unknown: use {', '.join(others)} or {last}")
    return known[name]


def _meant(name: str) -> str:
    """The environment of another package that `name` is most likely meant for; empty where there is none."""
    import gymnasium

    ids = [known for known in gymnasium.registry if name in (known, known.rpartition("-v")[0])]
    if ids:
        return f"gymnasium:{ids[-1]}"
    return f"pettingzoo:{name} or MODULE:FACTORY" if "." in name else ""


def load(part: Part) -> Any:
    """The object at `module:name`; whatever is no string stands for itself."""
    if not isinstance(part, str):
        return part
    module, _, name = part.partition(":")
    return getattr(import_module(module), name)


VOUCHED: set[str] = set()
"""Names of modules' objects that the user gave in this process, on the command line or in Python."""
SAFE = re.compile(r"[^:]*|gymnasium:[^:]+|pettingzoo:(pettingzoo|mpe2)\.[^:]+")
"""Names that may come from a file: they lead to no module but these."""


def vouch(*names: str) -> None:
    """Take names as the user's own, so that a run's settings may hold them too."""
    VOUCHED.update(names)


def leads_to_code(name: str) -> bool:
    """Whether the name imports a module that only the user can answer for, so that files with it need `--trust`."""
    return not SAFE.fullmatch(name)


def check_named_by_file(flag: str, name: str) -> None:
    """ValueError for a name in a run's settings that would import what somebody else chose."""
    if leads_to_code(name) and name not in VOUCHED:
        raise ValueError(
            f"the run's settings name --{flag} {name}, code that would be imported and called: "
            "add --trust if the run is your own (from Python trust=True)"
        )


def look_here() -> None:
    """Let modules that the user named be found in the working folder: console scripts do not look there themselves."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def load_own(flag: str, name: str) -> Any:
    """The object that a user calls MODULE:NAME, from the working folder or from what is installed.

    ValueError, in one line, where it cannot be loaded.
    """
    module, _, attribute = name.partition(":")
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"--{flag} {name}: {module} belongs to Python itself: name a module of your own")
    look_here()
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--{flag} {name} cannot be imported ({error}): run from the folder that holds {module}, or install it"
        ) from None
