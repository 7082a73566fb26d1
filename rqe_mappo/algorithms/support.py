"""Where the atoms of a return distribution lie: what an environment promises, then what is seen of its returns."""

import math
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.algorithms.actor_critic import WIDEST
from rqe_mappo.algorithms.optimiser import Adam
from rqe_mappo.config import AlgorithmConfig, TrainConfig, require, require_range
from rqe_mappo.data.trajectory import Trajectory, flat
from rqe_mappo.envs.by_name.config import ByNameConfig
from rqe_mappo.envs.contract import LARGEST, BatchedEnv
from rqe_mappo.functional import categorical, returns
from rqe_mappo.nets.critics import CategoricalCritic, DistributionCritic

FEW_ATOMS = 8  # a support of which the std of the first returns spans fewer is too wide for them
MARGIN = 0.5  # of the range of returns seen, added where the support must reach further
CUT_OFF = 0.01  # of the targets' probability on an edge atom: returns lie beyond
FINEST = 1e-6  # of the returns' size, between atoms: some eight steps of float32
SMALLEST = 1e-30  # between atoms, whose squares float32 must hold
ROUNDING = 0.01  # of a spacing: a return that float32 puts so far beyond the support has not passed it
REFIT_STEPS, REFIT_PARTS, REFIT_RATE = 400, 8, 3e-3


def return_bounds(env: "BatchedEnv | OfTeam", gamma: float, time_limit: str) -> tuple[float, float]:
    """Bounds of every return that `env` can give from any state, under the discount `gamma`.

    Of two bounds, both of which hold, the tighter. A return of k steps lies between k times the bounds of a reward,
    discounted. And with R_t the undiscounted returns from the steps of an episode, all within `env.return_bounds`, the
    discounted one is `R_0 - (1 - gamma) sum_{t >= 1} gamma^(t-1) R_t`: it passes the undiscounted bound at one end by
    no more than the other end allows. The latter does not hold where time limits are bootstrapped over.
    """
    low, high = env.reward_bounds
    if time_limit == "bootstrap":
        steps = 1 / (1 - gamma)
        return min(low, low * steps), max(high, high * steps)
    steps = env.horizon if gamma == 1 else (1 - gamma**env.horizon) / (1 - gamma)
    later = 0.0 if env.horizon == 1 else 1 - gamma ** (env.horizon - 1)
    first, last = env.return_bounds
    return (
        max(min(low, low * steps), first - later * max(last, 0.0)),
        min(max(high, high * steps), last - later * min(first, 0.0)),
    )


def choose_support(env: "BatchedEnv | OfTeam", gamma: float, time_limit: str, n_atoms: int) -> Float[Tensor, " atoms"]:
    """At most `n_atoms` atoms that hold every return the environment can give under the discount `gamma`.

    Where rewards lie on a grid and returns are not discounted, the atoms lie on that grid too, and projecting a
    target onto them is exact. One atom lies beyond each bound, so that mass on an edge atom always means a tail that
    was cut off.
    """
    low, high = return_bounds(env, gamma, time_limit)
    if env.reward_step is not None and gamma == 1:
        inner = categorical.aligned_support(low, max(high, low + env.reward_step), env.reward_step, n_atoms - 2)
        # far from 0 the difference of two atoms in float32 is no multiple of the step
        spacing = round(float(inner[1] - inner[0]) / env.reward_step) * env.reward_step
        return categorical.aligned_support(low - spacing, high + spacing, spacing, n_atoms)
    if not low < high:
        return around(low, high, n_atoms)
    spacing = (high - low) / (n_atoms - 4)
    return categorical.aligned_support(low - spacing, high + spacing, spacing, n_atoms)


def on_grid(atoms: Float[Tensor, " atoms"], env: "BatchedEnv | OfTeam", gamma: float) -> bool:
    """Whether every return lies on an atom, so that nothing is lost between them however far apart they are."""
    return gamma == 1 and env.reward_step is not None and bool(atoms[1] - atoms[0] < 1.5 * env.reward_step)


