"""One collector for all environments and actors: T decisions of E copies with A agents each."""

from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.data import finite
from rqe_mappo.data.trajectory import Past, Trajectory
from rqe_mappo.envs.contract import BatchedEnv, Observed, Step, begun
from rqe_mappo.envs.history import History
from rqe_mappo.nets.contract import Actor

FLOATS, FLAGS = ("reward", "cost"), ("active", "terminated", "truncated", "lost")


class CollectorState(TypedDict):
    """What going on exactly needs beside the environment's snapshot."""

    memory: Float[Tensor, "E A H"]
    begins: Bool[Tensor, " E"]


class Collector:
    """Steps the environments with an actor and keeps what a learner needs.

    Each number is copied once out of the environment's arrays, observations straight to where the networks live, all
    else to buffers on the CPU that go there when the trajectory is full. Random numbers are drawn on the CPU, those of
    a trajectory at once, so that runs on different devices see the same ones.

    observed: what the environment shows now, once `start` or `go_on` was called.
    """

    observed: Observed

    def __init__(self, env: BatchedEnv, actor: Actor, num_steps: int, device: torch.device, generator: torch.Generator):
        self.env, self.actor, self.device, self.generator = env, actor, device, generator
        t, e, a = num_steps, env.num_envs, len(env.possible_agents)
        self.num_steps, self.rows = num_steps, (e, a)
        self.agent = torch.arange(a, device=device).expand(e, a)
        self.obs = torch.empty(t + 1, e, a, *env.observation_space.shape, device=device)
        self.state = torch.empty(t + 1, e, a, *env.state_space.shape)
        self.kept = {
            **{name: torch.empty(t, e, a) for name in FLOATS},
            **{name: torch.empty(t, e, a, dtype=torch.bool) for name in FLAGS},
            "begins": torch.empty(t, e, dtype=torch.bool),
        }
        self.avail: Tensor | None = None
        self.acted: dict[str, Tensor] = {}
        self.memory = torch.zeros(e, a, actor.memory_size, device=device)
        self.begins = np.ones(e, bool)

    def start(self, observed: Observed) -> None:
        """Begin with what the environment shows after `reset`."""
        self.observed = observed
        if observed.avail is not None:
            if observed.avail.dtype != bool:  # of numbers, nan would count as True
                raise finite.NotFinite(f"avail must be bool (got {observed.avail.dtype})")
            shape = (self.num_steps + 1, *observed.avail.shape)
            self.avail = torch.empty(shape, dtype=torch.bool, device=self.device)
        self.begins = np.ones(len(observed.active), bool)
        self.memory.zero_()

    def state_dict(self) -> dict[str, Any]:
        """A `CollectorState`."""
        return {"memory": self.memory.cpu(), "begins": torch.from_numpy(self.begins.copy())}

    def go_on(self, observed: Observed, state: dict[str, Any]) -> None:
        """Go on from what the environment shows after `restore`, with what `state_dict` kept."""
        self.start(observed)
        if state:  # older files hold none, and actors had no memory
            known = schema.read(CollectorState, state, "collector")
            if known["memory"].shape != self.memory.shape or len(known["begins"]) != len(self.begins):
                raise ValueError("the collector's state is of other copies, agents or networks")
            self.begins = known["begins"].numpy().copy()
            self.memory.copy_(known["memory"])

    @torch.no_grad()
    def collect(self, explore: float = 0.0) -> tuple[Trajectory, list[dict[str, np.ndarray]]]:
        """A trajectory, which lasts until the next is collected, and the records of the episodes that ended in it.

        explore: how often to act at random, for actors that do not draw their actions from a policy.
        Raises `NotFinite` where the environment gave what nothing may be learned from.
        """
        env, kept = self.env, self.kept
        kept["lost"].zero_()
        memory = self.memory.clone()
        finals: dict[str, list[Tensor]] = {"final_obs": [], "final_state": []}
        episodes, pasts = [], []
        uniform = torch.rand(self.num_steps, *self.rows, self.actor.draws, generator=self.generator).to(self.device)
        for t in range(self.num_steps):
            self._look(t)
            kept["active"][t] = torch.from_numpy(self.observed.active)
            kept["begins"][t] = torch.from_numpy(self.begins)
            if isinstance(env, History):
                pasts.append((env.past, env.discount, env.start))
            action = self._act(t, uniform[t], explore)
            finite.check_action(action, self.obs[: t + 1], env.possible_agents)
            step = env.step(action)
            for name in ("reward", "cost", "terminated", "truncated"):
                kept[name][t] = torch.from_numpy(getattr(step, name))
            played = slice(None) if step.sim_crashed is None else self._take_back(t, step, step.sim_crashed)
            if step.truncated.any():
                for name, parts in finals.items():
                    parts.append(torch.from_numpy(getattr(step, name)[played].copy()))
            if len(step.episodes["copy"]):
                episodes.append(step.episodes)
            self.observed = step
            self.begins[:] = False
            self.begins[begun(step)] = True
        self._look(self.num_steps)
        chunk = self._trajectory(memory, finals, pasts)
        finite.check_trajectory(chunk, env.possible_agents)
        finite.check_records(episodes, env.possible_agents)
        return chunk, episodes

    def _look(self, t: int) -> None:
        """Keep what is seen before decision t."""
        self.obs[t].copy_(torch.from_numpy(self.observed.obs))
        self.state[t].copy_(torch.from_numpy(self.observed.state))
        avail = self.observed.avail
        if (avail is None) != (self.avail is None):
            raise finite.NotFinite("avail at some steps and not at others: give it always or never")
        if self.avail is not None and avail is not None:
            self.avail[t].copy_(torch.from_numpy(avail))

    def _act(self, t: int, uniform: Tensor, explore: float) -> np.ndarray:
        """The actions of all agents at decision t, drawn by `uniform`."""
        recurrent = self.actor.memory_size > 0
        if recurrent and self.begins.any():
            copies = torch.from_numpy(self.begins).to(self.device)
            drawn = torch.rand(len(copies), generator=self.generator).to(self.device)
            self.memory = self.actor.begin(self.memory, copies, self.state[t].to(self.device), drawn)
        avail = None if self.avail is None else self.avail[t]
        acted = self.actor.act(self.obs[t], self.agent, self.memory, uniform=uniform, avail=avail, explore=explore)
        if recurrent:  # who does not act forgets nothing and learns nothing
            active = self.kept["active"][t].to(self.device)
            self.memory = torch.where(active[..., None], acted.memory, self.memory)
        for name, value in {"action": acted.action, **acted.extras}.items():
            if name not in self.acted:
                self.acted[name] = value.new_empty(self.num_steps, *value.shape)
            self.acted[name][t] = value
        return acted.action.cpu().numpy()

    def _take_back(self, t: int, step: Step, crashed: np.ndarray) -> np.ndarray:
        """Leave nothing to learn of the copies that did not play step t; says which final states remain.

        Their episodes are cut after the step before, where the critic's view is the one kept at t, unless they were to
        begin. (At t = 0 that step was the last of the trajectory before, which ended there anyway.)
        """
        gone = torch.from_numpy(crashed)
        if t > 0:
            cut = gone & ~self.kept["begins"][t]
            self.kept["lost"][t - 1][cut] = self.kept["active"][t][cut]
        for name in ("active", "truncated"):
            self.kept[name][t][gone] = False
        copy, _ = np.nonzero(step.truncated)
        return ~crashed[copy]

    def _trajectory(self, memory: Tensor, finals: dict[str, list[Tensor]], pasts: list) -> Trajectory:
        device, acted = self.device, dict(self.acted)
        widths = {"final_obs": self.obs.shape[3:], "final_state": self.state.shape[3:]}
        ends = {name: torch.cat(parts) if parts else torch.empty(0, *widths[name]) for name, parts in finals.items()}
        past = None
        if pasts:
            past = Past(*(torch.from_numpy(np.stack(part)).to(device) for part in zip(*pasts, strict=True)))
        return Trajectory(
            obs=self.obs,
            state=self.state.to(device),
            action=acted.pop("action"),
            memory=memory,
            avail=self.avail,
            extras=acted,
            past=past,
            **{name: value.to(device) for name, value in (self.kept | ends).items()},
        )
