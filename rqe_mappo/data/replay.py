"""Replay of whole episodes, of teams: what off-policy algorithms learn from."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import LARGEST, BatchedEnv
from rqe_mappo.schema import Count

SEEN = ("obs", "state", "avail", "present")  # before each step, and after the last


@dataclass
class Episodes:
    """B episodes of a team from their first steps, zero behind their ends; T steps, as many as the longest has.

    obs: what the agents see before each step, and after the last: what they would have seen where the episode was cut.
    state: the global state, `team_state`.
    avail: which actions there are; None where always all.
    action: the index of each agent's choice.
    reward: the team's.
    active: who acts.
    present: whose utility counts before each step, and after the last: of who acts, or was cut off there (time limits).
    terminated: the team's return ends here.
    ended: the episode does, terminated or cut.
    filled: steps that were played.
    extras: what else the actor gave, `[T, B, A]` each.
    """

    obs: Float[Tensor, "T+1 B A D"]
    state: Float[Tensor, "T+1 B S"]
    avail: Bool[Tensor, "T+1 B A actions"] | None
    action: Int[Tensor, "T B A"]
    reward: Float[Tensor, "T B"]
    active: Bool[Tensor, "T B A"]
    present: Bool[Tensor, "T+1 B A"]
    terminated: Bool[Tensor, "T B"]
    ended: Bool[Tensor, "T B"]
    filled: Bool[Tensor, "T B"]
    extras: dict[str, Tensor]


class ReplayState(TypedDict):
    """What going on needs of the E episodes under way, by name `[E, steps, ...]`; how many have ended so far."""

    count: Count
    length: Int[Tensor, " E"]
    arrays: dict[str, Tensor]


def team_state(state: Float[Tensor, "*rows A S"], active: Bool[Tensor, "*rows A"]) -> Float[Tensor, "*rows S+A"]:
    """The global state from the side of the first agent that acts, and which one that is; zero where none does.

    Environments give it from each agent's side, and nothing for those that are not there.
    """
    first = active.int().argmax(-1)
    seen = state.gather(-2, first[..., None, None].expand(*first.shape, 1, state.shape[-1])).squeeze(-2)
    who = torch.nn.functional.one_hot(first, active.shape[-1]).to(state.dtype)
    return torch.cat((seen, who), -1) * active.any(-1)[..., None]


def team_state_size(env: BatchedEnv) -> int:
    """How many features `team_state` has."""
    return env.state_space.shape[0] + len(env.possible_agents)


class EpisodeReplay:
    """The newest episodes of E copies, in arrays of fixed size, and those under way.

    Memory for `capacity + E` episodes of the environment's horizon is set aside at once, and taken from the system as
    it is written, so that short episodes take less; `bytes_at_most` says how much it can be. An episode that is longer
    is cut there. Steps in which nobody acts are left out.

    time_limit: "terminal" where the remaining time is observed, so that returns end at time limits too.
    extras: what else of what the actor gives is kept, whole numbers.
    arrays: what is kept, by name `[slots, steps, ...]`; a slot holds an episode.
    count: how many episodes have ended so far.
    """

    def __init__(self, env: BatchedEnv, capacity: int, time_limit: str, extras: Sequence[str] = ()):
        self.capacity, self.time_limit, self.extras = capacity, time_limit, tuple(extras)
        self.common_reward, self.horizon, self.count = env.common_reward, env.horizon, 0
        self.actions = int(getattr(env.action_space, "n", 0))
        slots, steps, agents = capacity + env.num_envs, env.horizon, len(env.possible_agents)
        self.arrays = {
            "obs": torch.empty(slots, steps + 1, agents, *env.observation_space.shape),
            "state": torch.empty(slots, steps + 1, team_state_size(env)),
            "present": torch.empty(slots, steps + 1, agents, dtype=torch.bool),
            "reward": torch.empty(slots, steps),
            "active": torch.empty(slots, steps, agents, dtype=torch.bool),
            **{name: torch.empty(slots, steps, agents, dtype=torch.int64) for name in ("action", *self.extras)},
        }  # and "avail", once there is one
        self.length = torch.zeros(slots, dtype=torch.int64)
        self.slot = torch.arange(env.num_envs)  # where the episode under way in each copy is written
        self.free = deque(range(env.num_envs, slots))
        self.finished: deque[int] = deque()  # slots, the oldest first
        self._whole: Tensor | None = None
        self._behind: Tensor | None = None

    @staticmethod
    def bytes_at_most(env: BatchedEnv, capacity: int) -> int:
        """How much memory the replay can take."""
        agents, actions = len(env.possible_agents), int(getattr(env.action_space, "n", 0))
        of_agents = agents * (4 * env.observation_space.shape[0] + 16 + 2 + actions)
        return (capacity + env.num_envs) * (env.horizon + 1) * (of_agents + 4 * team_state_size(env) + 4)

    def __len__(self) -> int:
        """How many whole episodes there are."""
        return len(self.finished)

    def add(self, chunk: Trajectory) -> int:
        """Take in a trajectory; gives how many steps of copies were played in it."""
        terminated, truncated = chunk.ends(self.time_limit)
        cut = (truncated | chunk.lost) & ~terminated
        goes_on = chunk.active & ~(terminated | cut)
        before, after = self._seen(chunk, goes_on, cut)
        done = {"action": chunk.extras["drawn"][..., 0], "reward": self._team_reward(chunk), "active": chunk.active}
        done |= {name: chunk.extras[name] for name in self.extras}
        before, after, done = ({name: value.cpu() for name, value in part.items()} for part in (before, after, done))
        acted = done["active"].any(-1)
        played = 0
        for t, began in enumerate(chunk.begins.cpu()):
            length = self.length[self.slot]
            self._close(torch.nonzero((began & (length > 0)) | (length == self.horizon)).flatten().tolist())
            copies = torch.nonzero(acted[t]).flatten()
            slot = self.slot[copies]
            at = self.length[slot]
            first = at == 0
            if first.any():
                self._write(before, t, copies[first], slot[first], at[first])
            unseen = ~first & ~(acted[t - 1, copies] & self.arrays["present"][slot, at].any(-1)) if t else ~first
            if unseen.any():
                self._see(before, t, copies[unseen], slot[unseen], at[unseen])
            self.arrays["present"][slot, at] |= done["active"][t, copies]  # some may join an episode late
            self._write(done, t, copies, slot, at)
            self._write(after, t, copies, slot, at + 1)
            self.length[slot] += 1
            played += len(copies)
        return played

    def _seen(
        self, chunk: Trajectory, goes_on: Bool[Tensor, "T E A"], cut: Bool[Tensor, "T E A"]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is there before each step, and after it in the same episode."""
        obs, state = chunk.obs[1:].clone(), chunk.state[1:].clone()
        obs[chunk.truncated], state[chunk.truncated] = chunk.final_obs, chunk.final_state
        following, present = torch.cat((chunk.active[1:], goes_on[-1:])), goes_on | cut
        viewers = torch.where(goes_on.any(-1, keepdim=True), following, present)
        before = {"obs": chunk.obs[:-1], "state": team_state(chunk.state[:-1], chunk.active), "present": chunk.active}
        after = {"obs": obs, "state": team_state(state, viewers), "present": present}
        if chunk.avail is not None:
            self._allow(chunk.avail.shape[-1])
            before["avail"] = chunk.avail[:-1]
            # nothing says what is there after a time limit: most likely what was there before
            after["avail"] = torch.where(cut[..., None], chunk.avail[:-1], chunk.avail[1:])
        return before, after

    def _allow(self, actions: int) -> None:
        if "avail" not in self.arrays:
            self.arrays["avail"] = torch.empty(*self.arrays["present"].shape, actions, dtype=torch.bool)

    def _team_reward(self, chunk: Trajectory) -> Float[Tensor, "T E"]:
        if not self.common_reward:
            return chunk.reward.sum(-1)
        first = chunk.active.int().argmax(-1, keepdim=True)
        return chunk.reward.gather(-1, first).squeeze(-1)

    def _see(self, before: dict[str, Tensor], t: int, copies: Tensor, slot: Tensor, at: Tensor) -> None:
        """What those who act at t see then, where the step before could not tell.

        It was in the trajectory before, which did not know who acts now, or nobody acted in it, or nobody was to go on.
        """
        who = before["present"][t, copies][..., None]
        for name in before.keys() & {"obs", "avail"}:
            kept = self.arrays[name]
            kept[slot, at] = torch.where(who, before[name][t, copies], kept[slot, at])
        self._write({"state": before["state"]}, t, copies, slot, at)

    def _write(self, values: dict[str, Tensor], t: int, copies: Tensor, slot: Tensor, at: Tensor) -> None:
        for name, value in values.items():
            self.arrays[name][slot, at] = value[t, copies]

    def _close(self, copies: list[int]) -> None:
        """The episodes under way in these copies are over; the next are written over the oldest."""
        for copy in copies:
            self.finished.append(int(self.slot[copy]))
            self.count += 1
            self.slot[copy] = slot = self.free.popleft() if self.free else self.finished.popleft()
            self.length[slot] = 0
            self._whole = self._behind = None

    def sample(self, size: int, generator: torch.Generator, device: torch.device) -> Episodes:
        """`size` of the whole episodes, drawn with replacement."""
        drawn = torch.randint(len(self.finished), (size,), generator=generator)
        return self.episodes(self.whole[drawn], device)

    @property
    def whole(self) -> Int[Tensor, " F"]:
        """Slots of the whole episodes, the oldest first."""
        if self._whole is None:
            self._whole = torch.tensor(self.finished, dtype=torch.int64)
        return self._whole

    @property
    def behind(self) -> Int[Tensor, " F"]:
        """How many steps lie behind at the end of each whole episode."""
        if self._behind is None:
            self._behind = self.length[self.whole].cumsum(0)
        return self._behind

    @property
    def steps(self) -> int:
        """How many steps the whole episodes have."""
        return int(self.behind[-1]) if len(self.finished) else 0

    def sample_windows(self, size: int, steps: int, generator: torch.Generator, device: torch.device) -> Episodes:
        """`size` pieces of at most `steps` steps, which begin at steps drawn with replacement, each as likely."""
        behind = self.behind
        drawn = torch.randint(int(behind[-1]), (size,), generator=generator)
        index = torch.searchsorted(behind, drawn, right=True)
        slot = self.whole[index]
        return self.episodes(slot, device, first=drawn - behind[index] + self.length[slot], most=steps)

    def newest(self, count: int) -> Episodes:
        """The last `count` whole episodes."""
        return self.episodes(self.whole[-count:], torch.device("cpu"))

    def episodes(
        self, slot: Int[Tensor, " B"], device: torch.device, first: Int[Tensor, " B"] | None = None, most: int = 10**9
    ) -> Episodes:
        """The episodes in these slots, or at `most` so many steps of each from its `first` one on."""
        length = self.length[slot] if first is None else self.length[slot] - first
        steps = min(most, int(length.max()))
        found = {name: values.to(device) for name, values in self.cut(slot, first, steps).items()}
        length = length.to(device)
        time = torch.arange(steps, device=device)[:, None]
        ended, followed = time == length - 1, found["present"][1:].any(-1)
        extras = {name: found.pop(name) for name in self.extras}
        return Episodes(
            avail=found.pop("avail", None),
            **found,
            terminated=ended & ~followed,
            ended=ended,
            filled=time < length,
            extras=extras,
        )

    def cut(self, slot: Int[Tensor, " B"], first: Int[Tensor, " B"] | None, steps: int) -> dict[str, Tensor]:
        """Arrays `[steps, B, ...]` of episodes from their `first` steps on; zero, and all available, behind their ends.

        Those of `SEEN` have a step more.
        """
        found, length = {}, self.length[slot]
        place = torch.arange(steps + 1)[:, None] + (0 if first is None else first)
        longer = length + (length > 0)  # after the last step something is seen; of no episode nothing is
        ends = {False: length, True: longer}
        beyond = bool((place[-1] >= longer).any())  # else no step lies behind its end
        index = {
            seen: ((place if seen else place[:-1]).clamp(max=most - 1) + slot * most).flatten()
            for seen, most in ((True, self.horizon + 1), (False, self.horizon))
        }
        for name, kept in self.arrays.items():
            seen = name in SEEN
            values = kept.flatten(0, 1).index_select(0, index[seen]).unflatten(0, (-1, len(slot)))
            if beyond:
                behind = place[: len(values)] >= ends[seen]
                values.masked_fill_(behind.reshape(*behind.shape, *(1,) * (values.ndim - 2)), name == "avail")
            found[name] = values
        return found

    def cut_out(self, slot: Int[Tensor, " B"]) -> dict[str, Tensor]:
        """The same `[B, steps, ...]` of the whole episodes in these slots."""
        whole = self.cut(slot, None, int(self.length[slot].max()))
        return {name: values.transpose(0, 1).contiguous() for name, values in whole.items()}

    def put_in(self, slot: Int[Tensor, " B"], length: Int[Tensor, " B"], arrays: dict[str, Tensor]) -> None:
        """The reverse of `cut_out`; ValueError for what is of another environment."""
        steps = int(length.max()) if len(length) else 0
        if len(length) != len(slot) or steps > self.horizon or (length < 0).any():
            raise ValueError(f"replay.length must have {len(slot)} entries from 0 to {self.horizon}")
        if "avail" in arrays:
            self._allow(self.actions)
        if set(arrays) != set(self.arrays):
            raise ValueError(f"replay.arrays must be {', '.join(self.arrays)}")
        for name, values in arrays.items():
            kept = self.arrays[name]
            if values.shape != (len(slot), steps + (name in SEEN), *kept.shape[2:]) or values.dtype != kept.dtype:
                raise ValueError(f"replay.arrays.{name} is of another environment")
        self._check(length, arrays)
        for name, values in arrays.items():
            self.arrays[name][slot, : values.shape[1]] = values
        self.length[slot] = length

    def _check(self, length: Int[Tensor, " B"], arrays: dict[str, Tensor]) -> None:
        """ValueError for episodes that were not played here: arrays come from files."""
        most = LARGEST * arrays["active"].shape[-1]  # the team's reward is a sum
        for name, values in arrays.items():
            wrong = values.is_floating_point() and values.numel() and not float(values.abs().max()) <= most
            if wrong or (values.dtype == torch.int64 and (values < 0).any()):
                raise ValueError(f"replay.arrays.{name} holds numbers that no environment gives")
        if (arrays["action"] >= self.actions).any():
            raise ValueError(f"replay.arrays.action holds actions beyond the {self.actions} that there are")
        played = torch.arange(arrays["active"].shape[1]) < length[:, None]
        if not arrays["active"].any(-1)[played].all():
            raise ValueError("replay.arrays.active has steps in which nobody acts")

    def restore(self, length: Int[Tensor, " B"], arrays: dict[str, Tensor], skip: int = 0) -> None:
        """Take in whole episodes that `cut_out` gave, newer than all there are, without the first `skip` of them."""
        length = length[skip:]
        if (length < 1).any():
            raise ValueError("replay.length must be at least 1 of whole episodes")
        if len(length) > len(self.free):
            raise ValueError(f"the replay buffer holds {self.capacity} episodes")
        steps = int(length.max())
        slots = [self.free.popleft() for _ in range(len(length))]
        cut = {name: values[skip:, : steps + (name in SEEN)] for name, values in arrays.items()}
        self.put_in(torch.tensor(slots), length, cut)
        self.finished.extend(slots)
        self._whole = self._behind = None

    def state_dict(self) -> dict[str, Any]:
        """The episodes under way, as far as they are."""
        return {"count": self.count, "length": self.length[self.slot], "arrays": self.cut_out(self.slot)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the episodes under way; the finished ones are not there."""
        known = schema.read(ReplayState, state, "replay")
        self.put_in(self.slot, known["length"], known["arrays"])
        self.count = known["count"]
