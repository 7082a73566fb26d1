"""Whether agents who each choose their own best action choose the team's: by enumeration, where a run's agents come.

For runs whose team has quantiles (ddn, dmix, riskq, rmix), and any risk measure.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rqe_mappo import checkpoint
from rqe_mappo import config as configs
from rqe_mappo.algorithms.distributional import TeamQuantiles
from rqe_mappo.config import ConfigError
from rqe_mappo.data import vector
from rqe_mappo.data.replay import EpisodeReplay, Episodes
from rqe_mappo.evaluation.report import aligned
from rqe_mappo.functional import mixing, q_learning, quantile
from rqe_mappo.functional.policy_gradient import NO_ACTION
from rqe_mappo.functional.risk import RiskMeasure, parse_risk
from rqe_mappo.statistics import Estimate, rate
from rqe_mappo.training.run import Run

MOST_JOINT = 4096  # joint actions that are all compared
COPIES = 8
MOST_TRAJECTORIES = 1000
OF_TAU = ("entropic", "mean-variance")


@dataclass(frozen=True)
class Violations:
    """risk: the measure. rate: of states in which another joint action is worth more.

    spread: how far the outermost of the agents' quantiles lie apart, in stds of the first returns.
    """

    risk: str
    rate: Estimate
    spread: float


def table(found: Sequence[Violations]) -> str:
    """As aligned text."""
    lines = [
        (
            "measure",
            "states",
            "not the team's best",
            "95 % interval",
            "agents' quantiles span, in stds of the first returns",
        )
    ]
    for one in found:
        share = one.rate
        ends = f"{share.low:.3f} to {share.high:.3f}"
        lines.append((one.risk, str(share.n), f"{share.value:.3f}", ends, f"{one.spread:.3g}"))
    return "\n".join(aligned(lines))


def violations(run_or_file: Path, risks: Sequence[str], states: int, seed: int) -> list[Violations]:
    """How often it is not so in `states` states that greedy agents visit, by each measure.

    ConfigError for runs of other algorithms, and for more joint actions than can be enumerated.
    """
    policy = checkpoint.load_policy_file(run_or_file)
    config = configs.from_json(policy["config"], str(run_or_file))
    config = config.replace(num_envs=min(config.num_envs, COPIES), num_workers=0, device="cpu")
    if "buffer_episodes" in config.flat():
        config = config.replace(buffer_episodes=max(config.flat()["buffer_episodes"], states))
    for risk in risks:
        if risk in OF_TAU and getattr(config.algorithm, "measure", "neutral") not in OF_TAU:
            raise ConfigError(f"--rigm {risk} is of runs with --risk {risk} and a --tau: use cvar:0.25, for example")
    env = vector.make(config, config.num_envs)
    try:
        run = Run.build(config, run_or_file, env)
        if not isinstance(run.algorithm, TeamQuantiles):
            raise ConfigError(f"--rigm is of runs whose team has quantiles: ddn, dmix, riskq, rmix (got {config.algo})")
        actions, agents = run.algorithm.actor.spec.actions.outputs, len(env.possible_agents)
        if actions**agents > MOST_JOINT:
            raise ConfigError(f"--rigm compares at most {MOST_JOINT} joint actions (this run has {actions}^{agents})")
        run.take_in(policy, run_or_file)
        algorithm = run.algorithm
        visited = _visited(run, algorithm.replay, states, seed)
    finally:
        env.close()
    return [_of(algorithm, visited, risk, states) for risk in risks]


def _visited(run: Run, replay: EpisodeReplay, states: int, seed: int) -> Episodes:
    """Whole episodes of at least so many steps."""
    run.collector.start(run.env.reset(seed))
    for _ in range(MOST_TRAJECTORIES):
        replay.add(run.collector.collect(0.0)[0])
        if replay.steps >= states:
            break
    else:
        raise ConfigError(f"--rigm found fewer than {states} states in whole episodes")
    return replay.newest(len(replay))


@torch.no_grad()
def _of(algorithm: TeamQuantiles, visited: Episodes, risk: str, states: int) -> Violations:
    actor = algorithm.actor
    measure = parse_risk(risk, float(actor.tau), clip=None)
    present = torch.cat((visited.active, visited.present[-1:]))
    known = actor.distributions(visited.obs, present)
    every = torch.linspace(0, int(visited.filled.sum()) - 1, states).round().long()
    # in float64: where values are large beside what actions change, the rounding of float32 would count
    nets = copy.deepcopy(algorithm.nets).double()
    parts = (
        known[:-1].double(),
        actor.seen(visited.obs)[:-1],
        algorithm.for_mixers(visited).state[:-1],
        visited.active,
    )
    rows, obs, state, active = (part[visited.filled][every] for part in parts)
    agent = torch.arange(obs.shape[1]).expand(obs.shape[:2])
    avail = None if visited.avail is None else visited.avail[:-1][visited.filled][every]
    own = q_learning.masked(measure.value(*quantile.as_atoms(rows)), actor.there(agent, avail))
    wrong = torch.stack([
        _violated(algorithm, nets, measure, *row) for row in zip(rows, own, obs, state, active, strict=True)
    ])  # fmt: skip
    spread = float(quantile.spread(rows)[active].mean())
    return Violations(risk, rate(wrong.numpy()), spread)


def _violated(
    algorithm: TeamQuantiles,
    nets: nn.ModuleDict,
    measure: RiskMeasure,
    quantiles: Float[Tensor, "A actions N"],
    own: Float[Tensor, "A actions"],
    obs: Float[Tensor, "A D"],
    state: Float[Tensor, " S"],
    active: Tensor,
) -> Tensor:
    """Whether another joint action is worth more than that of the agents' own best ones."""
    there = own > NO_ACTION
    choices = [
        torch.nonzero(row).flatten().tolist() if acts else [int(row.int().argmax())]
        for row, acts in zip(there, active, strict=True)
    ]
    joint = torch.tensor(list(itertools.product(*choices)))
    count = len(joint)
    chosen = quantiles[torch.arange(len(own)), joint] * active[:, None]  # [joint, A, N]
    seen = (state.double().expand(count, -1), obs.double().expand(count, *obs.shape), active.expand(count, -1))
    total = algorithm.mixed(nets, chosen, *seen)
    worth = measure.value(*quantile.as_atoms(total))
    best = torch.where(active, own.argmax(-1), joint[0])
    return mixing.rigm_violations(worth, (joint == best).all(-1).int().argmax())
