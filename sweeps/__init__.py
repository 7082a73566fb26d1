"""Grids of runs, their tables and their plots."""

if __name__ != "rqe_mappo.sweeps":
    raise ImportError(
        "import rqe_mappo.sweeps, not sweeps: a second import under another name would give every class twice"
    )
