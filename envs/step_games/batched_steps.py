"""The step games for the learner."""

from rqe_mappo.envs.step_games.config import MStepConfig, TwoStepConfig
from rqe_mappo.envs.step_games.model import step_game
from rqe_mappo.envs.tabular.batched_tabular import BatchedTabular


class BatchedStepGame(BatchedTabular):
    """A `BatchedEnv` with `agent_0` and `agent_1`. Array contents as in `StepGameEnv`; `cost` is 0."""

    def __init__(self, config: TwoStepConfig | MStepConfig, num_envs: int):
        super().__init__(step_game(config), num_envs)
        self.config = config
