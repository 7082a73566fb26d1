"""Episodes with a fixed policy: their records, and how well the critic predicted them."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rqe_mappo import registry
from rqe_mappo.config import TrainConfig
from rqe_mappo.data import finite, vector
from rqe_mappo.deploy.policy import ActingPolicy, Policy
from rqe_mappo.envs.action_noise import NoisyActions, uniform_actions
from rqe_mappo.envs.contract import BatchedEnv, Observed, begun
from rqe_mappo.envs.history import History
from rqe_mappo.evaluation.progress import Show
from rqe_mappo.functional import categorical
from rqe_mappo.nets.contract import ReturnDistribution
from rqe_mappo.statistics import interval, of_samples

MOST_COPIES = 64
RESAMPLES = 1_000  # of the risk value, which takes longer than a mean; the ends then vary by 2 % of the interval
Chooser = Callable[[BatchedEnv, Observed], np.ndarray]
"""Actions `[E, A]` for what the environment shows."""


@dataclass(frozen=True)
class Calibration:
    """How the critic's distribution at the start of episodes compares with the returns that followed.

    "Predicted" is the mixture of the critic's distributions over all starts, "observed" (in names: realised) the
    distribution of all returns: one by one they cannot be compared, for no start comes twice. Returns are discounted as
    in training, in the unit of the reward. One sample per agent and episode; agents of an episode are not independent.

    pit: `[n]`, where each return fell in the distribution predicted for it; uniform on [0, 1] for a calibrated critic.
    atoms, predicted: `[N]`, the mixture of the critic's distributions.
    realised: `[n]`, the returns.
    episodes: how many they come from.
    ks: the Kolmogorov-Smirnov distance of `pit` from uniform.
    ks_limit: `1.36 / sqrt(episodes)`, below which at least 95 % of calibrated critics stay.
    predicted_value, realised_value: the risk value as training uses it (`RiskMeasure.reference`), of both;
        `realised_value_low` to `_high` is its 95 % interval over episodes; nan below 100 of them.
    predicted_exact, realised_exact: `RiskMeasure.value`, which bounds no rare outcome. For the entropic measure the
        predicted one is unreliable where the atoms span more than some ten tau: the little probability that a softmax
        leaves on the lowest atoms then decides it. The realised one rests on the few worst episodes.
    value_gap_in_std: `(predicted_value - realised_value) / realised_std`; nan where returns do not vary.
    edge_mass_low, edge_mass_high: predicted probability of the first and last atom.
    completion_weight: what the critic's own draw weighs in a return, on average; see `completed`.
    risk, tau: the measure, and its tau in units of the return's std (None where it has none).
    """

    pit: np.ndarray
    atoms: np.ndarray
    predicted: np.ndarray
    realised: np.ndarray
    episodes: int
    ks: float
    ks_limit: float
    predicted_mean: float
    realised_mean: float
    predicted_std: float
    realised_std: float
    predicted_value: float
    realised_value: float
    realised_value_low: float
    realised_value_high: float
    predicted_exact: float
    realised_exact: float
    value_gap_in_std: float
    edge_mass_low: float
    edge_mass_high: float
    completion_weight: float
    risk: str
    tau: float | None

    @property
    def value_name(self) -> str:
        """The risk value as tables name it."""
        return f"V ({self.risk})" if self.tau is None else f"V ({self.risk}, tau {self.tau:g})"

    def as_dict(self) -> dict[str, Any]:
        """The numbers without the arrays, for JSON; nan as None, infinity as "inf"."""

        def plain(value: Any) -> Any:
            if not isinstance(value, float) or math.isfinite(value):
                return value
            return None if math.isnan(value) else str(value)

        numbers = {name: plain(value) for name, value in vars(self).items() if not isinstance(value, np.ndarray)}
        return {"samples": len(self.pit), **numbers}

    def __str__(self) -> str:
        observed = f"{self.realised_value:.4g}"
        if not math.isnan(self.realised_value_low):
            observed += f" [{self.realised_value_low:.4g}, {self.realised_value_high:.4g}]"
        if math.isfinite(self.value_gap_in_std):
            observed += f", {abs(self.value_gap_in_std):.2f} std apart"
        lines = [
            ("critic at the start of episodes", "predicted", "observed"),
            ("mean return", f"{self.predicted_mean:.4g}", f"{self.realised_mean:.4g}"),
            ("std of return", f"{self.predicted_std:.4g}", f"{self.realised_std:.4g}"),
            (self.value_name, f"{self.predicted_value:.4g}", observed),
        ]
        if self.predicted_exact != self.predicted_value:
            lines.append(("the same without --risk-clip", f"{self.predicted_exact:.4g}", f"{self.realised_exact:.4g}"))
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        text.insert(1, "  ".join("-" * width for width in widths))
        text += [
            f"KS {self.ks:.3f}; a calibrated critic: below {self.ks_limit:.3f}",
            f"{len(self.pit)} returns of {self.episodes} episodes; predicted on the edge atoms: "
            f"{100 * self.edge_mass_low:.2f} % low, {100 * self.edge_mass_high:.2f} % high",
        ]
        if self.completion_weight > 0:
            weight = f"{100 * self.completion_weight:.2g} % of a return on average"
            text.append(f"episodes cut by the time limit are completed by a draw from the critic: {weight}")
        return "\n".join(text)


def copies_for(episodes: int, most: int = MOST_COPIES) -> tuple[int, int]:
    """How many copies, `most` of all, and how many episodes each make up `episodes` (rounded up if they must be)."""
    divisors = [n for n in range((most + 1) // 2, most + 1) if episodes % n == 0]
    copies = divisors[-1] if divisors else min(most, episodes)
    return copies, -(-episodes // copies)


def run_episodes(
    env: BatchedEnv, choose: Chooser, each: int, seed: int, gamma: float = 1.0, show: Show = lambda done, total: None
) -> tuple[dict[str, np.ndarray], list[Observed]]:
    """The first `each` episodes of every copy: their records, and what was seen when each began.

    A fixed number per copy: whatever ends within a time window would count short episodes too often. An episode whose
    simulation was lost does not count; its copy plays another. Raises `NotFinite` for rewards and observations of which
    no figure could be made. The records gain

    discounted: `[F, A]`, the return discounted by `gamma` from the start of the episode.
    remaining: `[F, A]`, what a return after the end would weigh: `gamma^T` for an agent that was truncated after T
        steps, 0 for one that terminated.
    final_obs, final_state: `[F, A, ...]`, what is seen after a truncation; zero for an agent that terminated.

    show: called with how many episodes are done, and of how many.
    """
    observed = env.reset(seed)
    first = [_copy(observed, slice(None))]
    began = [(0, copy) for copy in range(env.num_envs)]
    done = np.zeros(env.num_envs, dtype=int)
    running = {
        "discounted": np.zeros(observed.active.shape),
        "remaining": np.zeros(observed.active.shape),
        "final_obs": np.zeros_like(observed.obs),
        "final_state": np.zeros_like(observed.state),
    }
    weight = np.ones(env.num_envs)
    records, starts = [], []
    while (done < each).any():
        step = env.step(choose(env, observed))
        finite.check_step(step, env.possible_agents)
        running["discounted"] += weight[:, None] * step.reward
        weight *= gamma
        cut = np.nonzero(step.truncated)
        running["remaining"][cut] = weight[cut[0]]
        running["final_obs"][cut], running["final_state"][cut] = step.final_obs, step.final_state
        ended = step.episodes["copy"]
        if len(ended):
            keep = done[ended] < each
            records.append({key: value[keep] for key, value in step.episodes.items()})
            records[-1] |= {key: value[ended[keep]] for key, value in running.items()}
            starts += [began[copy] for copy in ended[keep]]
            done[ended] += 1
            show(int(done.clip(max=each).sum()), each * env.num_envs)
        anew = begun(step)
        if len(anew):
            weight[anew] = 1.0
            for value in running.values():
                value[anew] = 0.0
            first.append(_copy(step, anew))
            for row, copy in enumerate(anew):
                began[copy] = len(first) - 1, row
        observed = step
    joined = {key: np.concatenate([record[key] for record in records]) for key in records[0]}
    return joined, [_copy(first[index], row) for index, row in starts]


def _copy(observed: Observed, rows: slice | np.ndarray | int) -> Observed:
    return Observed(*(getattr(observed, name)[rows].copy() for name in ("obs", "state", "active")))


def chooser(policy: ActingPolicy, deterministic: bool = False) -> Chooser:
    """The policy, or a mixture of some, as a `Chooser`."""
    agents = np.arange(len(policy.agents))

    def choose(env: BatchedEnv, observed: Observed) -> np.ndarray:
        policy.begin(begun(observed), of=len(observed.active))
        rows = np.broadcast_to(agents, observed.active.shape)
        return policy.act(observed.obs, rows, deterministic, avail=observed.avail, active=observed.active)

    return choose


def completed(policy: Policy, records: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Discounted returns `[F, A]` in which the critic stands in for what a time limit hides.

    `G + gamma^T Z`, Z drawn from the critic's distribution at the final state, for an agent that was truncated after T
    steps; G for one that terminated. A calibrated critic is thus still judged right, but any other is judged by itself
    with the weight `gamma^T`: 0.7 % after 500 steps at gamma 0.99.
    """
    cut = records["remaining"] > 0
    later = np.zeros(cut.shape)
    if cut.any():
        found = _distributions(policy, policy.view_of(records["final_obs"], records["final_state"]), cut)
        drawn = (found.probs.double().cumsum(-1).numpy() < rng.random((cut.sum(), 1))).sum(-1)
        later[cut] = found.atoms.numpy()[drawn.clip(max=len(found.atoms) - 1)]
    return records["discounted"] + records["remaining"] * later


