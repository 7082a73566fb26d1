"""Episodes as a film: a GIF, or an MP4, of an environment that can be drawn."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from PIL import Image

from rqe_mappo import registry
from rqe_mappo.config import TrainConfig
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.contract import Observed, begun
from rqe_mappo.envs.history import History
from rqe_mappo.evaluation.episodes import Chooser

FRAMES_PER_S = 10  # in real time: a frame for each of SUMO's steps of 0.1 s
PAUSE = FRAMES_PER_S  # frames for which an episode's end stays
COLOURS = 64  # of a GIF: the scene has few
Predicted = tuple[np.ndarray, ...]  # V_tau of each agent; with the distributions also their atoms and probabilities
SUFFIXES = (".gif", ".mp4")


class Camera(Protocol):
    """Draws an environment with one copy."""

    def watch(self, call: Callable[[], None], /) -> None:
        """Call `call` after each simulation step."""

    def frame(self, title: str, /, *predicted: np.ndarray) -> Image.Image:
        """The picture of this moment, with what the critic predicts."""
        ...

    def forget(self) -> None:
        """The episode is over."""


@dataclass(frozen=True)
class FilmSettings:
    """What to film: `episodes` from `seed` on; distributions: whether to draw the critic's in a strip beside."""

    episodes: int = 1
    seed: int = 0
    distributions: bool = False


def check(path: Path) -> None:
    """ValueError where no film can be written at `path`, before any episode is run."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--render {path} must end in .gif or .mp4")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--render {path} cannot be written: there is no folder {path.parent}")
    if path.suffix == ".mp4":
        _ffmpeg()


def in_window(config: TrainConfig) -> TrainConfig:
    """The settings with SUMO in a window; ValueError for an environment without SUMO, or where there is no screen."""
    if not hasattr(config.env_config, "sumo_backend"):
        raise ValueError(f"--gui: --env {config.env} has no window: use --env sumo")
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        raise ValueError("--gui needs a screen (DISPLAY is not set): use --render out.gif")
    return config.replace(sumo_backend="gui")


def film(config: TrainConfig, choose: Chooser, critic: Policy | None, path: Path, settings: FilmSettings) -> int:
    """Run episodes of `choose` in the environment of `config` and write `path`; gives the number of frames.

    critic: colours the agents by their risk, where there is one.
    Raises ValueError where the environment cannot be drawn.
    """
    check(path)
    entry = registry.environment(config.env)
    if not entry.camera:
        drawn = ", ".join(name for name, known in registry.ENVIRONMENTS.items() if known.camera)
        raise ValueError(f"--render: there are no pictures of --env {config.env}, only of {drawn}")
    if critic is None and settings.distributions:
        raise ValueError("--laws shows what a critic predicts, and a scripted policy has none: leave it out")
    if critic is not None and not critic.predicts_distribution and settings.distributions:
        raise ValueError(
            "--laws shows the distribution that a critic predicts of its policy's return, and that of "
            f"--algo {critic.algo} predicts "
            + ("nothing" if critic.returns is None else "only the mean")
            + ": leave it out"
        )
    if critic is not None:
        critic.seed(settings.seed)
    env = vector.make(config, 1)
    frames: list[Image.Image] = []
    try:
        camera: Camera = registry.load(entry.camera)(env.env if isinstance(env, History) else env)
        observed = env.reset(settings.seed)
        for episode in range(settings.episodes):
            title = f"episode {episode + 1}   " if settings.episodes > 1 else ""
            recording = Recording(camera, title)
            camera.watch(recording.add_frame)
            over = False
            while not over:
                if critic is not None:
                    critic.begin(begun(observed), of=1)  # before it is asked; `choose` says so again
                    recording.predicted = _predicted(critic, observed, settings.distributions)
                observed = env.step(choose(env, observed))
                over = len(observed.episodes["copy"]) > 0
            camera.forget()
            frames += recording.frames + recording.frames[-1:] * PAUSE
    finally:
        env.close()
    write(frames, path)
    return len(frames)


@dataclass
class Recording:
    """The frames of one episode; `predicted` is the critic's prediction at the last decision."""

    camera: Camera
    title: str
    predicted: Predicted = ()
    frames: list[Image.Image] = field(default_factory=list)

    def add_frame(self) -> None:
        time_s = (len(self.frames) + 1) / FRAMES_PER_S
        self.frames.append(self.camera.frame(f"{self.title}{time_s:.1f} s", *self.predicted))


def _predicted(policy: Policy, observed: Observed, distributions: bool) -> Predicted:
    """V_tau of each agent, nan for those that left; with `distributions` also their atoms and probabilities."""
    agents = np.arange(observed.active.shape[1])[None]
    if policy.returns is None:  # then vehicles have no colour of their risk
        return (np.full(agents.shape[1], np.nan),)
    view = policy.view_of(observed.obs, observed.state)
    value = np.where(observed.active, policy.value(view, agents).cpu().numpy(), np.nan)[0]
    if not distributions:
        return (value,)
    distribution = policy.distribution(view[0], agents[0])
    return value, distribution.atoms.cpu().numpy(), distribution.probs.cpu().numpy()


def write(frames: list[Image.Image], path: Path) -> None:
    """A GIF or an MP4 of `frames`, by the suffix of `path`; no partial file remains where that fails."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        if path.suffix == ".gif":
            few = [frame.quantize(COLOURS, dither=Image.Dither.NONE) for frame in frames]
            few[0].save(part, save_all=True, append_images=few[1:], duration=1000 // FRAMES_PER_S, loop=0)
        else:
            writer = _ffmpeg().write_frames(str(part), frames[0].size, fps=FRAMES_PER_S, macro_block_size=2)
            writer.send(None)
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
            writer.close()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _ffmpeg() -> ModuleType:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ValueError("--render to .mp4 needs ffmpeg: pip install 'rqe-mappo[video]', or use .gif") from None
    return imageio_ffmpeg
