"""Who acts beside whom: trained policies, scripted ones and ONNX files of strangers, and one agent among others."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.envs.contract import BatchedEnv, Observed, action_counts, begun
from rqe_mappo.evaluation.episodes import Chooser, scripted

SCRIPTED, ONNX = "scripted:", "onnx:"


def partner(name: str, config: TrainConfig, env: BatchedEnv, seed: int, deterministic: bool) -> Chooser:
    """`scripted:NAME`, a policy of the environment's own, or `onnx:FILE`; ConfigError otherwise."""
    kind, _, rest = name.partition(":")
    if kind + ":" == SCRIPTED and rest:
        try:
            return scripted(config, rest, seed)
        except ValueError as error:
            raise ConfigError(str(error).replace("--driver ", "--partners scripted:")) from None
    if kind + ":" == ONNX and rest:
        return OnnxPolicy(Path(rest), env, seed, deterministic)
    raise ConfigError(
        f"--partners {name} is unknown: use scripted:NAME, onnx:FILE or random; runs go behind --cross-play"
    )


def one_among(one: Chooser, others: Chooser, slots: np.ndarray) -> Chooser:
    """The agent `slots[e]` of each copy e by `one`, all others of it by `others`."""
    if one is others:
        return one
    copies = np.arange(len(slots)), slots

    def choose(env: BatchedEnv, observed: Observed) -> np.ndarray:
        actions = others(env, observed)
        actions[copies] = one(env, observed)[copies]
        return actions

    return choose


