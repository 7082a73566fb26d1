"""The settings of a run: its own, those of its algorithm, those of its environment; read by the command line too."""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
from tyro.conf import OmitArgPrefixes, arg
from tyro.constructors import PrimitiveConstructorSpec

from rqe_mappo import checkpoint, registry, schema, upgrade
from rqe_mappo.envs.contract import LARGEST, BatchedEnv

LONGEST_S = 1e6  # that a worker is waited for, eleven days: the system counts such waits in 32 bits of milliseconds
EnvConfig = TypeVar("EnvConfig")
AlgoConfig = TypeVar("AlgoConfig", bound="AlgorithmConfig")


class ConfigError(ValueError):
    """An invalid setting; the message names the flag and the fix, in one line."""


def per_agent(text: str) -> float | tuple[float, ...]:
    """`"0.3"` as a number for all agents, `"0.3,1,inf"` as one for each."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"give one number, or one an agent as in 0.3,1,inf (got {text})") from None
    return values[0] if len(values) == 1 else values


def each_agent(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """A setting's values: one that all agents share, or one an agent."""
    return value if isinstance(value, tuple) else (value,)


def spelled(value: float | tuple[float, ...]) -> str:
    """The reverse of `per_agent`."""
    return ",".join(f"{number:g}" for number in each_agent(value))


PerAgent = Annotated[
    float | tuple[float, ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT[,FLOAT...]",
        instance_from_str=lambda words: per_agent(words[0]),
        is_instance=lambda value: all(isinstance(number, int | float) for number in each_agent(value)),
        str_from_instance=lambda value: [spelled(value)],
    ),
]
ENV_HELP = (
    f"Environment: {', '.join(registry.ENVIRONMENTS)}; gymnasium:ID, pettingzoo:MODULE; or your own, MODULE:FACTORY."
)
ALGO_HELP = f"Algorithm: {', '.join(registry.ALGORITHMS)}; or your own, MODULE:CLASS."
PER_AGENT = ("tau", "eps")  # the settings of this type
PARTS = ("algorithm", "env_config")  # of a run's settings, with fields of their own
CHANGEABLE_ON_RESUME = {
    "total_timesteps", "device", "keep", "save_interval", "log_interval", "eval_episodes", "worker_timeout",
    "keep_buffer",
}  # fmt: skip
MOST_COPIES, MOST_STEPS = 10**6, 10**6
MOST_DECISIONS = 10**8  # of all copies between two updates: one feature of each takes 0.4 GB


def require(settings: Any, holds: bool, name: str, rule: str) -> None:
    """Raise ConfigError that `--name must RULE` unless it `holds`."""
    if not holds:
        value = getattr(settings, name)
        shown = spelled(value) if name in PER_AGENT else value
        raise ConfigError(f"--{name.replace('_', '-')} must {rule} (got {shown})")


def require_range(settings: Any, **bounds: tuple[float, float]) -> None:
    """Raise ConfigError unless every setting named lies between its bounds."""
    for name, (low, high) in bounds.items():
        require(settings, low <= getattr(settings, name) <= high, name, f"be in [{low}, {high}]")


def require_positive(settings: Any, *names: str) -> None:
    """Raise ConfigError unless every setting named is above 0, and no larger than what can be reckoned with."""
    for name in names:
        require(settings, getattr(settings, name) > 0, name, "be > 0")
        require(settings, getattr(settings, name) <= LARGEST, name, f"be at most {LARGEST:g}")


