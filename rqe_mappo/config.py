"""What a run is: frozen settings that the command line, the learner and the checkpoint read."""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import torch
from tyro.conf import OmitArgPrefixes, arg
from tyro.constructors import PrimitiveConstructorSpec

from rqe_mappo import registry
from rqe_mappo.functional.risk import GRAMMAR, RiskMeasure, parse_risk

Knobs = TypeVar("Knobs")
Own = TypeVar("Own")
Advantage = Literal["influence", "static", "nested", "value", "rqe"]


class ConfigError(ValueError):
    """A setting that cannot be; the message names the flag and the mend, in one line."""


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


@dataclass(frozen=True)
class Options:
    """The settings that one algorithm adds to those of all; rqe-mappo, the default, adds none.

    defaults: what the algorithm changes in an environment's recipe.
    critic_values: how many numbers its critic foretells of the return; 0: the whole law.
    critic_sees_obs: the critic sees each agent's observation instead of the global state.
    keeps_past: its learner needs to know what the episodes under way have brought so far (`envs.history`).
    """

    defaults: ClassVar[dict[str, Any]] = {}
    critic_values: ClassVar[int] = 0

    @property
    def critic_sees_obs(self) -> bool:
        return False

    @property
    def keeps_past(self) -> bool:
        return False

    def check(self, config: "TrainConfig") -> None:
        """Raise ConfigError for settings of the run that the algorithm would not heed."""


