"""Noisy actions: how often, of whom, which ones, and that nothing else changes."""

import pickle

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rqe_mappo.envs import kitchen, predator_prey, stag_hunt, tag
from rqe_mappo.envs.action_noise import NoisyActions
from rqe_mappo.envs.contract import Observed, PaddedDiscrete

SHAPE = (4000, 3)


class Listener:
    """An environment that keeps what it is told to do."""

    def __init__(self, space, avail=None):
        self.action_space, self.num_envs, self.possible_agents = space, SHAPE[0], ("a", "b", "c")
        self.avail = avail

    def reset(self, seed):
        return self._seen()

    def _seen(self):
        return Observed(np.zeros((*SHAPE, 1)), np.zeros((*SHAPE, 1)), np.ones(SHAPE, bool), avail=self.avail)

    def step(self, actions):
        self.told = actions
        return self._seen()


def told(space, chosen: np.ndarray, probability, avail=None) -> np.ndarray:
    env = NoisyActions(Listener(space, avail), probability)
    env.reset(3)
    env.step(chosen)
    assert env.told.dtype == chosen.dtype and env.told.shape == chosen.shape
    return env.told


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_chosen_agents_slip_as_often_as_asked_and_others_never(probability):
    """A replaced action is the chosen one once in six times."""
    actions = told(Discrete(6), np.full(SHAPE, 2), [probability, 0, probability])
    changed = (actions != 2).mean(0)
    assert changed == pytest.approx([probability * 5 / 6, 0, probability * 5 / 6], abs=0.025)
    if probability == 1:
        assert np.bincount(actions[:, 0]) == pytest.approx(np.full(6, SHAPE[0] / 6), rel=0.12)
        assert abs(np.corrcoef(actions[:, 0], actions[:, 2])[0, 1]) < 0.05


def test_each_agent_of_each_copy_slips_by_its_own_chance():
    chances = np.zeros(SHAPE)
    chances[::2, 1] = 1.0
    changed = told(Discrete(1000), np.full(SHAPE, 2), chances) != 2
    assert not changed[:, [0, 2]].any() and not changed[1::2].any() and changed[::2, 1].mean() > 0.99


def test_all_agents_slip_where_one_chance_is_given():
    assert (told(Discrete(50), np.full(SHAPE, 7), 1.0) == 7).mean(0) == pytest.approx([0.02] * 3, abs=0.01)


def test_spaces_that_begin_elsewhere_are_kept_to():
    actions = told(Discrete(3, start=5), np.full(SHAPE, 5), 1.0)
    assert set(np.unique(actions)) == {5, 6, 7}


def test_agents_with_fewer_actions_get_their_own():
    actions = told(PaddedDiscrete([2, 4, 3]), np.zeros(SHAPE, int), 1.0)
    assert [set(np.unique(column)) for column in actions.T] == [{0, 1}, {0, 1, 2, 3}, {0, 1, 2}]


def test_only_available_actions_are_put_in_and_all_of_them_alike():
    avail = np.zeros((*SHAPE, 5), bool)
    avail[:, 0, [1, 4]] = avail[:, 1, 2] = avail[:, 2] = True
    actions = told(Discrete(5), np.full(SHAPE, 2), 1.0, avail=avail)
    shares = [np.bincount(column, minlength=5) / SHAPE[0] for column in actions.T]
    wanted = [[0, 0.5, 0, 0, 0.5], [0, 0, 1, 0, 0], [0.2] * 5]
    np.testing.assert_allclose(shares, wanted, atol=0.03)


def test_several_choices_are_replaced_together():
    space = MultiDiscrete([2, 7], start=[0, 3])
    actions = told(space, np.tile([0, 3], (*SHAPE, 1)), 0.5)
    assert set(np.unique(actions[..., 0])) == {0, 1} and set(np.unique(actions[..., 1])) == set(range(3, 10))
    kept = (actions == [0, 3]).all(-1).mean()
    assert kept == pytest.approx(0.5 + 0.5 / 14, abs=0.02)


def test_continuous_actions_are_replaced_from_all_of_their_box():
    space = Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))
    actions = told(space, np.zeros((*SHAPE, 2), np.float32), 0.5)
    slipped = actions[actions.any(-1)]
    assert len(slipped) / (3 * SHAPE[0]) == pytest.approx(0.5, abs=0.02)
    assert slipped.mean(0) == pytest.approx([0, 5], abs=0.2) and slipped.min(0) == pytest.approx([-1, 0], abs=0.01)
    with pytest.raises(ValueError, match=r"^actions without bounds [^\n]*$"):
        NoisyActions(Listener(Box(-np.inf, np.inf, (2,), np.float32)), 0.1)


@pytest.mark.parametrize(
    "probability", [1.1, [-0.1, 0, 0], float("nan"), [0.5, 0.5]], ids=["above", "below", "none", "too few agents"]
)
def test_what_has_no_meaning_is_refused(probability):
    with pytest.raises(ValueError, match=r"^probability must [^\n]*$"):
        NoisyActions(Listener(Discrete(2)), probability)


BUILT = {
    "kitchen": lambda: kitchen.batched_kitchen(kitchen.SCENARIOS["default"], 6),
    "stag hunt": lambda: stag_hunt.batched_hunt(stag_hunt.SCENARIOS["default"], 6),
    "tag": lambda: tag.batched_tag(tag.TagConfig(continuous=True), 6),
    "predator-prey": lambda: predator_prey.BatchedPredators(predator_prey.PredatorPreyConfig(horizon=30), 6),
}


def stepped(env, steps: int) -> list:
    rng, found = np.random.default_rng(1), []
    for _ in range(steps):
        shape = (6, len(env.possible_agents), *env.action_space.shape)
        chosen = rng.random(shape, np.float32) if isinstance(env.action_space, Box) else rng.integers(0, 5, shape)
        step = env.step(chosen)
        found.append([step.obs, step.state, step.reward, step.truncated])
    return found


def alike(ours: list, theirs: list) -> bool:
    return all(np.array_equal(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("name", BUILT)
def test_without_noise_nothing_changes_and_with_it_seeds_and_snapshots_repeat_everything(name):
    agents = len(BUILT[name]().possible_agents)

    def slips_second(chance: float) -> np.ndarray:
        return chance * (np.arange(agents) == 1)

    plain, silent, noisy, again = BUILT[name](), *(NoisyActions(BUILT[name](), slips_second(p)) for p in (0, 0.5, 0.5))
    for env in (plain, silent, noisy, again):
        env.reset(4)
    ours = stepped(plain, 40)
    assert alike(ours, stepped(silent, 40))
    first = stepped(noisy, 40)
    assert not alike(ours, first) and alike(first, stepped(again, 40))
    saved = pickle.dumps(noisy.snapshot())
    later = stepped(noisy, 40)
    other = NoisyActions(BUILT[name](), slips_second(0.5))
    other.restore(pickle.loads(saved))
    assert alike(later, stepped(other, 40))
    assert other.horizon == plain.horizon and other.return_bounds == plain.return_bounds
