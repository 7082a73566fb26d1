"""One run of BenchMARL on `simple_spread`, for `benchmarks.simple_spread`, which gives the settings.

    PEER_PYTHON benchmarks/peers/benchmarl_run.py SETTINGS.json WEIGHTS.pt

The interpreter is the peer's own (benchmarl 1.5.2, torchrl 0.11.1, mpe2); nothing of ours is imported. WEIGHTS.pt gets
`layers`, those of the actor or of the utilities that all agents share as pairs (weight, bias), and `versions`, one
line.
"""

import itertools
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from benchmarl.algorithms import MappoConfig, QmixConfig, VdnConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from mpe2 import simple_spread_v3
from torchrl.envs.libs.pettingzoo import PettingZooWrapper

SEED_STRIDE = 1_000  # more than there are copies
GROUP = "agent"  # agents are grouped by the first part of their names: agent_0, agent_1, agent_2
ALGORITHMS = {"mappo": (MappoConfig, "actor"), "qmix": (QmixConfig, "local_value"), "vdn": (VdnConfig, "local_value")}


class SimpleSpread(PettingZooClass):
    """BenchMARL's task, built from mpe2: PettingZoo, where BenchMARL looks for it, has it no longer.

    Every copy has a seed of its own. BenchMARL's class gives all the same one: they would start their episodes in the
    same places, and a batch would hold a tenth of the starts.
    """

    def get_env_fun(self, num_envs, continuous_actions, seed, device):
        seeds = itertools.count(SEED_STRIDE * seed)
        return lambda: PettingZooWrapper(
            simple_spread_v3.parallel_env(continuous_actions=continuous_actions, **self.config),
            return_state=True,
            categorical_actions=True,
            seed=next(seeds),
            device=device,
        )


def experiment(settings: dict, folder: str) -> Experiment:
    """What BenchMARL's own files of defaults say, changed by `settings`."""
    config = ExperimentConfig.get_from_yaml()
    for name, value in settings["experiment"].items():
        if not hasattr(config, name):
            raise SystemExit(f"this BenchMARL has no setting {name}: use the version that the table names")
        setattr(config, name, value)
    config.save_folder, config.loggers, config.create_json, config.evaluation = folder, [], False, False
    algorithm = ALGORITHMS[settings["algo"]][0].get_from_yaml()
    for name, value in settings["algorithm"].items():
        setattr(algorithm, name, value)
    hidden, activation = settings["hidden"], getattr(torch.nn, settings["activation"])
    return Experiment(
        task=SimpleSpread("SIMPLE_SPREAD", settings["task"]),
        algorithm_config=algorithm,
        model_config=MlpConfig(num_cells=hidden, layer_class=torch.nn.Linear, activation_class=activation),
        critic_model_config=MlpConfig(num_cells=hidden, layer_class=torch.nn.Linear, activation_class=torch.nn.ReLU),
        seed=settings["seed"],
        config=config,
    )


def layers(run: Experiment, network: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The linear layers of the shared network that acts, first to last."""
    found = dict(getattr(run.losses[GROUP], f"{network}_network_params").flatten_keys(".").detach().items())
    names = sorted(key.removesuffix(".weight") for key in found if key.endswith(".weight"))
    return [(found[f"{name}.weight"].clone(), found[f"{name}.bias"].clone()) for name in names]


def main() -> None:
    torch.set_num_threads(1)
    settings = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        run = experiment(settings, folder)
        run.run()
        versions = " ".join(f"{name} {version(name)}" for name in ("benchmarl", "torchrl", "torch"))
        torch.save({"layers": layers(run, ALGORITHMS[settings["algo"]][1]), "versions": versions}, sys.argv[2])


if __name__ == "__main__":
    main()
