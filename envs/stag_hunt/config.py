"""Settings of the dynamic stag hunt and their named combinations."""

from dataclasses import dataclass

from rqe_mappo.envs.fixed_length.game import LONGEST, require_whole, require_within

MOST = 1000.0


@dataclass(frozen=True)
class StagHuntConfig:
    """Two hunters take stags or hares on a grid and meet; a stag is worth something only if both bring one."""

    stag_reward: float = 4.0
    """What each is paid when both meet with stags."""
    hare_reward: float = 2.0
    """What a hunter with a hare is paid, whatever the other brings."""
    alone_reward: float = 0.0
    """What a hunter with a stag is paid when the other brings a hare."""
    horizon: int = 75
    """Length of an episode, in steps."""
    observe_time: bool = False
    """Show the time left, so that the time limit may be learned as an end; the published game does not."""

    def __post_init__(self):
        require_whole(self, "horizon", 1, LONGEST)
        require_within(self, -MOST, MOST, "stag_reward", "hare_reward", "alone_reward")


SCENARIOS = {"default": StagHuntConfig()}
