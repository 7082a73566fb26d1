"""What console scripts do alike: parse flags, report errors in one line, read settings of rqe-train."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import signal
import sys
import threading
import typing
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from rqe_mappo import __version__, registry
from rqe_mappo import config as configs
from rqe_mappo.config import ConfigError, TrainConfig

Parsed = TypeVar("Parsed")
ABOUT_RISK = {
    "--tau", "--risk", "--advantage", "--warmup-fraction", "--risk-anneal-fraction", "--return-scale",
}  # fmt: skip
ABOUT_TRAIN = """Train agents, or go on with a run.

--resume FOLDER   Go on from the newest checkpoint of a run folder, with its settings. Of these --total-timesteps,
                  --device, --keep, --keep-buffer, --save-interval, --log-interval, --eval-episodes and
                  --worker-timeout may change.
--trust           With --resume: the run is your own. Import the environment or algorithm of a module that it names.
--version         Print the version.

Flags of the algorithm and of the environment come last; defaults are those of the recipe for the chosen --env,
--scenario and --algo."""


def main(command: Callable[[list[str]], None], prog: str, args: Sequence[str] | None) -> None:
    """Run `command`; what the user can fix ends in one line and exit code 2, Ctrl-C and SIGTERM in 130."""
    given = list(sys.argv[1:] if args is None else args)
    if "--version" in given:
        print(f"{prog} of rqe-mappo {__version__}")
        return
    try:
        try:
            with _ended_by_sigterm():
                command(given)
        finally:
            _flush()  # at the end of the process an error could no longer be told
    except KeyboardInterrupt as stop:
        if str(stop):
            print(stop, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        _drop_output()
        sys.exit(141)
    except MemoryError as error:
        fail(prog, f"not enough memory ({error}): ask for less, such as a smaller --num-envs or --num-steps")
    except (ValueError, ImportError, OSError, RuntimeError, OverflowError) as error:
        fail(prog, str(error))


@contextlib.contextmanager
def _ended_by_sigterm() -> Generator[None]:
    """Within, SIGTERM acts as Ctrl-C does, so that temporary files and processes are put away."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _flush() -> None:
    """Write what was printed; OSError that says so where that is impossible."""
    try:
        print(end="", flush=True)  # there may be no standard output
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"standard output cannot be written ({error.strerror})") from None


def _drop_output() -> None:
    """Write standard output to nowhere, so that Python does not stumble over it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(prog: str, message: str) -> NoReturn:
    """One line on standard error, exit code 2."""
    line = f"{prog}: {' '.join(message.split())}"
    print(line.encode(errors="backslashreplace").decode(), file=sys.stderr)  # a lone surrogate has no encoding
    try:
        _flush()
    except OSError:  # which is what the line was about
        _drop_output()
    sys.exit(2)


def whole_number(text: str) -> int:
    """`"1000000"`, `"1_000_000"` or `"1e6"`; ValueError for what is no whole number of 64 bits."""
    for read in (int, float):
        with contextlib.suppress(ValueError):
            value = read(text)
            if abs(value) < 2**63 and value == int(value):
                return int(value)
    raise ValueError(f"{text} is no whole number that fits 64 bits")


READERS = ConstructorRegistry()
"""How the command line reads what a type says, where tyro would do it another way."""


@READERS.primitive_rule
def _whole_numbers(known: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    if known.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


@READERS.primitive_rule
def _from_files(known: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Where a type has `from_file`: the flag names a file, and the setting is what the file holds, or None."""
    kinds: list[Any] = [known.type, *typing.get_args(known.type)]
    kind = next((each for each in kinds if hasattr(each, "from_file")), None)
    if kind is None:
        return None
    read = kind.from_file
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FILE",
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: ["none" if value is None else "as in the run"],
    )


def parse(kind: type[Parsed], prog: str, args: list[str], default: Any = None, about: str | None = None) -> Parsed:
    """tyro's parse, its boxed errors reduced to one line.

    about: what `--help` says first, instead of the docstring of `kind`.
    """
    said = io.StringIO()
    keywords: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=prog, args=args, description=about, registry=READERS, **keywords)
    except SystemExit as stop:
        if not stop.code:
            raise
        # a title, then paragraphs between rules, in a box or (where the terminal knows no boxes) without one
        body = "\n".join(line.strip(" │") for line in said.getvalue().splitlines()[1:])
        paragraphs = [part for part in re.split(r"[─╰╯\-]{9,}", body) if part.strip()]
        own = r"^Error parsing \S+: (?=--)"  # our own messages name the flag themselves
        message = re.sub(own, "", " ".join(paragraphs[0].split()))
        if unknown := re.match(r"Unrecognized options: (--[^\s,=]+)", message):
            message = f"{unknown[1]} is no flag{_meant(unknown[1], kind, **keywords)}"
        fail(prog, f"{message} (see {prog} --help)")


