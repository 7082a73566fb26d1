"""Acting on observations: arrays of rows, what agents of an environment see, or what a single one sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo.nets import ActorSpec
from rqe_mappo.spaces import (
    MASK,
    AgentSpaces,
    Numbers,
    Observation,
    Parts,
    mask_in,
    own_first,
    short,
    to_float32,
    to_mask,
)


class ActingPolicy:
    """Whoever acts on observations: draws actions, for arrays or dicts of agents, and remembers what it must.

    agents: the names of the agents, in order.
    spec: of observations and actions, among others.
    device: where the networks live.
    memory: what it remembers, which may be kept and set again.
    spaces: what each agent observes and does in its environment, where that is more than rows of `spec.obs_dim`
        features: observations are then flattened and padded here, and actions are the agent's own.
    """

    agents: tuple[str, ...]
    spec: ActorSpec
    device: torch.device
    memory: Any
    spaces: tuple[AgentSpaces, ...] | None = None

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
        self, obs: Any, agent: Any = None, deterministic: bool = False, *, avail: Any = None, active: Any = None
    ) -> Any:
        """Actions for observations, drawn from the policy, or its most probable ones if `deterministic`.

        obs: what the environment gives: a dict from agent names to what each observes, as a PettingZoo environment has
            it, or, with `agent` a name or index, what that one observes. Or rows, an array `[..., D]`, with `agent` the
            index of each row's agent (an int, or an array of shape `[...]`); by default row i of `[..., A, D]` is agent
            i's, and other rows are the first agent's.
        avail: which actions may be chosen, bool `[..., actions]`, or a dict of masks; what a dict observation holds as
            `action_mask` is heeded without it. A mask may be as long as the agent's own actions are many.
        active: bool `[...]`, which rows are of agents that act; the memory of the others stays as it is.
        Returns actions as the environment takes them: a dict for a dict, one for a single observation. For rows,
        elements of the action space that agents share: an int64 array `[...]`, or `[..., U]` for several choices, or a
        float32 array `[..., U]` for continuous actions; an int or an array `[U]` for a single row.
        """
        if (name := self._only(obs, agent)) is not None:
            return self.act({name: obs}, None, deterministic, avail=None if avail is None else {name: avail})[name]
        if isinstance(obs, dict):
            if not obs:
                return {}
            rows, mask = self._team(obs), self._team_mask(obs, avail)
            here = [self._index(name) for name in obs]
            if self._remembers:  # its memory has a row for each agent, here or not
                everyone = np.arange(len(rows))
                active = np.isin(everyone, here)
                actions = self.act(rows, everyone, deterministic, avail=mask, active=active)[here]
            else:
                actions = self.act(rows[here], here, deterministic, avail=None if mask is None else mask[here])
            return {name: self._own_action(name, action) for name, action in zip(obs, actions, strict=True)}
        rows = self._rows(obs, self.spec.obs_dim, "observation")
        uniform = None
        if not deterministic:
            uniform = torch.rand(*rows.shape[:-1], self._draws, generator=self.generator).to(self.device)
        mask = self._mask(avail)
        present = None if active is None else torch.as_tensor(np.asarray(active, dtype=bool), device=self.device)
        actions = self._act(rows, self._agents(agent, rows), uniform, mask, present)
        return actions.cpu().numpy() if actions.ndim else int(actions)

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

    @torch.no_grad()
    def probabilities(self, obs: Any, agent: Any = None, *, avail: Any = None) -> Any:
        """Action probabilities `[..., actions]` for observations, with the memory there is, which stays.

        obs, agent, avail: as in `act`; a dict of arrays for a dict. ValueError for continuous actions.
        """
        if (name := self._only(obs, agent)) is not None:
            return self.probabilities({name: obs}, avail=None if avail is None else {name: avail})[name]
        if isinstance(obs, dict):
            rows = self._team(obs)
            found = self.probabilities(rows, np.arange(len(rows)), avail=self._team_mask(obs, avail))
            return {name: found[self._index(name)] for name in obs}
        rows = self._rows(obs, self.spec.obs_dim, "observation")
        return self._probabilities(rows, self._agents(agent, rows), self._mask(avail)).cpu().numpy()

    def _probabilities(
        self,
        obs: Float[Tensor, "*rows D"],
        agent: Int[Tensor, "*rows"],
        avail: Bool[Tensor, "*rows actions"] | None,
    ) -> Float[Tensor, "*rows actions"]:
        """Of rows on `device`."""
        raise NotImplementedError

    def state(self, obs: dict[str, Any]) -> np.ndarray:
        """What the centralised critic takes, float32 `[A, S]`, from a dict of what each agent of the environment sees.

        All agents' observations side by side, each agent's own first, zeros for those that are not there. For policies
        of environments by name; the others have `state()` themselves.
        """
        if self.spaces is None:
            raise ValueError("this critic sees a state of its own: give what the environment's state() gives")
        return own_first(self._team(obs)) * np.isin(self.agents, list(obs))[:, None]

    def _only(self, obs: Any, agent: Any) -> str | None:
        """The agent whose single observation `obs` is; None where it is a dict of agents, or rows."""
        if self.spaces is None or np.ndim(agent) > 0 or (agent is None and len(self.agents) > 1):
            return None
        index = self._index(0 if agent is None else agent)
        own = self.spaces[index].observation
        if isinstance(obs, dict):
            keys = set((own.keys if isinstance(own, Parts) else None) or ())
            named = all(name in self.agents and isinstance(one, dict) and keys <= set(one) for name, one in obs.items())
            of_agents = agent is None and (named or not keys or not keys <= set(obs))
        else:
            of_agents = self._are_rows(obs, own)
        return None if of_agents else self.agents[index]

    def _are_rows(self, obs: Any, own: Observation) -> bool:
        """Whether these are flat rows rather than one observation of the kind `own`."""
        try:
            shape = np.shape(obs)
        except ValueError:  # of parts that differ
            return False
        return shape[-1:] == (self.spec.obs_dim,) and not (isinstance(own, Numbers) and shape == own.shape)

    def _team(self, obs: dict[str, Any]) -> np.ndarray:
        """Rows `[A, D]` of what agents see, by name; zeros for those that are not there."""
        rows = np.zeros((len(self.agents), self.spec.obs_dim), np.float32)
        for name, value in obs.items():
            flat = self._flat(name, value)
            rows[self._index(name), : len(flat)] = flat
        return rows

    def _flat(self, name: str, value: Any) -> np.ndarray:
        """What an agent sees as numbers: flattened as in training, unless it is flat already."""
        index, width = self._index(name), self.spec.obs_dim
        if self.spaces is None:
            if np.shape(value) != (width,):
                raise ValueError(f"the observation of {name} must have {width} features (got shape {np.shape(value)})")
            return to_float32(np.asarray(value))
        own = self.spaces[index].observation
        if max(spaces.observation.width for spaces in self.spaces) < width and np.shape(value) != (width,):
            raise ValueError(
                f"the observation of {name} must have {width} features: this policy also sees the return so far, which "
                "--advantage static adds behind the flat observation"
            )
        try:
            return own.flat(value)
        except ValueError as error:
            if np.shape(value) == (width,):
                return to_float32(np.asarray(value))
            raise ValueError(f"the observation of {name} {error}; or flat and padded to {width} features") from None

    def _team_mask(self, obs: dict[str, Any], avail: dict[str, Any] | None) -> np.ndarray | None:
        """Which actions the agents may choose, `[A, actions]`, by `avail` and by what they see; None if all may all."""
        given = avail or {}
        for name in given:
            self._index(name)
        held = {} if self.spaces is None else {name: mask_in(value) for name, value in obs.items()}
        masks = {name: mask for name, mask in {**held, **given}.items() if mask is not None and name in obs}
        if not masks:
            return None
        outputs = self.spec.actions.outputs
        found = np.ones((len(self.agents), outputs), bool)
        for name, mask in masks.items():
            own = self._own_mask(name, mask)
            found[self._index(name)] = np.arange(outputs) < len(own)
            found[self._index(name), : len(own)] &= own
        return found

    def _own_mask(self, name: str, mask: Any) -> np.ndarray:
        """A mask of the agent's own actions, or of all that agents share."""
        outputs = self.spec.actions.outputs
        try:
            if np.shape(mask) == (outputs,) or self.spaces is None:
                return to_mask(mask, outputs)
            return self.spaces[self._index(name)].mask(mask)
        except ValueError as error:
            raise ValueError(f"the {MASK} of {name} {error}") from None

    def _own_action(self, name: str, action: np.ndarray) -> Any:
        """An element of the space that agents share, as the agent's own environment takes it."""
        if self.spaces is not None:
            return self.spaces[self._index(name)].action.own(action)
        return action if action.ndim else int(action)

    def _rows(self, values: Any, width: int, what: str) -> Tensor:
        try:
            rows = to_float32(np.asarray(values))
        except (TypeError, ValueError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"must be numbers (got {short(values)})"
            raise ValueError(f"{what} {reason}") from None
        if rows.ndim == 0 or rows.shape[-1] != width:
            raise ValueError(f"{what} must have {width} features in its last axis (got shape {rows.shape})")
        if not np.isfinite(rows).all():
            raise ValueError(f"{what} must be finite (got nan or infinity)")
        return torch.as_tensor(rows).to(self.device)

    def _mask(self, avail: Any) -> Tensor | None:
        return None if avail is None else torch.as_tensor(np.asarray(avail, dtype=bool), device=self.device)

    def _index(self, agent: Any) -> int:
        """The index of an agent, by itself or by name; ValueError for an unknown one."""
        if isinstance(agent, str):
            if agent not in self.agents:
                raise ValueError(f"there is no agent {agent}: these are {', '.join(self.agents)}")
            return self.agents.index(agent)
        return int(self._checked_numbers(np.asarray(agent)))

    def _checked_numbers(self, agents: np.ndarray) -> np.ndarray:
        last = len(self.agents) - 1
        if agents.size and not (agents.dtype.kind in "iu" and agents.min() >= 0 and agents.max() <= last):
            known = f"agents are numbered 0 to {last}, or named {', '.join(self.agents)}"
            raise ValueError(f"{known} (got {str(agents.tolist())[:60]})")
        return agents

    def _agents(self, agent: Any, rows: Tensor) -> Tensor:
        count, shape = len(self.agents), rows.shape[:-1]
        if agent is None:
            agent = np.arange(count) if shape and shape[-1] == count else 0
        named = np.asarray(agent)
        if named.dtype.kind == "U":
            named = np.vectorize(self._index)(named)
        try:
            return torch.as_tensor(np.array(self._checked_numbers(named)), device=self.device).expand(shape)
        except RuntimeError:
            raise ValueError(f"agents of shape {named.shape} cannot be those of rows of shape {tuple(shape)}") from None
