"""Environments: batched, seeded, importing nothing from the rest of the package."""

if __name__ != "rqe_mappo.envs":
    raise ImportError(
        "import rqe_mappo.envs, not envs: a second import under another name would give every class twice"
    )
