"""Is a population in one process faster than its runs one by one? `python -m benchmarks.population`.

Five tau and four seeds on Risky CartPole. The population's networks are stacked along a leading axis P and their
minibatches go through batched matrix products, one Adam step for all; everything else of a run is the run's own, and
made of the parts of `RqeMappo`. Single runs and population alternate, round by round, in CPU seconds. The parameters of
both are compared after a few updates: later, rounding alone leads to other draws. Writes results/population.csv.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from benchmarks import tables
from benchmarks.tables import RESULTS
from rqe_mappo.algorithms.actor_critic import moment, passes, step_sizes
from rqe_mappo.algorithms.ppo import Batch, policy_loss
from rqe_mappo.algorithms.rqe_mappo import RqeMappo
from rqe_mappo.config import TrainConfig, default_config
from rqe_mappo.data import vector
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.functional import categorical
from rqe_mappo.nets.distributions import Categorical
from rqe_mappo.training.run import Run

TAUS = (0.3, 0.5, 1.0, 2.0, float("inf"))
SEEDS = (1, 2, 3, 4)


class StackedMLP:
    """Networks of P runs, their parameters stacked `[P, ...]`, of which the runs' own become views."""

    def __init__(self, nets: Sequence[nn.Sequential], max_grad_norm: float):
        self.layers: list[nn.Module | tuple[Tensor, Tensor]] = []
        self.parameters: list[Tensor] = []
        for layers in zip(*nets, strict=True):
            if not isinstance(layers[0], nn.Linear):
                self.layers.append(layers[0])
                continue
            weight, bias = (torch.stack([getattr(layer, name).detach() for layer in layers]).requires_grad_()
                            for name in ("weight", "bias"))  # fmt: skip
            for p, layer in enumerate(layers):
                layer.weight.data, layer.bias.data = weight.data[p], bias.data[p]
            self.layers.append((weight, bias))
            self.parameters += [weight, bias]
        self.optimizer = torch.optim.Adam(self.parameters, fused=True, eps=1e-5)
        self.max_grad_norm = max_grad_norm

    def __call__(self, rows: Tensor) -> Tensor:
        """Outputs `[P, R, O]` for inputs `[P, R, I]`."""
        for layer in self.layers:
            rows = layer(rows) if isinstance(layer, nn.Module) else self._linear(rows, *layer)
        return rows

    @staticmethod
    def _linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias[:, None], rows, weight.transpose(1, 2))

    def step(self, losses: Tensor, rate: float) -> None:
        """Descend every run's own loss `[P]`, its gradient clipped by its own norm."""
        self.optimizer.zero_grad()
        losses.sum().backward()
        squares = sum((p.grad**2).flatten(1).sum(1) for p in self.parameters)
        keep = (self.max_grad_norm / (squares.sqrt() + 1e-6)).clamp(max=1)
        for parameter in self.parameters:
            parameter.grad *= keep.view(-1, *(1 for _ in parameter.shape[1:]))
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()


class Population:
    """Runs of one environment, in which all agents always act, updated together."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = runs
        self.algorithms: list[RqeMappo] = [run.algorithm for run in runs]
        self.config = config = self.algorithms[0].config
        self.spec = self.algorithms[0].actor.spec.actions
        self.actor = StackedMLP([one.actor.nets[0] for one in self.algorithms], config.max_grad_norm)
        self.critic = StackedMLP([one.critic.nets[0] for one in self.algorithms], 2 * config.max_grad_norm)

    def update(self) -> None:
        """One trajectory of each run and what is learned from it, as in `RqeMappo.learn`."""
        now, batches = moment(self.config, self.runs[0].progress), []
        for run, algorithm in zip(self.runs, self.algorithms, strict=True):
            chunk, finished = run.collector.collect()
            batches.append(algorithm.targets(chunk, algorithm.predict(chunk), algorithm.risk.measures(now.share))[0])
            count(run, chunk, finished)
        stacked = Stacked.of(batches)
        rates = step_sizes(self.config, now)
        passes(
            self.config,
            lambda: self._minibatches(batches),
            lambda rows: self._critic_step(stacked.rows(rows), rates[1]),
            lambda rows: self._actor_step(stacked.rows(rows), rates[0]),
        )

    def _minibatches(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The runs' own minibatches, each shuffled by its own generator: `[P, M]` each."""
        count = self.config.num_minibatches
        each = [batch.minibatches(count, run.generator) for batch, run in zip(batches, self.runs, strict=True)]
        return [torch.stack([part.rows for part in parts]) for parts in zip(*each, strict=True)]

    def _critic_step(self, part: "Stacked", rate: float) -> dict[str, Tensor]:
        self.critic.step(categorical.cross_entropy(part.target, self.critic(part.state)).mean(1), rate)
        return {}

    def _actor_step(self, part: "Stacked", rate: float) -> dict[str, Tensor]:
        policy = Categorical(self.spec, self.actor(part.obs))
        loss, _ = policy_loss(policy, part.drawn, part.log_prob, part.advantage, self.config.clip_coef)
        self.actor.step((loss - self.config.eps * policy.entropy()).mean(1), rate)
        return {}


