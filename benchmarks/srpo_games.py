"""Does `--algo srpo` find the equilibria of its paper's games? `python -m benchmarks.srpo_games` (20 minutes).

The free-rider game (example 4.2) at six tolerances, one of them above the pitchfork at 1.207, and two robots whose
actions are any numbers, beside the exact answers. Writes results/srpo_games.csv; rows that stand there
are kept. The robots' game has a closed form, as has the best response in quadratic games (`quadratic_response`).
"""

import argparse
import functools
import math
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from benchmarks import tables
from benchmarks.silent import trained
from rqe_mappo.config import TrainConfig, default_config
from rqe_mappo.envs.contract import Observed, Step
from rqe_mappo.envs.matrix_games.payoffs import GAMES
from rqe_mappo.equilibrium import all_equilibria_2x2
from rqe_mappo.nets import PolicyActor

RESULT = tables.RESULTS / "srpo_games.csv"
SEEDS = (1, 2, 3, 4, 5)
EPS, COST = 0.2, 0.4  # of the free-rider game
AVERSIONS = (0.5, 2.0, 3.0, 5.0, 10.0, 30.0)  # the paper's tau, ours is the inverse; at 1 hardly anything pulls
SIDES = AVERSIONS[:2]  # with five seeds; the others with one
START = (0.75, 0.35)  # first probabilities of contributing: who rides free must be made to stop
# Exact games want small steps and none of PPO's clip, which holds the surrogate back and not the divergence.
SETTINGS: dict[str, Any] = {
    "eps": EPS, "num_envs": 1024, "num_steps": 1, "num_minibatches": 1, "update_epochs": 2, "critic_epochs": 1,
    "critic_first": 0.0, "clip_coef": 10.0, "learning_rate": 0.02, "average": 0.3, "settle": 0.01,
    "total_timesteps": 2000 * 2048,
}  # fmt: skip
TARGET, ROBOT_EPS, ROBOT_AVERSIONS = 3.0, 0.4, (0.0, 2.0)


class TwoRobots:
    """One step: robot i is paid `-(target - a_1 - a_2)^2 / 2 - a_i^2 / 2`, the first part shared; any actions."""

    possible_agents = ("robot_0", "robot_1")
    observation_space = state_space = Box(0, 1, (1,), np.float32)
    action_space = Box(-np.inf, np.inf, (1,), np.float32)
    return_bounds = reward_bounds = (-1e4, 0.0)
    reward_step = None
    common_reward = False
    time_in_observation = True
    horizon = 1

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self, seed: int) -> Observed:
        seen = np.ones((self.num_envs, 2, 1), np.float32)
        return Observed(seen, seen.copy(), np.ones((self.num_envs, 2), bool))

    def step(self, actions: np.ndarray) -> Step:
        action = actions[..., 0]
        reward = (-((TARGET - action.sum(1, keepdims=True)) ** 2) / 2 - action**2 / 2).clip(-1e4, 0)
        seen, over = self.reset(0), np.ones(action.shape, bool)
        records = {"copy": np.arange(self.num_envs), "return": reward.astype(float), "cost": 0.0 * reward,
                   "length": over.astype(np.int64)}  # fmt: skip
        return Step(
            seen.obs, seen.state, seen.active, reward=reward, cost=0 * reward, terminated=over, truncated=~over,
            final_obs=np.zeros((0, 1), np.float32), final_state=np.zeros((0, 1), np.float32), episodes=records,
        )  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, snapshot: dict[str, Any]) -> Observed:
        return self.reset(0)

    def close(self) -> None:
        pass


def robots_exact(aversion: float, eps: float) -> tuple[float, float]:
    """Mean and variance of each robot's action in equilibrium: `target / (3 - tau eps / 2)` and `eps / 2`.

    aversion: the paper's tau. The best response to a partner of variance v has `(target - 2 m) / (1 - tau v) = m`.
    """
    return TARGET / (3 - aversion * eps / 2), eps / 2


def quadratic_response(
    own: float, cross: float, slope: float, other: float, tilt: float, partner: tuple[float, float], tau: float,
    eps: float,
) -> tuple[float, float]:  # fmt: skip
    """Mean and variance of the best response to a normal partner (m, v) where a and b pay
    `-own a^2 / 2 + cross a b + slope a - other b^2 / 2 + tilt b`.

    With k = other v / tau < 1: mean `(slope + cross (m - tilt v / tau) / (1 - k)) / (own + cross^2 v / (tau (1 - k)))`,
    variance `eps / own`. tau is a tolerance.
    """
    mean, variance = partner
    left = 1 - other * variance / tau
    best = slope + cross * (mean - tilt * variance / tau) / left
    return best / (own + cross**2 * variance / (tau * left)), eps / own


