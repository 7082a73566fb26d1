"""What console scripts do alike: parse flags, say in one line what the user can mend, read settings of rqe-train."""

import argparse
import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from rqe_mappo import config as configs
from rqe_mappo.config import ConfigError, TrainConfig

Parsed = TypeVar("Parsed")
CHANGEABLE_ON_RESUME = {
    "total_timesteps", "device", "keep", "save_interval", "log_interval", "eval_episodes", "worker_timeout",
}  # fmt: skip


def main(command: Callable[[list[str]], None], prog: str, args: Sequence[str] | None) -> None:
    """Run `command`; what the user can mend ends in one line and exit code 2, an interrupt in 130."""
    try:
        command(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt as stop:
        if str(stop):
            print(stop, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        fail(prog, str(error))


def fail(prog: str, message: str) -> NoReturn:
    """One line on standard error, exit code 2."""
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def parse(kind: type[Parsed], prog: str, args: list[str], default: Any = None) -> Parsed:
    """tyro's parse, its boxed errors reduced to one line."""
    said = io.StringIO()
    keywords = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=prog, args=args, **keywords)
    except SystemExit as stop:
        if not stop.code:
            raise
        # a title, then paragraphs between rules, in a box or (where the terminal knows no boxes) without one
        body = "\n".join(line.strip(" │") for line in said.getvalue().splitlines()[1:])
        paragraphs = [part for part in re.split(r"[─╰╯\-]{9,}", body) if part.strip()]
        own = r"^Error parsing \S+: (?=--)"  # our own messages name the flag themselves
        message = re.sub(own, "", " ".join(paragraphs[0].split()))
        fail(prog, f"{message} (see {prog} --help)")


def train_config(args: list[str]) -> tuple[TrainConfig, Path | None]:
    """The settings that a command line asks for, and the run folder to go on from, if any."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("env", "scenario", "algo"):
        first.add_argument(f"--{name}")
    first.add_argument("--resume", type=Path)
    try:
        chosen, rest = first.parse_known_args(args)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    if chosen.resume is None:
        default = configs.default_config(chosen.env or "sumo", chosen.scenario or "default", chosen.algo or "rqe-mappo")
        return parse(configs.kind_of(default), "rqe-train", rest, default), None
    settings = chosen.resume / "config.json"
    if not settings.is_file():
        raise ConfigError(f"--resume {chosen.resume} is no run folder: it holds no config.json")
    default = configs.from_json(settings.read_text())
    for name in ("env", "scenario", "algo"):
        if getattr(chosen, name) not in (None, getattr(default, name)):
            raise ConfigError(f"--{name} cannot change on --resume: start a new run instead")
    config = parse(configs.kind_of(default), "rqe-train", rest, default)
    changed = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != getattr(default, f.name)}
    if changed - CHANGEABLE_ON_RESUME:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(changed - CHANGEABLE_ON_RESUME))
        raise ConfigError(f"{flags} cannot change on --resume: start a new run instead")
    return config, chosen.resume
