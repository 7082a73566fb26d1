"""Agents by their tau and eps: each pair acts on, and is scaled by, what its own agents see."""

from dataclasses import dataclass

from rqe_mappo.config import ConfigError, each_agent, spelled


@dataclass(frozen=True)
class AgentGroups:
    """The different pairs of tau and eps.

    pairs: (tau, eps) of each group.
    of: each agent's group, as an index.
    """

    pairs: tuple[tuple[float, float], ...]
    of: tuple[int, ...]

    @property
    def members(self) -> list[list[int]]:
        """The agents of each group."""
        return [[agent for agent, found in enumerate(self.of) if found == group] for group in range(len(self.pairs))]

    @property
    def indices(self) -> tuple[int, ...]:
        """`of`, where there is more than one group; else nothing, for nothing has to be indices apart."""
        return self.of if len(self.pairs) > 1 else ()


def agent_groups(tau: float | tuple[float, ...], eps: float | tuple[float, ...], n_agents: int) -> AgentGroups:
    """Groups of `n_agents` agents, which share `tau` and `eps` or have one each.

    Raises ConfigError if either names another number of agents.
    """
    lists = {}
    for name, value in (("tau", tau), ("eps", eps)):
        values = each_agent(value)
        if len(values) not in (1, n_agents):
            raise ConfigError(
                f"--{name} {spelled(values)} names {len(values)} agents where there are {n_agents}: "
                "give one value for all, or one for each"
            )
        lists[name] = values * n_agents if len(values) == 1 else values
    each = list(zip(lists["tau"], lists["eps"], strict=True))
    pairs = tuple(dict.fromkeys(each))
    return AgentGroups(pairs, tuple(pairs.index(pair) for pair in each))
