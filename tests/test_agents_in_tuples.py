"""Gymnasium environments of several agents, whose spaces are tuples: what each agent sees, earns and when it ends."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Tuple

import rqe_mappo
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import batched_from
from rqe_mappo.envs.by_name.one_copy import Unusable


class Foragers(gymnasium.Env):
    """Two agents with two and three actions; each earns its action plus ten times its number, for three steps.

    paid: how rewards are given: a list, an array, one number for all, or too many.
    """

    def __init__(self, paid: str = "list", ends: str = "one"):
        self.observation_space = Tuple([Box(-9, 9, (2,)), Box(-9, 9, (3,))])
        self.action_space = Tuple([Discrete(2), Discrete(3)])
        self.paid, self.ends, self.steps = paid, ends, 0

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        return np.full(2, self.steps, np.float32), np.full(3, -self.steps, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action):
        assert isinstance(action, tuple) and len(action) == 2
        self.steps += 1
        earned = [float(action[0]), 10.0 + float(action[1])]
        rewards = {"list": earned, "array": np.array(earned), "common": sum(earned), "many": [*earned, 1.0]}[self.paid]
        over = self.steps == 3
        ends = {"one": over, "each": [over, over], "staggered": [self.steps >= 2, over]}[self.ends]
        return (
            self._seen(),
            rewards,
            ends,
            False,
            [{"cost": 2.0}, {"cost": 2.0}] if self.ends == "each" else {"cost": 2.0},
        )


@pytest.mark.parametrize("paid, wanted", [("list", [1, 12]), ("array", [1, 12]), ("common", [13, 13])])
@pytest.mark.parametrize("ends", ["one", "each", "staggered"])
def test_parts_of_tuples_are_the_agents(paid, wanted, ends):
    env = batched_from(lambda: Foragers(paid, ends), 2)
    assert env.possible_agents == ("agent_0", "agent_1") and env.action_space.counts == (2, 3)
    seen = env.reset(0)
    assert seen.obs.shape == (2, 2, 3) and seen.active.all()
    step = env.step(np.array([[1, 2], [1, 2]]))
    assert step.reward.tolist() == [wanted, wanted] and step.cost.tolist() == [[2, 2], [2, 2]]
    assert step.obs[0].tolist() == [[1, 1, 0], [-1, -1, -1]] and not step.terminated.any()
    assert not env.step(np.array([[0, 0], [0, 0]])).terminated.any(), "who is done first stays until all are"
    last = env.step(np.array([[0, 0], [0, 0]]))
    assert last.terminated.all() and last.episodes["length"].tolist() == [[3, 3], [3, 3]]


def test_too_many_parts_are_refused_in_one_line():
    with pytest.raises(Unusable, match=r"^--env [^\n]* step\(\) must give rewards of 2 agents, in order \(got 3\)$"):
        batched_from(lambda: Foragers("many"), 1)


def test_one_agent_may_see_a_tuple():
    class Alone(Foragers):
        def __init__(self):
            super().__init__("common")
            self.action_space = Discrete(2)

        def step(self, action):
            return super().step((action, 0))

    env = batched_from(Alone, 1)
    assert env.possible_agents == ("agent",) and env.observation_space.shape == (5,)


@pytest.mark.slow
def test_several_agents_train_and_a_policy_acts(tmp_path):
    gymnasium.register("Foragers-v0", Foragers)
    try:
        few = {"total_timesteps": 1024, "num_envs": 8, "num_steps": 16, "eval_episodes": 0, "quiet": True}
        run = rqe_mappo.train("gymnasium:Foragers-v0", algo="srpo", out=str(tmp_path / "run"), **few)
    finally:
        gymnasium.registry.pop("Foragers-v0")
    policy = Policy.load(run)
    seen = {"agent_0": np.zeros(2, np.float32), "agent_1": np.zeros(3, np.float32)}
    assert set(policy.act(seen, deterministic=True)) == set(seen)
