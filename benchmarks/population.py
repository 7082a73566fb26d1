"""Is a population in one process faster than its runs one by one? `python -m benchmarks.population`.

Five tau and four seeds on Risky CartPole. The population's networks are stacked along a leading axis P and their
minibatches go through batched matrix products, one Adam step for all; everything else of a run is the run's own. Single
runs and population alternate, round by round, in CPU seconds. The parameters of both are compared after a few updates:
later, rounding alone leads to other draws. Writes results/population.csv.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import tables
from benchmarks.tables import RESULTS
from rqe_mappo.algorithms.rqe_mappo import Batch
from rqe_mappo.config import TrainConfig, default_config
from rqe_mappo.data import vector
from rqe_mappo.functional import categorical, policy_gradient
from rqe_mappo.training.loop import Run, build

TAUS = (0.3, 0.5, 1.0, 2.0, float("inf"))
SEEDS = (1, 2, 3, 4)


class StackedMLP:
    """Networks of P runs, their parameters stacked `[P, ...]`, of which the runs' own become views."""

    def __init__(self, nets: Sequence[nn.Sequential], learning_rate: float, max_grad_norm: float):
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
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate, fused=True, eps=1e-5)
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
        learners, config = [run.learner for run in runs], runs[0].config
        self.actor = StackedMLP([one.actor.nets[0] for one in learners], config.learning_rate, config.max_grad_norm)
        self.critic = StackedMLP(
            [one.critic.net for one in learners], config.critic_learning_rate, 2 * config.max_grad_norm
        )

    def update(self) -> None:
        """One rollout of each run and what is learned from it, as in `Learner.update`."""
        batches = []
        for run in self.runs:
            progress = run.config.progress(run.step)
            measures = run.schedule.measures(progress)
            rollout, finished = run.collector.collect(run.learner.actor)
            run.learner._anneal(progress)
            batches.append(run.learner._targets(rollout, measures)[0])
            count(run, rollout, finished, progress)
        stacked = {name: torch.stack([getattr(batch, name) for batch in batches]) for name in vars(batches[0])}
        rates = [
            optimizer.param_groups[0]["lr"] for optimizer in (run.learner.actor_optimizer, run.learner.critic_optimizer)
        ]
        config = run.config
        for epoch in range(max(config.update_epochs, config.critic_epochs)):
            orders = torch.stack([torch.randperm(len(batch.agent), generator=run.generator)
                                  for run, batch in zip(self.runs, batches, strict=True)])  # fmt: skip
            for rows in orders.tensor_split(config.num_minibatches, dim=1):
                part = Batch(**{name: _taken(values, rows) for name, values in stacked.items()})
                if epoch < config.critic_epochs:
                    logits = self.critic(part.state)
                    self.critic.step(categorical.cross_entropy(part.target, logits).mean(1), rates[1])
                if epoch < config.update_epochs:
                    logits = self.actor(part.obs)
                    log_prob = logits.log_softmax(-1).gather(-1, part.action[..., None]).squeeze(-1)
                    gain = policy_gradient.clipped_surrogate(log_prob - part.log_prob, part.advantage, config.clip_coef)
                    self.actor.step((gain - config.eps * policy_gradient.entropy(logits)).mean(1), rates[0])


def _taken(values: Tensor, rows: Tensor) -> Tensor:
    """The `rows` `[P, M]` of each run's `values` `[P, R, ...]`."""
    index = rows.view(*rows.shape, *(1 for _ in values.shape[2:])).expand(*rows.shape, *values.shape[2:])
    return values.gather(1, index)


def count(run: Run, rollout: object, finished: list, progress: float) -> None:
    """What `train.loop` keeps of a rollout."""
    run.step += int(rollout.active.sum())
    for record in finished:
        run.schedule.observe(torch.from_numpy(record["return"][record["length"] > 0]), progress)


def single(run: Run) -> None:
    """One rollout and update of a run by itself."""
    progress = run.config.progress(run.step)
    measures = run.schedule.measures(progress)
    rollout, finished = run.collector.collect(run.learner.actor)
    run.learner.update(rollout, measures, progress)
    count(run, rollout, finished, progress)


def made(config: TrainConfig, folder: Path) -> list[Run]:
    """The twenty runs at their beginning."""
    runs = []
    for tau in TAUS:
        for seed in SEEDS:
            own = replace(config, tau=tau, seed=seed)
            run = build(own, folder, vector.make(own, own.num_envs))
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
            getattr(one.learner, part).parameters(), getattr(other.learner, part).parameters(), strict=True
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