def promised_bounds(run: TrainConfig, env: "BatchedEnv | OfTeam") -> tuple[float, float]:
    """Bounds of all returns, if the environment knows them: those that are measured by name may be passed."""
    if isinstance(run.env_config, ByNameConfig) and run.env_config.reward_low is None:
        return -math.inf, math.inf
    return return_bounds(env, run.gamma, run.time_limit)


def around(low: float, high: float, n_atoms: int) -> Float[Tensor, " atoms"]:
    """`n_atoms` evenly spaced atoms, the first a spacing below `low`, the last one above `high`."""
    if not low < high:
        half = abs(low) / 2 or 1.0
        low, high = low - half, high + half
    resolved = n_atoms * max(FINEST * max(abs(low), abs(high)), SMALLEST)
    if high - low < resolved:
        middle = low + (high - low) / 2
        low, high = middle - resolved / 2, middle + resolved / 2
    spacing = (high - low) / (n_atoms - 3)
    return categorical.support(low - spacing, high + spacing, n_atoms)


@dataclass(frozen=True)
class OfTeam:
    """What an environment promises of the team's reward, the sum over agents; as few as one of them may be there."""

    reward_bounds: tuple[float, float]
    return_bounds: tuple[float, float]
    reward_step: float | None
    horizon: int

    @classmethod
    def of(cls, env: BatchedEnv) -> "OfTeam":
        """Where all agents are given the same reward, the team's is that."""
        most = 1 if env.common_reward else len(env.possible_agents)
        bounds = [
            (min(low, most * low), max(high, most * high)) for low, high in (env.reward_bounds, env.return_bounds)
        ]
        return cls(*bounds, env.reward_step, env.horizon)


@dataclass(frozen=True, kw_only=True)
class SupportConfig(AlgorithmConfig):
    """The atoms of return distributions."""

    n_atoms: int = 201
    """Largest number of atoms of the return distribution."""
    return_low: float | None = None
    """Lowest (discounted) return that the critic can tell; atoms follow the returns that are seen unless given here."""
    return_high: float | None = None
    """Highest (discounted) return that the critic can tell; likewise."""

    def check_support(self) -> None:
        """Raise ConfigError for atoms that cannot be."""
        require_range(self, n_atoms=(5, WIDEST))
        low, high = self.return_low, self.return_high
        require(self, (low is None) == (high is None), "return_low", "go with --return-high: give both or neither")
        if low is not None and high is not None:
            require(self, low >= -LARGEST, "return_low", f"be at least {-LARGEST:g}")
            require(self, low < high <= LARGEST, "return_high", f"lie between --return-low {low:g} and {LARGEST:g}")

    def atoms(self, env: "BatchedEnv | OfTeam", run: TrainConfig) -> Float[Tensor, " atoms"]:
        """The atoms to begin with."""
        if self.return_low is not None and self.return_high is not None:
            return around(self.return_low, self.return_high, self.n_atoms)
        return choose_support(env, run.gamma, run.time_limit, self.n_atoms)


@dataclass(frozen=True)
class Predicted:
    """What a critic of distributions predicts along a trajectory, and where returns and traces end.

    log_probs: at each step, and in the last entry after all of them.
    next_probs: after each step, or at the final state.
    cut: where that is, the places after which a return goes on from `final_state`.
    """

    log_probs: Float[Tensor, "T+1 E A N"]
    next_probs: Float[Tensor, "T E A N"]
    terminated: Bool[Tensor, "T E A"]
    ended: Bool[Tensor, "T E A"]
    cut: tuple[Tensor, ...]

    def means(self, atoms: Float[Tensor, " N"]) -> tuple[Float[Tensor, "T E A"], Float[Tensor, "T E A"]]:
        """Means of the return, before and after each step."""
        return categorical.mean(atoms, self.log_probs[:-1].exp()), categorical.mean(atoms, self.next_probs)


