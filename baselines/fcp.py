"""FCP: fictitious co-play, the best response to a population of partners, `--algo fcp --partners RUN RUN ...`.

Strouse et al., 'Collaborating with Humans without Human Data' (2021, arXiv 2110.08176).

Kept: partners that were trained in self-play with different seeds, each as it was early, midway and at the end; they
are frozen, and drawn anew, uniformly, for each episode. Which agent is the one that learns goes round the copies.
Dropped: the paper's learner (V-MPO with memory), in favour of `ippo`, and its criterion for the checkpoint midway (half
of the last reward): here early and midway are the first and the middle one of those that a run keeps, so keep them all
(`rqe-train --keep 1000`).
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo import checkpoint, schema
from rqe_mappo import config as configs
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.baselines.ippo import Ippo, IppoConfig
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import ConfigError, TrainConfig, require
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.deploy.loading import load_run
from rqe_mappo.envs.contract import BatchedEnv
from rqe_mappo.nets.contract import Acted, Actor


@dataclass(frozen=True, kw_only=True)
class FcpConfig(IppoConfig):
    """FCP's settings: IPPO's, and who the partners are."""

    partners: tuple[str, ...] = ()
    """Run folders and policy files of the partners."""
    stages: int = 3
    """How many of its kept checkpoints a run folder gives as partners, from the first to the last; 1: the last."""

    def check(self, run: TrainConfig) -> None:
        super().check(run)
        require(self, self.stages >= 1, "stages", "be at least 1")

    def check_environment(self, env: BatchedEnv) -> None:
        super().check_environment(env)
        agents = len(env.possible_agents)
        if not self.partners:
            raise ConfigError("--algo fcp needs --partners RUN RUN ...: runs of other seeds, of any algorithm")
        places = [Path(place).resolve() for place in self.partners]
        if len(set(places)) < len(places):
            raise ConfigError("--partners names one of them twice, which would be met twice as often: give each once")
        if agents < 2:
            raise ConfigError("--algo fcp is for agents with partners (got one agent): use ippo")
        if env.num_envs < agents:
            raise ConfigError(f"--num-envs must be at least {agents}, so that each agent learns (got {env.num_envs})")

    def files(self) -> list[Path]:
        """The policy files of all partners."""
        found = []
        for place in map(Path, self.partners):
            if not place.is_dir():
                found.append(place)
                continue
            names = checkpoint.complete(place)
            if not names:
                raise ConfigError(f"--partners {place} holds no checkpoint: give folders of runs that have saved")
            found += [place / "checkpoints" / f"{name}.policy.pt" for name in self._picked(place, names)]
        return found

    def _picked(self, run: Path, names: list[str]) -> list[str]:
        """Of a run's checkpoints, the earliest first, those that are partners; ConfigError where none is early."""
        if self.stages == 1:
            return names[-1:]
        first, last = (int(name.removeprefix("step_")) for name in (names[0], names[-1]))
        if first > last / 2 or last == 0:
            raise ConfigError(
                f"--partners {run} has no early and late checkpoints (only {first:,} to {last:,} steps): train it with "
                "--keep 1000, or take the last ones alone by --stages 1"
            )
        picked = {round(stage * (len(names) - 1) / (self.stages - 1)) for stage in range(self.stages)}
        return [names[index] for index in sorted(picked)]


@dataclass(frozen=True)
class Partner:
    """A frozen actor, the policy file that it came from, what that held in short, and what its run was."""

    file: Path
    digest: str
    actor: Actor
    trained: TrainConfig
    timesteps: int


def partners(files: list[Path], env: BatchedEnv, actor: Actor, device: torch.device) -> list[Partner]:
    """The partners in some policy files; ConfigError where one cannot act in the environment, or remembers."""
    found = []
    for file in files:
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            policy = load_run(file, str(device))
        except (CheckpointError, OSError) as error:
            raise ConfigError(f"--partners {file}: {error}") from None
        theirs: Any = policy.actor
        faces = [(one.obs_dim, replace(one.actions, squash="tanh")) for one in (theirs.spec, actor.spec)]
        if policy.agents != tuple(env.possible_agents) or faces[0] != faces[1]:
            raise ConfigError(f"--partners {file} has other agents, observations or actions than this environment")
        if theirs.memory_size:
            raise ConfigError(f"--partners {file} remembers (a GRU or a latent): give feed-forward ones")
        trained = configs.from_json(policy.config_json)
        found.append(Partner(file, digest, theirs.requires_grad_(False), trained, policy.timesteps))
    return found


