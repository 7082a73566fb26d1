"""Which matrix game is played."""

from dataclasses import dataclass

from rqe_mappo.envs.matrix_games.payoffs import GAMES


@dataclass(frozen=True)
class MatrixConfig:
    """A named game in normal form, played once an episode."""

    game: str = "stag-hunt"
    """Name of the game: stag-hunt, free-rider, ghp4, or sc1 to sc12."""

    def __post_init__(self):
        if self.game not in GAMES:
            raise ValueError(f"--game must be one of {', '.join(GAMES)} (got {self.game})")


SCENARIOS = {"default": MatrixConfig(), **{name: MatrixConfig(name) for name in GAMES}}