@dataclass
class Stacked:
    """Batches of P runs with R rows each, or some rows of them."""

    obs: Float[Tensor, "P R D"]
    state: Float[Tensor, "P R S"]
    drawn: Int[Tensor, "P R choices"]
    log_prob: Float[Tensor, "P R"]
    advantage: Float[Tensor, "P R"]
    target: Float[Tensor, "P R N"]

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> "Stacked":
        """All rows."""

        def stacked(values: Callable[[Trajectory], Tensor]) -> Tensor:
            return torch.stack([flat(values(batch.chunk))[batch.rows] for batch in batches])

        return cls(
            obs=stacked(lambda chunk: chunk.obs),
            state=stacked(lambda chunk: chunk.state),
            drawn=stacked(lambda chunk: chunk.extras["drawn"]),
            log_prob=stacked(lambda chunk: chunk.extras["log_prob"]),
            advantage=torch.stack([batch.advantage for batch in batches]),
            target=torch.stack([batch.target for batch in batches]),
        )

    def rows(self, rows: Int[Tensor, "P M"]) -> "Stacked":
        """The `rows` of each run."""
        run = torch.arange(len(rows))[:, None]
        return Stacked(**{name: values[run, rows] for name, values in vars(self).items()})


def count(run: Run, chunk: Trajectory, finished: list) -> None:
    """What `training.loop` keeps of a trajectory."""
    run.step += int(chunk.active.sum())


def single(run: Run) -> None:
    """One trajectory and update of a run by itself."""
    chunk, finished = run.collector.collect()
    run.algorithm.learn(chunk, run.progress)
    count(run, chunk, finished)


def made(config: TrainConfig, folder: Path) -> list[Run]:
    """The twenty runs at their beginning."""
    runs = []
    for tau in TAUS:
        for seed in SEEDS:
            own = config.replace(tau=tau, seed=seed)
            run = Run.build(own, folder, vector.make(own, own.num_envs))
            run.collector.start(run.env.reset(seed))
            runs.append(run)
    return runs


def difference(ones: Sequence[Run], others: Sequence[Run]) -> float:
    """The largest difference of any parameter."""
    return max(
        float((mine - theirs).detach().abs().max())
        for one, other in zip(ones, others, strict=True)
        for part in ("actor", "critic")
        for mine, theirs in zip(
            one.algorithm.modules[part].parameters(), other.algorithm.modules[part].parameters(), strict=True
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="of one update of all runs on either side")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    config = default_config("cartpole", "default")
    with tempfile.TemporaryDirectory() as folder:
        alone, together = made(config, Path(folder)), made(config, Path(folder))
        population, rows = Population(together), []
        for number in range(1, rounds + 1):
            began = time.process_time()
            for run in alone:
                single(run)
            middle = time.process_time()
            population.update()
            ended = time.process_time()
            rows.append({
                "round": number, "runs": len(alone), "single_cpu_s": middle - began, "population_cpu_s": ended - middle,
                "single_over_population": (middle - began) / (ended - middle),
                "largest_parameter_difference": difference(alone, together),
            })  # fmt: skip
            print("  ".join(f"{value:.4g}" for value in rows[-1].values()), flush=True)
    tables.write(RESULTS / "population.csv", rows)
    total = [sum(row[name] for row in rows) for name in ("single_cpu_s", "population_cpu_s")]
    print(f"CPU seconds: {total[0]:.1f} one by one, {total[1]:.1f} together: {total[0] / total[1]:.2f} times as fast")


if __name__ == "__main__":
    main()