def remarks(found: list[Partner], run: TrainConfig) -> list[str]:
    """What a user should know of them: whose run is not finished, and which were trained in another game."""
    said = [
        f"--partners {one.file} was trained in other settings of {one.trained.env}"
        for one in found
        if (one.trained.env, one.trained.env_config) != (run.env, run.env_config)
    ]
    last = {one.file.parent: one for one in sorted(found, key=lambda one: one.timesteps)}  # of each run
    return said + [
        f"--partners {one.file} is of {one.timesteps:,} of its run's {one.trained.total_timesteps:,} steps"
        for one in last.values()
        if one.timesteps < one.trained.total_timesteps
    ]


class Beside:
    """Who acts while trajectories are collected: in each copy one agent by itself, the others by a partner.

    The last number of the memory is the partner's, drawn when an episode begins.

    own: who acts by itself.
    """

    def __init__(self, actor: Actor, others: list[Actor], own: Bool[Tensor, "E A"]):
        self.actor, self.others, self.own = actor, others, own
        self.spec, self.draws, self.memory_size = actor.spec, actor.draws, actor.memory_size + 1

    def begin(
        self,
        memory: Float[Tensor, "E A H"],
        copies: Bool[Tensor, " E"],
        state: Float[Tensor, "E A S"] | None = None,
        uniform: Float[Tensor, " E"] | None = None,
    ) -> Float[Tensor, "E A H"]:
        """The learner's memory as it begins, and a partner."""
        mine = memory[..., :-1]
        if self.actor.memory_size:
            mine = self.actor.begin(mine, copies, state, uniform)
        drawn = torch.zeros(len(copies), device=memory.device) if uniform is None else uniform
        partner = (drawn * len(self.others)).floor()[:, None, None].expand(*memory.shape[:2], 1)
        return torch.cat((mine, torch.where(copies[:, None, None], partner, memory[..., -1:])), -1)

    def act(
        self,
        obs: Float[Tensor, "E A D"],
        agent: Int[Tensor, "E A"],
        memory: Float[Tensor, "E A H"],
        *,
        uniform: Float[Tensor, "E A draws"] | None,
        avail: Bool[Tensor, "E A actions"] | None = None,
        explore: float = 0.0,
    ) -> Acted:
        """See `rqe_mappo.nets.contract.Actor`; extras are the learner's."""
        mine = self.actor.act(obs, agent, memory[..., :-1], uniform=uniform, avail=avail)
        action = mine.action.clone()
        for number, other in enumerate(self.others):
            rows = ~self.own & (memory[..., -1] == number)
            if rows.any():
                given = None if uniform is None else uniform[rows]
                mask = None if avail is None else avail[rows]
                none = memory.new_zeros(int(rows.sum()), 0)
                action[rows] = other.act(obs[rows], agent[rows], none, uniform=given, avail=mask).action
        return Acted(action, torch.cat((mine.memory, memory[..., -1:]), -1), mine.extras)


class Fcp:
    """IPPO beside frozen partners.

    notes: what a user should know of them.
    returns: None, for the critic knows returns beside partners, which no evaluation shows.
    """

    Config = FcpConfig
    explore = 0.0
    returns = None

    def __init__(self, run: TrainConfig, env: BatchedEnv, generator: torch.Generator):
        self.agents = Ippo(run, env, generator)
        self.actor, self.risk = self.agents.actor, self.agents.risk
        self.modules: dict[str, nn.Module] = self.agents.modules
        self.env, self.device = env, torch.device(run.device)
        places = torch.arange(len(env.possible_agents), device=self.device)
        own = (torch.arange(env.num_envs, device=self.device) % len(places))[:, None] == places
        self.run, self.partners, self.notes = run, list[Partner](), list[str]()
        self.rollout = Beside(self.actor, [], own)
        self.meet(run.algorithm.files())

    def meet(self, files: list[Path]) -> None:
        """Take the partners of some files."""
        self.partners = partners(files, self.env, self.actor, self.device)
        self.notes = remarks(self.partners, self.run)
        self.rollout.others = [one.actor for one in self.partners]

    def learn(self, chunk: Trajectory, progress: Progress) -> dict[str, float]:
        """Improve agents and critics on the rows of those that act by themselves."""
        mine = chunk.part(self.rollout.own, self.actor.memory_size)
        return self.agents.learn(mine, progress) if mine.active.any() else {}

    def warnings(self) -> list[str]:
        return self.agents.warnings()

    def state_dict(self) -> dict[str, Any]:
        """With where the partners came from: runs that go on meanwhile would be other ones."""
        return self.agents.state_dict() | {"partners": [[str(one.file), one.digest] for one in self.partners]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse; CheckpointError where a partner's file has changed."""
        known = schema.read(list[tuple[str, str]], state.get("partners", []), "partners")
        if known:  # older versions kept none
            self.meet([Path(file) for file, _ in known])
            for one, (_, digest) in zip(self.partners, known, strict=True):
                if one.digest != digest:
                    raise CheckpointError(
                        f"--partners {one.file} is not what it was when the run began: put it back, or train anew"
                    )
        self.agents.load_state_dict(state)