@dataclass(frozen=True)
class TrainConfig(Generic[Knobs, Own]):
    """Train risk-averse agents with RQE-MAPPO, or a rival of it with `--algo`.

    The defaults below are those of the chosen `--env`, `--scenario` and `--algo`; flags of the environment and of the
    algorithm itself come last.
    """

    knobs: Annotated[Knobs, OmitArgPrefixes]

    env: str = "sumo"
    """Environment: sumo, sumo-signals, cartpole; gamble, matrix, cliff; gymnasium:ID, pettingzoo:MODULE."""
    scenario: str = "default"
    """Named setting of the environment's own flags."""
    algo: Annotated[str, arg(help=f"Algorithm: {', '.join(registry.ALGORITHMS)} (docs/baselines.md).")] = "rqe-mappo"
    tau: PerAgent = 1.0
    """Risk tolerance in units of the return's std: inf neutral, 0.3 strongly averse; 0.3,1,inf for each of three."""
    eps: PerAgent = 0.01
    """Bounded rationality: fixed weight of the entropy bonus (no clip range, no exploration rate); or one an agent."""
    risk: Annotated[str, arg(help=f"Risk measure: {GRAMMAR}; --tau counts for entropic and mean-variance.")] = (
        "entropic"
    )
    advantage: Advantage = "influence"
    """Whose risk: of states (influence), episodes (static), steps (nested), equilibria (rqe); value: GAE on V_tau."""
    discount_tau: bool = False
    """Divide tau by gamma^t at step t: with --advantage influence the entropic risk of the episode."""
    regulariser: Literal["entropy", "log-barrier"] = "entropy"
    """What --eps weighs: the policy's entropy, or the sum of log-probabilities."""
    rqe_form: Literal["action", "aggregate"] = "action"
    """With --advantage rqe: does the adversary see the agent's own action, or only its policy?"""
    rqe_penalty: Literal["kl", "reverse-kl"] = "kl"
    """With --advantage rqe: the adversary's cost of departing from the others' policies; kl is entropic risk."""
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
    gae_lambda: float = 0.95
    """Lambda of the return targets and advantages."""
    time_limit: Literal["terminal", "bootstrap"] = "bootstrap"
    """What the end of the horizon means: 'terminal' where the remaining time is observed, else 'bootstrap'."""

    learning_rate: float = 1e-3
    """Adam step size of the actors."""
    critic_learning_rate: float = 2e-3
    """Adam step size of the critic; too small a value left SUMO drivers stuck at 'always go'."""
    anneal_lr: bool = True
    """Lower both step sizes linearly to 5 % over the run."""
    num_minibatches: int = 4
    """Minibatches per epoch."""
    update_epochs: int = 4
    """Passes over a rollout for the actors."""
    critic_epochs: int = 4
    """Passes over a rollout for the critic."""
    clip_coef: float = 0.2
    """PPO's clip range."""
    norm_adv: bool = True
    """Divide advantages by their running std; the eps that then acts is logged as policy/effective_eps."""
    max_grad_norm: float = 0.5
    """Largest gradient norm, for actors and critic each."""
    shared_actor: bool = True
    """One actor for all agents (else one each)."""
    actor_hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of an actor (tanh)."""
    critic_hidden: tuple[int, ...] = (128, 64)
    """Hidden layers of the critic (ReLU)."""
    n_atoms: int = 201
    """Largest number of atoms of the return distribution; the support itself is chosen by the program."""

    risk_clip: float = 3.0
    """Largest exponent of the entropic influence, continued linearly beyond (keep clip * tau >= 1)."""
    warmup_fraction: float = 0.05
    """Share of the run that is risk-neutral and measures the return's std, the unit of tau."""
    risk_anneal_fraction: float = 0.3
    """Share of the run over which 1/tau then grows from 0."""
    return_scale: float | None = None
    """Unit of tau; measured in the warm-up unless given here."""

    critic_first: float = 0.0
    """Share of the run, at its start, in which only the critic learns."""
    settle: float = 0.0
    """Share of all steps, at their end, for the critic alone to learn the final policy's returns."""
    average: float = 0.0
    """Share of the actors' learning, at its end, whose mean weights become the final policy; needs --settle."""

    keep: int = 3
    """Newest checkpoints kept."""
    save_interval: int = 50
    """Updates between checkpoints."""
    log_interval: int = 10
    """Updates between rows of metrics.csv."""
    eval_episodes: int = 256
    """Episodes of the evaluation after training (0: none)."""

    options: Annotated[Own, OmitArgPrefixes, arg(name="algorithm")] = Options()

    def __post_init__(self):
        if type(self.options) is not registry.load(registry.algorithm(self.algo).options):
            raise ConfigError(
                f"--algo {self.algo} cannot go with the options of another: use default_config(..., algo)"
            )
        self.measures()
        self._require(all(0 <= eps < math.inf for eps in each_agent(self.eps)), "eps", "be in [0, inf)")
        for name, low, high in (
            ("gamma", 0, 1),
            ("gae_lambda", 0, 1),
            ("warmup_fraction", 0, 1),
            ("risk_anneal_fraction", 0, 1),
            ("critic_first", 0, 0.5),
            ("settle", 0, 0.49),
            ("average", 0, 0.5),
            ("seed", 0, 2**31 - 1),
            ("num_workers", 0, math.inf),
            ("eval_episodes", 0, math.inf),
        ):
            self._require(low <= getattr(self, name) <= high, name, f"be in [{low}, {high}]")
        for name in ("learning_rate", "critic_learning_rate", "clip_coef", "max_grad_norm", "risk_clip",
                     "worker_timeout"):  # fmt: skip
            self._require(0 < getattr(self, name) < math.inf, name, "be > 0")
        for name in ("total_timesteps", "num_envs", "num_steps", "num_minibatches", "update_epochs", "critic_epochs",
                     "keep", "save_interval", "log_interval"):  # fmt: skip
            self._require(getattr(self, name) >= 1, name, "be at least 1")
        self._require(self.num_envs * self.num_steps >= 2, "num_steps", "be at least 2 with --num-envs 1")
        self._require(self.n_atoms >= 5, "n_atoms", "be at least 5")
        self._require(self.settle > 0 or not self.average, "average", "be 0 without --settle, in which it takes effect")
        self._require(self.return_scale is None or self.return_scale > 0, "return_scale", "be > 0")
        self._require(all(n >= 1 for n in self.actor_hidden), "actor_hidden", "hold positive widths")
        self._require(all(n >= 1 for n in self.critic_hidden), "critic_hidden", "hold positive widths")
        self._require(
            self.num_workers == 0 or self.num_envs % self.num_workers == 0,
            "num_workers",
            f"divide --num-envs {self.num_envs}",
        )
        self._require(
            self.gamma < 1 or self.time_limit == "terminal",
            "gamma",
            "be < 1 where time limits are bootstrapped (or use --time-limit terminal)",
        )
        if self.discount_tau and self.advantage != "influence":
            raise ConfigError("--discount-tau goes with --advantage influence only: leave it out")
        if self.advantage == "rqe":
            if self.risk not in ("entropic", "neutral"):
                raise ConfigError(f"--advantage rqe has no --risk {self.risk}: use entropic (or --rqe-penalty)")
            if self.time_limit != "terminal":
                raise ConfigError("--advantage rqe solves finite games: use --time-limit terminal")
            self._require(not self.average, "average", "be 0 with --advantage rqe, which climbs to a point")
        self.options.check(self)

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = spelled(value) if name in ("tau", "eps") else value
            raise ConfigError(f"--{name.replace('_', '-')} must {rule} (got {shown})")

    def attitudes(self, n_agents: int | None = None) -> tuple[list[tuple[float, float]], tuple[int, ...]]:
        """The different pairs of tau and eps, and the index of each agent's pair among them (one for all if alike).

        Raises ConfigError if `n_agents` is given and `--tau` or `--eps` names another number of them.
        """
        lists = {name: each_agent(getattr(self, name)) for name in ("tau", "eps")}
        n = max(len(values) for values in lists.values()) if n_agents is None else n_agents
        for name, values in lists.items():
            if len(values) not in (1, n):
                raise ConfigError(
                    f"--{name} {spelled(values)} names {len(values)} agents where there are {n}: "
                    "give one value for all, or one for each"
                )
            lists[name] = values * n if len(values) == 1 else values
        pairs = list(zip(lists["tau"], lists["eps"], strict=True))
        different = list(dict.fromkeys(pairs))
        return different, tuple(different.index(pair) for pair in pairs)

    def measures(self) -> list[RiskMeasure]:
        """The risk measure of each attitude at full strength, `tau` still in units of the return's std."""
        try:
            measures = [parse_risk(self.risk, tau, clip=self.risk_clip) for tau, _ in self.attitudes()[0]]
            if measures[0].evaluation_only:
                raise ValueError(measures[0].evaluation_only)
            if self.advantage == "nested":
                measures[0].utility(torch.zeros(1))
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return measures

    def progress(self, step: int) -> float:
        """The share of the run that is over after `step` decisions; above 1 while the critic settles."""
        return step / (self.total_timesteps * (1 - self.settle))

    @property
    def run_name(self) -> str:
        """The part of a run folder's name that depends on the settings alone."""
        risk = "" if self.risk == "entropic" else "__" + self.risk.replace(":", "")
        env, algo = self.env.replace(":", "-"), "" if self.algo == "rqe-mappo" else "__" + self.algo
        return f"{env}{algo}{risk}__tau{spelled(self.tau)}__eps{spelled(self.eps)}__s{self.seed}"


