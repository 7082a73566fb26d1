"""Tag as a PettingZoo parallel environment."""

from rqe_mappo.envs.fixed_length.parallel import FixedLengthEnv
from rqe_mappo.envs.tag.config import TagConfig
from rqe_mappo.envs.tag.dynamics import Tag


class TagEnv(FixedLengthEnv):
    """Slow chasers catch faster prey on a plane with obstacles; every touch in a step counts.

    `simple_tag_v3` of mpe2 (Lowe et al., arXiv 1706.02275), step by step: from the same seed come the same starts, and
    from the same actions the same observations and rewards.

    **Action**: Discrete(5): stay, push left, right, down, up; with `continuous` Box(0, 1, (5,)): how strongly, and the
    first number is without effect.

    **A step** is 0.1 s. Bodies move by their velocity of before; that is then damped by a quarter, changed by one's own
    push (acceleration 3 for chasers, 4 for prey) and by what one touches, and cut to the top speed (1, and 1.3). Radii
    are 0.075, 0.05, and 0.2 for obstacles, which do not move.

    **Reward**, all of it times `reward_scale`: for every chaser 10 for each pair of a chaser and a prey that touch
    after the step; for learned prey -10 for each chaser that touches it, less `b(|x|) + b(|y|)`: 0 below 0.9, then
    10 (z - 0.9), from 1 on exp(2 z - 2), at most 10. With `shaped` every chaser also loses a tenth of the sum over
    chasers of the distance to the nearest prey, and learned prey gains a tenth of its distances to all chasers.

    **Observation**: own velocity and position; where obstacles, and where the other bodies are from here; velocities of
    all other prey, padded with zeros to the length that chasers have; with `observe_time` the time left, 1 to 0.

    **State**, a row an agent: the same, but with the velocities of all others.

    **End**: truncated after `horizon` steps.

    **Info** of each agent, after a step: `cost`, 1.0 if it touches an obstacle or another of its kind, and else 0.0.

    Agents are `adversary_0`, ..., the chasers, and `agent_0`, ... where the prey is learned. Scripted prey flees (see
    `prey.fleeing`), pushes at random or stays; it counts for rewards just the same. Ours: that, `reward_scale` (SRPO's
    0.1, arXiv 2602.21515), state and `cost`. Left out of mpe2: its curriculum, ends at success, partial observability.
    """

    metadata = {  # noqa: RUF012  (as PettingZoo declares it)
        "name": "tag_v0",
        "render_modes": [],
    }

    def __init__(self, config: TagConfig | None = None):
        self.config = config or TagConfig()
        game = Tag(self.config, 1)
        self.metadata = {**self.metadata, "common_reward": game.common_reward}
        super().__init__(game)