@dataclass(frozen=True)
class Seen:
    """Returns that a trajectory has shown: the lowest, the highest, mean, std."""

    low: float
    high: float
    mean: float
    std: float

    @classmethod
    def bootstrapped(cls, chunk: Trajectory, predicted: Predicted, atoms: Tensor, gamma: float) -> "Seen":
        """Of all steps, with the critic's mean where the trajectory ends before the episode."""
        nothing = torch.zeros_like(chunk.reward)
        following = categorical.mean(atoms, predicted.next_probs)
        cut = predicted.ended.clone()
        cut[-1] = True
        reward = chunk.reward + gamma * following * (cut & ~predicted.terminated)
        return cls.of(
            returns.gae(reward, nothing, nothing, predicted.terminated, cut, gamma, 1.0).double(), chunk.active
        )

    @classmethod
    def of(cls, values: Float[Tensor, "T E A"], counts: Bool[Tensor, "T E A"]) -> "Seen":
        """Of those returns that count; a device is waited for once."""
        number = counts.sum().clamp(min=1)
        exact = values.double()
        mean = (exact * counts).sum() / number
        std = (((exact - mean) ** 2 * counts).sum() / number).sqrt()
        low, high = torch.where(counts, exact, math.inf).min(), torch.where(counts, exact, -math.inf).max()
        return cls(*torch.stack((low, high, mean, std)).tolist())


def complete_returns(
    chunk: Trajectory, terminated: Bool[Tensor, "T E A"], ended: Bool[Tensor, "T E A"], gamma: float
) -> tuple[Float[Tensor, "T E A"], Bool[Tensor, "T E A"]]:
    """Returns from the steps of a trajectory, and which of them count: those of episodes that end in it.

    Where none does, what all steps have brought.
    """
    nothing, ends = torch.zeros_like(chunk.reward), (terminated, ended)
    brought = returns.gae(chunk.reward, nothing, nothing, *ends, gamma, 1.0)
    whole = (returns.gae(terminated.to(nothing), nothing, nothing, *ends, 1.0, 1.0) > 0) & chunk.active
    return brought, torch.where(whole.any(), whole, chunk.active)


def start(critic: CategoricalCritic, seen: Seen, spacing: float) -> None:
    """Let a critic begin with a bell where returns were seen, at least as wide as atoms lie apart."""
    critic.start(seen.mean, max(seen.std, spacing))


class SupportState(TypedDict):
    """What a `FollowingSupport` keeps beside the atoms."""

    started: bool
    fitted: bool
    cut_off: tuple[bool, bool]
    widest: float


