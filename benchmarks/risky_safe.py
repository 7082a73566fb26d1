"""On which side of a gamble's threshold methods with a risk parameter end: `python -m benchmarks.risky_safe`.

Teams play the matrix game `risky-safe`: both safe pays 5; both risky 10, or -20 with probability 0.1; else 0. Learners
of single agents play the gamble `m1`: 0.5, or 4 and -2 at even odds. For each measure the threshold at which both are
worth the same is solved exactly; methods learn at half of it and at twice it, or at the neutral end where there is no
twice, and what their agents take is compared with what is right. Rows of benchmarks/results/risky_safe.csv that stand
there are kept.

Data. Single agents: uniform. Teams: both agents do the same, by a coin. From uniform play no sum of quantiles can take
the risky pair even when neutral: what both get apart, 0, is then half of the data, and quantile by quantile the least
absolute errors are had by a sum that gives up the pair's good outcomes below the median.

DRIMA-style learns from uniform play, as its agents' level is what forgives teammates; of pairs alone it learns nothing
of who does otherwise.

RiskQ's attention settles on one of two agents who see the same, within a few rounds; the other one's order of actions
stays as it began. Without attention each has a weight of its own.

With the entropic measure agents of a sum are not averse enough: each sees its half of the team's return, and
`rho_tau(Z / 2) = rho_{2 tau}(Z) / 2`.
"""

import argparse
import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scipy.optimize
import torch
from torch import Tensor

from benchmarks import tables
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.data.collector import Collector
from rqe_mappo.functional.risk import parse_risk
from rqe_mappo.nets.contract import Acted
from rqe_mappo.training.run import Run

SEEDS = (1, 2, 3, 4, 5)
SAFE, RISKY = 0, 1
ROUNDS = 60
SETTINGS = {
    "num_envs": 32, "num_steps": 8, "batch_episodes": 64, "replay_ratio": 8.0, "learning_rate": 2e-3, "td_lambda": 0.0,
    "buffer_episodes": 5000,
}  # fmt: skip


@dataclass(frozen=True)
class Game:
    """env, scenario: what is played. safe: its reward; outcomes, chances: of the gamble."""

    env: str
    scenario: str
    safe: float
    outcomes: tuple[float, ...]
    chances: tuple[float, ...]

    def gain(self, risk: str, tau: float = 1.0) -> float:
        """What the gamble is worth more than the safe reward, by a measure."""
        atoms, chances = (torch.tensor(part, dtype=torch.float64) for part in (self.outcomes, self.chances))
        return float(parse_risk(risk, tau, clip=None).value(atoms, chances.log())) - self.safe


TEAM = Game("matrix", "risky-safe", 5.0, (-20.0, 10.0), (0.1, 0.9))
ALONE = Game("gamble", "m1", 0.5, (-2.0, 4.0), (0.5, 0.5))


@dataclass(frozen=True)
class Measure:
    """A family: how a number is given to an algorithm, what the gamble is worth more by it, and its largest number."""

    name: str
    settings: Callable[[float], dict[str, Any]]
    gain: Callable[[Game, float], float]
    between: tuple[float, float]
    most: float = math.inf

    def threshold(self, game: Game) -> float:
        """The number at which gamble and safe reward are worth the same."""
        return scipy.optimize.brentq(lambda number: self.gain(game, number), *self.between, xtol=1e-10)


CVAR = Measure("cvar", lambda x: {"risk": f"cvar:{x}"}, lambda game, x: game.gain(f"cvar:{x}"), (0.01, 1.0), 1.0)
WANG = Measure("wang", lambda x: {"risk": f"wang:{x}"}, lambda game, x: game.gain(f"wang:{x}"), (1e-6, 3.0))
ENTROPIC = Measure(
    "entropic", lambda x: {"risk": "entropic", "tau": x, "return_scale": 1.0},
    lambda game, x: game.gain("entropic", x), (0.1, 1000.0),
)  # fmt: skip
LEVEL = Measure("cvar", lambda x: {"level": x}, CVAR.gain, CVAR.between, 1.0)
ENV_LEVEL = Measure("var", lambda x: {"env_level": x, "agent_level": 0.9}, lambda game, x: 0.0, (0, 1))


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {"riskq without attention": ("riskq", {"attention": False})}


