"""Import paths of earlier versions: each old module name gives the very module that took its place."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

MOVED = {
    "advantages": "algorithms.advantages",
    "exact_rqe": "algorithms.exact_rqe",
    "learner": "algorithms.rqe_mappo",
    "recipes": "algorithms.recipes",
    "rollout": "data.collector",
    "vector": "data.vector",
    "workers": "data.workers",
    "export": "deploy.export",
    "hub": "deploy.hub",
    "interpolation": "deploy.interpolation",
    "policy": "deploy.policy",
    "film": "evaluation.film",
    "plots": "evaluation.plots",
    "report": "evaluation.report",
    "logs": "training.logs",
    "envs.batched": "envs.contract",
}
"""`rqe_mappo.train` and `rqe_mappo.evaluate` are not among them: these names are functions now."""


class OldPaths(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `MOVED`; asked last, when nothing has the name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, old = fullname.partition(".")
        return importlib.util.spec_from_loader(fullname, self) if package == "rqe_mappo" and old in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"rqe_mappo.{MOVED[spec.name.partition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module has run already: all there is to do is to give it back its own spec."""
        borrowed = module.__spec__
        module.__spec__ = None if borrowed is None else borrowed.loader_state


def install() -> None:
    """Have old paths found from now on."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(OldPaths())