class OnnxPolicy:
    """A `Chooser` of an ONNX file, from `rqe-export` or from elsewhere. No part of it is executed as Python.

    Its inputs: `obs`, or whatever its one float input is called, float32 `[batch, D]`; if it has them `agent`, int64
    `[batch]`, and `memory`, float32 `[batch, H]`, which `next_memory` gives. Its outputs: `probabilities`, from which
    actions are drawn, or `action`, or else its first one: numbers `[batch, actions]`, of which the largest is taken, or
    whole numbers `[batch]`, the actions.
    """

    def __init__(self, path: Path, env: BatchedEnv, seed: int, deterministic: bool):
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(f"--partners onnx:{path} needs onnxruntime: pip install onnxruntime") from None
        if not isinstance(env.action_space, Discrete | Box):
            raise ConfigError(f"--partners onnx:{path}: agents with several choices each are not supported")
        if not path.is_file():
            raise ConfigError(f"--partners onnx:{path} is no file: give one of rqe-export, or of another's policy")
        try:
            self.session = onnxruntime.InferenceSession(str(path))
        except Exception as error:  # of a kind for each fault, all of onnxruntime's own
            raise ConfigError(f"--partners onnx:{path} cannot be read: {' '.join(str(error).split())}") from None
        self.path, self.deterministic, self.rng = path, deterministic, np.random.default_rng(seed)
        inputs = {one.name: one for one in self.session.get_inputs()}
        self.takes_agent, self.memory_size = "agent" in inputs, 0
        if "memory" in inputs:
            self.memory_size = (inputs["memory"].shape or [None])[-1]
            if not isinstance(self.memory_size, int) or "next_memory" not in [
                o.name for o in self.session.get_outputs()
            ]:
                raise ConfigError(f"--partners onnx:{path}: memory needs a fixed width and an output next_memory")
        rest = [name for name in inputs if name not in ("agent", "memory")]
        if len(rest) != 1:
            raise ConfigError(f"--partners onnx:{path} has the inputs {', '.join(inputs)}: one observation is known")
        (self.obs,) = rest
        batch = (inputs[self.obs].shape or [None])[0]  # of unknown rank: it will do, or be told then
        if isinstance(batch, int):
            raise ConfigError(f"--partners onnx:{path} takes {batch} observations at a time: export it for any number")
        outputs = [one.name for one in self.session.get_outputs()]
        found = [name for name in ("probabilities", "action") if name in outputs]
        self.output = found[0] if found else outputs[0]
        self.outputs = [self.output, *(["next_memory"] if self.memory_size else [])]
        self.memory: np.ndarray | None = None

    def __call__(self, env: BatchedEnv, observed: Observed) -> np.ndarray:
        copies, agents = observed.active.shape
        given: dict[str, Any] = {self.obs: observed.obs.reshape(copies * agents, -1).astype(np.float32)}
        if self.takes_agent:
            given["agent"] = np.tile(np.arange(agents), copies)
        if self.memory_size:
            if self.memory is None or len(self.memory) != copies:
                self.memory = np.zeros((copies, agents, self.memory_size), np.float32)
            self.memory[begun(observed)] = 0
            given["memory"] = self.memory.reshape(copies * agents, -1)
        try:
            found = [np.asarray(output) for output in self.session.run(self.outputs, given)]
        except Exception as error:  # such as of another width
            raise ConfigError(f"--partners onnx:{self.path} does not fit: {' '.join(str(error).split())}") from None
        if self.memory is not None:
            if found[1].size != self.memory.size:
                raise ConfigError(f"--partners onnx:{self.path}: next_memory is not as wide as memory")
            self.memory[observed.active] = found[1].reshape(self.memory.shape)[observed.active]
        return self._actions(found[0], env, observed)

    def _actions(self, found: np.ndarray, env: BatchedEnv, observed: Observed) -> np.ndarray:
        shape, space = observed.active.shape, env.action_space
        assert isinstance(space, Discrete | Box)  # others were refused
        file = f"--partners onnx:{self.path}"
        if found.dtype.kind not in "biuf" or np.isnan(found).any():
            raise ConfigError(f"{file} gives nan, or what is no number: its output {self.output} must be numbers")
        if isinstance(space, Box):
            wanted = (*shape, *space.shape)
            flat = space.shape == (1,) and found.ndim == 1  # a number each
            if found.size != np.prod(wanted) or not (flat or found.shape[-len(space.shape) :] == space.shape):
                raise ConfigError(f"{file} gives {found.shape} numbers, not {(observed.active.size, *space.shape)}")
            if not np.isfinite(found).all():
                raise ConfigError(f"{file} gives infinite numbers: its output {self.output} must be finite")
            return found.reshape(wanted).astype(np.float32)
        allowed = _allowed(env, int(space.n), observed)
        if np.issubdtype(found.dtype, np.integer) and found.size == observed.active.size:
            chosen = found.reshape(shape).astype(np.int64)
            if not ((chosen >= space.start) & (chosen < space.start + space.n)).all():
                raise ConfigError(f"{file} gives actions that are not in {space}")
            if not np.take_along_axis(allowed, chosen[..., None] - space.start, -1)[observed.active].all():
                raise ConfigError(f"{file} gives actions that are not available: give scores or probabilities of all")
            return chosen
        if found.size != observed.active.size * space.n or found.shape[-1] != space.n:
            raise ConfigError(f"{file} gives {found.shape}, not the scores of {space.n} actions")
        scores = found.reshape(*shape, int(space.n))
        if self.output != "probabilities" or self.deterministic:
            return np.where(allowed, scores.clip(min=np.finfo(np.float32).min), -np.inf).argmax(-1) + space.start
        if not np.isfinite(scores).all() or (scores < 0).any():
            raise ConfigError(
                f"{file} gives probabilities below 0 or infinite ones: name what are no probabilities scores"
            )
        weights = np.where(allowed, scores, 0.0)
        weights = np.where(weights.sum(-1, keepdims=True) > 0, weights, allowed)  # uniform where none was left
        reached = weights.cumsum(-1)
        drawn = (reached <= self.rng.random((*shape, 1)) * reached[..., -1:]).sum(-1)
        return drawn.clip(max=space.n - 1) + space.start


def _allowed(env: BatchedEnv, size: int, observed: Observed) -> np.ndarray:
    """Which of `size` actions each agent may take, bool `[E, A, actions]`."""
    if observed.avail is not None:
        return observed.avail
    counts = np.array(action_counts(env) or [size] * observed.active.shape[1])
    return np.broadcast_to(np.arange(size) < counts[:, None], (*observed.active.shape, size))
