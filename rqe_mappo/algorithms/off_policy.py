"""What learners from replay share: settings, exploration, the buffer, target networks, how often they learn.

They learn the value of the whole team: of the reward that all agents are given alike, where the environment says so,
else of the sum of their rewards.
"""

import copy
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from gymnasium.spaces import Discrete
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo import schema
from rqe_mappo.algorithms import divergence
from rqe_mappo.algorithms.actor_critic import WIDEST, annealed
from rqe_mappo.algorithms.averages import Means
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.optimiser import AdamState, Optimiser
from rqe_mappo.algorithms.risk_schedule import RiskSchedule
from rqe_mappo.config import (
    AlgorithmConfig,
    ConfigError,
    TrainConfig,
    require,
    require_at_least_one,
    require_positive,
    require_range,
)
from rqe_mappo.data import replay_files
from rqe_mappo.data.replay import EpisodeReplay, Episodes, ReplayState, team_state
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.functional import q_learning
from rqe_mappo.nets.contract import ReturnModel
from rqe_mappo.nets.distributions import ActionSpec
from rqe_mappo.nets.normaliser import Normaliser
from rqe_mappo.nets.utilities import UtilitySpec
from rqe_mappo.schema import Count

MEASURED = 256  # episodes at most, in which the unit of values is measured
MOST_REPLAYED = 10_000  # steps learned from for each step played; a thousand times the default
LEAST_UNIT = 1e-30  # of values: rewards in it must be numbers of single precision
TINY = 1e-6  # a std this small beside the size of the returns is rounding


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig(AlgorithmConfig):
    """Replay, exploration, networks and targets."""

    family = "off_policy"
    defaults = {"learning_rate": 5e-4, "num_steps": 8}  # noqa: RUF012  (as AlgorithmConfig declares it)

    buffer_episodes: int = 2000
    """Episodes that the replay buffer holds."""
    keep_buffer: bool = False
    """Keep the buffer on the disk, beside the checkpoints, so that --resume goes on exactly; else it is filled anew."""
    batch_episodes: int = 32
    """Episodes of a batch, or pieces of them."""
    window: int = 0
    """Steps of a piece, from where one is drawn among all steps; 0, and always with --recurrent: whole episodes."""
    replay_ratio: float = 8.0
    """Steps learned from for each step played."""
    exploration: float = 0.05
    """How often agents act at random in the end."""
    exploration_start: float = 1.0
    """How often they do so at first."""
    exploration_fraction: float = 0.3
    """Share of the run in which the one becomes the other, linearly."""
    learning_rate: float = 5e-4
    """Adam step size."""
    anneal_lr: bool = False
    """Let the step size fall to a twentieth over the run, linearly."""
    max_grad_norm: float = 10.0
    """Largest gradient norm."""
    td_lambda: float = 0.6
    """Lambda of the targets, Peng's Q(lambda); 0: one step."""
    contamination: float = 0.0
    """Delta of a worst case over transitions: what follows is worth (1 - delta) V(s') + delta min V, the least of what
    follows anywhere in the batch, an end counting as 0. 0: neutral. In games of one step all that follows is an end, so
    nothing changes; rewards are not contaminated."""
    double_q: bool = True
    """Choose the next actions by the learning networks, and value them by the target networks."""
    target_interval: int = 200
    """Learning steps between two updates of the target networks."""
    polyak: float = 1.0
    """How far an update moves the target networks towards the learning ones; 1: a copy. A small one needs
    --target-interval 1."""
    value_unit: float | None = None
    """Unit in which values are learned, in reward; they then begin at about 0. Measured unless given: the std of the
    team's returns to go in the first episodes, of which values then begin at the mean."""
    shared_actor: bool = True
    """One network of utilities for all agents, which sees who they are (else one each)."""
    actor_hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of the utilities (ReLU)."""
    normalise_obs: bool = False
    """Normalise what agents and mixers see by running statistics, which are saved with the policy."""
    recurrent: bool = False
    """Utilities with memory, a GRU behind the hidden layers."""
    gru_size: int = 64
    """Units of the GRU, with --recurrent."""

    @property
    def piece(self) -> int:
        """Steps of what is learned from at once; 0: whole episodes, as memory needs."""
        return 0 if self.recurrent else self.window

    def check(self, run: TrainConfig) -> None:
        require_at_least_one(self, "buffer_episodes", "batch_episodes", "target_interval", "gru_size")
        require_positive(self, "replay_ratio", "learning_rate", "max_grad_norm", "polyak")
        if self.value_unit is not None:
            require_positive(self, "value_unit")
            require_range(self, value_unit=(LEAST_UNIT, math.inf))
        require_range(
            self, exploration=(0, 1), exploration_start=(0, 1), exploration_fraction=(0, 1), td_lambda=(0, 1),
            contamination=(0, 1), polyak=(0, 1), gru_size=(1, WIDEST), replay_ratio=(0, MOST_REPLAYED),
        )  # fmt: skip
        require(self, self.window >= 0, "window", "be at least 0")
        fits = self.piece > 0 or self.batch_episodes <= self.buffer_episodes
        require(self, fits, "batch_episodes", f"be at most --buffer-episodes {self.buffer_episodes}")
        wide = all(1 <= width <= WIDEST for width in self.actor_hidden)
        require(self, wide, "actor_hidden", f"hold widths from 1 to {WIDEST}")

    def check_environment(self, env: BatchedEnv) -> None:
        if not isinstance(env.action_space, Discrete):
            raise ConfigError(f"this --algo needs agents with one choice each (got {env.action_space}): use rqe-mappo")
        need, there = EpisodeReplay.bytes_at_most(env, self.buffer_episodes), memory_of_machine()
        if need > there:
            fewer, shorter = (int(size * there / need / 2) for size in (self.buffer_episodes, env.horizon))
            if fewer >= self.batch_episodes:
                fix = f"use {fewer}"
            elif shorter:
                fix = f"use episodes of at most {shorter} steps (--max-steps of environments by name)"
            elif fewer:
                fix = f"use {fewer}, and as many --batch-episodes at most"
            else:
                fix = "its agents need fewer actions, or to observe less"
            raise ConfigError(
                f"--buffer-episodes {self.buffer_episodes} of up to {env.horizon} steps may take {need / 1e9:.1f} GB, "
                f"and this machine has {there / 1e9:.1f}: {fix}"
            )

    def notes(self, env: BatchedEnv) -> list[str]:
        need = EpisodeReplay.bytes_at_most(env, self.buffer_episodes)
        said = [f"the replay buffer of {self.buffer_episodes} episodes takes up to {math.ceil(need / 1e6):,} MB"]
        if self.window > self.piece:
            said.append(
                f"with --recurrent whole episodes are learned from, --batch-episodes {self.batch_episodes} at once, "
                f"not pieces of --window {self.window}"
            )
        if self.exploration >= 0.5 and self.td_lambda > 0 and env.horizon > 1:
            said.append(
                f"with --exploration {self.exploration:g}, targets of --td-lambda {self.td_lambda:g} hold in part what "
                "is earned at random; those of --td-lambda 0 do not"
            )
        return said

    def explore(self, progress: Progress) -> float:
        """How often to act at random now."""
        done = progress.share / self.exploration_fraction if self.exploration_fraction else 1.0
        return self.exploration_start + (self.exploration - self.exploration_start) * min(1.0, done)

    def utilities(self, env: BatchedEnv, kind: type[Any] = UtilitySpec, **more: Any) -> Any:
        """The spec of the utilities of an environment's agents, of a `kind` with `more` fields."""
        return kind(
            obs_dim=env.observation_space.shape[0],
            n_agents=len(env.possible_agents),
            actions=ActionSpec.of(env.action_space),
            hidden=self.actor_hidden,
            shared=self.shared_actor,
            memory=self.gru_size if self.recurrent else 0,
            normalise=self.normalise_obs,
            **more,
        )