def calibration(
    policy: Policy, starts: list[Observed], records: dict[str, np.ndarray], seed: int, time_limit: str
) -> Calibration:
    """Compare the critic at the episodes' starts with the returns that followed, both as `run_episodes` gives them.

    time_limit: as in training: with "bootstrap" returns are `completed` by the critic, with "terminal" nothing follows.

    The PIT of a return on atom k is `F_{k-1} + U p_k`, U uniform, which is uniform for a discrete distribution too; a
    return between two atoms is put on one of them by chance, the nearer more often, as in the projection of targets.
    """
    rng = np.random.default_rng(seed)
    took_part = np.stack([start.active for start in starts])
    views = np.stack([policy.view_of(start.obs, start.state) for start in starts])
    found = _distributions(policy, views, took_part)
    returns = completed(policy, records, rng) if time_limit == "bootstrap" else records["discounted"]
    remaining = records["remaining"] if time_limit == "bootstrap" else np.zeros_like(returns)
    realised, episodes = returns[took_part], int(took_part.any(1).sum())
    atoms, log_probs = found.atoms.double(), found.log_probs.double()
    pit = _pit(atoms.numpy(), log_probs.exp().numpy(), realised, rng)
    mixture = log_probs.logsumexp(0) - math.log(len(realised))
    predicted = mixture.exp()
    measure = policy.in_reward(policy.measure)
    value = interval(
        functools.partial(of_samples, measure.reference), returns, took_part, seed=seed, resamples=RESAMPLES
    )
    predicted_value = float(measure.reference(atoms, mixture))
    realised_std = float(realised.std()) if np.ptp(realised) > 0 else 0.0  # rounding alone would leave some 1e-16
    return Calibration(
        pit=pit,
        atoms=atoms.numpy(),
        predicted=predicted.numpy(),
        realised=realised,
        episodes=episodes,
        ks=_distance_from_uniform(pit),
        ks_limit=1.36 / math.sqrt(episodes),
        predicted_mean=float(categorical.mean(atoms, predicted)),
        realised_mean=float(realised.mean()),
        predicted_std=float(categorical.variance(atoms, predicted).sqrt()),
        realised_std=realised_std,
        predicted_value=predicted_value,
        realised_value=value.value,
        realised_value_low=value.low,
        realised_value_high=value.high,
        predicted_exact=float(measure.value(atoms, mixture)),
        realised_exact=float(of_samples(measure.value, realised)),
        value_gap_in_std=(predicted_value - value.value) / realised_std if realised_std > 0 else math.nan,
        edge_mass_low=float(predicted[0]),
        edge_mass_high=float(predicted[-1]),
        completion_weight=float(remaining[took_part].mean()),
        risk=policy.measure.name,
        tau=getattr(policy.measure, "tau", None),
    )