def methods() -> Iterator[tuple[str, Game, Measure, float]]:
    """Every method, its game, a measure, and the measure's threshold."""
    for algo in ("ddn", "dmix", "riskq", *VARIANTS):
        for measure in (CVAR, WANG, ENTROPIC):
            yield algo, TEAM, measure, measure.threshold(TEAM)
    yield "rmix", TEAM, LEVEL, LEVEL.threshold(TEAM)
    yield "drima", TEAM, ENV_LEVEL, 0.1  # where the gamble's quantile jumps from -20 to 10
    for algo in ("c51", "qr-dqn"):
        for measure in (CVAR, WANG, ENTROPIC):
            yield algo, ALONE, measure, measure.threshold(ALONE)


class Alike:
    """Acts for agents who all do the same by a coin."""

    def __init__(self, actor: Any):
        self.actor, self.spec, self.memory_size, self.draws = actor, actor.spec, actor.memory_size, 1

    def begin(self, *given: Any) -> Tensor:
        return self.actor.begin(*given)

    def act(self, obs: Tensor, agent: Tensor, memory: Tensor, *, uniform: Tensor, **given: Any) -> Acted:
        drawn = (uniform[:, :1, 0] < 0.5).long().expand(agent.shape)
        return Acted(drawn, memory, {"drawn": drawn[..., None]})


def taken(algo: str, game: Game, settings: dict[str, Any], seed: int) -> list[int]:
    """What each agent takes after learning."""
    with tempfile.TemporaryDirectory() as folder:
        config = default_config(game.env, game.scenario, algo).replace(**SETTINGS | settings, seed=seed, out=folder)
        with contextlib.closing(vector.make(config, config.num_envs)) as env:
            run = Run.build(config, Path(folder), env)
            actor: Any = run.algorithm.actor
            playing: Any = Alike(actor) if game is TEAM and algo != "drima" else actor
            collector = Collector(env, playing, config.num_steps, torch.device("cpu"), run.generator)
            first = env.reset(seed)
            collector.start(first)
            for _ in range(ROUNDS):
                run.algorithm.learn(collector.collect(1.0)[0], Progress(0, 1))
            agents = torch.arange(len(env.possible_agents))
            values, _ = actor.values(torch.as_tensor(first.obs[0]), agents)
    return values.argmax(-1).tolist()


def row(algo: str, game: Game, measure: Measure, threshold: float, factor: float, seed: int) -> dict[str, Any]:
    """A run and what it should have come to."""
    number = min(factor * threshold, measure.most)
    risky = number > threshold if measure is ENV_LEVEL else measure.gain(game, number) > 0
    right, began = (RISKY if risky else SAFE), time.process_time()
    name, more = VARIANTS.get(algo, (algo, {}))
    found = taken(name, game, measure.settings(number) | more, seed)
    return {
        "algo": algo, "game": game.scenario, "measure": measure.name, "threshold": round(threshold, 4),
        "number": round(number, 4), "seed": seed, "right": "risky" if risky else "safe",
        "taken": " ".join("risky" if action == RISKY else "safe" for action in found),
        "holds": int(all(action == right for action in found)), "CPU seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algo", help="this method alone, such as 'riskq without attention'")
    wanted = parser.parse_args().algo
    torch.set_num_threads(1)
    place = tables.RESULTS / "risky_safe.csv"
    rows = tables.read(place)
    done = {(one["algo"], one["measure"], float(one["number"]), int(one["seed"])) for one in rows}
    for algo, game, measure, threshold in methods():
        for factor in (0.5, 2.0):
            number = round(min(factor * threshold, measure.most), 4)
            for seed in SEEDS:
                if wanted in (None, algo) and (algo, measure.name, number, seed) not in done:
                    rows.append(row(algo, game, measure, threshold, factor, seed))
                    print("  ".join(str(value) for value in rows[-1].values()), flush=True)
                    tables.write(place, rows)


if __name__ == "__main__":
    main()