def _meant(flag: str, kind: Any, **keywords: Any) -> str:
    """Which flag of the help looks like an unknown one."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], registry=READERS, **keywords)
    close = difflib.get_close_matches(flag, re.findall(r"--[a-z][a-z0-9-]*", said.getvalue()), 1, cutoff=0.75)
    return f": do you mean {close[0]}?" if close else ""


def train_config(args: list[str]) -> tuple[TrainConfig, Path | None]:
    """The settings that a command line asks for, and the run folder to go on from, if any."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("env", "scenario", "algo"):
        first.add_argument(f"--{name}")
    first.add_argument("--resume", type=Path)
    first.add_argument("--trust", action="store_true")
    try:
        chosen, rest = first.parse_known_args(_spelled_out(args))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    if chosen.resume is None:
        default = configs.default_config(chosen.env or "sumo", chosen.scenario or "default", chosen.algo or "rqe-mappo")
        return _parsed(rest, default), None
    settings = chosen.resume / "config.json"
    if not settings.is_file():
        raise ConfigError(f"--resume {chosen.resume} is no run folder, it holds no config.json: begin a run with --out")
    registry.vouch(*filter(None, (chosen.env, chosen.algo)))
    if chosen.trust:
        configs.trust(chosen.resume)
    default = configs.from_file(settings)
    for name in ("env", "scenario", "algo"):
        if getattr(chosen, name) not in (None, getattr(default, name)):
            raise ConfigError(f"--{name} cannot change on --resume: start a new run instead")
    config = _parsed(rest, default)
    before = default.flat()
    changed = {name for name, value in config.flat().items() if value != before[name]}
    if kept := sorted(changed - configs.CHANGEABLE_ON_RESUME):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in kept)
        raise ConfigError(f"{flags} cannot change on --resume: start a new run instead")
    return config, chosen.resume


def _spelled_out(args: list[str]) -> list[str]:
    """`--advantage rqe` is another spelling of `--algo exact-rqe`."""
    joined = [part for word in args for part in (word.split("=", 1) if word.startswith("--advantage=") else [word])]
    for index, word in enumerate(joined[:-1]):
        if word == "--advantage" and joined[index + 1] == "rqe":
            rest = joined[:index] + joined[index + 2 :]
            return rest if "exact-rqe" in rest else [*_without_algo(rest), "--algo", "exact-rqe"]
    return joined


def _without_algo(args: list[str]) -> list[str]:
    """The flags without `--algo rqe-mappo`, of which exact-rqe was a form."""
    for index, word in enumerate(args[:-1]):
        if word == "--algo" and args[index + 1] == "rqe-mappo":
            return args[:index] + args[index + 2 :]
    return args


def _parsed(args: list[str], default: TrainConfig) -> TrainConfig:
    """The flags on top of `default`; a flag of other algorithms is refused with their names."""
    known = _flags_of(default) | _flags_of(default.algorithm) | _flags_of(default.env_config)
    for word, following in itertools.pairwise([*args, "--"]):
        flag, _, value = word.partition("=")
        plain = flag.replace("--no-", "--", 1).replace("_", "-")
        if not flag.startswith("--") or plain in known:
            continue
        kinds = {name: registry.algorithm(name).Config for name in registry.ALGORITHMS}
        if owners := [name for name, kind in kinds.items() if plain in _flags_of(kind)]:
            asked = " ".join((flag, value or ("" if following.startswith("--") else following))).strip()
            raise ConfigError(_refusal(default.algo, plain, asked, owners, known))
    return parse(configs.type_of(default), "rqe-train", args, default, ABOUT_TRAIN)


def _refusal(algo: str, flag: str, asked: str, owners: list[str], known: set[str]) -> str:
    """Why `--algo ALGO` has not the flag that was `asked` for, and which do."""
    averse = " and ".join(name for name in ("--tau", "--rqe-penalty", "--level", "--env-level") if name in known)
    neutral = flag in ABOUT_RISK and not averse and getattr(registry.algorithm(algo), "risk", algo) is None
    instead = f", {averse} {'say' if ' ' in averse else 'says'} how averse" if flag == "--risk" and averse else ""
    *others, last = owners
    which = f"{', '.join(others)} or {last}" if others else last
    return (
        f"--algo {algo} {'is risk-neutral and ' if neutral else ''}has no {asked}: "
        f"leave it out{instead}, or use --algo {which}"
    )


def _flags_of(settings: Any) -> set[str]:
    """The flags of a dataclass, or of an instance, that the command line shows."""
    types = typing.get_type_hints(settings if isinstance(settings, type) else type(settings), include_extras=True)
    shown = [
        field.name
        for field in dataclasses.fields(settings)
        if tyro.conf.Suppress not in getattr(types[field.name], "__metadata__", ())
    ]
    return {f"--{name.replace('_', '-')}" for name in shown}
