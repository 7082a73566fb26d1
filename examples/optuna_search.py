"""Search settings with Optuna, and stop runs early that fall behind: `pip install optuna`, then

    python examples/optuna_search.py --trials 20 --timesteps 200000

Every trial trains on Risky CartPole; after each update that ended episodes the mean return of the last hundred is
reported, and a trial that Optuna would prune stops there, with its run folder in order.
"""

import argparse
from collections import deque
from pathlib import Path

import numpy as np
import optuna

import rqe_mappo

EPISODES = 100  # over which the return is averaged


def objective(trial: optuna.Trial, timesteps: int, folder: Path) -> float:
    """The mean return at the end of one run."""
    recent: deque[float] = deque(maxlen=EPISODES)

    def judge(step: int, episodes: list[dict[str, np.ndarray]]) -> bool:
        for record in episodes:
            recent.extend(record["return"][record["length"] > 0].tolist())
        trial.report(float(np.mean(recent)), step)
        return trial.should_prune()

    rqe_mappo.train(
        "cartpole",
        out=str(folder / f"trial_{trial.number}"),
        total_timesteps=timesteps,
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        gae_lambda=trial.suggest_float("gae_lambda", 0.8, 1.0),
        num_steps=trial.suggest_categorical("num_steps", [32, 64, 128]),
        on_episodes=judge,
        quiet=True,
    )
    if trial.should_prune():
        raise optuna.TrialPruned
    return float(np.mean(recent))


def main(args: list[str] | None = None) -> optuna.Study:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--timesteps", type=int, default=200_000, help="decisions in each")
    parser.add_argument("--out", type=Path, default=Path("runs/optuna"))
    asked = parser.parse_args(args)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))
    study.optimize(lambda trial: objective(trial, asked.timesteps, asked.out), n_trials=asked.trials)
    print(f"best of {len(study.trials)} trials: {study.best_value:.1f} with {study.best_params}")
    return study


if __name__ == "__main__":
    main()
