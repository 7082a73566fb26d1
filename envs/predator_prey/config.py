"""Settings of predator-prey and their named combinations."""

from dataclasses import dataclass

LARGEST_SIDE = 50  # cells: the critic sees three numbers a cell
LONGEST = 1_000_000  # steps


@dataclass(frozen=True)
class PredatorPreyConfig:
    """Predators on a grid catch prey only together; who tries it alone may be fined."""

    size: int = 10
    """Side of the square grid, in cells."""
    n_predators: int = 8
    """How many predators there are: the agents."""
    n_prey: int = 8
    """How many prey there are; they move at random."""
    sight: int = 2
    """How far a predator sees to each side, in cells: 2 shows 5x5 of them."""
    punishment: float = 0.0
    """What each catch costs the team in which a predator stands alone."""
    horizon: int = 200
    """Time limit, in steps."""
    observe_time: bool = False
    """Show the time left, so that the time limit may be learned as an end; the published game does not."""

    def __post_init__(self):
        self._require_whole("size", 2, LARGEST_SIDE)
        cells = self.size**2
        self._require_whole("n_predators", 1, cells - 1)
        self._require_whole("n_prey", 1, cells - self.n_predators)
        self._require_whole("sight", 1, self.size)
        self._require_whole("horizon", 1, LONGEST)
        if not 0 <= self.punishment <= 1000:
            raise ValueError(f"--punishment must be in [0, 1000] (got {self.punishment})")

    def _require_whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"--{name.replace('_', '-')} must be a whole number from {low} to {high} (got {value})")

    @property
    def most_captures(self) -> int:
        """How many prey can be caught in an episode: each takes two predators, who then leave."""
        return min(self.n_predators // 2, self.n_prey)


SCENARIOS = {
    "default": PredatorPreyConfig(),
    "punish": PredatorPreyConfig(punishment=2.0),
}
