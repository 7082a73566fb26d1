"""The console scripts `rqe-sweep`, `rqe-plot` and `rqe-report`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rqe_mappo.command_line import fail, main
from rqe_mappo.config import ConfigError


def sweep(args: Sequence[str] | None = None) -> None:
    """rqe-sweep: a grid of runs, its tables, plots and page."""
    from rqe_mappo.sweeps.sweep import sweep as run

    def command(args: list[str]) -> None:
        if code := run(args):
            sys.exit(code)

    main(command, "rqe-sweep", args)


def plot(args: Sequence[str] | None = None) -> None:
    """rqe-plot: draw a sweep from its tables alone."""
    from rqe_mappo.sweeps import plots

    def command(args: list[str]) -> None:
        for path in plots.draw(_folder("rqe-plot", "Draw a sweep from its CSV files, as PNG and SVG.", args)):
            print(path)

    main(command, "rqe-plot", args)


def report(args: Sequence[str] | None = None) -> None:
    """rqe-report: tables, plots and page of what has finished so far."""
    from rqe_mappo.sweeps.sweep import write_outputs

    def command(args: list[str]) -> None:
        description = "Collect what has finished, draw it and write one self-contained page."
        write_outputs(_folder("rqe-report", description, args))

    main(command, "rqe-report", args)


def _folder(prog: str, description: str, args: list[str]) -> Path:
    parser = argparse.ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.error = lambda message: fail(prog, f"{message} (see {prog} --help)")
    parser.add_argument("folder", type=Path, help="folder of rqe-sweep")
    folder = parser.parse_args(args).folder
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder: give that of a sweep")
    return folder.resolve()