def free_rider(aversion: float, seed: int, **changes: Any) -> np.ndarray:
    """Train the free-rider game; gives each player's probability of contributing."""
    config = default_config("matrix", "free-rider", "srpo").replace(
        **SETTINGS | {"strategic_tau": 1 / aversion, "seed": seed} | changes
    )

    def lean(actor: PolicyActor) -> None:
        for net, start in zip(actor.nets, START, strict=True):
            net[-1].bias[0] += math.log(start / (1 - start))

    run = trained(config, lean)
    with torch.no_grad():
        return run.algorithm.actor.logits(torch.ones(2, 1), torch.arange(2)).softmax(-1)[:, 0].double().numpy()


@functools.cache
def contributions(aversion: float) -> list[np.ndarray]:
    """Each player's probability of contributing, in every equilibrium."""
    found = all_equilibria_2x2(GAMES["free-rider"], 1 / aversion, EPS, form="aggregate")
    return [np.array([pi[0] for pi in e.strategies]) for e in found]


def shared_reward(chances: np.ndarray) -> float:
    """That anyone contributes."""
    return float(1 - np.prod(1 - chances))


def robots_config(aversion: float, seed: int, **changes: Any) -> TrainConfig:
    """Settings of a run of the robots; an aversion of 0 is IPPO."""
    own = {
        "strategic_tau": 1 / aversion if aversion else math.inf, "eps": ROBOT_EPS, "squash": "none", "seed": seed,
        "norm_adv": False, "gamma": 1.0, "time_limit": "terminal", "shared_actor": False, "actor_hidden": (),
        "critic_hidden": (), "critic_learning_rate": 0.03, "max_grad_norm": 10.0, "num_envs": 4096,
        "total_timesteps": 1000 * 8192,
    }  # fmt: skip
    return default_config("benchmarks.srpo_games:TwoRobots", algo="srpo").replace(**SETTINGS | own | changes)


def robots(aversion: float, seed: int, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Train the robots; gives means and variances of their actions."""
    run = trained(robots_config(aversion, seed, **changes))
    with torch.no_grad():
        policy, _ = run.algorithm.actor(torch.ones(2, 1), torch.arange(2))
    return policy.mean[:, 0].numpy(), (2 * policy.log_std[:, 0]).exp().numpy()


def row(game: str, aversion: float, seed: int) -> dict[str, Any]:
    """One run beside the exact answer."""
    known = {
        "game": game,
        "paper's tau": aversion,
        "strategic tau": 1 / aversion if aversion else math.inf,
        "seed": seed,
    }
    if game == "free-rider":
        found = free_rider(aversion, seed)
        exact = min(contributions(aversion), key=lambda chances: np.abs(chances - found).max())
        return known | {
            "trained 1": found[0], "trained 2": found[1], "exact 1": exact[0], "exact 2": exact[1],
            "difference": np.abs(found - exact).max(), "shared reward": shared_reward(found),
            "free riding": np.ptp(found),
        }  # fmt: skip
    mean, variance = robots(aversion, seed)
    exact_mean, exact_variance = robots_exact(aversion, ROBOT_EPS)
    return known | {
        "trained 1": mean[0], "trained 2": mean[1], "exact 1": exact_mean, "exact 2": exact_mean,
        "difference": np.abs(mean / exact_mean - 1).max(), "variance 1": variance[0], "variance 2": variance[1],
        "exact variance": exact_variance, "variance difference": np.abs(variance / exact_variance - 1).max(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only games whose name holds this")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = list(tables.read(RESULT))
    done = {(known["game"], float(known["paper's tau"]), int(known["seed"])) for known in rows}
    jobs = [("free-rider", a, seed) for seed in SEEDS for a in AVERSIONS if seed == 1 or a in SIDES]
    jobs += [("two-robots", a, seed) for seed in SEEDS for a in ROBOT_AVERSIONS]
    for job in jobs:
        if args.only in job[0] and job not in done:
            rows.append(row(*job))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
            tables.write(RESULT, sorted(rows, key=lambda r: (r["game"], float(r["paper's tau"]), int(r["seed"]))))


if __name__ == "__main__":
    main()