def default_config(env: str, scenario: str = "default", algo: str = "rqe-mappo") -> TrainConfig:
    """The recipe of an environment: its settings and the learner's defaults for it, as `algo` changes them."""
    entry = registry.environment(env)
    scenarios = registry.load(entry.scenarios)
    if scenario not in scenarios:
        raise ConfigError(f"--scenario {scenario} is unknown for --env {env}: use {', '.join(scenarios)}")
    knobs = scenarios[scenario]
    if entry is registry.BY_NAME:
        knobs = dataclasses.replace(knobs, name=env)
    recipe = registry.load(entry.recipe)(scenario, knobs)
    options = registry.load(registry.algorithm(algo).options)()
    return dataclasses.replace(recipe, algo=algo, options=options, **options.defaults)


def kind_of(config: TrainConfig) -> Any:
    """The type of `config` with those of its nested settings, from which the command line is built."""
    return TrainConfig[type(config.knobs), type(config.options)]


def to_json(config: TrainConfig) -> str:
    """Settings as JSON; infinity is written as the string "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, float) and math.isinf(value) else value

    return json.dumps(plain(dataclasses.asdict(config)), indent=2)


def from_json(text: str) -> TrainConfig:
    """The settings that `to_json` wrote; unknown names raise `ConfigError`, names that are newer have their default."""
    try:
        fields = json.loads(text)
        default = default_config(fields["env"], fields["scenario"], fields.get("algo", "rqe-mappo"))
        fields["knobs"] = _filled(default.knobs, fields["knobs"])
        fields["options"] = _filled(default.options, fields.get("options", {}))
        return _filled(default, fields)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"config.json does not hold the settings of a run ({type(error).__name__}: {error})"
        ) from None


def _filled(default: Any, values: dict[str, Any]) -> Any:
    """`default` with every field replaced by what JSON kept of it."""
    unknown = set(values) - {field.name for field in dataclasses.fields(default)}
    if unknown:
        raise ConfigError(f"config.json holds settings that this version does not know: {', '.join(sorted(unknown))}")
    types = typing.get_type_hints(type(default))

    def typed(name: str, value: Any) -> Any:
        if name in ("tau", "eps") and isinstance(default, TrainConfig):
            return tuple(map(float, value)) if isinstance(value, list) else float(value)
        if isinstance(value, list):
            return tuple(value)
        return float(value) if types[name] is float else value

    return dataclasses.replace(default, **{name: typed(name, value) for name, value in values.items()})
