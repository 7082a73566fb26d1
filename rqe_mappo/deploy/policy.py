"""A trained policy for those who deploy it: load, act, look at the predicted return distribution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rqe_mappo import nets
from rqe_mappo.checkpoint import CheckpointError, load_policy_file
from rqe_mappo.functional.risk import Neutral, RiskMeasure, parse_risk
from rqe_mappo.nets import ActorSpec, ValueCritic
from rqe_mappo.nets.contract import Acted, Actor, ReturnDistribution, ReturnModel
from rqe_mappo.nets.distributions import Categorical

__all__ = ["ActingPolicy", "Policy", "ReturnDistribution"]


@dataclass(frozen=True)
class Memory:
    """What a policy remembers of rows of observations, `[*rows, H]`; H = 0 for an actor or a critic without memory."""

    actor: Tensor
    critic: Tensor


class ActingPolicy:
    """Whoever acts on observations: draws actions, for arrays or dicts of agents, and remembers what it must.

    agents: the names of the agents, in order.
    spec: of observations and actions, among others.
    device: where the networks live.
    memory: what it remembers, which may be kept and set again.
    """

    agents: tuple[str, ...]
    spec: ActorSpec
    device: torch.device
    memory: Any

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def seed(self, seed: int) -> None:
        """Seed the draws of `act`."""
        self.generator.manual_seed(seed)

    def begin(self, copies: Sequence[int] | np.ndarray | None = None, of: int = 1) -> None:
        """Tell the policy that episodes begin: in the `copies` of an environment of `of` copies, or in all of them.

        Policies with memory, and mixtures that draw a policy for each episode, must be told; the others need not.
        """

    @torch.no_grad()
    def act(
        self, obs: Any, agent: Any = 0, deterministic: bool = False, *, avail: Any = None, active: Any = None
    ) -> Any:
        """Actions for observations, drawn from the policy, or its most probable ones if `deterministic`.

        obs: array `[..., D]`, with `agent` the index of each row's agent (an int, or an array of shape `[...]`);
            or a dict from agent names to arrays `[D]`, as a PettingZoo environment gives.
        avail: bool `[..., actions]`, or a dict of `[actions]`: which actions may be chosen.
        active: bool `[...]`, which rows are of agents that act; the memory of the others stays as it is.
        Returns elements of the action space: an int64 array `[...]`, or `[..., U]` for several choices, or a float32
        array `[..., U]` for continuous actions; an int or an array `[U]` for a single row; or a dict of these.
        """
        if isinstance(obs, dict):
            return self._act_by_name(obs, deterministic, avail)
        rows = self._rows(obs, self.spec.obs_dim, "observation")
        uniform = None
        if not deterministic:
            uniform = torch.rand(*rows.shape[:-1], self._draws, generator=self.generator).to(self.device)
        mask = self._mask(avail)
        present = None if active is None else torch.as_tensor(np.asarray(active, dtype=bool), device=self.device)
        actions = self._act(rows, self._agents(agent, rows), uniform, mask, present)
        return actions.cpu().numpy() if actions.ndim else int(actions)

    def _act_by_name(self, obs: dict[str, Any], deterministic: bool, avail: dict[str, Any] | None) -> dict[str, Any]:
        if not obs:
            return {}
        for name, values in obs.items():
            if name not in self.agents:
                raise ValueError(f"there is no agent {name}: these are {', '.join(self.agents)}")
            if np.shape(values) != (self.spec.obs_dim,):
                raise ValueError(
                    f"the observation of {name} must have {self.spec.obs_dim} features (got shape {np.shape(values)}); "
                    "where agents see unequally much, the shorter ones were padded with zeros in training"
                )
        index = np.array([self.agents.index(name) for name in obs])
        everyone = np.arange(len(self.agents))
        if self._remembers:  # its memory has a row for each agent, here or not
            rows = np.zeros((len(everyone), self.spec.obs_dim), np.float32)
            rows[index] = np.stack(list(obs.values()))
            mask = None
            if avail is not None:
                mask = np.ones((len(everyone), self.spec.actions.outputs), bool)
                mask[index] = np.stack([avail[name] for name in obs])
            actions = self.act(rows, everyone, deterministic, avail=mask, active=np.isin(everyone, index))[index]
        else:
            mask = None if avail is None else np.stack([avail[name] for name in obs])
            actions = self.act(np.stack(list(obs.values())), index, deterministic, avail=mask)
        return {name: action if action.ndim else int(action) for name, action in zip(obs, actions, strict=True)}

    @property
    def _draws(self) -> int:
        return self.spec.actions.draws

    @property
    def _remembers(self) -> bool:
        return False

    def _act(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        uniform: Float[Tensor, "*rows draws"] | None,
        avail: Bool[Tensor, "*rows actions"] | None,
        active: Bool[Tensor, "*rows"] | None,
    ) -> Tensor:
        """Actions of rows on `device`."""
        raise NotImplementedError

    def probabilities(self, obs: Any, agent: Any = 0, *, avail: Any = None) -> np.ndarray:
        """Action probabilities `[..., actions]` for observations `[..., D]`; ValueError for continuous actions.

        avail: as in `act`.
        """
        raise NotImplementedError

    def _rows(self, values: Any, width: int, what: str) -> Tensor:
        rows = torch.as_tensor(np.asarray(values, dtype=np.float32)).to(self.device)
        if rows.ndim == 0 or rows.shape[-1] != width:
            raise ValueError(f"{what} must have {width} features in its last axis (got shape {tuple(rows.shape)})")
        return rows

    def _mask(self, avail: Any) -> Tensor | None:
        return None if avail is None else torch.as_tensor(np.asarray(avail, dtype=bool), device=self.device)

    def _agents(self, agent: Any, rows: Tensor) -> Tensor:
        named = np.asarray(agent)
        if named.size and not (named.min() >= 0 and named.max() < len(self.agents)):
            raise ValueError(f"agents are numbered 0 to {len(self.agents) - 1} (got {named.min()} to {named.max()})")
        return torch.as_tensor(np.array(agent), device=self.device).expand(rows.shape[:-1])


class Policy(ActingPolicy):
    """The networks of one run.

    actor, modules, returns: as in `rqe_mappo.algorithms.contract.Algorithm`; returns is None where nothing predicts
        the return of the policy.
    measures: the risk measures of its training, one for all agents or one each; tau in units of `return_scale`.

    >>> policy = Policy.load("runs/sumo__tau0.3__eps0.01__s1__20261120-120000")
    >>> actions = policy.act(observations)  # an array, or a dict of agents as in PettingZoo
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

    @torch.no_grad()
    def probabilities(self, obs: Any, agent: Any = 0, *, avail: Any = None) -> np.ndarray:
        """Action probabilities `[..., actions]` for observations `[..., D]`, with the memory there is, which stays.

        avail: as in `act`. ValueError for continuous actions.
        """
        rows = self._rows(obs, self.spec.obs_dim, "observation")
        return self.choices(rows, self._agents(agent, rows), self._mask(avail)).probs.cpu().numpy()

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
    def distribution(self, view: Any, agent: Any = 0) -> ReturnDistribution:
        """The predicted distribution of the return from states `[..., S]`, as the critic of `agent` sees them.

        Of observations, where the critic sees those (`policy.returns.view`).
        ValueError for a run whose critic predicts means alone, or none of the policy's returns.
        """
        rows, agents = self._views(view, agent)
        found = self._known_returns().distribution(rows, agents)
        if found is None:
            raise ValueError("the critic of this run predicts the mean return, no distribution: use policy.value")
        return found

    @torch.no_grad()
    def value(self, view: Any, agent: Any = 0) -> Float[Tensor, "*rows"]:
        """V_tau of states `[..., S]` as the policy was trained on it (bounded by `risk_clip`, see docs/risk.md).

        The mean return, where no distribution is predicted; of observations, where the critic sees those
        (`policy.returns.view`). A critic with memory has seen what was acted on: ask before `act`, with the same rows.
        ValueError for a run with `--algo exact-rqe`: its critic knows the value of joint actions, not of policies.
        """
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
            raise ValueError("nothing in this run predicts the return of its policy (exact-rqe: of joint actions only)")
        return self.returns

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
