"""What a worker process holds: an environment with one copy, and its scene. It loads no PyTorch."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from rqe_mappo import registry
from rqe_mappo.envs.contract import BatchedEnv, Observed, Step

MOST_FRAMES = 200  # kept for a caller that does not ask


class Scene(Protocol):
    """What the page draws of an environment with one copy, as plain values."""

    def static(self) -> dict[str, Any]:
        """What never moves.

        kind, title: which function of the page draws it, and under which title.
        colours: of the agents.
        actions, action_values: the names of the actions, and what they stand for in numbers.
        unit: of the reward.
        frame_s, decision_s: the times between frames and between decisions.
        """
        ...

    def frame(self) -> dict[str, Any]:
        """What moves."""
        ...

    def watch(self, call: Callable[[], None], /) -> None:
        """Call `call` after each simulation step."""

    def forget(self) -> None:
        """The episode is over."""


class SceneEnv:
    """A `BatchedEnv` of one copy that also records what there is to draw.

    factory, scene: `module:name`, as in the registry; `scene` makes a `Scene` of the environment.
    """

    def __init__(self, factory: str, scene: str, env_config: Any):
        self.env: BatchedEnv = registry.load(factory)(env_config, 1)
        for name in BatchedEnv.__annotations__:
            setattr(self, name, getattr(self.env, name))
        self.scene: Scene = registry.load(scene)(self.env)
        self.scene.watch(self._after_step)
        self.frame_s = self.scene.static()["frame_s"]
        self.recorded: list[dict[str, Any]] = []
        self.count = 0

    def _after_step(self) -> None:
        self.count += 1
        self._record()

    def _record(self) -> None:
        self.recorded = [
            *self.recorded[1 - MOST_FRAMES :],
            {"time_s": round(self.count * self.frame_s, 3)} | self.scene.frame(),
        ]

    def static(self) -> dict[str, Any]:
        """What never moves."""
        return self.scene.static()

    def frames(self) -> list[dict[str, Any]]:
        """What moved since the last call, a frame for each simulation step; `time_s` is since the episode's start."""
        frames, self.recorded = self.recorded, []
        return frames

    def reset(self, seed: int) -> Observed:
        observed = self.env.reset(seed)
        self._begin()
        self.recorded = []
        self._record()
        return observed

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        if len(step.episodes["copy"]):
            self._begin()
        return step

    def _begin(self) -> None:
        self.scene.forget()
        self.count = 0

    def snapshot(self) -> None:
        """None: a live session is not resumed."""
        return None

    def close(self) -> None:
        self.env.close()
