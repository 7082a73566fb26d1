"""What whole episodes brought, beside what the critic predicted at their start."""

from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rqe_mappo import schema
from rqe_mappo.algorithms.averages import Moments
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.functional import returns

FEWEST = 30  # episodes of agents, without which nothing is said of a critic
WRONG = 0.25  # stds of the return by which the critic's mean may be off
ROUNDING = 1e-3  # of the mean return, which is lost in float32 and in a run's last steps
MEMORY = 0.8  # of the latest episodes, per trajectory


class EpisodesState(TypedDict):
    """What an `EpisodeReturns` keeps."""

    all: tuple[Moments, ...]
    latest: tuple[Moments, ...]
    errors: tuple[Moments, ...]
    going: Bool[Tensor, "E A"]
    brought: Float[Tensor, "E A"]
    discount: Float[Tensor, "E A"]
    expected: Float[Tensor, "E A"]


class EpisodeReturns:
    """Discounted returns of agents' episodes from their first step on: what the critic predicts there.

    Where a time limit that is bootstrapped over cuts an episode, the critic's mean stands for what would have followed.
    Episodes of simulations that were lost do not count.

    all: of the whole run, an agent each. latest, errors: of the latest episodes, and of what they brought less what was
        predicted.
    """

    def __init__(self, gamma: float, shape: tuple[int, int], device: torch.device):
        """shape: copies and agents."""
        self.gamma = gamma
        self.all, self.latest, self.errors = (tuple(Moments() for _ in range(shape[1])) for _ in range(3))
        # of the episodes under way: whether there is one, what it brought, its next step's discount, what was predicted
        self.going = torch.zeros(shape, dtype=torch.bool, device=device)
        self.brought, self.discount, self.expected = (torch.zeros(shape, device=device) for _ in range(3))

    @torch.no_grad()
    def observe(
        self,
        chunk: Trajectory,
        value: Float[Tensor, "T E A"],
        next_value: Float[Tensor, "T E A"],
        terminated: Bool[Tensor, "T E A"],
        ended: Bool[Tensor, "T E A"],
    ) -> list[Moments]:
        """Take in a trajectory and the critic's means before and after each step; gives the episodes that ended in it.

        terminated: where a return ends. ended: there, at time limits that are bootstrapped over, and where a simulation
        was lost.
        """
        steps, gamma = len(value), self.gamma
        reward = chunk.reward + gamma * next_value * (ended & ~terminated & ~chunk.lost)
        nothing = torch.zeros_like(reward)
        brought = returns.gae(reward, nothing, nothing, ended, ended, gamma, 1.0)
        whole = (ended & ~chunk.lost).to(reward)
        over = returns.gae(whole, nothing, nothing, ended, ended, 1.0, 1.0) > 0

        carried = self.going & chunk.active[0] & ~chunk.begins[0][:, None]
        going = chunk.active & ~ended
        begins = chunk.active & ~torch.cat((carried[None], going[:-1]))
        found = torch.cat((brought, (self.brought + self.discount * brought[0])[None])).double()
        expected = torch.cat((value, self.expected[None]))
        counts = torch.cat((begins & over, (carried & over[0])[None]))
        ended_now, errors = Moments.of_agents((found, found - expected), counts)

        last, index = torch.where(begins, torch.arange(steps, device=begins.device)[:, None, None], -1).max(0)
        began = last >= 0
        at_last = index[None]
        since = torch.where(began, steps - last, steps).to(reward)
        before = torch.where(began, 1.0, self.discount)
        self.brought = torch.where(began, brought.gather(0, at_last)[0], self.brought + self.discount * brought[0])
        self.expected = torch.where(began, value.gather(0, at_last)[0], self.expected)
        self.discount = before * gamma**since
        self.going = going[-1]

        for agent, (now, error) in enumerate(zip(ended_now, errors, strict=True)):
            self.all[agent].add(now)
            self.latest[agent].add(now, MEMORY)
            self.errors[agent].add(error, MEMORY)
        return ended_now

    @property
    def warning(self) -> str:
        """What a user must know of a critic that does not know its returns at the end of a run; empty if it does.

        Said of the agent about which it is wrong most, in stds of that agent's returns.
        """
        wrong = max(range(len(self.all)), key=self._wrong)
        if self._wrong(wrong) <= 1:
            return ""
        came, error = self.latest[wrong].mean, self.errors[wrong].mean
        whose = f" of agent {wrong}" if len(self.all) > 1 else ""
        return (
            f"the critic does not know its returns: at the start of episodes{whose} it predicted {came - error:.4g} on "
            f"average, and {came:.4g} came; do not trust its values: train longer, raise --critic-learning-rate, "
            "or show it what returns depend on, such as the time left"
        )

    def _wrong(self, agent: int) -> float:
        """By how much the critic is off about an agent, over what it may be; 0 where too little was seen."""
        errors = self.errors[agent]
        if errors.count < FEWEST:
            return 0.0
        noise = 3 * errors.std / errors.count**0.5
        allowed = max(noise, WRONG * self.all[agent].std + ROUNDING * abs(self.latest[agent].mean))
        return abs(errors.mean) / allowed if allowed else float(errors.mean != 0) * 2

    def state_dict(self) -> dict[str, Any]:
        moments = {name: [one.state_dict() for one in getattr(self, name)] for name in ("all", "latest", "errors")}
        under_way = {name: getattr(self, name).cpu() for name in ("going", "brought", "discount", "expected")}
        return moments | under_way

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in schema.read(EpisodesState, state, "episodes").items():
            if isinstance(value, tuple):
                if len(value) != len(self.all):
                    raise ValueError(f"episodes.{name} must have {len(self.all)} entries (got {len(value)})")
                setattr(self, name, value)
            elif value.shape != self.going.shape:
                raise ValueError(f"episodes.{name} must have shape {list(self.going.shape)} (got {list(value.shape)})")
            else:
                setattr(self, name, value.to(self.going.device))
