"""The dynamic stag hunt as a PettingZoo parallel environment."""

from rqe_mappo.envs.fixed_length.parallel import FixedLengthEnv
from rqe_mappo.envs.stag_hunt.config import StagHuntConfig
from rqe_mappo.envs.stag_hunt.dynamics import StagHunt


class StagHuntEnv(FixedLengthEnv):
    """Two hunters take a stag or a hare each and meet, again and again: stags pay if both bring one, a hare always.

    The dynamic stag hunt of RQRE-OVI (Gonzales et al., arXiv 2603.09208), after what its authors released.

    **Map**, 9x9 cells with the wall around it: four stags `S`, four hares `H`, four starting cells `n`::

        # # # # # # # # #
        # . S . . . S . #
        # . . . . . . . #
        # . H . n . H . #
        # . . n . n . . #
        # . H . n . H . #
        # . . . . . . . #
        # . S . . . S . #
        # # # # # # # # #

    **Action**: Discrete(6): stay, up, down, left, right, meet (and stay).

    **A step**: both move at once; into the wall they do not, and where both would be in one cell, neither does. They
    may change places. Who is then in a cell with a stag or a hare carries that, whatever it carried before; there are
    always more. If then one of them or both chose to meet, they are in neighbouring cells and both carry something,
    they are paid, and begin anew with nothing in two different starting cells, drawn.

    **Reward** at a meeting: `stag_reward` to each if both carry stags; `hare_reward` to who carries a hare, whatever
    the other does; `alone_reward` to who alone carries a stag. Else 0.

    **Observation**, of oneself and then of the other: row and column, over 6, and whether it carries a stag, or a hare;
    with `observe_time` the time left, 1 to 0: float32 `[8 (+ 1)]`.

    **State**: the same.

    **End**: truncated after `horizon` steps; meetings do not end an episode.

    **Info** of each agent, after a step: `cost`, 1.0 for who alone brought a stag to a meeting and else 0.0.

    Ours: seeds, `alone_reward`, and observations.
    """

    metadata = {  # noqa: RUF012  (as PettingZoo declares it)
        "name": "stag_hunt_v0",
        "render_modes": [],
        "common_reward": False,
    }

    def __init__(self, config: StagHuntConfig | None = None):
        self.config = config or StagHuntConfig()
        super().__init__(StagHunt(self.config, 1))
