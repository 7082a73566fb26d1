"""The evaluation of a policy in its environment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rqe_mappo import registry
from rqe_mappo.config import TrainConfig, from_json
from rqe_mappo.data import finite, vector
from rqe_mappo.deploy.interpolation import Mixture
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation import report
from rqe_mappo.evaluation.episodes import MOST_COPIES, Calibration, calibration, chooser, copies_for, run_episodes
from rqe_mappo.evaluation.progress import Show
from rqe_mappo.functional.risk import RiskMeasure
from rqe_mappo.statistics import Estimate


@dataclass(frozen=True)
class Evaluation:
    """What a policy did in its environment; `print` shows it as tables.

    records: of all episodes, `[F]`, `[F, A]` or `[F, A, ...]` each; see `run_episodes`.
    calibration: how well the critic predicted the returns; None where it predicts no distribution of them.
    worker_restarts: how many worker processes were replaced.
    seed: of the episodes, and of the intervals.
    """

    records: dict[str, np.ndarray]
    calibration: Calibration | None
    worker_restarts: int
    seed: int

    @property
    def episodes(self) -> int:
        """How many episodes there were."""
        return len(self.records["return"])

    def rows(self, measures: Sequence[RiskMeasure] = ()) -> list[report.Row]:
        """The table's rows; with further risk `measures` of the return, tau in units of reward."""
        return report.rows(self.records, self.seed, measures)

    def __getitem__(self, metric: str) -> Estimate:
        """A metric of the table, of single agents where it has several levels: `evaluation["mean return"].value`."""
        found = [row.estimate for row in self.rows() if row.metric == metric]
        if not found:
            raise KeyError(f"{metric!r}: there are {', '.join(dict.fromkeys(row.metric for row in self.rows()))}")
        return found[0]

    def __str__(self) -> str:
        text = report.table(self.rows())
        return text if self.calibration is None else f"{text}\n\n{self.calibration}"


def evaluate(
    policy: Policy | Mixture,
    episodes: int,
    seed: int,
    deterministic: bool = False,
    show: Show = lambda done, total: None,
) -> Evaluation:
    """Run `episodes` of the policy's own environment; the critic is judged unless `deterministic`.

    The most probable actions are another policy than the one whose returns the critic learned. A critic that predicts
    means, or nothing of the policy's returns, is not judged either, nor are those of a mixture.
    show: called with how many episodes are done, and of how many.
    """
    first = policy.policies[0] if isinstance(policy, Mixture) else policy
    config: TrainConfig = from_json(first.config_json)
    own_process = registry.environment(config.env).own_process
    copies, each = copies_for(episodes, config.num_envs if own_process else MOST_COPIES)
    policy.seed(seed)
    env = vector.make(config, copies)
    try:
        with finite.named(config.env):
            records, starts = run_episodes(env, chooser(policy, deterministic), each, seed, config.gamma, show)
        workers = vector.workers_of(env)
        restarts = sum(workers.restarts) if workers else 0
    finally:
        env.close()
    known = None
    if isinstance(policy, Policy) and policy.predicts_distribution and not deterministic:
        known = calibration(policy, starts, records, seed, config.time_limit)
    return Evaluation(records, known, restarts, seed)
