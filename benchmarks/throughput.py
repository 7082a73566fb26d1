"""Speed, measured side by side in one run: `python -m benchmarks.throughput` (needs the extras sumo and benchmark).

Every figure is per CPU second of the measuring process, one thread; rounds alternate between ours and the rival, and
medians and their ratio are printed and written to benchmarks/results/throughput.csv. Trust the ratios.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import tables

RESULT = tables.RESULTS / "throughput.csv"


def ours_training(
    env: str, scenario: str, updates: int, device: str = "cpu", algo: str = "rqe-mappo", wall: bool = False,
    before: int = 2, **changes,
) -> float:  # fmt: skip
    """Decisions per CPU second (wall: per wall second) of our training loop: collecting, targets and updates.

    before: updates that are not counted: they warm caches and allocators, and fill buffers.
    """
    from rqe_mappo.algorithms.contract import Progress
    from rqe_mappo.config import default_config
    from rqe_mappo.data import vector
    from rqe_mappo.training.loop import tiny_numbers_as_zero
    from rqe_mappo.training.run import Run

    config = default_config(env, scenario, algo)
    known = {"return_scale": 10.0} if "return_scale" in config.flat() else {}  # no time goes into measuring it
    config = config.replace(device=device, **known, **changes)
    environment = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), environment)
    run.collector.start(environment.reset(0))
    midway = Progress(config.total_timesteps // 2, config.total_timesteps)
    clock = time.perf_counter if wall else time.process_time
    decisions, began, explore = 0, 0.0, run.algorithm.explore  # always as at first: all play in the same traffic
    with tiny_numbers_as_zero():
        for update in range(before + updates):
            if update == before:
                decisions, began = 0, clock()
            chunk, _ = run.collector.collect(explore)
            run.algorithm.learn(chunk, midway)
            decisions += int(chunk.active.sum())
    spent = clock() - began
    environment.close()
    return decisions / spent


CARTPOLE = {"num_envs": 8, "num_steps": 128, "num_minibatches": 4, "update_epochs": 4, "critic_epochs": 4}


def ours_cartpole() -> float:
    """CartPole-v1, the same rollout, minibatches, epochs and 2x64 networks as `sb3_cartpole`."""
    return ours_training("cartpole", "cartpole-v1", 40, actor_hidden=(64, 64), critic_hidden=(64, 64), **CARTPOLE)


def ours_cartpole_recipe() -> float:
    """CartPole-v1 with the same networks and epochs and our recipe's own batch: 128 copies, minibatches of 2048."""
    return ours_training("cartpole", "cartpole-v1", 10)


