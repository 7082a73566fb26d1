"""Hints are commands that can be pasted, whatever a folder is called."""

import re
import shlex
from pathlib import Path

from rqe_mappo.training.loop import Interrupted

NAME = "my runs; $(touch x) 'a'"
ROOT = Path(__file__).resolve().parent.parent
COMMAND = re.compile(r"(rqe-[a-z]+|--resume) (--\w+ )?\{(?!shlex\.)[^}]*(folder|path)[^}]*\}")


def test_an_interrupted_run_says_how_to_go_on():
    assert shlex.split(str(Interrupted(Path(NAME))).partition("with: ")[2]) == ["rqe-train", "--resume", NAME]


def test_no_hint_leaves_a_path_unquoted():
    """Commands in the source that name a path, as in rqe-train --resume {folder}, quote it."""
    files = [file for part in ("rqe_mappo", "sweeps", "envs", "baselines") for file in (ROOT / part).rglob("*.py")]
    lines = [(file.name, line) for file in files for line in file.read_text().splitlines()]
    assert COMMAND.search('f"rqe-train --resume {run.folder}"') and COMMAND.search('f"go on with --resume {folder}"')
    assert not [found for found in lines if COMMAND.search(found[1])]
