"""What both sides of `benchmarks.simple_spread` are asked for, each in its own words."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rqe_mappo.envs.by_name import ByNameConfig
from rqe_mappo.nets import ActionSpec, ActorSpec, PolicyActor
from rqe_mappo.nets.utilities import Utilities, UtilitySpec

ENV = ByNameConfig("pettingzoo:mpe2.simple_spread_v3", max_steps=25)
Trained = PolicyActor | Utilities
AGENTS = 3
SHAPES: dict[str, Any] = {"obs_dim": 18, "n_agents": AGENTS, "actions": ActionSpec("discrete", (5,))}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all algorithms have: BenchMARL's base_experiment.yaml, but for `hidden` (there 2 x 256) and `frames`."""

    algo: str
    frames: int
    batch_frames: int
    num_envs: int = 10
    learning_rate: float
    gamma: float = 0.99
    max_grad_norm: float = 5.0
    adam_eps: float = 1e-5  # ours; BenchMARL has 1e-6
    hidden: tuple[int, ...] = (64, 64)

    activation: ClassVar[str]

    def ours(self, seed: int) -> list[str]:
        """Flags of rqe-train."""
        flags = {
            "algo": self.algo,
            "env": ENV.name,
            "max-steps": ENV.max_steps,
            "seed": seed,
            "total-timesteps": self.frames * AGENTS,
            "num-envs": self.num_envs,
            "num-steps": self.batch_frames // self.num_envs,
            "learning-rate": self.learning_rate,
            "gamma": self.gamma,
            "max-grad-norm": self.max_grad_norm,
            "eval-episodes": 0,
        }
        words = _words(flags)
        return [*words, "--actor-hidden", *map(str, self.hidden)]

    def theirs(self, seed: int) -> dict[str, Any]:
        """What `peers/benchmarl_run.py` reads."""
        return {
            "algo": self.algo,
            "seed": seed,
            "hidden": self.hidden,
            "activation": self.activation,
            "task": {"max_cycles": ENV.max_steps},
            "experiment": {
                "max_n_frames": self.frames,
                "lr": self.learning_rate,
                "gamma": self.gamma,
                "clip_grad_val": self.max_grad_norm,
                "adam_eps": self.adam_eps,
                "prefer_continuous_actions": False,
            },
            "algorithm": {},
        }

    def untrained(self) -> Trained:
        """What acts, of the shape that both sides train."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OnPolicy(Settings):
    """MAPPO: BenchMARL's mappo.yaml."""

    algo: str = "mappo"
    frames: int = 96_000
    batch_frames: int = 6_000
    learning_rate: float = 5e-5
    minibatch_frames: int = 400
    epochs: int = 45
    gae_lambda: float = 0.9
    clip: float = 0.2
    entropy: float = 0.0

    activation = "Tanh"

    def ours(self, seed: int) -> list[str]:
        """Flags without a value switch off what BenchMARL's MAPPO lacks."""
        flags = {
            "num-minibatches": self.batch_frames // self.minibatch_frames,
            "update-epochs": self.epochs,
            "critic-epochs": self.epochs,
            "critic-learning-rate": self.learning_rate,
            "gae-lambda": self.gae_lambda,
            "clip-coef": self.clip,
            "eps": self.entropy,
            "huber-delta": "inf",
        }
        lacking = ("--no-norm-adv", "--no-value-norm", "--no-value-clip", "--no-anneal-lr")
        return [*super().ours(seed), *_words(flags), "--critic-hidden", *map(str, self.hidden), *lacking]

    def theirs(self, seed: int) -> dict[str, Any]:
        asked = super().theirs(seed)
        asked["experiment"] |= {
            "on_policy_n_envs_per_worker": self.num_envs,
            "on_policy_collected_frames_per_batch": self.batch_frames,
            "on_policy_minibatch_size": self.minibatch_frames,
            "on_policy_n_minibatch_iters": self.epochs,
        }
        asked["algorithm"] = {"lmbda": self.gae_lambda, "clip_epsilon": self.clip, "entropy_coef": self.entropy}
        return asked

    def untrained(self) -> PolicyActor:
        return PolicyActor(ActorSpec(**SHAPES, hidden=self.hidden))


@dataclass(frozen=True, kw_only=True)
class OffPolicy(Settings):
    """QMIX and VDN; what differs from BenchMARL's defaults is given with them."""

    frames: int = 48_000
    batch_frames: int = 1_000  # there 6,000: four updates of what is explored in a run
    learning_rate: float = 5e-4  # there 5e-5, for 3 million frames
    steps: int = 100  # of learning between two batches of frames; there 1,000 for six times as many
    replayed_frames: int = 200  # of each, drawn one by one; there 128
    polyak: float = 0.005
    value_unit: float = AGENTS  # BenchMARL's reward is the mean over agents, ours their sum
    exploration: tuple[float, float] = (0.8, 0.01)  # first and last, annealed over a third of the run

    activation = "ReLU"  # ours; BenchMARL has Tanh

    def ours(self, seed: int) -> list[str]:
        """Targets are of one step, by the target networks alone."""
        first, last = self.exploration
        flags = {
            "buffer-episodes": self.frames // ENV.max_steps,
            "batch-episodes": self.replayed_frames,
            "window": 1,
            "replay-ratio": self.steps * self.replayed_frames / self.batch_frames,
            "exploration-start": first,
            "exploration": last,
            "exploration-fraction": 1 / 3,
            "td-lambda": 0.0,
            "target-interval": 1,
            "polyak": self.polyak,
            "value-unit": self.value_unit,
        }
        return [*super().ours(seed), *_words(flags), "--no-double-q"]

    def theirs(self, seed: int) -> dict[str, Any]:
        asked, (first, last) = super().theirs(seed), self.exploration
        asked["experiment"] |= {
            "off_policy_n_envs_per_worker": self.num_envs,
            "off_policy_collected_frames_per_batch": self.batch_frames,
            "off_policy_n_optimizer_steps": self.steps,
            "off_policy_train_batch_size": self.replayed_frames,
            "off_policy_memory_size": self.frames,
            "polyak_tau": self.polyak,
            "exploration_eps_init": first,
            "exploration_eps_end": last,
        }
        return asked

    def untrained(self) -> Utilities:
        return Utilities(UtilitySpec(**SHAPES, hidden=self.hidden))


def of(algo: str, frames: int | None = None) -> Settings:
    """The settings of an algorithm, with its own number of frames unless given."""
    settings = OnPolicy(algo=algo) if algo == "mappo" else OffPolicy(algo=algo)
    return settings if frames is None else replace(settings, frames=frames)


def _words(flags: dict[str, Any]) -> list[str]:
    return [text for name, value in flags.items() for text in (f"--{name}", str(value))]
