"""Value methods on games whose answers are known: `python -m benchmarks.value_games` (about half an hour).

What agents earn by their greedy actions after learning from data whose distribution is stated, seed by seed, in
benchmarks/results/value_games.csv; rows that stand there are kept, so that it goes on where it was stopped. All of
it takes some 52 CPU minutes, so 26 on two free cores. With `--long`, in
benchmarks/results/value_games_long.csv: predator-prey, 12 runs of 3 to 10 CPU minutes, and QPLEX at its published
settings, 20 runs of 10 to 20, as busy as the machine is. Of predator-prey the team's reward is what is earned.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables

UNIFORM = {"exploration": 1.0, "td_lambda": 0.0}  # TD(lambda) would value what uniform play earns
ONE_STEP = UNIFORM | {"total_timesteps": 20_000, "num_envs": 32, "batch_episodes": 64, "replay_ratio": 16.0}
TWO_STEPS = ONE_STEP | {"total_timesteps": 40_000}
M_STEPS = {  # exploration falls within 50,000 steps of the team, as QMIX's does in MAVEN's paper
    "total_timesteps": 200_000, "num_envs": 16, "exploration_fraction": 0.5, "td_lambda": 0.0, "actor_hidden": (64,),
}  # fmt: skip
NEARLY_GREEDY = M_STEPS | {  # exploration falls at once, as MAVEN's does there: who trembles leaves a branch too early
    "total_timesteps": 600_000, "num_envs": 64, "exploration_fraction": 0.0005, "buffer_episodes": 5_000,
    "batch_episodes": 128, "replay_ratio": 32.0, "learning_rate": 1e-3,
}  # fmt: skip
PUBLISHED = ONE_STEP | {  # a learning step of 32 episodes for each of 210,000 episodes
    "total_timesteps": 420_000, "batch_episodes": 32, "replay_ratio": 32.0, "heads": 10, "mixer_depth": 3,
}  # fmt: skip
PREY = {"total_timesteps": 4_000_000}


@dataclass(frozen=True)
class Game:
    """A game, and what to play it with. data: the distribution of the actions that are learned from."""

    env: str
    scenario: str
    data: str
    settings: dict[str, Any]
    algos: dict[str, dict[str, Any]]
    seeds: int


PLAIN: dict[str, dict[str, Any]] = {name: {} for name in ("iql", "vdn", "qmix", "qtran", "qplex", "central-q")}
SAME: dict[str, dict[str, Any]] = {"qmix": {}, "maven": {}}
OPTIMISTIC = {"drima": {"agent_level": 0.98, "env_level": 0.5, "total_timesteps": 60_000}}
SHORT = {
    "A": Game("matrix", "penalty-2x2", "uniform", ONE_STEP, PLAIN, 10),
    "B": Game("matrix", "penalty-3x3", "uniform", ONE_STEP, PLAIN | OPTIMISTIC, 10),
    "C": Game("matrix", "penalty-3x3-hard", "uniform", ONE_STEP, PLAIN, 10),
    "E": Game("step-games", "two-step", "uniform", TWO_STEPS, PLAIN, 10),
    "F": Game("step-games", "m-step", "greedy but for 1 to 0.05", M_STEPS, {"qmix": {}}, 5),
    "F, nearly greedy": Game("step-games", "m-step", "greedy but for 0.05", NEARLY_GREEDY, SAME, 5),
}
LONG = {
    "B, published": Game("matrix", "penalty-3x3", "uniform", PUBLISHED, {"qplex": {}}, 10),
    "C, published": Game("matrix", "penalty-3x3-hard", "uniform", PUBLISHED, {"qplex": {}}, 10),
    "G, p = 0": Game("predator-prey", "default", "greedy but for 1 to 0.05", PREY, {"vdn": {}, "qmix": {}}, 3),
    "G, p = 2": Game("predator-prey", "punish", "greedy but for 1 to 0.05", PREY, {"vdn": {}, "qmix": {}}, 3),
}


def play(job: tuple[str, Game, str, int]) -> dict[str, Any]:
    """The row of one run."""
    import torch

    import rqe_mappo

    torch.set_num_threads(1)
    letter, game, algo, seed = job
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        settings = (
            game.settings | game.algos[algo] | {"seed": seed, "eval_episodes": 0, "out": str(Path(folder) / "run")}
        )
        config = rqe_mappo.default_config(game.env, game.scenario, algo, **settings)
        run = rqe_mappo.train(config, quiet=True)
        spent = time.process_time() - began
        found = rqe_mappo.evaluate(run, episodes=64)
    earned = float(np.mean(found.records.get("team_reward", found.records["return"])))  # who has left is paid there
    return {"game": letter, "env": game.env, "scenario": game.scenario, "data": game.data, "algo": algo, "seed": seed,
            "return": round(earned, 4), "CPU seconds": round(spent, 1)}  # fmt: skip


def jobs(games: dict[str, Game], rows: list[dict[str, Any]]) -> Iterator[tuple[str, Game, str, int]]:
    """Runs that have no row yet, seed by seed."""
    done = {(row["game"], row["algo"], int(row["seed"])) for row in rows}
    for seed in range(1, 1 + max(game.seeds for game in games.values())):
        for letter, game in games.items():
            for algo in game.algos:
                if seed <= game.seeds and (letter, algo, seed) not in done:
                    yield letter, game, algo, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="the games that take hours")
    parser.add_argument("--games", nargs="+", help="which of them (all)")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    games, result = (LONG, "value_games_long.csv") if args.long else (SHORT, "value_games.csv")
    unknown = sorted(set(args.games or ()) - set(games))
    if unknown:
        parser.error(f"--games {' '.join(unknown)}: choose from {', '.join(games)}")
    rows: list[dict[str, Any]] = list(tables.read(tables.RESULTS / result))
    chosen = {letter: game for letter, game in games.items() if not args.games or letter in args.games}
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        for row in pool.imap_unordered(play, list(jobs(chosen, rows))):
            rows.append(row)
            print("  ".join(map(str, row.values())), flush=True)
            order = sorted(rows, key=lambda row: (list(games).index(row["game"]), row["algo"], int(row["seed"])))
            tables.write(tables.RESULTS / result, order)
    for letter, game in games.items():
        for algo in game.algos:
            earned = [float(row["return"]) for row in rows if (row["game"], row["algo"]) == (letter, algo)]
            print(f"{letter}  {algo:10}", " ".join(f"{value:g}" for value in earned))


if __name__ == "__main__":
    main()
