"""C51 beside CleanRL's, and QR-DQN beside sb3-contrib's, on Gymnasium's CartPole-v1.

    python -m benchmarks.cartpole_values --algo c51 --peer PYTHON --cleanrl FOLDER
    python -m benchmarks.cartpole_values --algo qr-dqn --peer PYTHON

Both sides train on the same environment for as many steps, with the same networks and settings, which are
the peers' own published ones but for what `Settings` says. Runs take turns (`beside`); the last networks act
greedily in the same 256 episodes. What differs all the same stands in README.md.

PYTHON is the peer's own interpreter: with stable-baselines3 and sb3-contrib 2.9.2, or for CleanRL, whose checkout is
FOLDER, what its `c51.py` imports (Gymnasium below 1.0). Without it only our side is run. Writes
results/cartpole_values.csv and cartpole_values_summary.csv.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import beside, tables
from benchmarks.beside import Contest, ours, theirs
from rqe_mappo.envs.by_name import ByNameConfig
from rqe_mappo.nets import ActionSpec
from rqe_mappo.nets.distributional_utilities import CategoricalUtilities, DistributionalSpec, QuantileUtilities
from rqe_mappo.statistics import Estimate

RESULT, SUMMARY = tables.RESULTS / "cartpole_values.csv", tables.RESULTS / "cartpole_values_summary.csv"
ENV = ByNameConfig("gymnasium:CartPole-v1")
EPISODES, COPIES = 256, 64
PEERS = {"c51": ("CleanRL", "cleanrl_c51.py"), "qr-dqn": ("sb3-contrib", "sb3_qr_dqn.py")}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Defaults of both: learning begins with the first full batch, everything is kept, no bound on gradients.

    between, updates: steps of the environment between learning, and how often is then learned.
    copies: of the environment, in which ours plays these steps; the peers have one.
    target: learning steps between two copies to the target network.
    """

    algo: str
    frames: int
    hidden: tuple[int, int]
    size: int  # atoms or quantiles
    learning_rate: float
    batch: int
    between: int
    copies: int
    updates: int
    target: int
    exploration: float
    exploration_fraction: float
    gamma: float = 0.99

    def ours(self, seed: int) -> list[str]:
        """Flags of rqe-train; neither peer has double Q-learning, both learn in units of the reward."""
        flags = {
            "algo": self.algo, "env": ENV.name, "seed": seed, "total-timesteps": self.frames, "num-envs": self.copies,
            "num-steps": self.between // self.copies, "gamma": self.gamma, "learning-rate": self.learning_rate,
            "batch-episodes": self.batch, "replay-ratio": self.updates * self.batch / self.between,
            "target-interval": self.target, "exploration": self.exploration,
            "exploration-fraction": self.exploration_fraction, "buffer-episodes": self.frames // 8,
            "max-grad-norm": 1e9, "value-unit": 1, "eval-episodes": 0, "log-interval": 100, "save-interval": 10**6,
        }  # fmt: skip
        words = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        return [*words, *self.own(), "--no-double-q", "--actor-hidden", *map(str, self.hidden)]

    def own(self) -> list[str]:
        """Flags of the distribution."""
        raise NotImplementedError

    def theirs(self, seed: int) -> dict[str, Any]:
        """What the peer's script reads."""
        raise NotImplementedError

    def untrained(self) -> Any:
        """What acts, of the shape that both sides train."""
        raise NotImplementedError

    def spec(self) -> DistributionalSpec:
        return DistributionalSpec(
            obs_dim=4, n_agents=1, actions=ActionSpec("discrete", (2,)), hidden=self.hidden, size=self.size
        )


