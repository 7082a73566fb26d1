"""MAPPO beside BenchMARL's on mpe2's `simple_spread_v3`: `python -m benchmarks.simple_spread --peer PYTHON`.

Both sides train on the same PettingZoo environment with as many frames (steps of the environment), the same networks
and the same settings: BenchMARL's defaults, as far as both have them. What differs all the same stands in README.md.
Runs alternate, one process and one thread each, and CPU seconds are those of the whole process, start-up included. The
last actors of both are evaluated by the same code in the same episodes, with drawn actions.

PYTHON is an interpreter that has benchmarl 1.5.2 and mpe2; without it only our side is run. Writes
results/simple_spread.csv (a row a run, as it ends) and simple_spread_summary.csv (of the runs of as many frames). Runs
that have a row are not run again, so the command may be stopped and started again; one that was broken off starts anew.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_ind

from benchmarks import tables
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import ByNameConfig, make
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.nets import ActionSpec, ActorSpec, PolicyActor
from rqe_mappo.statistics import Estimate, compare, mean_interval, seed_interval

RESULT, SUMMARY = tables.RESULTS / "simple_spread.csv", tables.RESULTS / "simple_spread_summary.csv"
PEER_SCRIPT = Path(__file__).parent / "peers" / "benchmarl_mappo.py"
ENV = ByNameConfig("pettingzoo:mpe2.simple_spread_v3", max_steps=25)
AGENTS, OBSERVED, ACTIONS = 3, 18, 5
SEEDS = (1, 2, 3, 4, 5)
EPISODES, COPIES, EVALUATION_SEED = 512, 64, 10_000


@dataclass(frozen=True)
class Settings:
    """What both sides share: BenchMARL's base_experiment.yaml and mappo.yaml, but for `hidden` (there 2 x 256)."""

    frames: int = 96_000
    num_envs: int = 10
    batch_frames: int = 6_000
    minibatch_frames: int = 400
    epochs: int = 45
    learning_rate: float = 5e-5
    gamma: float = 0.99
    gae_lambda: float = 0.9
    clip: float = 0.2
    entropy: float = 0.0
    max_grad_norm: float = 5.0
    adam_eps: float = 1e-5  # ours; BenchMARL has 1e-6
    hidden: tuple[int, ...] = (64, 64)

    def ours(self, seed: int) -> list[str]:
        """Flags of rqe-train; those without a value switch off what BenchMARL's MAPPO lacks."""
        flags = {
            "algo": "mappo",
            "env": ENV.name,
            "max-steps": ENV.max_steps,
            "seed": seed,
            "total-timesteps": self.frames * AGENTS,
            "num-envs": self.num_envs,
            "num-steps": self.batch_frames // self.num_envs,
            "num-minibatches": self.batch_frames // self.minibatch_frames,
            "update-epochs": self.epochs,
            "critic-epochs": self.epochs,
            "learning-rate": self.learning_rate,
            "critic-learning-rate": self.learning_rate,
            "gamma": self.gamma,
            "gae-lambda": self.gae_lambda,
            "clip-coef": self.clip,
            "eps": self.entropy,
            "max-grad-norm": self.max_grad_norm,
            "huber-delta": "inf",
            "eval-episodes": 0,
        }
        words = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        for name in ("actor-hidden", "critic-hidden"):
            words += [f"--{name}", *map(str, self.hidden)]
        return [*words, "--no-norm-adv", "--no-value-norm", "--no-value-clip", "--no-anneal-lr"]

    def theirs(self, seed: int) -> dict[str, Any]:
        """What `peers/benchmarl_mappo.py` reads."""
        return {
            "seed": seed,
            "hidden": self.hidden,
            "task": {"max_cycles": ENV.max_steps},
            "experiment": {
                "max_n_frames": self.frames,
                "on_policy_n_envs_per_worker": self.num_envs,
                "on_policy_collected_frames_per_batch": self.batch_frames,
                "on_policy_minibatch_size": self.minibatch_frames,
                "on_policy_n_minibatch_iters": self.epochs,
                "lr": self.learning_rate,
                "gamma": self.gamma,
                "clip_grad_val": self.max_grad_norm,
                "adam_eps": self.adam_eps,
                "prefer_continuous_actions": False,
            },
            "algorithm": {"lmbda": self.gae_lambda, "clip_epsilon": self.clip, "entropy_coef": self.entropy},
        }


