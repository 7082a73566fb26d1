"""Import paths of version 0.1 lead to the modules that took their place."""

import importlib
import subprocess
import sys

import pytest

from rqe_mappo._moved import MOVED


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_path_gives_the_very_module(old, new):
    module = importlib.import_module(f"rqe_mappo.{new}")
    assert importlib.import_module(f"rqe_mappo.{old}") is module
    assert module.__name__ == module.__spec__.name == f"rqe_mappo.{new}"


def test_what_was_imported_from_them_is_the_same_class_whichever_comes_first():
    code = (
        "from rqe_mappo.policy import Policy as old; from rqe_mappo.deploy.policy import Policy as new; "
        "from rqe_mappo.interpolation import interpolate; import rqe_mappo.export, rqe_mappo.hub; print(old is new)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_names_that_never_were_are_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("rqe_mappo.nothing")
