"""Rival algorithms, one file each: what differs from RQE-MAPPO, and nothing else."""

if __name__ != "rqe_mappo.baselines":
    raise ImportError(
        "import rqe_mappo.baselines, not baselines: a second import under another name would give every class twice"
    )
