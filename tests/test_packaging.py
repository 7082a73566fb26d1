"""What is installed is what is in the tree, imports point one way, and the documented commands are the tested ones."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel's contents, unpacked; built from a copy, since setuptools leaves its traces in the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = tracked.stdout.split() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()]
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    built = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source))
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    target = folder / "installed"
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    return target


def test_wheel_holds_every_module_of_the_tree(installed):
    expected = {
        f"{mapped}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, mapped in MAPPED.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    found = {file.relative_to(installed).as_posix() for file in (installed / "rqe_mappo").rglob("*.py")}
    assert found == expected


def test_wheel_imports_without_the_checkout(installed, tmp_path):
    code = "import rqe_mappo.envs.risky_cartpole as e, rqe_mappo.baselines, rqe_mappo.sweeps; print(e.__file__)"
    done = python("-c", code, cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(installed))


@pytest.mark.parametrize("name", ["envs", "baselines", "sweeps"])
def test_bare_import_from_the_checkout_fails_with_the_mend(name):
    done = python("-c", f"import {name}", cwd=ROOT)
    assert done.returncode == 1
    assert f"import rqe_mappo.{name}, not {name}" in done.stderr


def test_raw_checkout_finds_its_sibling_folders(tmp_path):
    for folder in MAPPED:
        (tmp_path / folder).mkdir()
        for file in (ROOT / folder).rglob("*.py"):
            target = tmp_path / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (tmp_path / "setup.py").write_bytes((ROOT / "setup.py").read_bytes())
    # without the finder that an editable install leaves in sys.meta_path
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        f"sys.path.insert(0, {str(tmp_path)!r}); import rqe_mappo.envs.batched as b; print(b.__file__)"
    )
    done = python("-c", code, cwd=tmp_path.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "envs" / "batched.py")


def test_imports_point_one_way(installed, tmp_path):
    code = "import sys; sys.argv = ['lint-imports', '--config', sys.argv[1], '--no-cache']; " \
           "from importlinter.cli import lint_imports_command; lint_imports_command()"  # fmt: skip
    done = python("-c", code, str(ROOT / "pyproject.toml"), cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_deploying_a_policy_loads_no_simulator_and_no_logger():
    code = f"import sys, rqe_mappo.policy; print([name for name in {HEAVY} if name in sys.modules])"
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_readme_tests_with_the_command_that_ci_runs():
    readme, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[1] in ci.splitlines()


def test_constraints_pin_one_version_each():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)
    assert "torch==2.13.0" in pins
    assert not any("nvidia" in line or "cuda" in line for line in pins)
