"""One run of sb3-contrib's QR-DQN on CartPole-v1, for `benchmarks.cartpole_values`, which gives the settings.

    PEER_PYTHON benchmarks/peers/sb3_qr_dqn.py SETTINGS.json WEIGHTS.pt

The interpreter is the peer's own (stable-baselines3 and sb3-contrib 2.9.2); nothing of ours is imported. WEIGHTS.pt
gets `layers`, the linear layers as pairs (weight, bias), outputs by action first, and `versions`, one line.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from sb3_contrib import QRDQN


def main() -> None:
    torch.set_num_threads(1)
    asked = json.loads(Path(sys.argv[1]).read_text())
    policy = {
        "net_arch": list(asked["hidden"]),
        "n_quantiles": asked["quantiles"],
        "optimizer_kwargs": {"eps": asked["adam_eps"]},
    }
    model = QRDQN(
        "MlpPolicy", "CartPole-v1", seed=asked["seed"], policy_kwargs=policy, device="cpu", **asked["settings"]
    )
    model.learn(asked["frames"])
    linear = [layer for layer in model.policy.quantile_net.quantile_net if isinstance(layer, torch.nn.Linear)]
    layers = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in linear]
    weight, bias = layers[-1]  # rows by quantile first
    by_action = (asked["quantiles"], -1)
    layers[-1] = (
        weight.unflatten(0, by_action).transpose(0, 1).flatten(0, 1),
        bias.unflatten(0, by_action).T.flatten(),
    )
    names = ("sb3-contrib", "stable-baselines3", "gymnasium", "torch")
    torch.save({"layers": layers, "versions": " ".join(f"{name} {version(name)}" for name in names)}, sys.argv[2])


if __name__ == "__main__":
    main()