def _distributions(policy: Policy, views: np.ndarray, rows: np.ndarray) -> ReturnDistribution:
    """What the critic predicts at the `rows` `[F, A]` of its `views` `[F, A, V]`, on the CPU."""
    agents = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    found = policy.distribution(views[rows], agents[rows])
    return ReturnDistribution(found.atoms.cpu(), found.log_probs.cpu())


def _pit(atoms: np.ndarray, probs: np.ndarray, returns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    last = len(atoms) - 1
    position = ((returns - atoms[0]) / (atoms[-1] - atoms[0]) * last).clip(0, last)
    row, atom = np.arange(len(returns)), np.floor(position + rng.random(len(returns))).astype(int).clip(max=last)
    return (probs.cumsum(-1)[row, atom] - rng.random(len(returns)) * probs[row, atom]).clip(0, 1)


def _distance_from_uniform(pit: np.ndarray) -> float:
    ordered, grid = np.sort(pit), np.arange(len(pit) + 1) / len(pit)
    return float(max((grid[1:] - ordered).max(), (ordered - grid[:-1]).max()))


def scripted(config: TrainConfig, name: str, seed: int) -> Chooser:
    """A scripted policy, by its name in the environment of `config`; ValueError where there is none.

    Every environment has `random`.
    """
    entry = registry.environment(config.env)
    if not entry.drivers:
        if name != "random":
            raise ValueError(f"--driver {name}: --env {config.env} has no scripted policy but random")
        rng = np.random.default_rng(seed)
        return lambda env, observed: uniform_actions(env, observed.avail, rng)
    driver = registry.load(entry.drivers)(name, seed)
    return lambda env, observed: driver(_unwrapped(env))


def _unwrapped(env: BatchedEnv) -> Any:
    """The environment itself, which scripted policies look into."""
    while isinstance(env, NoisyActions | History):
        env = env.env
    return env


def drive(
    config: TrainConfig, choose: Chooser, episodes: int, seed: int, show: Show = lambda done, total: None
) -> dict[str, np.ndarray]:
    """The records of `episodes` of an environment in this process, which scripted policies look into."""
    own_process = registry.environment(config.env).own_process
    copies, each = copies_for(episodes, 1 if own_process else MOST_COPIES)
    env = vector.make(config, copies, in_process=True)
    try:
        with finite.named(config.env):
            return run_episodes(env, choose, each, seed, show=show)[0]
    finally:
        env.close()
