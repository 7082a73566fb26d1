"""One copy of an environment of another package: what its agents see, earn and may do, checked and as plain numbers."""

import re
import sys
import traceback
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from rqe_mappo.envs.by_name.one_agent import Malformed
from rqe_mappo.envs.contract import LARGEST, Array
from rqe_mappo.spaces import MASK, AgentSpaces, mask_in, short, to_float32

NO_SEED = re.compile(r"unexpected keyword argument '(seed|options)'")
STEP = ("observations", "rewards", "terminations", "truncations", "infos")


class Unusable(ValueError, RuntimeError):
    """What an environment gives cannot be learned from: a bad setting, or the end of a run, which is saved then."""


def raised(error: BaseException) -> str:
    """What an environment raised, and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())}"


class Facts:
    """What is known of the agents of an environment `name`, and what was said of it, each once.

    agents: all that can take part.
    spaces: of each.
    """

    def __init__(self, name: str, agents: Sequence[str], spaces: Sequence[AgentSpaces]):
        self.name, self.agents, self.spaces = name, tuple(agents), tuple(spaces)
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Print a line about the environment to standard error, once."""
        if text not in self._said:
            self._said.add(text)
            print(f"--env {self.name}: {text}", file=sys.stderr, flush=True)

    def error(self, text: str) -> Unusable:
        """What to raise."""
        return Unusable(f"--env {self.name}: {text}")


@dataclass
class Seen:
    """What the agents of a copy see before they act; by their numbers, of those that see anything.

    obs: float32, flat, each as long as it is.
    acting: who acts next.
    masks: bool, of agents that act and say what they can do.
    """

    obs: dict[int, Array] = field(default_factory=dict)
    acting: list[int] = field(default_factory=list)
    masks: dict[int, Array] = field(default_factory=dict)


@dataclass
class Earned:
    """What a step brought each agent that acted, by its number. `left`: who may not go on in this episode."""

    reward: dict[int, float] = field(default_factory=dict)
    cost: dict[int, float] = field(default_factory=dict)
    terminated: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)