def memory_of_machine() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class LearnerState(TypedDict):
    """What going on needs beside the networks' weights."""

    target: dict[str, dict[str, Tensor]]
    optimiser: AdamState
    replay: ReplayState
    unit: float | None
    steps: Count
    played: Count
    learned: Count
    due: float
    explore: float
    kept: NotRequired[Count]  # episodes that files hold


class OffPolicy:
    """An algorithm that takes in trajectories, and descends its `loss` as often as the replay ratio asks for.

    A rival gives its networks and its `loss`.

    nets: the networks that learn, "actor" among them. target: the same, as they were a while ago.
    start: lets what they predict begin at a mean, in units of `unit`. extras: what else of the actor's is replayed.
    unit: values are learned in it: given, or the std of the team's returns to go in the first episodes, measured once.
    """

    risk: RiskSchedule | None = None
    returns: ReturnModel | None = None

    def __init__(
        self,
        run: TrainConfig,
        env: BatchedEnv,
        generator: torch.Generator,
        nets: dict[str, nn.Module],
        start: Callable[[float], None],
        extras: Sequence[str] = (),
    ):
        self.run, self.config, self.generator, self.start = run, run.algorithm, generator, start
        self.actor: Any = nets["actor"]  # an Actor, of which a rival knows more
        self.device = torch.device(run.device)
        mixes = len(nets) > 1  # an actor alone sees no state
        self.state_normaliser = Normaliser(env.state_space.shape[0]) if self.config.normalise_obs and mixes else None
        more = {} if self.state_normaliser is None else {"state": self.state_normaliser}
        self.nets = nn.ModuleDict(nets | more).to(self.device)
        shared: Any = {id(net): net for net in self.nets.modules() if isinstance(net, Normaliser)}
        self.target = copy.deepcopy(self.nets, shared).requires_grad_(False)  # both see alike
        self.optimiser = Optimiser(self.nets, self.config.learning_rate, self.config.max_grad_norm)
        self.replay = EpisodeReplay(env, self.config.buffer_episodes, run.time_limit, extras)
        self.unit: float | None = None
        self.steps = self.played = self.learned = self.kept = 0
        self.due = 0.0  # steps still to learn from
        self.explore = self.config.explore(Progress(0, run.total_timesteps))
        self.valued = 0.0  # on average, in reward, when last learned from

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The networks by their names, once there are all; what has nothing to keep is left out."""
        return {name: net for name, net in self.nets.items() if net.state_dict()}

    def loss(self, batch: Episodes) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some episodes, and scalars to log."""
        raise NotImplementedError

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Take in a trajectory, and learn; see `rqe_mappo.algorithms.contract.Algorithm`."""
        self.look(chunk)
        played = self.replay.add(chunk)
        self.played += played
        explored = self.explore
        self.explore = self.config.explore(Progress(progress.step + int(chunk.active.sum()), progress.total))
        if self.config.anneal_lr:
            self.optimiser.learning_rate = self.config.learning_rate * annealed(progress.share)
        means = Means()
        if self.ready():
            if self.unit is None:
                self.measure()
            if self.unit is not None:
                self.due += self.config.replay_ratio * played
        while self.due > 0:
            batch = self.batch()
            cost, scalars = self.loss(batch)
            self.optimiser.descend(cost)
            means.add({"losses/loss": cost.detach(), **scalars})
            taken = int(batch.filled.sum())
            self.due -= taken
            self.learned += taken
            self.steps += 1
            if self.steps % self.config.target_interval == 0:
                self.follow()
        known = {
            "policy/exploration": explored,
            "replay/episodes": float(len(self.replay)),
            "replay/ratio": self.learned / self.played if self.played else math.nan,
            "replay/learning_steps": float(self.steps),
            "charts/learning_rate": self.optimiser.learning_rate,
        }
        learned = means.read()
        self.valued = learned.get("value/mean", self.valued)
        return known | learned

    def look(self, chunk: Trajectory) -> None:
        """Take what agents saw when they acted into the running statistics."""
        if self.config.normalise_obs:
            self.actor.normaliser.update(chunk.obs[:-1][chunk.active])
        if self.state_normaliser is not None:
            state = team_state(chunk.state[:-1], chunk.active)[chunk.active.any(-1)]
            self.state_normaliser.update(state[:, : self.state_normaliser.features])

    def ready(self) -> bool:
        """Whether the buffer holds enough for a batch, or is full."""
        if not self.config.piece:
            return len(self.replay) >= self.config.batch_episodes
        full = len(self.replay) == self.config.buffer_episodes
        return full or self.replay.steps >= self.config.piece * self.config.batch_episodes

    def batch(self) -> Episodes:
        """What to learn from now."""
        config, given = self.config, (self.generator, self.device)
        if config.piece:
            return self.for_mixers(self.replay.sample_windows(config.batch_episodes, config.piece, *given))
        return self.for_mixers(self.replay.sample(config.batch_episodes, *given))

    def for_mixers(self, batch: Episodes) -> Episodes:
        """Episodes with the state as mixers see it, normalised with `--normalise-obs`, but for whose side it is from.

        Observations stay as they are: actors normalise them, and `Utilities.seen` does so for other networks.
        """
        if self.state_normaliser is None:
            return batch
        width = self.state_normaliser.features
        state = self.state_normaliser(batch.state[..., :width])
        return replace(batch, state=torch.cat((state, batch.state[..., width:]), -1))

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target networks towards the learning ones."""
        for old, new in zip(self.target.parameters(), self.nets.parameters(), strict=True):
            old.lerp_(new, self.config.polyak)

    @torch.no_grad()
    def measure(self) -> None:
        """The unit of values, which begin at the mean of what the first episodes brought; none before they do."""
        if self.config.value_unit is not None:
            self.unit = self.config.value_unit
            self.start(0.0)
            self.target.load_state_dict(self.nets.state_dict())
            return
        first = self.replay.newest(MEASURED)
        nothing = torch.zeros_like(first.reward)
        to_go = q_learning.lambda_returns(first.reward, nothing, first.ended, first.ended, self.run.gamma, 1.0)
        found = to_go[first.filled].double()
        std, mean = float(found.std(correction=0)), float(found.mean())
        if not (std or mean):
            return
        self.unit = std if std > TINY * abs(mean) else abs(mean)
        self.start(mean / self.unit)
        self.target.load_state_dict(self.nets.state_dict())

    def targets(self, batch: Episodes, next_value: Float[Tensor, "T B *own"]) -> Float[Tensor, "T B *own"]:
        """TD(lambda) targets; `*own`: nothing for a value of the team, agents for values of theirs.

        With contamination delta they are those of nominal steps that pay `r + gamma delta min V` and are discounted by
        `gamma (1 - delta)`, steps to an end too: nature may have it otherwise, whatever lambda is.
        """
        given = [batch.reward / (self.unit or 1.0), batch.terminated, trace_ends(batch), batch.filled]
        if next_value.ndim > batch.reward.ndim:
            given = [part[..., None].expand_as(next_value) for part in given]
        (reward, terminated, ended, filled), gamma = given, self.run.gamma
        if delta := self.config.contamination:
            following = next_value.masked_fill(terminated, 0.0).masked_fill(~filled, torch.inf)
            reward, gamma = reward + gamma * delta * following.amin((0, 1)), gamma * (1 - delta)
        return q_learning.lambda_returns(reward, next_value, terminated, ended, gamma, self.config.td_lambda)

    def warnings(self) -> list[str]:
        if self.steps:
            return divergence.warnings(
                self.valued, self.replay, self.run.gamma, worst_case=self.config.contamination > 0
            )
        if not self.replay.count:
            fix = f"raise --total-timesteps, or lower --num-envs {self.run.num_envs}, whose copies share them"
            return [f"nothing was learned: no episode ended in {self.run.total_timesteps} decisions: {fix}"]
        ended = f"{self.replay.count} episodes ended"
        if not self.ready():
            piece, count = self.config.piece, self.config.batch_episodes
            wanted = f"--batch-episodes is {count}"
            if piece:
                ended += f" ({self.replay.steps} steps)"
                wanted = f"--batch-episodes {count} pieces of --window {piece} are {count * piece}"
            return [f"nothing was learned: {ended}, and {wanted}: lower --batch-episodes, or raise --total-timesteps"]
        return [f"nothing was learned: {ended}, and none earned anything: explore more, or longer"]

    def write_files(self, folder: Path) -> None:
        """See `rqe_mappo.algorithms.contract.KeepsFiles`: the replay buffer, with `--keep-buffer`."""
        if self.config.keep_buffer:
            replay_files.write(folder, self.replay)

    def drop_files(self, folder: Path) -> None:
        if self.config.keep_buffer:
            replay_files.drop_old(folder, self.replay)

    def read_files(self, folder: Path) -> list[str]:
        if not self.config.keep_buffer:
            return ["the replay buffer was not kept (--keep-buffer keeps it): it is filled anew"]
        replay_files.read(folder, self.replay, self.kept)
        if self.replay.count and not self.kept:
            return ["the replay buffer was not kept before: it is filled anew, and kept from here on"]
        return []

    def state_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("unit", "steps", "played", "learned", "due", "explore")}
        return plain | {
            "kept": len(self.replay) if self.config.keep_buffer else 0,
            "target": {name: net.state_dict() for name, net in self.target.items()},
            "optimiser": self.optimiser.state_dict(),
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        known = schema.read(LearnerState, state, "learner")
        if not 0 <= known["explore"] <= 1:
            raise ValueError(f"learner.explore must be in [0, 1] (got {known['explore']:g})")
        for name, net in self.target.items():
            net.load_state_dict(known["target"][name])
        for name in ("optimiser", "replay"):
            getattr(self, name).load_state_dict(known[name])
        for name in ("unit", "steps", "played", "learned", "due", "explore"):
            setattr(self, name, known[name])
        self.kept = known.get("kept", min(self.replay.count, self.replay.capacity))  # older files do not say it


@dataclass(frozen=True)
class Utility:
    """Utilities along B episodes: of the actions that were taken, and of the best ones afterwards.

    live: of every action at every step. chosen: of those taken, zero for who does not act. following: what the target
    networks give to the best next actions, zero for who is not there. best: which these are, at every step.
    """

    live: Float[Tensor, "T+1 B A actions"]
    chosen: Float[Tensor, "T B A"]
    target: Float[Tensor, "T+1 B A actions"]
    best: Int[Tensor, "T+1 B A"]
    following: Float[Tensor, "T B A"]


def utility(learner: OffPolicy, batch: Episodes, *given: Tensor) -> Utility:
    """What the utilities say of some episodes, with what else is `given` to them."""
    present = torch.cat((batch.active, batch.present[-1:]))
    live = _along(learner.nets, batch, present, *given)
    with torch.no_grad():
        target = _along(learner.target, batch, present, *given)
        best = (live if learner.config.double_q else target).argmax(-1)
        following = q_learning.of_actions(target, best)[1:] * batch.present[1:]
    chosen = q_learning.of_actions(live[:-1], batch.action) * batch.active
    return Utility(live, chosen, target, best, following)


def _along(
    nets: nn.ModuleDict, batch: Episodes, active: Bool[Tensor, "T+1 B A"], *given: Tensor
) -> Float[Tensor, "T+1 B A actions"]:
    actor: Any = nets["actor"]
    return actor.along(batch.obs, active, batch.avail, *given)


def squared(
    value: Float[Tensor, "T B *own"], target: Float[Tensor, "T B *own"], counts: Bool[Tensor, "T B *own"]
) -> Float[Tensor, ""]:
    """Mean squared error where it `counts`."""
    return ((value - target) ** 2)[counts].mean()


def value_scalars(
    learner: OffPolicy,
    value: Float[Tensor, "T B *own"],
    target: Float[Tensor, "T B *own"],
    counts: Bool[Tensor, "T B *own"],
) -> dict[str, Tensor]:
    """What is logged of values where they count, in reward."""
    return row_scalars(learner, value.detach()[counts], target[counts])


def row_scalars(learner: OffPolicy, value: Float[Tensor, " R"], target: Float[Tensor, " R"]) -> dict[str, Tensor]:
    """The same of values that all count."""
    found, wanted = (part * (learner.unit or 1.0) for part in (value, target))
    return {
        "value/mean": found.mean(),
        "value/target_mean": wanted.mean(),
        "value/error": (found - wanted).abs().mean(),
    }


def trace_ends(batch: Episodes) -> Bool[Tensor, "T B"]:
    """Where targets of several steps go no further, but take the value of what follows.

    That is where the episode ends, and where an agent was cut off while the others go on: no reward says what it would
    have brought, and that value counts it.
    """
    acting = torch.cat((batch.active[1:], torch.zeros_like(batch.active[:1])))
    return batch.ended | (batch.present[1:] & ~acting).any(-1)
