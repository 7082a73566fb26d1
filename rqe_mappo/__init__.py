"""RQE-MAPPO: distributional, risk-averse multi-agent PPO."""

from pathlib import Path

from rqe_mappo import _moved

__version__ = "0.1.0"

# In a raw checkout `envs/`, `baselines/` and `sweeps/` stand beside this package; once installed they lie inside it
# and this adds nothing. (They are never importable by their bare names: see envs/__init__.py.)
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.py").is_file() and not (Path(__file__).parent / "envs").exists():
    __path__.append(str(_checkout))

_moved.install()