class Copy:
    """One environment. Whatever it gives that cannot be learned from is `Unusable`, one line that names the agent.

    An agent that an environment leaves out of `rewards` earned nothing. One that it leaves out of `terminations` and
    `truncations` while it removes it from `agents` has terminated: PettingZoo asks for an entry in every dict, so this
    is said once. So is a reward of one that does not act, for it reaches nobody, and that one is still in `agents`
    after its end: it acts no more until it was out of `agents` for a step.

    stale: who is in `agents` since its end.
    """

    def __init__(self, env: ParallelEnv, facts: Facts):
        self.env, self.facts, self.stale = env, facts, set[int]()

    def reset(self, seed: int | None = None) -> Seen:
        observations, infos = self._parts("reset", ("observations", "infos"), seed=seed)
        if not self.env.agents:
            raise self.facts.error("reset() leaves nobody in agents")
        unseen = set(self.env.agents) - set(observations)
        if unseen:
            raise self.facts.error(f"reset() gives no observation of {sorted(unseen)[0]}, which is in agents")
        self.stale.clear()
        return self._seen(observations, infos)

    def step(self, actions: dict[int, Any]) -> tuple[Seen, Earned]:
        """`actions`: of all agents that act, each in its own space."""
        names = self.facts.agents
        acted = {names[i]: action for i, action in actions.items()}
        observations, rewards, terminations, truncations, infos = self._parts("step", STEP, acted)
        seen, earned = self._seen(observations, infos), Earned()
        self._note_unpaid(rewards, acted.keys())
        for i in actions:
            agent, gone = names[i], names[i] not in self.env.agents
            dead, over = (self._flag(ends.get(agent), agent) for ends in (terminations, truncations))
            if gone and agent not in terminations and agent not in truncations:
                dead = True
                self.facts.say(
                    f"{agent} left without a termination or truncation and counts as terminated; give both in its "
                    "last step, with its reward and observation"
                )
            earned.reward[i] = self._number(rewards.get(agent, 0.0), "reward", agent)
            info = infos.get(agent)
            earned.cost[i] = self._number(info.get("cost", 0.0) if isinstance(info, dict) else 0.0, "cost", agent)
            if dead:
                earned.terminated.add(i)
            if gone or dead or over:
                earned.left.add(i)
        there = {i for i, name in enumerate(names) if name in self.env.agents}
        self.stale = (self.stale | earned.left) & there
        for i in there - self.stale - seen.obs.keys():
            raise self.facts.error(f"step() gives no observation of {names[i]}, which is in agents")
        seen.acting = [i for i in seen.acting if i not in self.stale]
        if seen.acting:  # where all have ended, many forget to empty agents
            for i in self.stale:
                self.facts.say(f"{names[i]} is still in agents after its end: it acts no more in this episode")
        return seen, earned

    def _seen(self, observations: dict[str, Any], infos: dict[str, Any]) -> Seen:
        facts, seen = self.facts, Seen()
        acting = set(self.env.agents)
        unknown = acting.difference(facts.agents)
        if unknown:
            raise facts.error(f"{sorted(map(str, unknown))[0]} is in agents and not in possible_agents")
        for i, agent in enumerate(facts.agents):
            if agent not in observations:
                continue
            value = observations[agent]
            try:
                seen.obs[i] = facts.spaces[i].observation.flat(value)
            except ValueError as error:
                raise facts.error(f"the observation of {agent} {error}") from None
            if agent in acting:
                seen.acting.append(i)
                mask = mask_in(infos.get(agent), value)
                if mask is not None:
                    seen.masks[i] = self._mask(i, mask)
        return seen

    def _parts(self, method: str, parts: tuple[str, ...], *args: Any, **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """What a method of the environment gives, if it is as many dicts as PettingZoo asks for."""
        try:
            given = getattr(self.env, method)(*args, **kwargs)
        except Malformed as error:
            raise self.facts.error(str(error)) from None
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, TypeError) and method == "reset" and NO_SEED.search(str(error)):
                fix = "reset() must take seed and options, as Gymnasium and PettingZoo ask for"
                raise self.facts.error(f"{fix} ({error})") from None
            raise self.facts.error(f"{method}() raised {raised(error)}") from error
        if not isinstance(given, tuple | list) or len(given) != len(parts):
            count = f"{len(given)} values" if isinstance(given, tuple | list) else type(given).__name__
            raise self.facts.error(f"{method}() must give {', '.join(parts)}, each a dict by agent (got {count})")
        for name, part in zip(parts, given, strict=True):
            if not isinstance(part, Mapping):
                raise self.facts.error(f"the {name} that {method}() gives must be a dict by agent (got {short(part)})")
        return tuple(given)

    def _note_unpaid(self, rewards: Mapping[str, Any], acted: Set[str]) -> None:
        """Say so where others than those who `acted` are paid, each once."""
        for name in rewards.keys() - acted:
            if name in self.facts.agents:
                if rewards[name] is not None and self._number(rewards[name], "reward", name):
                    self.facts.say(
                        f"{name} was given a reward in a step in which it did not act, which reaches nobody: pay an "
                        "agent for its own steps, and keep it in agents as long as it earns"
                    )
            elif name != "__all__":
                self.facts.say(f"step() gives a reward of {name!s:.40}, which is not in possible_agents")

    def _mask(self, index: int, mask: Any) -> Array:
        try:
            return self.facts.spaces[index].mask(mask)
        except ValueError as error:
            raise self.facts.error(f"the {MASK} of {self.facts.agents[index]} {error}") from None

    def _flag(self, value: Any, agent: str) -> bool:
        """Whether an episode ends; None for no. Nan and 'False' would count as True."""
        if value is None or isinstance(value, (bool, np.bool_)):  # nearly always
            return bool(value)
        array = np.asarray(value)
        if array.size != 1 or not (array.dtype.kind == "b" or (array.dtype.kind in "iu" and array.item() in (0, 1))):
            raise self.facts.error(f"the end of {agent} must be True or False (got {short(value)})")
        return bool(array.item())

    def _number(self, value: Any, what: str, agent: str) -> float:
        if isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST:  # nearly always
            return float(np.float32(value))
        try:
            array = np.asarray(value)
        except ValueError:  # lists of unequal lengths
            array = np.empty(0)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise self.facts.error(f"the {what} of {agent} must be a number (got {short(value)})")
        try:
            return float(to_float32(array.reshape(())))
        except ValueError as error:
            raise self.facts.error(f"the {what} of {agent} {error}") from None
