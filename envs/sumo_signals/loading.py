"""Imports sumo-rl so that it works: with libsumo, with SUMO_HOME, and with a recent PettingZoo."""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from rqe_mappo.envs.sumo_intersection.network import sumo_home
from rqe_mappo.envs.sumo_signals.nets import SumoRlMissing

NAME, SWITCH = "sumo_rl.environment.env", "LIBSUMO_AS_TRACI"


def load_sumo_rl() -> Any:
    """The module `sumo_rl.environment.env`, whose `traci` is libsumo.

    A variable decides what `traci` means when it is first imported. Here it is imported separately, so that the `traci`
    of other code does not change. RuntimeError where sumo-rl has been imported before, without libsumo.
    """
    if NAME not in sys.modules:
        sumo_home()
        before = os.environ.get(SWITCH)
        others = _take_traci()
        os.environ[SWITCH] = "quiet"
        try:
            import_module(NAME)
        except ModuleNotFoundError as error:
            if error.name != "sumo_rl":
                raise
            raise SumoRlMissing from None
        finally:
            _take_traci()
            sys.modules.update(others)
            os.environ.pop(SWITCH)
            if before is not None:
                os.environ[SWITCH] = before
    environment: Any = sys.modules[NAME]
    if not environment.LIBSUMO:
        raise RuntimeError(
            f"sumo_rl was imported before the traffic lights, without libsumo: set {SWITCH}=1 before its import, "
            "or open them in a separate process"
        )
    # sumo-rl 1.4.5 calls a name that PettingZoo 1.25 turned into a module (its issue 228)
    if isinstance(environment.agent_selector, ModuleType):
        environment.agent_selector = environment.agent_selector.AgentSelector
    return environment


def _take_traci() -> dict[str, ModuleType]:
    """Remove traci from the imported modules; returns what was removed."""
    names = [name for name in sys.modules if name == "traci" or name.startswith("traci.")]
    return {name: sys.modules.pop(name) for name in names}
