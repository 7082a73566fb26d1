"""A trained policy for those who deploy it: load, act, look at the learned return distribution."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rqe_mappo.checkpoint import CheckpointError, load_policy_file
from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk import RiskMeasure, parse_risk
from rqe_mappo.nets import Actor, Shapes, critic_of, sample


@dataclass(frozen=True)
class ReturnDistribution:
    """What the critic expects of the return: probabilities `[..., N]` on `atoms` `[N]`, in the unit of the reward."""

    atoms: Float[Tensor, " N"]
    log_probs: Float[Tensor, "*rows N"]

    @property
    def probs(self) -> Float[Tensor, "*rows N"]:
        return self.log_probs.exp()

    @property
    def mean(self) -> Float[Tensor, "*rows"]:
        return categorical.mean(self.atoms, self.probs)

    @property
    def std(self) -> Float[Tensor, "*rows"]:
        return categorical.variance(self.atoms, self.probs).sqrt()

    def quantile(self, level: float) -> Float[Tensor, "*rows"]:
        """The smallest atom at which the cumulative probability reaches `level`."""
        return categorical.quantile(self.atoms, self.probs, level)

    def value(self, measure: RiskMeasure) -> Float[Tensor, "*rows"]:
        """The risk value under `measure`, whose tau is in the unit of the reward."""
        return measure.value(self.atoms, self.log_probs)


class Decider:
    """Whoever has logits of actions for observations: draws from them, for arrays or dicts of agents.

    agents: the names of the agents, in order.
    shapes: of observations and actions, among others.
    device: where the logits are computed.
    """

    agents: tuple[str, ...]
    shapes: Shapes
    device: torch.device

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def seed(self, seed: int) -> None:
        """Seed the draws of `act`."""
        self.generator.manual_seed(seed)

    def begin(self, copies: Sequence[int] | np.ndarray | None = None, of: int = 1) -> None:
        """Say that episodes begin: in the `copies` of an environment of `of` copies, or in all of them.

        For those that keep something during an episode; the others need not be told.
        """

    @torch.no_grad()
    def act(self, obs: Any, agent: Any = 0, deterministic: bool = False) -> Any:
        """Actions for observations, drawn from the policy, or its most probable ones if `deterministic`.

        obs: array `[..., D]`, with `agent` the index of each row's agent (an int, or an array of shape `[...]`);
            or a dict from agent names to arrays `[D]`, as a PettingZoo environment gives.
        Returns an int64 array `[...]`, an int for a single row, or a dict of ints.
        """
        if isinstance(obs, dict):
            if not obs:
                return {}
            index = np.array([self.agents.index(name) for name in obs])
            actions = self.act(np.stack(list(obs.values())), index, deterministic)
            return {name: int(action) for name, action in zip(obs, actions, strict=True)}
        logits = self._logits_of(obs, agent)
        if deterministic:
            actions = logits.argmax(-1)
        else:
            uniform = torch.rand(logits.shape[:-1], generator=self.generator).to(self.device)
            actions = sample(logits, uniform)
        return actions.cpu().numpy() if actions.ndim else int(actions)

    @torch.no_grad()
    def probabilities(self, obs: Any, agent: Any = 0) -> np.ndarray:
        """Action probabilities `[..., actions]` for observations `[..., D]`."""
        return self._logits_of(obs, agent).softmax(-1).cpu().numpy()

    def logits(self, obs: Float[Tensor, "*rows obs"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        """Logits of the actions, for observations and agents' indices on `device`."""
        raise NotImplementedError

    def _logits_of(self, obs: Any, agent: Any) -> Tensor:
        rows = self._rows(obs, self.shapes.obs_dim, "observation")
        return self.logits(rows, self._agents(agent, rows))

    def _rows(self, values: Any, width: int, what: str) -> Tensor:
        rows = torch.as_tensor(np.asarray(values, dtype=np.float32)).to(self.device)
        if rows.ndim == 0 or rows.shape[-1] != width:
            raise ValueError(f"{what} must have {width} features in its last axis (got shape {tuple(rows.shape)})")
        return rows

    def _agents(self, agent: Any, rows: Tensor) -> Tensor:
        return torch.as_tensor(np.array(agent), device=self.device).expand(rows.shape[:-1])


