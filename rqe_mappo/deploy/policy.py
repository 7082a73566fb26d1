"""A trained policy for those who deploy it: load, act, look at the predicted return distribution."""

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo import described_spaces, nets
from rqe_mappo.checkpoint import CheckpointError, load_policy_file
from rqe_mappo.deploy.acting import ActingPolicy
from rqe_mappo.functional.risk import Neutral, RiskMeasure, parse_risk
from rqe_mappo.nets import ActorSpec, ValueCritic
from rqe_mappo.nets.contract import Acted, Actor, ReturnDistribution, ReturnModel
from rqe_mappo.nets.distributions import Categorical

__all__ = ["ActingPolicy", "Policy", "ReturnDistribution"]


@dataclass(frozen=True)
class TeamViews:
    """What the critic sees of all agents, `rows` `[A, V]`; `index` of those asked for; `only`, if it was one alone."""

    rows: np.ndarray
    index: dict[str, int]
    only: str | None


@dataclass(frozen=True)
class Memory:
    """What a policy remembers of rows of observations, `[*rows, H]`; H = 0 for an actor or a critic without memory."""

    actor: Tensor
    critic: Tensor


class Policy(ActingPolicy):
    """The networks of one run.

    actor, modules, returns: as in `rqe_mappo.algorithms.contract.Algorithm`; returns is None where nothing predicts
        the return of the policy.
    measures: the risk measures of its training, one for all agents or one each; tau in units of `return_scale`. Of
        value methods neutral: their networks know by which measure they choose.

    >>> policy = Policy.load("runs/sumo__tau0.3__eps0.01__s1__20261120-120000")
    >>> actions = policy.act(observations)  # what the environment gives, or rows of numbers
    """

    def __init__(self, content: dict[str, Any], device: str = "cpu"):
        """From the contents of a policy file; prefer `Policy.load`."""
        super().__init__()
        self.device = torch.device(device)
        self.agents: tuple[str, ...] = tuple(content["agents"])
        _check_agents(content)
        self.config_json: str = content["config"]
        self.timesteps: int = content["timesteps"]
        self.networks: dict[str, dict[str, Any]] = content["networks"]
        self.modules: dict[str, nn.Module] = {}
        for name, description in self.networks.items():
            module = nets.restored(description, content["modules"][name])
            self.modules[name] = module.to(self.device).eval()
        actor: Any = self.modules["actor"]  # a network that keeps the contract of actors
        self.actor: Actor = actor
        self.spec: ActorSpec = actor.spec
        self.spaces = described_spaces.read(
            content.get("spaces"), len(self.agents), self.spec.obs_dim, self.spec.actions.outputs
        )
        returns: Any = None if content["returns"] is None else self.modules[content["returns"]]
        if returns is not None and not hasattr(returns, "predicts"):
            raise ValueError(f"its network {content['returns']} predicts no returns")
        self.returns: ReturnModel | None = returns
        self.risk: dict[str, Any] | None = content["risk"]
        self.measures: tuple[RiskMeasure, ...] = (Neutral(),)
        if self.risk is not None:
            taus = np.atleast_1d(self.risk["tau"]).tolist()
            self.measures = tuple(parse_risk(self.risk["name"], tau, clip=self.risk["clip"]) for tau in taus)
        self.memory: Memory | None = None

    @property
    def algo(self) -> str:
        """The algorithm that it was trained by, as its file says."""
        return self._setting("algo")

    def _setting(self, name: str) -> str:
        """A setting of the run; "?" where a stranger's file has none."""
        with contextlib.suppress(ValueError):
            known = json.loads(self.config_json)
            return str(known.get(name, "?")) if isinstance(known, dict) else "?"
        return "?"

    def __repr__(self) -> str:
        place = f"--algo {self.algo} --env {self._setting('env')}"
        return f"Policy({place}, {len(self.agents)} agents, {self.timesteps:,} decisions)"

    @property
    def measure(self) -> RiskMeasure:
        """The measure of all agents, or, where they differ (`measures`), of the first."""
        return self.measures[0]

    @property
    def return_scale(self) -> float | None:
        """The unit of tau; None where none was measured."""
        return None if self.risk is None else self.risk["return_scale"]

    def in_reward(self, measure: RiskMeasure) -> RiskMeasure:
        """A measure whose tau is in units of the return's std, as in training, with tau in units of the reward."""
        return measure.scaled(self.return_scale or 1.0)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "Policy":
        """From a run folder (its newest checkpoint) or a policy file. Executes nothing that the file holds.

        Raises CheckpointError, with one line, for whatever is no policy of ours.
        """
        return cls._from(load_policy_file(path), path, device)

    @classmethod
    def _from(cls, content: dict[str, Any], path: str | Path, device: str) -> "Policy":
        try:
            return cls(content, device)
        except nets.UnknownNetwork as error:
            raise CheckpointError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).split("\n")[0]
            raise CheckpointError(
                f"{path} does not hold a whole policy ({type(error).__name__}: {reason}): use another checkpoint"
            ) from None

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str = "cpu", revision: str | None = None) -> "Policy":
        """From a folder that `save_pretrained` wrote, or a repository `owner/name` of the Hugging Face Hub.

        revision: a branch, tag or commit of the repository. Executes nothing. Needs `pip install 'rqe-mappo[hub]'`.
        Raises CheckpointError, with one line, for whatever is no policy of ours.
        """
        from rqe_mappo.deploy import hub

        return cls._from(hub.load_pretrained(source, revision), source, device)

    def save_pretrained(self, folder: str | Path, evaluation: str | Path | None = None) -> None:
        """Write model.safetensors, config.json and a model card into `folder`, replacing those of an earlier call.

        evaluation: an eval.json of rqe-eval whose numbers the card shall show; ValueError if of another checkpoint.
        """
        from rqe_mappo.deploy import hub

        hub.save_pretrained(self.content, Path(folder), None if evaluation is None else Path(evaluation))

    def push_to_hub(
        self, repo: str, evaluation: str | Path | None = None, private: bool = True, token: str | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to `owner/name` on the Hugging Face Hub; gives its address.

        private: of a repository that has to be made; one that there is stays as it is.
        token: else the one that `hf auth login` stored, or HF_TOKEN.
        """
        from rqe_mappo.deploy import hub

        return hub.push_to_hub(self.content, repo, None if evaluation is None else Path(evaluation), private, token)

    @property
    def content(self) -> dict[str, Any]:
        """What a policy file holds: `Policy(policy.content)` is the same policy."""
        returns = [name for name, module in self.modules.items() if module is self.returns]
        return {
            "agents": list(self.agents), "config": self.config_json, "timesteps": self.timesteps,
            "networks": self.networks, "returns": returns[0] if returns else None, "risk": self.risk,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            **described_spaces.described(self.spaces),
        }  # fmt: skip

    def begin(self, copies: Sequence[int] | np.ndarray | None = None, of: int = 1) -> None:
        """Forget what came before, where episodes begin."""
        if copies is None:
            self.memory = None
        elif len(copies) and self.memory is not None:
            rows = self.memory.actor.shape[:-1]
            if not rows or rows[0] != of:  # of a single row, or of another environment
                self.memory = None
                return
            begins = torch.zeros(of, dtype=torch.bool, device=self.device)
            begins[torch.as_tensor(np.asarray(copies), device=self.device)] = True
            agents = math.prod(rows[1:])
            actor, critic = (
                part.reshape(of, agents, part.shape[-1]) for part in (self.memory.actor, self.memory.critic)
            )
            actor, critic = self.actor.begin(actor, begins, None, None), critic * ~begins[:, None, None]
            self.memory = Memory(actor.view_as(self.memory.actor), critic.view_as(self.memory.critic))

    @property
    def _remembers(self) -> bool:
        return self.actor.memory_size > 0

    def step(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        uniform: Float[Tensor, "*rows draws"] | None,
        avail: Bool[Tensor, "*rows actions"] | None = None,
        active: Bool[Tensor, "*rows"] | None = None,
    ) -> Acted:
        """What the actor does with tensors on `device`; its memory goes on, of `active` rows alone if given."""
        before = self._remembered(obs)
        acted = self.actor.act(obs, agent, before.actor, uniform=uniform, avail=avail)
        critic = self._critic
        seen = before.critic if critic is None else critic.remember(obs, agent, before.critic)  # what is acted on
        self.memory = Memory(acted.memory, seen)
        if active is not None:
            goes_on = active[..., None]
            self.memory = Memory(
                torch.where(goes_on, acted.memory, before.actor), torch.where(goes_on, seen, before.critic)
            )
        return acted

    @property
    def _critic(self) -> ValueCritic | None:
        """The critic, if it has memory."""
        return self.returns if isinstance(self.returns, ValueCritic) and self.returns.memory_size else None

    def _remembered(self, obs: Float[Tensor, "*rows D"]) -> Memory:
        """What there is to remember of rows; zeros where that is nothing, or of other rows."""
        rows = obs.shape[:-1]
        if self.memory is not None and self.memory.actor.shape[:-1] == rows:
            return self.memory
        size = 0 if self._critic is None else self._critic.memory_size
        return Memory(obs.new_zeros(*rows, self.actor.memory_size), obs.new_zeros(*rows, size))

    def _act(
        self, obs: Tensor, agent: Tensor, uniform: Tensor | None, avail: Tensor | None, active: Tensor | None
    ) -> Tensor:
        return self.step(obs, agent, uniform, avail, active).action

    def _probabilities(self, obs: Tensor, agent: Tensor, avail: Tensor | None) -> Tensor:
        return self.choices(obs, agent, avail).probs

    def choices(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        avail: Bool[Tensor, "*rows actions"] | None = None,
    ) -> Categorical:
        """The policy's distribution for tensors on `device`; ValueError for continuous actions."""
        policy, _ = self.modules["actor"](obs, agent, self._remembered(obs).actor, avail)
        if not isinstance(policy, Categorical):
            raise ValueError("actions are continuous and have no probabilities: use act")
        return policy

    @torch.no_grad()
    def distribution(self, view: Any, agent: Any = None) -> Any:
        """The predicted distribution of the return from states `[..., S]`, as the critic of `agent` sees them.

        view: what the environment's `state()` gives, `[A, S]`: by default row i of `[..., A, S]` is agent i's, and
            other rows are the first agent's. Or a dict of what each agent observes, where that says it all: in
            environments by name, and where the critic sees observations (`policy.returns.view`). Of a single agent by
            name also what it observes.
        Returns a dict for a dict. ValueError for a run whose critic predicts means alone, or none of the policy's
        returns.
        """
        if (team := self._team_views(view, agent)) is not None:
            found = self.distribution(team.rows, np.arange(len(self.agents)))
            every = {
                name: ReturnDistribution(found.atoms if found.atoms.ndim == 1 else found.atoms[i], found.log_probs[i])
                for name, i in team.index.items()
            }
            return every[team.only] if team.only else every
        rows, agents = self._views(view, agent)
        found = self._known_returns().distribution(rows, agents)
        if found is None:
            raise ValueError("the critic of this run predicts the mean return, no distribution: use policy.value")
        return found

    @torch.no_grad()
    def value(self, view: Any, agent: Any = None) -> Any:
        """V_tau of states `[..., S]` as the policy was trained on it (bounded by `risk_clip`, see docs/risk.md).

        The mean return, where no distribution is predicted. view, agent: as in `distribution`. Returns a tensor
        `[...]`, or a dict of tensors for a dict. A critic with memory has seen what was acted on: ask before `act`,
        with the same rows.
        ValueError for a run with `--algo exact-rqe`: its critic knows the value of joint actions, not of policies.
        """
        if (team := self._team_views(view, agent)) is not None:
            found = self.value(team.rows, np.arange(len(self.agents)))
            every = {name: found[i] for name, i in team.index.items()}
            return every[team.only] if team.only else every
        rows, agents = self._views(view, agent)
        if self._critic is not None:
            return self._critic.mean(rows, agents, self._remembered(rows).critic)
        found = self._known_returns().distribution(rows, agents)
        if found is None:
            return self._known_returns().mean(rows, agents)
        values = [self.in_reward(measure).reference(found.atoms, found.log_probs) for measure in self.measures]
        if len(values) == 1:
            return values[0]
        return torch.stack(values, -1).gather(-1, agents[..., None]).squeeze(-1)

    @property
    def predicts_distribution(self) -> bool:
        """Whether `distribution` has an answer: the critic knows the policy's returns, and more than their mean."""
        return self.returns is not None and self.returns.predicts == "distribution"

    def view_of(self, obs: Any, state: Any) -> Any:
        """Which of the two the critic sees."""
        return obs if self._known_returns().view == "obs" else state

    def _known_returns(self) -> ReturnModel:
        if self.returns is None:
            raise ValueError(
                f"--algo {self.algo} has no critic that predicts the return of its policy: what it learned is of "
                "actions"
            )
        return self.returns

    def _team_views(self, view: Any, agent: Any) -> "TeamViews | None":
        """What the critic sees of all agents, where it is told what they, or the only one, observe."""
        alone = self._known_returns().view == "obs" or len(self.agents) == 1
        only = self._only(view, agent) if alone else None
        if only is None and not isinstance(view, dict):
            return None
        seen = view if only is None else {only: view}
        rows = self._team(seen) if self._known_returns().view == "obs" else self.state(seen)
        return TeamViews(rows, {name: self._index(name) for name in seen}, only)

    def _views(self, view: Any, agent: Any) -> tuple[Tensor, Tensor]:
        rows = self._rows(view, self._known_returns().view_dim, self._known_returns().view)
        return rows, self._agents(agent, rows)


def _check_agents(content: dict[str, Any]) -> None:
    """ValueError where agents share a name, or networks and tolerances are of more or fewer of them."""
    agents = content["agents"]
    if not agents or len(set(agents)) < len(agents):
        raise ValueError("its agents have no names of their own")
    for name, description in content["networks"].items():
        if (described := description.get("n_agents", len(agents))) != len(agents):
            raise ValueError(f"its network {name} is described for {described} agents, and there are {len(agents)}")
    if content["risk"] is not None and len(np.atleast_1d(content["risk"]["tau"])) not in (1, len(agents)):
        raise ValueError(f"its tau is neither for all nor for each of the {len(agents)} agents")