def require_at_least_one(settings: Any, *names: str) -> None:
    """Raise ConfigError unless every setting named is 1 or more."""
    for name in names:
        require(settings, getattr(settings, name) >= 1, name, "be at least 1")


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """The settings of one algorithm, a frozen dataclass of its own; every field is a flag of rqe-train.

    family: under which name a recipe has settings for algorithms of this kind alone.
    defaults: what the algorithm changes in the recipes of environments.
    """

    family: ClassVar[str] = ""
    defaults: ClassVar[dict[str, Any]] = {}

    @property
    def label(self) -> str:
        """The part of a run folder's name that tells these settings from others of the algorithm."""
        return ""

    def check(self, run: "TrainConfig") -> None:
        """Raise ConfigError where settings contradict each other, or those of the `run`."""

    def check_environment(self, env: BatchedEnv) -> None:
        """Raise ConfigError where the algorithm cannot learn in `env`."""

    def notes(self, env: BatchedEnv) -> list[str]:
        """What a user should know about these settings before a run."""
        return []

    def wrap(self, env: BatchedEnv, gamma: float) -> BatchedEnv:
        """The environment as the algorithm needs to see it, in training and in evaluation alike."""
        return env


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Generic[AlgoConfig, EnvConfig]):
    """Train agents, or go on with a run: rqe-train --resume FOLDER.

    Flags of the algorithm and of the environment come last; defaults are those of the recipe for the chosen `--env`,
    `--scenario` and `--algo`.
    """

    env: Annotated[str, arg(help=ENV_HELP)] = "sumo"
    scenario: str = "default"
    """Named setting of the environment's own flags."""
    algo: Annotated[str, arg(help=ALGO_HELP)] = "rqe-mappo"
    seed: int = 1
    """Seed of everything random."""
    total_timesteps: int = 1_000_000
    """Training length, counted in decisions of single agents."""
    device: str = "cpu"
    """Where the networks live: cpu, cuda, cuda:1, ..."""
    out: str | None = None
    """Run folder (default: runs/ENV__tau..__eps..__s..__TIME)."""

    num_envs: int = 64
    """Copies of the environment stepped together."""
    num_workers: int = 0
    """Processes that step them; 0 steps them in this process."""
    worker_timeout: float = 60.0
    """Seconds after which such a process that gives no answer counts as hung and is replaced."""
    num_steps: int = 64
    """Decisions per copy between two updates."""
    gamma: float = 0.99
    """Discount factor."""
    time_limit: Literal["terminal", "bootstrap"] = "bootstrap"
    """What the end of the horizon means: 'terminal' where the remaining time is observed, else 'bootstrap'."""

    keep: int = 3
    """Newest checkpoints kept."""
    save_interval: int = 50
    """Updates between checkpoints."""
    log_interval: int = 10
    """Updates between rows of metrics.csv."""
    eval_episodes: int = 256
    """Episodes of the evaluation after training (0: none)."""

    algorithm: Annotated[AlgoConfig, OmitArgPrefixes]
    env_config: Annotated[EnvConfig, OmitArgPrefixes, arg(name="environment")]

    def __post_init__(self):
        wanted = registry.algorithm(self.algo).Config
        if type(self.algorithm) is not wanted:
            raise ConfigError(f"--algo {self.algo} has other settings: use default_config(env, scenario, algo)")
        require_range(
            self, gamma=(0, 1), seed=(0, 2**31 - 1), num_workers=(0, math.inf), eval_episodes=(0, math.inf)
        )  # fmt: skip
        require_positive(self, "worker_timeout")
        require(self, self.worker_timeout <= LONGEST_S, "worker_timeout", f"be at most {LONGEST_S:g}")
        require_at_least_one(
            self, "total_timesteps", "num_envs", "num_steps", "keep", "save_interval", "log_interval"
        )  # fmt: skip
        require_range(self, num_envs=(1, MOST_COPIES), num_steps=(1, MOST_STEPS))
        decisions = self.num_envs * self.num_steps
        require(self, decisions >= 2, "num_steps", "be at least 2 with --num-envs 1")
        most = MOST_DECISIONS // self.num_envs
        require(self, decisions <= MOST_DECISIONS, "num_steps", f"be at most {most} with --num-envs {self.num_envs}")
        divides = self.num_workers == 0 or self.num_envs % self.num_workers == 0
        require(self, divides, "num_workers", f"divide --num-envs {self.num_envs}")
        bounded = self.gamma < 1 or self.time_limit == "terminal"
        require(self, bounded, "gamma", "be < 1 where time limits are bootstrapped (or use --time-limit terminal)")
        named = getattr(self.env_config, "name", self.env)
        if registry.environment(self.env) is registry.BY_NAME and named != self.env:
            # a file could name another module here than the one for which --trust is asked
            raise ConfigError(f"--name must be what --env says, {self.env} (got {named}): leave it out")
        self.algorithm.check(self)

    def replace(self, **changes: Any) -> Self:
        """A copy with other settings, of the run, its algorithm or its environment, each by its own name.

        >>> config.replace(total_timesteps=10_000, tau=0.3, collision_cost=50.0)

        Lists count as tuples, whole numbers as floats, and NumPy's as Python's. Raises ConfigError for a name that none
        of the three has, and for a value of another type.
        """
        nested = {name: getattr(self, name) for name in PARTS}
        parts: dict[str, dict[str, Any]] = {name: {} for name in nested}
        own: dict[str, Any] = {}
        for name, value in changes.items():
            if name in _names(self):
                own[name] = value if name in PARTS else _typed(self, name, value)
                continue
            owner = next((part for part, settings in nested.items() if name in _names(settings)), None)
            if owner is None:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} is no setting of --algo {self.algo} with --env {self.env}")
            parts[owner][name] = _typed(nested[owner], name, value)
        for part, values in parts.items():
            if values:
                own[part] = dataclasses.replace(own.get(part, nested[part]), **values)
        return dataclasses.replace(self, **own)

    def flat(self) -> dict[str, Any]:
        """All settings by their own names: the run's, the algorithm's, the environment's."""
        parts = (self, self.algorithm, self.env_config)
        known = {name: getattr(part, name) for part in parts for name in _names(part)}
        return {name: value for name, value in known.items() if name not in PARTS}

    @property
    def run_name(self) -> str:
        """The part of a run folder's name that depends on the settings alone."""
        algo = "" if self.algo == "rqe-mappo" else "__" + self.algo.replace(":", "-")
        return f"{self.env.replace(':', '-')}{algo}{self.algorithm.label}__s{self.seed}"