def cpu_seconds(line: list[str]) -> float:
    """Run a command to its end; the CPU seconds of it and its children."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began = spent()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr[-2000:]}")
    return spent() - began


def ours(settings: Settings, seed: int, folder: Path) -> tuple[PolicyActor, dict[str, Any]]:
    """Train with rqe-train; the last actor, and what the run took."""
    line = [sys.executable, "-m", "rqe_mappo.cli", "train", *settings.ours(seed), "--out", str(folder / "run")]
    spent = cpu_seconds(line)
    return Policy.load(folder / "run").actor, {"cpu_s": spent, "versions": f"torch {torch.__version__}"}


def theirs(python: str, settings: Settings, seed: int, folder: Path) -> tuple[PolicyActor, dict[str, Any]]:
    """Train with BenchMARL; the last actor, and what the run took."""
    asked, given = folder / "settings.json", folder / "weights.pt"
    asked.write_text(json.dumps(settings.theirs(seed)))
    spent = cpu_seconds([python, str(PEER_SCRIPT), str(asked), str(given)])
    content = torch.load(given, weights_only=True)
    actor = untrained(settings)
    linear = [layer for layer in actor.nets[0] if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer, (weight, bias) in zip(linear, content["layers"], strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    return actor, {"cpu_s": spent, "versions": content["versions"]}


def untrained(settings: Settings) -> PolicyActor:
    """An actor of the shape that both sides train; nearly uniform."""
    actions = ActionSpec("discrete", (ACTIONS,))
    return PolicyActor(ActorSpec(obs_dim=OBSERVED, n_agents=AGENTS, actions=actions, hidden=settings.hidden))


def evaluated(actor: PolicyActor) -> Estimate:
    """The undiscounted return of an agent, averaged over agents and episodes, with drawn actions."""
    env, agents = make(ENV, COPIES), torch.arange(AGENTS)
    generator = torch.Generator().manual_seed(EVALUATION_SEED)

    @torch.no_grad()
    def choose(env, observed):
        rows = observed.active.shape
        policy, _ = actor(torch.from_numpy(observed.obs), agents.expand(rows))
        return policy.action(policy.sample(torch.rand(*rows, actor.draws, generator=generator))).numpy()

    records, _ = run_episodes(env, choose, EPISODES // COPIES, EVALUATION_SEED)
    env.close()
    return mean_interval(records["return"].mean(1))


def run(
    side: str, seed: int, settings: Settings, train: Callable[..., tuple[PolicyActor, dict[str, Any]]]
) -> dict[str, Any]:
    """One run and its row."""
    with tempfile.TemporaryDirectory() as folder:
        actor, took = train(settings, seed, Path(folder))
    found, decisions = evaluated(actor), settings.frames * AGENTS
    return {
        "side": side, "seed": seed, "frames": settings.frames, "cpu_s": took["cpu_s"],
        "decisions_per_cpu_s": decisions / took["cpu_s"], "return": found.value, "low": found.low, "high": found.high,
        "episodes": EPISODES, "versions": took["versions"],
    }  # fmt: skip


def summarise(rows: list[dict[str, Any]], frames: int) -> list[dict[str, Any]]:
    """Means and 95 % t-intervals over seeds of each side, then how they compare, seeds that both have alone."""
    rows = [row for row in rows if int(row["frames"]) == frames]

    def column(side: str, what: str) -> dict[int, float]:
        return {int(row["seed"]): float(row[what]) for row in rows if row["side"] == side}

    summary = []
    for side in ("ours", "BenchMARL"):
        for what in ("return", "decisions_per_cpu_s"):
            if values := column(side, what):
                summary.append(_line(f"{side}: {what}", seed_interval(list(values.values()))))
    both = sorted(column("ours", "seed").keys() & column("BenchMARL", "seed").keys())

    def pair(what: str) -> tuple[list[float], list[float]]:
        return tuple([column(side, what)[seed] for seed in both] for side in ("ours", "BenchMARL"))

    if len(both) > 1:
        mine, others = pair("return")
        welch = ttest_ind(mine, others, equal_var=False)
        ends = welch.confidence_interval()
        gap = sum(mine) / len(both) - sum(others) / len(both)
        summary.append(_line("return, ours less BenchMARL's (Welch)", Estimate(gap, ends.low, ends.high, len(both))))
        summary.append({"what": "p of no difference (Welch)", "value": float(welch.pvalue), "seeds": len(both)})
        better = compare(mine, others).improvement
        summary.append(_line("probability that a run of ours has the higher return", better))
        ratios = [a / b for a, b in zip(*pair("decisions_per_cpu_s"), strict=True)]
        summary.append(_line("decisions per CPU second, ours / BenchMARL's", seed_interval(ratios)))
    return [{"frames": frames, **line} for line in summary]


def _line(what: str, found: Estimate) -> dict[str, Any]:
    return {"what": what, "value": found.value, "low": found.low, "high": found.high, "seeds": found.n}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has benchmarl (default: our side only)")
    parser.add_argument("--frames", type=int, default=Settings.frames, help=f"per run (default {Settings.frames})")
    args = parser.parse_args()
    if args.frames < 1 or args.frames % Settings.batch_frames:
        parser.error(f"--frames must be a multiple of {Settings.batch_frames}, what both collect between two updates")
    if args.peer and not shutil.which(args.peer):
        parser.error(f"--peer {args.peer} is no program: give the interpreter of an environment that has benchmarl")
    settings = Settings(frames=args.frames)
    sides = {"ours": ours}
    if args.peer:
        sides["BenchMARL"] = lambda *given: theirs(args.peer, *given)
    rows = tables.read(RESULT)
    done = {(row["side"], int(row["seed"]), int(row["frames"])) for row in rows}
    for seed in SEEDS:
        for side, train in sides.items():
            if (side, seed, settings.frames) not in done:
                rows.append(run(side, seed, settings, train))
                print("  ".join(str(value) for value in rows[-1].values()), flush=True)
                tables.write(RESULT, rows)
            tables.write(SUMMARY, summarise(rows, settings.frames))
    for row in tables.read(SUMMARY):
        print("  ".join(row.values()))


if __name__ == "__main__":
    main()
