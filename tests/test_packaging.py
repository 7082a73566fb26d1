"""What is installed is what is in the tree, imports point one way, and the documented commands are the tested ones."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
MAPPED = {"rqe_mappo": "rqe_mappo", "envs": "rqe_mappo/envs", "baselines": "rqe_mappo/baselines",
          "sweeps": "rqe_mappo/sweeps"}  # fmt: skip
HEAVY = ("libsumo", "traci", "sumo", "sumolib", "tensorboard", "tyro", "pettingzoo", "gymnasium", "scipy", "ray")


def python(*args: str, cwd: Path | None = None, path: Path | None = None) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def copy_of_the_tree(target: Path) -> Path:
    """What a build reads, without the traces that setuptools leaves in the source."""
    for folder in MAPPED:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel's contents, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_of_the_tree(folder / "source")
    built = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source))
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    target = folder / "installed"
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    return target


def files_of(folder: Path) -> set[str]:
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return {name for name in names if "__pycache__" not in name}


def test_wheel_holds_every_file_of_the_tree(installed):
    expected = {f"{mapped}/{name}" for folder, mapped in MAPPED.items() for name in files_of(ROOT / folder)}
    expected = {name for name in expected if not name.startswith("rqe_mappo/sweeps/results/")}  # measured, not needed
    assert "rqe_mappo/py.typed" in expected  # type checkers of users read our types
    assert {f"rqe_mappo/{name}" for name in files_of(installed / "rqe_mappo")} == expected


def test_wheel_imports_without_the_checkout(installed, tmp_path):
    code = "import rqe_mappo.envs.risky_cartpole as e, rqe_mappo.baselines, rqe_mappo.sweeps; print(e.__file__)"
    done = python("-c", code, cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(installed))


@pytest.mark.parametrize("name", ["envs", "baselines", "sweeps"])
def test_bare_import_from_the_checkout_fails_with_the_fix(name):
    done = python("-c", f"import {name}", cwd=ROOT)
    assert done.returncode == 1
    assert f"import rqe_mappo.{name}, not {name}" in done.stderr


def test_raw_checkout_finds_its_sibling_folders(tmp_path):
    checkout = copy_of_the_tree(tmp_path / "checkout")
    # without the finder that an editable install leaves in sys.meta_path
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        f"sys.path.insert(0, {str(checkout)!r}); import rqe_mappo.envs.contract as b; print(b.__file__)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(checkout / "envs" / "contract.py")


def test_imports_point_one_way(installed, tmp_path):
    """Read from the wheel: the analysis follows files, and an editable install is none to it."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    done = python("-c", code, str(ROOT / "pyproject.toml"), cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_types_are_clean(installed):
    """Checked in the wheel, since the type checker does not know the mapping of folders; settings of pyproject.toml."""
    shutil.copy(ROOT / "pyproject.toml", installed)
    options = ("--python", sys.executable, "--output-format", "concise", "--no-progress")
    done = python("-m", "ty", "check", *options, "rqe_mappo", cwd=installed)
    assert done.returncode == 0, done.stdout + done.stderr


def test_deploying_a_policy_loads_no_simulator_and_no_logger():
    code = f"import sys, rqe_mappo.deploy.policy; print([name for name in {HEAVY} if name in sys.modules])"
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_readme_tests_with_the_command_that_ci_runs():
    readme, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[1] in ci.splitlines()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def needed_by(requirement: Requirement, seen: set[str]) -> set[str]:
    """`seen`, and the names of all that `requirement` brings in here."""
    name = canonicalize_name(requirement.name)
    if name in seen:
        return seen
    seen.add(name)
    for text in requires(name) or []:
        inner = Requirement(text)
        if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
            needed_by(inner, seen)
    return seen


def test_constraints_pin_whatever_the_commands_install():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed: set[str] = set()
    for text in (*project["dependencies"], *extras["sumo"], *extras["signals"], *extras["test"]):
        needed_by(Requirement(text), needed)
    # Builds of PyTorch for an accelerator bring its libraries along, pinned by PyTorch itself.
    needed = {name for name in needed if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert needed <= pins().keys()


def test_constraints_satisfy_what_the_project_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in (
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ):
        requirement = Requirement(text)
        assert pins()[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_constraints_bring_no_accelerator_libraries():
    assert pins()["torch"] == "2.13.0"
    assert not [name for name in pins() if name.startswith(("nvidia", "cuda", "triton"))]
