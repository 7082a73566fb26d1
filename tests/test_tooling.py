"""The tree satisfies the linter and the formatter that contributors run, and its shapes are checked here."""

import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

from rqe_mappo.functional import categorical

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_tree_passes_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command.split(), "--no-cache", "."],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_shapes_in_signatures_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError, match=r"categorical\.mean"):
        categorical.mean(torch.ones(4), torch.ones(3, 5))
