"""One traffic light under the rules of sumo-rl: green phases to choose from, with yellow between them."""

from importlib import import_module
from typing import Any

import libsumo

from rqe_mappo.envs.sumo_intersection.network import sumo_home
from rqe_mappo.envs.sumo_signals.nets import SumoRlMissing


def _sumo_rl() -> Any:
    """sumo-rl's `TrafficSignal`; it cannot be imported without SUMO_HOME."""
    sumo_home()
    try:
        return import_module("sumo_rl.environment.traffic_signal").TrafficSignal
    except ModuleNotFoundError as error:
        if error.name != "sumo_rl":
            raise
        raise SumoRlMissing from None


TrafficSignal: Any = _sumo_rl()
RAIL = (1, 2)  # rail signals and crossings in SUMO's TrafficLightType: trains switch them


def is_green(state: str) -> bool:
    """Whether a phase lets somebody go and is no change between two others (yellow, or red and yellow)."""
    return not set("Gg").isdisjoint(state) and set("yYu").isdisjoint(state)


def yellow(before: str, after: str) -> str:
    """The state between two green phases: what loses its green shows yellow, the rest stays as it is."""
    pairs = zip(before, after, strict=True)
    return "".join("y" if old in "Gg" and new in "rs" else old for old, new in pairs)


def is_driveable(name: str) -> bool:
    """Whether the running simulation's light `name` is one for road vehicles, at some lane."""
    kinds = {logic.type for logic in libsumo.trafficlight.getAllProgramLogics(name)}
    return kinds.isdisjoint(RAIL) and len(libsumo.trafficlight.getControlledLanes(name)) > 0


class Signal(TrafficSignal):
    """A light with the green phases of the program that SUMO runs when the episode begins.

    sumo-rl's own takes the first program by name instead, and puts a changed one in its place, which fails where SUMO
    is at a phase that the changed one lacks. Here programs stay as they are: SUMO runs the light's own one until
    `set_next_phase` chooses a phase. ValueError where no phase of the program is green.
    """

    def _build_phases(self) -> None:
        lights = self.sumo.trafficlight
        program = lights.getProgram(self.id)
        (logic,) = (logic for logic in lights.getAllProgramLogics(self.id) if logic.programID == program)
        self.shown = [phase.state for phase in logic.phases if is_green(phase.state)]
        if not self.shown:
            raise ValueError(f"traffic light {self.id} has no green phase in its program {program!r}: give it one")
        self.num_green_phases = len(self.shown)
        pairs = [(i, j) for i in range(len(self.shown)) for j in range(len(self.shown)) if i != j]
        between = [yellow(self.shown[i], self.shown[j]) for i, j in pairs]
        self.all_phases = [lights.Phase(self.yellow_time, state) for state in (*self.shown, *between)]
        self.yellow_dict = {pair: len(self.shown) + index for index, pair in enumerate(pairs)}

    def follow(self) -> None:
        """Note what the light's own program showed in the last second; `green_phase` is the last green one."""
        self.time_since_last_phase_change += 1
        state = self.sumo.trafficlight.getRedYellowGreenState(self.id)
        if state in self.shown and state != self.shown[self.green_phase]:
            self.green_phase = self.shown.index(state)
            self.time_since_last_phase_change = 1