class FollowingSupport:
    """Lays a critic's atoms where returns are seen.

    The critic starts as a bell where the returns of the first trajectory lie. If their std spans fewer than 8 atoms,
    the support is laid anew around them. Where returns pass the support later, it grows. Each time the critic keeps
    what it had learned: it is fitted to its own predictions, projected onto the new atoms, on the states of the
    trajectory. A `fixed` support stays, and none passes the bounds that an environment promises.
    """

    def __init__(
        self,
        critic: DistributionCritic,
        fixed: bool,
        exact: bool,
        promised: tuple[float, float] = (-math.inf, math.inf),
    ):
        """exact: every return lies on an atom; see `on_grid`. promised: bounds of all returns; it never passes them."""
        self.critic, self.fixed, self.exact, self.promised = critic, fixed, exact, promised
        self.started = self.fitted = False
        self.widest = 0.0  # std that the targets of a trajectory had
        self.cut_off = (False, False)  # whether the last targets passed the support, at either end
        self._look()

    def _look(self) -> None:
        """Keep where the atoms lie: all but the outermost hold returns."""
        first, self.low, self.high, last = self.critic.atoms[[0, 1, -2, -1]].tolist()
        self.spacing = self.low - first
        known = all(map(math.isfinite, self.promised))
        self.bounds = self.promised if known else (first, last)  # of returns, as far as they are known

    def stay(self) -> None:
        """Leave the atoms where they are now, as those of an older run were left."""
        self.fixed = self.started = True
        self._look()

    def follow(self, chunk: Trajectory, predicted: Predicted, gamma: float) -> bool:
        """Look at a trajectory before it is learned from; says whether the critic was changed."""
        changed = not self.started
        if changed:
            seen = Seen.of(*complete_returns(chunk, predicted.terminated, predicted.ended, gamma))
            self.started = True
            start(self.critic, seen, self.spacing)
        elif self.fixed:
            return False
        else:
            seen = Seen.bootstrapped(chunk, predicted, self.critic.atoms, gamma)
        moved = None if self.fixed else self._moved(seen)
        if moved is None:
            return changed
        if changed:
            self.critic.atoms = moved  # nothing is learned yet
        else:
            self._carry_over(chunk, predicted, moved)
        self._look()
        if changed:
            start(self.critic, seen, self.spacing)
        return True

    def _moved(self, seen: Seen) -> Float[Tensor, " atoms"] | None:
        """Where the atoms shall lie instead; None where they lie well."""
        low, high = self.low, self.high
        margin = MARGIN * (seen.high - seen.low)
        if not self.fitted and seen.std > 0:
            self.fitted = True
            if seen.std < FEW_ATOMS * self.spacing:
                return self._around(seen.low - margin, seen.high + margin)
        margin = max(margin, MARGIN * (high - low))
        slack = ROUNDING * self.spacing
        below, above = seen.low < low - slack or self.cut_off[0], seen.high > high + slack or self.cut_off[1]
        self.cut_off = (False, False)
        below, above = below and low - slack > self.promised[0], above and high + slack < self.promised[1]
        if not (below or above):
            return None
        return self._around(
            min(low, seen.low) - margin if below else low, max(high, seen.high) + margin if above else high
        )

    def _around(self, low: float, high: float) -> Float[Tensor, " atoms"]:
        """As many atoms as there are, around what of `[low, high]` is promised."""
        low, high = max(low, self.promised[0]), min(high, self.promised[1])
        return around(low, high, len(self.critic.atoms)).to(self.critic.atoms)

    def note(self, edge_mass_low: float, edge_mass_high: float, std_in_atoms: float) -> None:
        """Take note of the targets: their mean mass on either edge, and how many atoms the std of all of them spans."""
        self.cut_off = (edge_mass_low > CUT_OFF, edge_mass_high > CUT_OFF)
        self.widest = max(self.widest, std_in_atoms * self.spacing)

    def warning(self, unit: float | None) -> str:
        """What a user must know of atoms too far apart; empty if they are not.

        unit: of tau, if it has one. What counts is that, and the widest spread that returns have had: an averse policy
        may have chosen what varies little, and what varied most may be chosen no more.
        """
        by_unit = unit is not None and unit < self.widest
        atoms = (unit if by_unit else self.widest) / self.spacing
        if self.exact or atoms >= FEW_ATOMS:
            return ""
        what = "unit of --tau spans" if by_unit else "std of the returns spanned at most"
        return (
            f"the {what} {atoms:.2g} atoms, so that smaller risks are hardly told apart: raise --n-atoms, or give "
            "narrower --return-low and --return-high"
        )

    @torch.enable_grad()
    def _carry_over(self, chunk: Trajectory, predicted: Predicted, atoms: Float[Tensor, " atoms"]) -> None:
        """Move the critic to `atoms`, and fit it to what it predicted before."""
        rows = chunk.active.flatten()
        state, agent = flat(chunk.state[:-1])[rows], flat(chunk.agent[:-1])[rows]
        probs = flat(predicted.log_probs[:-1])[rows].exp()
        parts = min(REFIT_PARTS, len(probs))
        target = categorical.project_points(atoms, self.critic.atoms.expand_as(probs), probs)
        entropy = categorical.cross_entropy(target, target.clamp(min=1e-12).log())
        self.critic.move(atoms)
        adam = Adam(self.critic.parameters(), REFIT_RATE)
        for step in range(REFIT_STEPS):
            part = slice(step % parts, None, parts)
            loss = (
                categorical.cross_entropy(target[part], self.critic(state[part], agent[part])) - entropy[part]
            ).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SupportState.__annotations__}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in schema.read(SupportState, state, "support").items():
            setattr(self, name, value)
        self._look()