class Policy(Decider):
    """Actors and critic of one run.

    >>> policy = Policy.load("runs/sumo__tau0.3__eps0.01__s1__20261120-120000")
    >>> actions = policy.act(observations)  # an array, or a dict of agents as in PettingZoo
    """

    def __init__(self, content: dict[str, Any], device: str = "cpu"):
        """From the contents of a policy file; prefer `Policy.load`."""
        super().__init__()
        self.device = torch.device(device)
        self.agents: tuple[str, ...] = tuple(content["agents"])
        self.config_json: str = content["config"]
        self.timesteps: int = content["timesteps"]
        self.return_scale: float | None = content["return_scale"]
        shapes = content["shapes"]
        self.shapes = Shapes(**{name: tuple(v) if isinstance(v, list | tuple) else v for name, v in shapes.items()})
        risk = content["risk"]
        self.risk = {"name": risk["name"], "tau": np.atleast_1d(risk["tau"]).tolist(), "clip": risk["clip"]}
        self.measures = tuple(parse_risk(risk["name"], tau, clip=risk["clip"]) for tau in self.risk["tau"])
        """The risk measures of its training, one for all agents or one each; tau in units of `return_scale`."""
        self.actor = Actor(self.shapes)
        self.critic = critic_of(self.shapes, torch.zeros(self.shapes.n_atoms))
        self.actor.load_state_dict(content["actor"])
        self.critic.load_state_dict(content["critic"])
        self.actor.to(self.device).eval()
        self.critic.to(self.device).eval()

    @property
    def measure(self) -> RiskMeasure:
        """The measure of all agents, or, where they differ (`measures`), of the first."""
        return self.measures[0]

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> "Policy":
        """From a run folder (its newest checkpoint) or a policy file. Executes nothing that the file holds.

        Raises CheckpointError, with one line, for whatever is no policy of ours.
        """
        return cls._from(load_policy_file(path, device), path, device)

    @classmethod
    def _from(cls, content: dict[str, Any], path: str | Path, device: str) -> "Policy":
        try:
            return cls(content, device)
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
        return {
            "agents": list(self.agents), "config": self.config_json, "timesteps": self.timesteps,
            "return_scale": self.return_scale, "shapes": self.shapes.as_dict(), "risk": self.risk,
            "actor": self.actor.state_dict(), "critic": self.critic.state_dict(),
        }  # fmt: skip

    def logits(self, obs: Float[Tensor, "*rows obs"], agent: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows actions"]:
        return self.actor(obs, agent)

    @torch.no_grad()
    def distribution(self, state: Any, agent: Any = 0) -> ReturnDistribution:
        """The learned distribution of the return from states `[..., S]`, as the critic of `agent` sees them.

        Of a run with `--advantage rqe`, whose critic tells joint actions apart, `[..., J]` of them.
        ValueError for a run of a rival whose critic foretells means alone.
        """
        if self.shapes.critic_values:
            raise ValueError("the critic of this run foretells the mean return, no distribution: use policy.value")
        rows = self._rows(state, self.shapes.state_dim, "state")
        logits = self.critic(rows, self._agents(agent, rows))
        return ReturnDistribution(self.critic.atoms, logits.log_softmax(-1))

    @torch.no_grad()
    def value(self, state: Any, agent: Any = 0) -> Float[Tensor, "*rows"]:
        """V_tau of states `[..., S]` as the policy was trained on it (bounded by `risk_clip`, see docs/risk.md).

        The mean return, where a rival's critic foretells no distribution; of IPPO's, which sees no state, given the
        agent's observations (`shapes.critic_sees_obs`).
        ValueError for a run with `--advantage rqe`: its critic knows the value of joint actions, not of policies.
        """
        if self.shapes.joint_actions:
            raise ValueError("a critic of joint actions has no value of a state: use policy.distribution")
        if self.shapes.critic_values:
            rows = self._rows(state, self.shapes.state_dim, "state")
            return self.critic(rows, self._agents(agent, rows))[..., 0]
        known = self.distribution(state, agent)
        values = [m.scaled(self.return_scale or 1.0).reference(known.atoms, known.log_probs) for m in self.measures]
        if len(values) == 1:
            return values[0]
        choices = torch.stack(values, -1)
        return choices.gather(-1, self._agents(agent, choices)[..., None]).squeeze(-1)