def _typed(settings: Any, name: str, value: Any) -> Any:
    """A value as the type of its setting, as it will be read again from config.json."""
    kind = typing.get_type_hints(type(settings), include_extras=True)[name]
    plain = value.item() if isinstance(value, np.generic) else value
    if dataclasses.is_dataclass(plain):
        return plain  # which is made of dicts only where it is read
    if isinstance(plain, float) and math.isnan(plain):
        return plain  # that no setting may be, as each says itself
    try:
        return schema.read(kind, plain, f"--{name.replace('_', '-')}")
    except schema.SchemaError as error:
        raise ConfigError(str(error)) from None


def _names(settings: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(settings))


def default_config(env: str, scenario: str = "default", algo: str = "rqe-mappo") -> TrainConfig:
    """The recipe of an environment: its settings, and the run's and the algorithm's defaults for it."""
    config = _recipe(env, scenario, algo)
    registry.vouch(env, algo)
    return config


def _recipe(env: str, scenario: str, algo: str) -> TrainConfig:
    env_config, kind = _scenario(env, scenario), registry.algorithm(algo).Config
    recipe = registry.load(registry.environment(env).recipe)(scenario)
    recipe = recipe | kind.defaults | recipe.get(kind.family, {})  # the recipe's own dict stays as it is
    own = {name: value for name, value in recipe.items() if name in _names(kind)}
    run = {name: value for name, value in recipe.items() if name in _names(TrainConfig)}
    return TrainConfig(env=env, scenario=scenario, algo=algo, env_config=env_config, algorithm=kind(**own), **run)


def _scenario(env: str, scenario: str) -> Any:
    """The environment's settings under a name."""
    scenarios = registry.scenarios(env)
    if scenario not in scenarios:
        raise ConfigError(f"--scenario {scenario} is unknown for --env {env}: use {', '.join(scenarios)}")
    return scenarios[scenario]


def type_of(config: TrainConfig) -> Any:
    """The type of `config` with those of its nested settings, from which the command line is built."""
    generic: Any = TrainConfig
    return generic[type(config.algorithm), type(config.env_config)]


def to_json(config: TrainConfig) -> str:
    """Settings as JSON; infinity is written as the string "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, float) and math.isinf(value) else value

    return json.dumps(plain(dataclasses.asdict(config)), indent=2)


def from_file(path: Path) -> TrainConfig:
    """The settings in a run's config.json; see `from_json`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None
    return from_json(text, str(path))


def from_json(text: str, place: str = "config.json") -> TrainConfig:
    """The settings that `to_json` wrote; names that are newer than the text change nothing, whatever recipes say now.

    place: where the text was found, for the message. Raises ConfigError for names that are unknown, values of another
    type, and settings that no command line could have asked for.
    ValueError where they name code of a module that the user has not named himself (`trust`).
    """
    fields = _plain(text, place)
    for flag in ("env", "algo"):
        registry.check_named_by_file(flag, fields[flag])
    try:
        plain = {
            "algorithm": registry.algorithm(fields["algo"]).Config(),
            "env_config": _scenario(fields["env"], fields["scenario"]),
        }
        return TrainConfig(**fields | {name: _filled(plain[name], fields[name], name) for name in PARTS})
    except ValueError as error:
        raise ConfigError(f"{place} does not hold the settings of a run ({error})") from None


def _filled(default: Any, values: dict[str, Any], place: str) -> Any:
    """`default` with every field replaced by what JSON kept of it."""
    return dataclasses.replace(default, **schema.fields(type(default), values, place))


def _plain(text: str, place: str = "config.json") -> dict[str, Any]:
    """The settings that `to_json` wrote, or an earlier version, with the two parts as they are; imports nothing."""
    try:
        known = upgrade.settings(schema.read(dict[str, Any], schema.parse_json(text, "it"), "it"))
        fields = schema.fields(TrainConfig, known, "", {"env", "scenario", "algo", *PARTS})
        return fields | {name: schema.read(dict[str, Any], fields[name], name) for name in PARTS}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        cause = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{place} does not hold the settings of a run ({cause})") from None


def flat_json(text: str) -> dict[str, Any]:
    """All settings that `to_json` wrote by their own names, as plain values; nothing that they name is imported."""
    fields = _plain(text)
    known = fields | fields["algorithm"] | fields["env_config"]
    for name in PER_AGENT:
        if name in known:
            known[name] = spelled(schema.read(PerAgent, known[name], name))
    return {name: value for name, value in known.items() if name not in PARTS}


def trust(path: Path) -> None:
    """Take the environment and the algorithm of a run folder or policy file as the user's own."""
    begun = path.is_file() or checkpoint.begun(path)
    text = checkpoint.load_policy_file(path)["config"] if begun else (path / "config.json").read_text()
    settings = _plain(text, str(path))
    registry.vouch(settings["env"], settings["algo"])
