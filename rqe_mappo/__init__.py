"""RQE-MAPPO: distributional, risk-averse multi-agent PPO.

>>> import rqe_mappo
>>> folder = rqe_mappo.train("cartpole", tau=0.3)
>>> print(rqe_mappo.evaluate(folder))
>>> policy = rqe_mappo.Policy.load(folder)
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rqe_mappo import _moved

if TYPE_CHECKING:
    from rqe_mappo.api import default_config, evaluate, register_algorithm, register_env, train
    from rqe_mappo.deploy.interpolation import interpolate
    from rqe_mappo.deploy.policy import Policy

__all__ = ["Policy", "default_config", "evaluate", "interpolate", "register_algorithm", "register_env", "train"]
__version__ = "0.1.0"

# In a raw checkout `envs/`, `baselines/` and `sweeps/` stand beside this package; once installed they lie inside it
# and this adds nothing. (They are never importable by their bare names: see envs/__init__.py.)
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.py").is_file() and not (Path(__file__).parent / "envs").exists():
    __path__.append(str(_checkout))

_moved.install()

_FROM = {"Policy": "rqe_mappo.deploy.policy", "interpolate": "rqe_mappo.deploy.interpolation"}


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for: worker processes need no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FROM.get(name, "rqe_mappo.api")), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
