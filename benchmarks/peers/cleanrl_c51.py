"""One run of CleanRL's C51 on CartPole-v1, for `benchmarks.cartpole_values`, which gives the settings.

    PEER_PYTHON benchmarks/peers/cleanrl_c51.py SETTINGS.json WEIGHTS.pt

The interpreter has what CleanRL's `c51.py` imports; SETTINGS.json names the folder with CleanRL and the script's flags.
Nothing of ours is imported. WEIGHTS.pt gets `layers`, the linear layers as pairs (weight, bias), and `versions`, one
line.
"""

import json
import os
import runpy
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def main() -> None:
    torch.set_num_threads(1)
    asked, given = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).resolve()
    checkout = Path(asked.pop("checkout"))
    flags = [text for name, value in asked.items() for text in (f"--{name}", str(value))]
    sys.path.insert(0, str(checkout))
    sys.argv = ["c51.py", *flags]
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # whichever way this version of the script spells its flag
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it logs into ./runs
        ran = runpy.run_path(str(checkout / "cleanrl" / "c51.py"), run_name="__main__")
    linear = [layer for layer in ran["q_network"].network if isinstance(layer, torch.nn.Linear)]
    layers = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in linear]
    torch.save({"layers": layers, "versions": " ".join(map(named, installed()))}, given)


def installed() -> list[str]:
    """What the run used: releases import Gym, later checkouts Gymnasium."""
    return ["cleanrl", "gym" if "gym" in sys.modules else "gymnasium", "torch"]


def named(package: str) -> str:
    """Its name and version; a checkout of CleanRL has none."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


if __name__ == "__main__":
    main()
