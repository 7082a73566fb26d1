"""The runs of a sweep: settings, each a few flags of rqe-train, times seeds."""

import itertools
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rqe_mappo import registry
from rqe_mappo.config import ConfigError, per_agent, spelled

TAUS = ("0.3", "0.5", "1", "2", "10", "inf")
NOT_EVERYWHERE = ("exact-rqe", "central-q", "fcp")  # for games of tables, for agents who observe the same, for partners
NUMBERS = ("tau", "eps")  # written in one way, so that .3 and 0.30 name the same run


@dataclass(frozen=True)
class Setting:
    """One cell of a grid, run with several seeds.

    label: what tables and plots call it; no two settings share one.
    family, point: the label's parts on a plot: settings of a family share marker and line, `point` tells them apart.
    flags: what is varied, flag (without dashes) to value; a switch, such as `recurrent`, has none: "".
    """

    label: str
    family: str
    point: str
    flags: tuple[tuple[str, str], ...]

    @property
    def slug(self) -> str:
        """The label as a part of folder names."""
        words = [_written(*flag) for flag in self.flags]
        text = "__".join(words).replace(" ", "") if self.label == " ".join(words) else self.label.replace(" ", "-")
        return re.sub(r"[^\w.,+=-]+", "", text)

    @property
    def args(self) -> list[str]:
        """The flags as rqe-train takes them."""
        return [text for name, value in self.flags for text in (f"--{name}", value) if text]


def tau(values: Sequence[str], algo: str) -> list[Setting]:
    """One setting for each tau, most averse first."""
    if not values:
        raise ConfigError("--taus names no value: give some with commas between, as in 0.3,1,inf")
    values = sorted({number("tau", value) for value in values}, key=per_agent_order)
    return [Setting(f"tau {value}", algo, f"tau {value}", (("tau", value),)) for value in values]


def per_agent_order(text: str) -> tuple[float, ...]:
    """A sorting key: the numbers of a value that is written as text."""
    value = per_agent(text)
    return value if isinstance(value, tuple) else (value,)


def ablation(tau: str, eps: str) -> list[Setting]:
    """Risk aversion (`tau`) and bounded rationality (`eps`), each with and without the other."""
    parts = {
        "both": (tau, eps),
        "risk only": (tau, "0"),
        "rationality only": ("inf", eps),
        "neither": ("inf", "0"),
    }
    if per_agent_order(tau) == per_agent_order("inf") or not any(per_agent_order(eps)):
        raise ConfigError(f"rqe-sweep ablation switches --tau and --eps off: both must be on (got {tau} and {eps})")
    return [Setting(name, name, "", (("tau", t), ("eps", e))) for name, (t, e) in parts.items()]


def compare(rivals: Sequence[str]) -> list[Setting]:
    """One setting for each of `rivals`: the name of an algorithm, then its flags. All if there are none, but for
    those that are not for every environment: `NOT_EVERYWHERE`."""
    settings = []
    for text in rivals or [name for name in registry.ALGORITHMS if name not in NOT_EVERYWHERE]:
        try:
            name, *words = shlex.split(text)
        except ValueError:
            example = "as in 'rqe-mappo --tau 0.3'"
            raise ConfigError(f"--algo {text!r} is not an algorithm with its flags, {example}") from None
        registry.algorithm(name)
        flags = _pairs(words, text)
        point = " ".join(_written(*flag) for flag in flags)
        settings.append(Setting(f"{name} {point}".strip(), name, point, (("algo", name), *flags)))
    return settings


def grid(axes: Sequence[str], algo: str) -> list[Setting]:
    """The product of `axes`, each `flag=value,value`, or `flag=value;value` where values hold commas."""
    values: dict[str, list[str]] = {}
    for text in axes:
        name, equals, listed = text.partition("=")
        found = [value.strip() for value in re.split(";" if ";" in listed else ",", listed) if value.strip()]
        if not (re.fullmatch(r"[a-z][a-z0-9-]*", name) and equals and found):
            raise ConfigError(f"--grid {text} is not a grid: use a flag of rqe-train and values, as in tau=0.3,1,inf")
        if name in values or name == "seed":
            raise ConfigError(f"--grid {name} is given twice" if name in values else "--grid seed: use --seeds 5")
        values[name] = list(dict.fromkeys(number(name, value) for value in found))
    settings = []
    for chosen in itertools.product(*values.values()):
        flags = tuple(zip(values, chosen, strict=True))
        words = {name: f"{name} {value}" for name, value in flags}
        others = " ".join(text for name, text in words.items() if name != "tau")
        family, point = (others or algo, words["tau"]) if "tau" in words else (others, "")
        settings.append(Setting(" ".join(words.values()), family, point, flags))
    return settings


def refuse(common: Iterable[str]) -> None:
    """Raise ConfigError for flags of rqe-train that rqe-sweep sets itself."""
    for word in common:
        if word.split("=")[0] in ("--out", "--resume", "--eval-episodes"):
            raise ConfigError(f"{word} is set by rqe-sweep for each run: use its own --out and --episodes")
        if word.split("=")[0] == "--seed":
            raise ConfigError("--seed is what every sweep varies: use --seeds and --first-seed")


def check(settings: Sequence[Setting], common: Iterable[str]) -> None:
    """Raise ConfigError where settings would share a folder, or `common` flags set what the settings vary."""
    slugs = [setting.slug for setting in settings]
    if twice := {slug for slug in slugs if slugs.count(slug) > 1}:
        raise ConfigError(f"two settings would share the name {min(twice)}: give each once")
    varied = {f"--{name}" for setting in settings for name, _ in setting.flags}
    for word in common:
        flag = word.split("=")[0]
        if flag in varied:
            fix = ", or use --taus" if flag == "--tau" else ""
            raise ConfigError(f"{flag} is what this sweep varies: leave it out{fix}")


def _pairs(words: Sequence[str], text: str) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, _, value = word.removeprefix("--").partition("=")
            pairs.append((name, value))
        elif pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], word)
        else:
            raise ConfigError(f"--algo '{text}': {word} follows no flag; write flags and values, as in "
                              "'rqe-mappo --tau 0.3' or 'qmix --recurrent'")  # fmt: skip
    return tuple((name, number(name, value)) for name, value in pairs)


def _written(name: str, value: str) -> str:
    return f"{name} {value}".strip()


def number(name: str, value: str) -> str:
    if name not in NUMBERS:
        return value
    try:
        return spelled(per_agent(value))
    except ValueError as error:
        raise ConfigError(f"--{name} {error}") from None
