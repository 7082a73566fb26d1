"""Policies of runs, of algorithms of a user's own too."""

from pathlib import Path

from rqe_mappo import checkpoint, registry
from rqe_mappo.deploy.policy import Policy


def load_run(path: str | Path, device: str = "cpu") -> Policy:
    """As `Policy.load`, once the module was imported in which a user's own algorithm registers its networks.

    It must be importable by the name that the run has of it (MODULE:CLASS), and the user must have named it or trust
    the run: ValueError otherwise. `Policy.load` alone imports nothing.
    """
    name = checkpoint.algorithm_of(path)
    if ":" in name:
        registry.check_named_by_file("algo", name)
        registry.algorithm(name)
    return Policy.load(path, device)
