"""A finite Markov game as plain arrays: what samplers and exact solvers both read."""

from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9  # probabilities sum to 1 up to this


@dataclass(frozen=True, eq=False)
class FiniteGame:
    """A game of n players with S states, J joint actions and at most K outcomes of each joint action.

    players: the n players' names.
    n_actions: how many actions each player has; J is their product, and the joint action (a_0, ..., a_{n-1}) has the
        index `np.ravel_multi_index(a, n_actions)`.
    next_state: int `[S, J, K]`, the state that outcome k leads to.
    prob: float `[S, J, K]`, its probability; each row sums to 1. Rows with fewer outcomes are padded with probability
        0, and one next state may fill several places.
    reward: float `[n, S, J, K]`, what the outcome pays to each player; higher is better.
    terminal: bool `[S]`. The game is over on arrival and the return from there on is 0; the other arrays' rows of a
        terminal state do not count.
    start: float `[S]`, the probability of each state to be the first; 0 where terminal.
    horizon: the largest number of decisions. A game that is still on then is cut off.
    obs: float32 `[S, n, D]`, what each player sees in each state.
    state: float32 `[S, n, D']`, what a centralised critic sees for each player.
    state_names: one a state, or none at all.

    Raises ValueError where the arrays contradict each other.
    """

    players: tuple[str, ...]
    n_actions: tuple[int, ...]
    next_state: np.ndarray
    prob: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray
    start: np.ndarray
    horizon: int
    obs: np.ndarray
    state: np.ndarray
    state_names: tuple[str, ...] = ()

    def __post_init__(self):
        n, s = len(self.players), len(self.terminal)
        _require(n >= 1 and len(self.n_actions) == n, f"n_actions must name one number a player (got {self.n_actions})")
        _require(min(self.n_actions) >= 1, f"every player needs an action (got {self.n_actions})")
        shape = self.prob.shape
        _require(shape[:2] == (s, self.n_joint), f"prob must be [{s}, {self.n_joint}, K] (got {list(shape)})")
        for name, expected in (("next_state", shape), ("reward", (n, *shape)), ("start", (s,))):
            found = getattr(self, name).shape
            _require(found == expected, f"{name} must be {list(expected)} (got {list(found)})")
        for name in ("obs", "state"):
            found = getattr(self, name).shape
            _require(len(found) == 3 and found[:2] == (s, n), f"{name} must be [{s}, {n}, D] (got {list(found)})")
        _require(len(self.state_names) in (0, s), f"state_names must be {s} or none (got {len(self.state_names)})")
        _require(self.horizon >= 1, f"horizon must be at least 1 (got {self.horizon})")

        low, high = self.next_state.min(), self.next_state.max()
        _require(low >= 0 and high < s, f"next_state must lie in 0 to {s - 1} (got {low} to {high})")
        for name, chances in (("prob", self.prob), ("start", self.start)):
            off = np.abs(chances.sum(-1) - 1).max()
            fits = bool(chances.min() >= 0 and off <= ROUNDING)
            _require(fits, f"{name} must be >= 0 and sum to 1 (off by up to {off:.2g})")
        _require(not self.start[self.terminal].any(), "start must give terminal states probability 0")
        _require(bool(np.isfinite(self.reward).all()), "reward must be finite")

    @property
    def n_states(self) -> int:
        """S."""
        return len(self.terminal)

    @property
    def n_joint(self) -> int:
        """J, the product of `n_actions`."""
        return int(np.prod(self.n_actions))

    def joint(self, actions: np.ndarray) -> np.ndarray:
        """The joint action's index int `[...]` of every player's action int `[..., n]`; ValueError if out of range."""
        return np.ravel_multi_index(tuple(np.moveaxis(actions, -1, 0)), self.n_actions)


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)
