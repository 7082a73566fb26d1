"""Nothing that is not finite is learned from or saved: where it was found, in one line.

Of what environments give, numbers beyond `LARGEST` are refused too.
"""

import contextlib
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.envs.contract import LARGEST, Step

GIVEN = ("reward", "cost", "final_obs", "final_state", "obs", "state")  # in the order in which they are blamed


class NotFinite(RuntimeError):
    """What nothing may be learned from, or what may not be saved; the message says what it is and where."""


@contextlib.contextmanager
def named(env: str) -> Generator[None]:
    """Say which environment it was that gave what is refused within."""
    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"--env {env}: {error}") from None


def check_trajectory(chunk: Trajectory, agents: Sequence[str]) -> None:
    """NotFinite for what the environment gave in a trajectory; the device is asked once."""
    given = {name: value for name in GIVEN if (value := getattr(chunk, name)).numel()}
    if chunk.avail is not None:
        stuck = chunk.active & ~chunk.avail[:-1].any(-1)
        given["avail"] = torch.where(stuck, math.inf, 0.0)
    sizes = torch.stack([_size(value) for value in given.values()]).tolist()
    for (name, value), size in zip(given.items(), sizes, strict=True):
        if not size <= LARGEST:
            t, copy, agent, number = _first(value, chunk.truncated if name in ("final_obs", "final_state") else None)
            raise NotFinite(
                f"{_sentence(agents[agent], copy, name, number)} at decision {t + 1} of {len(chunk.reward)}"
            )


def check_action(action: np.ndarray, obs: Tensor, agents: Sequence[str]) -> None:
    """NotFinite for an action of which an environment would make what it likes; `obs` led to it."""
    if np.isfinite(action).all():
        return
    if not float(_size(obs)) <= LARGEST:
        t, copy, agent, number = _first(obs)
        raise NotFinite(f"{_sentence(agents[agent], copy, 'obs', number)} at decision {t + 1}")
    copy, agent = np.argwhere(~np.isfinite(action))[0][:2].tolist()
    raise NotFinite(f"the actor of {agents[agent]} in copy {copy} gave the action {action[copy, agent]}")


def check_step(step: Step, agents: Sequence[str]) -> None:
    """NotFinite for the rewards and the observations of one step."""
    for name in ("reward", "obs"):
        value = getattr(step, name)
        if not np.abs(value).max(initial=0) <= LARGEST:
            _, copy, agent, number = _first(torch.from_numpy(value)[None])
            raise NotFinite(_sentence(agents[agent], copy, name, number))


def check_records(records: Iterable[Mapping[str, np.ndarray]], agents: Sequence[str]) -> None:
    """NotFinite for returns and costs of episodes (`Step.episodes`)."""
    for record in records:
        for name in ("return", "cost"):
            if not np.isfinite(record[name]).all():
                row, agent = np.argwhere(~np.isfinite(record[name]))[0].tolist()
                raise NotFinite(_sentence(agents[agent], int(record["copy"][row]), name, record[name][row, agent]))


def check_weights(modules: Mapping[str, nn.Module]) -> None:
    """NotFinite for weights and statistics of networks; the device is asked once where all is well."""
    named = {f"{name} {key}": value for name, net in modules.items() for key, value in net.state_dict().items()}
    _check_tensors({name: value for name, value in named.items() if value.is_floating_point() and value.numel()})


def check_state(state: Any, name: str) -> None:
    """NotFinite for tensors, and for numbers that are nan, in nested dicts, lists and tuples."""
    leaves = dict(_leaves(state, name))
    _check_tensors({key: value for key, value in leaves.items() if isinstance(value, Tensor)})
    for key, value in leaves.items():
        if not isinstance(value, Tensor) and math.isnan(value):
            raise NotFinite(f"{key} is nan")


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Tensor | float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name} {key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name} {index}")
    elif isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point() and value.numel()):
        yield name, value


def _check_tensors(named: Mapping[str, Tensor]) -> None:
    for device in {value.device for value in named.values()}:  # each is asked once
        there = {name: value for name, value in named.items() if value.device == device}
        sums = torch.stack([value.detach().sum() for value in there.values()])
        if math.isfinite(float(sums.sum())):  # nearly always, and three times as fast as to look at each number
            continue
        sizes = torch.stack([_size(value) for value in there.values()]).tolist()
        for (name, value), size in zip(there.items(), sizes, strict=True):
            if not math.isfinite(size):
                bad = int((~value.isfinite()).sum())
                raise NotFinite(f"{bad} of the {value.numel()} numbers in {name} are not finite")


def _size(value: Tensor) -> Tensor:
    """The largest absolute value as float32; nan where any is nan."""
    low, high = value.detach().aminmax()  # no copy of what may be many pictures
    return torch.maximum(-low, high).float()


def _first(value: Tensor, places: Tensor | None = None) -> tuple[int, int, int, float]:
    """Time, copy and agent of the first number that is refused, of values `[T, E, A, ...]`, and the number.

    places: `[T, E, A]`, where the rows `[M, ...]` of `value` belong, in the order of its nonzero entries.
    """
    index = torch.nonzero(~(value.abs() <= LARGEST))[0].tolist()
    number = float(value[tuple(index)])
    t, copy, agent = index[:3] if places is None else torch.nonzero(places)[index[0]].tolist()
    return t, copy, agent, number


def _sentence(agent: str, copy: int, name: str, number: float) -> str:
    if name == "avail":
        return f"{agent} in copy {copy} was given no action to choose from"
    words = {"obs": "observation", "final_obs": "final observation", "final_state": "final state"}
    return f"{agent} in copy {copy} was given {number:g} in its {words.get(name, name)}"
