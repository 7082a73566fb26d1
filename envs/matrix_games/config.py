"""Which matrix game is played."""

from dataclasses import dataclass

from rqe_mappo.envs.matrix_games.payoffs import GAMES, RANDOM_GAMES, MatrixGame, RandomGame
from rqe_mappo.envs.matrix_games.table import PayoffTable

NAMED: dict[str, MatrixGame | RandomGame] = {**GAMES, **RANDOM_GAMES}
DEFAULT = "stag-hunt"


@dataclass(frozen=True)
class MatrixConfig:
    """A game in normal form, played once an episode: a named one, or that of a payoff table."""

    game: str = DEFAULT
    """Name of the game: stag-hunt, free-rider, ghp4, sc1 to sc12, penalty-2x2, penalty-3x3, penalty-3x3-hard, or
    risky-safe."""
    payoffs: PayoffTable | None = None
    """A game of your own instead: a JSON file as rqe-solve reads it. The run's settings hold the payoffs themselves."""

    def __post_init__(self):
        if self.game not in NAMED:
            raise ValueError(f"--game must be one of {', '.join(NAMED)} (got {self.game})")
        if self.payoffs is None:
            return
        if not isinstance(self.payoffs, PayoffTable):
            raise ValueError(f"--payoffs must be a PayoffTable: use PayoffTable.from_file (got {self.payoffs})")
        if self.game != DEFAULT:
            raise ValueError(f"--payoffs is a game of its own: leave --game and --scenario out (got {self.game})")

    @property
    def matrix(self) -> MatrixGame | RandomGame:
        """The game that is played."""
        return NAMED[self.game] if self.payoffs is None else self.payoffs.game("payoffs", "--payoffs")


SCENARIOS = {"default": MatrixConfig(), **{name: MatrixConfig(name) for name in NAMED}}