@dataclass(frozen=True, kw_only=True)
class C51(Settings):
    """CleanRL's c51.py, but for its 500,000 steps and its buffer of 10,000, before whose filling it does not learn."""

    algo: str = "c51"
    frames: int = 100_000
    hidden: tuple[int, int] = (120, 84)
    size: int = 101
    learning_rate: float = 2.5e-4
    batch: int = 128
    between: int = 10
    copies: int = 10
    updates: int = 1
    target: int = 50
    exploration: float = 0.05
    exploration_fraction: float = 0.5
    highest: float = 100.0  # and the lowest is as far below 0

    def own(self) -> list[str]:
        return ["--n-atoms", str(self.size), "--return-low", str(-self.highest), "--return-high", str(self.highest)]

    def theirs(self, seed: int) -> dict[str, Any]:
        return {
            "seed": seed, "total-timesteps": self.frames, "learning-rate": self.learning_rate, "n-atoms": self.size,
            "v-min": -self.highest, "v-max": self.highest, "buffer-size": self.frames, "gamma": self.gamma,
            "target-network-frequency": self.target * self.between, "batch-size": self.batch,
            "end-e": self.exploration, "exploration-fraction": self.exploration_fraction,
            "learning-starts": self.batch, "train-frequency": self.between,
        }  # fmt: skip

    def untrained(self) -> CategoricalUtilities:
        actor = CategoricalUtilities(self.spec())
        actor.lay(torch.linspace(-self.highest, self.highest, self.size), 0.0, 1.0)
        return actor


@dataclass(frozen=True, kw_only=True)
class QrDqn(Settings):
    """RL Baselines3 Zoo's hyperparams/qrdqn.yml, but for a start of learning after 1,000 steps."""

    algo: str = "qr-dqn"
    frames: int = 51_200
    hidden: tuple[int, int] = (256, 256)
    size: int = 10
    learning_rate: float = 2.3e-3
    batch: int = 64
    between: int = 256
    copies: int = 8
    updates: int = 128
    target: int = 128  # the zoo copies every 10 steps of the environment, of which 256 are between learning
    exploration: float = 0.04
    exploration_fraction: float = 0.16
    adam_eps: float = 1e-5  # ours

    def own(self) -> list[str]:
        return ["--quantiles", str(self.size), "--kappa", "1"]

    def theirs(self, seed: int) -> dict[str, Any]:
        return {
            "seed": seed, "frames": self.frames, "hidden": self.hidden, "quantiles": self.size,
            "adam_eps": self.adam_eps,
            "settings": {
                "learning_rate": self.learning_rate, "batch_size": self.batch, "buffer_size": self.frames,
                "learning_starts": self.batch, "gamma": self.gamma, "target_update_interval": self.between,
                "train_freq": self.between, "gradient_steps": self.updates,
                "exploration_fraction": self.exploration_fraction, "exploration_final_eps": self.exploration,
            },
        }  # fmt: skip

    def untrained(self) -> QuantileUtilities:
        return QuantileUtilities(self.spec())


SETTINGS = {"c51": C51(), "qr-dqn": QrDqn()}


def evaluated(actor: Any) -> Estimate:
    """The return of a greedy actor."""
    return beside.evaluated(actor, ENV, EPISODES, COPIES)


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algo", choices=list(SETTINGS), required=True)
    parser.add_argument("--peer", metavar="PYTHON", help="the peer's interpreter (default: our side only)")
    parser.add_argument("--cleanrl", metavar="FOLDER", type=Path, help="a checkout of CleanRL, for c51")
    parser.add_argument("--seeds", type=int, nargs="+", default=beside.SEEDS, help="rows that are there are kept")
    args = parser.parse_args()
    if args.peer and not shutil.which(args.peer):
        parser.error(f"--peer {args.peer} is no program: give the interpreter of an environment that has the peer")
    if args.peer and args.algo == "c51" and not (args.cleanrl and (args.cleanrl / "cleanrl" / "c51.py").is_file()):
        parser.error("--algo c51 with --peer needs --cleanrl FOLDER, a folder in which cleanrl/c51.py is")
    settings, (peer, script) = SETTINGS[args.algo], PEERS[args.algo]
    sides = {"ours": lambda seed: ours(settings.ours(seed))}
    if args.peer:
        where = {} if args.cleanrl is None else {"checkout": str(args.cleanrl.resolve())}
        sides[peer] = lambda seed: theirs(args.peer, script, settings.theirs(seed) | where, settings.untrained())
    Contest(settings.algo, settings.frames, settings.frames, sides, evaluated, RESULT, SUMMARY).hold(args.seeds)


if __name__ == "__main__":
    main()
