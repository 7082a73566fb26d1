"""Maps the top-level folders into the one import package `rqe_mappo` (all other metadata is in pyproject.toml)."""

from setuptools import find_packages, setup

FOLDERS = {
    "rqe_mappo": "rqe_mappo",
    "rqe_mappo.envs": "envs",
    "rqe_mappo.baselines": "baselines",
    "rqe_mappo.sweeps": "sweeps",
}

setup(
    package_dir=FOLDERS,
    packages=[
        package
        for prefix, folder in FOLDERS.items()
        for package in (prefix, *(f"{prefix}.{name}" for name in find_packages(folder)))
    ],
)
