"""Measurements: each module is a command, each result a small file in benchmarks/results/."""

import argparse


def without_options(about: str | None) -> None:
    """For commands that have no options: `--help` says what they do and runs nothing, and all else is refused."""
    argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
