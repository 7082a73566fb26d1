"""What a worker process holds: an environment with one copy, and its scene. It loads no PyTorch."""

from typing import Any

import numpy as np

from rqe_mappo import registry
from rqe_mappo.envs.contract import BatchedEnv, Observed, Step

MOST_FRAMES = 200  # kept for a caller that does not ask


class SceneEnv:
    """A `BatchedEnv` of one copy that also records what there is to draw.

    factory, scene: `module:name`, as in the registry. A scene has `static()`, what never moves, and `frame()`, what
    moves, both as plain values; `watch(call)`, which calls after each simulation step; and `forget()`, called when an
    episode is over. `static()` names its `kind`, for which the page has a way of drawing, and a `title`; the `colours`
    of the agents; the `actions` and, in numbers, the `action_values`; the `unit` of the reward; and the times `frame_s`
    between frames and `decision_s` between decisions.
    """

    def __init__(self, factory: str, scene: str, env_config: Any):
        self.env: BatchedEnv = registry.load(factory)(env_config, 1)
        for name in BatchedEnv.__annotations__:
            setattr(self, name, getattr(self.env, name))
        self.scene = registry.load(scene)(self.env)
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
