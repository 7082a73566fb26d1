"""`python -m rqe_mappo train ...`: all commands where console scripts are not on the path."""

import sys
from importlib import import_module

from rqe_mappo import __version__
from rqe_mappo.command_line import fail

COMMANDS = {
    "train": "rqe_mappo.cli:train",
    "eval": "rqe_mappo.cli:evaluate",
    "export": "rqe_mappo.deploy.export:command",
    "solve": "rqe_mappo.equilibrium.cli:main",
    "sweep": "rqe_mappo.sweeps.cli:sweep",
    "plot": "rqe_mappo.sweeps.cli:plot",
    "report": "rqe_mappo.sweeps.cli:report",
    "play": "rqe_mappo.live.cli:play",
}
"""The console scripts of pyproject.toml, without `rqe-`."""


def main(args: list[str]) -> None:
    """Run the command that the first of `args` names."""
    name, rest = (args[0], args[1:]) if args else ("--help", [])
    if name == "--version":
        print(f"rqe-mappo {__version__}")
    elif name in ("-h", "--help"):
        print(f"usage: python -m rqe_mappo {{{','.join(COMMANDS)}}} ...   (each has --help)")
    elif name not in COMMANDS:
        fail("rqe_mappo", f"there is no command {name}: use {', '.join(COMMANDS)}")
    else:
        module, _, function = COMMANDS[name].partition(":")
        getattr(import_module(module), function)(rest)


if __name__ == "__main__":
    main(sys.argv[1:])
