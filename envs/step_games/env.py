"""The step games as a PettingZoo parallel environment."""

from rqe_mappo.envs.step_games.config import MStepConfig, TwoStepConfig
from rqe_mappo.envs.step_games.model import step_game
from rqe_mappo.envs.tabular.env import TabularParallelEnv


class StepGameEnv(TabularParallelEnv):
    """Two agents who are paid the same play a game of a few steps in which nothing is drawn.

    **Action**: Discrete(2). A joint action 01 is 0 of `agent_0` and 1 of `agent_1`.

    **Two-step game** (Rashid et al., QMIX, arXiv 1803.11485). In the first step, which pays 0, `agent_0` picks the
    branch: 0 is the sure one, where everything pays `sure`, 1 the one where 00 pays 0, 01 and 10 pay 1, and 11 pays 8.
    Observation and state: the one-hot state, `[3]`.

    **m-step game** (Mahajan et al., MAVEN, arXiv 1910.07483). The first joint action picks one of four branches, and
    each later step has to repeat it. A step on a branch that pays is worth 1, the first one too; any other is worth 0
    and ends the game. Branch 00 differs in its last step: there 11 pays 4 and all else 1. So 00 for m - 1 steps and
    then 11 is best and pays m + 3, and repeating 11, which asks for no change at the end, pays m. Observation and
    state: the step, one-hot `[m]`, and the branch, one-hot `[4]`, zeros at the start.
    From the authors' code come the rewards, the end of the game where a step pays 0, and the meaning of `good_branches`
    (with 2 the branches 01 and 10 pay nothing). Ours: the branch is not shown before it is picked (there it reads as
    00), and a step after the last is not shown.

    **Reward**: the same for both.

    **End**: terminated after the last step, or where the m-step game ends early. Nothing is truncated.
    """

    metadata = {  # noqa: RUF012  (as PettingZoo declares it)
        "name": "step_games_v0",
        "render_modes": [],
        "common_reward": True,
    }

    def __init__(self, config: TwoStepConfig | MStepConfig | None = None):
        self.config = config or TwoStepConfig()
        super().__init__(step_game(self.config))
