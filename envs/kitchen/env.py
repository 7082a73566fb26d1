"""The kitchen as a PettingZoo parallel environment."""

from rqe_mappo.envs.fixed_length.parallel import FixedLengthEnv
from rqe_mappo.envs.kitchen.config import KitchenConfig
from rqe_mappo.envs.kitchen.dynamics import Kitchen


class KitchenEnv(FixedLengthEnv):
    """Cooks carry onions from two stations to a pot; all are paid for it, and each pays for its own steps.

    The grid game of SRPO (Qu et al., arXiv 2602.21515, appendix D), after the paper and what its authors released.

    **Map**, 5x5 cells: the pot `P` is solid, the stations `O` are not, cooks start at `a`, either at either::

        . a . . .
        a . . . .
        . . P . .
        . . . . O
        . . . O .

    **Action**: Discrete(5): stay, up, down, left, right.

    **A step**: cooks act one after the other in an order that is drawn. Who walks into the pot stays where it is, and
    delivers its onion if it has one. Who walks into a wall stays. Who walks into another cook stays, and has had a
    collision. Who is then on a station that holds an onion takes it, unless it carries one, also by staying there.
    Last, each empty station gets an onion with `respawn_probability`, also in the step in which it was emptied.

    **Reward** of each cook: `pickup_reward` and `delivery_reward` for what *any* cook takes and delivers; less
    `move_cost` for its *own* action unless that is stay, whatever it led to, and `collision_cost` for its collision.

    **Observation**, of oneself and then of the others in their order: row and column, over 4, and 1 if it carries; then
    which stations hold an onion; with `observe_time` the time left, 1 to 0: float32 `[3 n_agents + 2 (+ 1)]`.

    **State**: the same.

    **End**: truncated after `horizon` steps.

    **Info** of each agent, after a step: `cost`, 1.0 for its collision and else 0.0.

    Ours: other numbers of cooks (the first `n_agents` of (0, 1), (1, 0), (0, 0), (1, 1), (0, 2), (2, 0) are where they
    start), seeds, and observations that begin with oneself, scaled; there they begin with the first cook.
    """

    metadata = {  # noqa: RUF012  (as PettingZoo declares it)
        "name": "kitchen_v0",
        "render_modes": [],
    }

    def __init__(self, config: KitchenConfig | None = None):
        self.config = config or KitchenConfig()
        self.metadata = {**self.metadata, "common_reward": self.config.n_agents == 1}
        super().__init__(Kitchen(self.config, 1))
