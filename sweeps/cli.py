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
        parser = _parser("rqe-plot", "Draw a sweep from its CSV files, as PNG and SVG.")
        for path in plots.draw(_folder(parser.parse_args(args))):
            print(path)

    main(command, "rqe-plot", args)


def report(args: Sequence[str] | None = None) -> None:
    """rqe-report: tables, plots and page of what has finished so far, or its main tables as text."""
    from rqe_mappo.sweeps import markdown
    from rqe_mappo.sweeps.sweep import write_outputs

    def command(args: list[str]) -> None:
        parser = _parser("rqe-report", "Collect what has finished, draw it and write one self-contained page.")
        parser.add_argument(
            "--markdown", action="store_true", help="print the main tables for a README, from the CSV files alone"
        )
        asked = parser.parse_args(args)
        if asked.markdown:
            print(markdown.text(_folder(asked)))
        else:
            write_outputs(_folder(asked))

    main(command, "rqe-report", args)


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.error = lambda message: fail(prog, f"{message} (see {prog} --help)")
    parser.add_argument("folder", type=Path, help="folder of rqe-sweep")
    return parser


def _folder(asked: argparse.Namespace) -> Path:
    if not asked.folder.is_dir():
        raise ConfigError(f"{asked.folder} is not a folder: give that of a sweep")
    return asked.folder.resolve()