def sb3_cartpole() -> float:
    """Stable-Baselines3's PPO on CartPole-v1 in its fastest vectorisation here, steps per CPU second."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("CartPole-v1", CARTPOLE["num_envs"], seed=0)
    rollout = CARTPOLE["num_envs"] * CARTPOLE["num_steps"]
    model = PPO(
        "MlpPolicy", env, n_steps=CARTPOLE["num_steps"], batch_size=rollout // CARTPOLE["num_minibatches"],
        n_epochs=CARTPOLE["update_epochs"], learning_rate=1e-3, ent_coef=0.01, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(2 * rollout)
    steps = 20 * rollout
    began = time.process_time()
    model.learn(steps)
    return steps / (time.process_time() - began)


def sumo_training() -> float:
    """Training on the default intersection, 64 copies in one simulation."""
    return ours_training("sumo", "default", 25)


def sumo_ours() -> float:
    """Our batched environment alone, random actions."""
    from benchmarks.sumo import ours

    return ours()


def sumo_bare() -> float:
    """Bare libsumo stepping the same traffic: no observation, no control."""
    from benchmarks.sumo import bare_libsumo

    return bare_libsumo()


MEASUREMENTS: dict[str, Callable[[], float]] = {
    function.__name__: function
    for function in (ours_cartpole, ours_cartpole_recipe, sb3_cartpole, sumo_training, sumo_ours, sumo_bare)
}


def method(algo: str, recurrent: bool) -> dict[str, float]:
    """An algorithm on the default intersection: decisions per CPU second of training, and the memory it took, in MB."""
    from rqe_mappo import registry
    from rqe_mappo.algorithms.off_policy import OffPolicyConfig

    changes: dict[str, Any] = {"recurrent": True} if recurrent else {}
    replays = issubclass(registry.algorithm(algo).Config, OffPolicyConfig)
    # Rollouts of 8 steps for learners from replay, whose episodes last 80 at first: 192 steps until they learn at their
    # ratio, and as many that count. The others' rollouts have 96.
    updates, before = (24, 24) if replays else (2, 1)
    speed = ours_training("sumo", "default", updates, algo=algo, before=before, **changes)
    return {"per second": speed, "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measured(*flags: str) -> Any:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.throughput", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(flags)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def methods(rounds: int) -> None:
    """Every algorithm that learns on the intersection, feed-forward and with memory; written after each round."""
    from rqe_mappo import registry
    from rqe_mappo.algorithms.single_steps import SingleStepConfig

    small = {"exact-rqe", "central-q", "fcp"}  # for games, for agents who all observe the same, for a population
    kinds: list[tuple[str, tuple[str, ...]]] = []
    for algo in [name for name in registry.ALGORITHMS if name not in small]:
        remembers = not issubclass(registry.algorithm(algo).Config, SingleStepConfig)
        kinds += [(algo, ()), *([(algo, ("--recurrent",))] if remembers else [])]
    figures: dict[tuple[str, tuple[str, ...]], list[dict[str, float]]] = {kind: [] for kind in kinds}
    for done in range(1, rounds + 1):
        for algo, flags in kinds:
            figures[algo, flags].append(measured("--method", algo, *flags))
            latest = figures[algo, flags][-1]
            print(done, algo, *flags, *(f"{name} {value:.0f}" for name, value in latest.items()), sep="  ", flush=True)
        tables.write(tables.RESULTS / "throughput_methods.csv", [of_method(*kind, figures[kind]) for kind in kinds])


def of_method(algo: str, flags: tuple[str, ...], seen: list[dict[str, float]]) -> dict[str, Any]:
    """The row of one algorithm, of what was `seen` of it round by round."""
    speeds = [each["per second"] for each in seen]
    return {
        "algo": algo, "memory": "GRU" if flags else "none", "per second": round(statistics.median(speeds)),
        "lowest": round(min(speeds)), "highest": round(max(speeds)),
        "MB": round(statistics.median(each["MB"] for each in seen)), "rounds": len(seen),
    }  # fmt: skip


def rivals(rounds: int) -> None:
    """Ours against Stable-Baselines3 and bare SUMO."""
    figures: dict[str, list[float]] = {name: [] for name in MEASUREMENTS}
    for _ in range(rounds):
        for name in MEASUREMENTS:
            figures[name].append(measured("--only", name))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    rows = [{"what": name, "per second": round(medians[name]), "rounds": rounds,
             "lowest": round(min(seen)), "highest": round(max(seen))} for name, seen in figures.items()]  # fmt: skip
    for title, top, bottom in (
        ("SUMO env / bare libsumo", "sumo_ours", "sumo_bare"),
        ("CartPole-v1 training / SB3: equal networks, epochs and batch", "ours_cartpole", "sb3_cartpole"),
        ("CartPole-v1 training / SB3: equal networks and epochs", "ours_cartpole_recipe", "sb3_cartpole"),
    ):
        ratio = statistics.median(a / b for a, b in zip(figures[top], figures[bottom], strict=True))
        rows.append({"what": f"ratio {title}", "per second": round(ratio, 2), "rounds": rounds})
    tables.write(RESULT, rows)
    for row in rows:
        print("  ".join(str(value) for value in row.values()))


def main() -> None:
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", action="store_true", help="algorithms against each other on the intersection")
    parser.add_argument("--only", choices=MEASUREMENTS, help="one measurement, its number on the last line")
    parser.add_argument("--method", metavar="ALGO", help="one algorithm, likewise")
    parser.add_argument("--recurrent", action="store_true", help="with --method: with memory")
    args = parser.parse_args()
    if args.only or args.method:
        print(json.dumps(MEASUREMENTS[args.only]() if args.only else method(args.method, args.recurrent)))
    elif args.methods:
        methods(args.rounds)
    else:
        rivals(args.rounds)


if __name__ == "__main__":
    main()
