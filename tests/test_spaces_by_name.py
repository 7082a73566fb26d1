"""Spaces and masks of environments by name: flattened, padded, shared, and given back to each agent as its own."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Tuple, flatdim, flatten

from rqe_mappo.envs.by_name import ByNameConfig, batched_from
from rqe_mappo.envs.by_name.actions import common_space
from rqe_mappo.envs.by_name.own_spaces import spaces_of
from rqe_mappo.envs.contract import PaddedBox, PaddedDiscrete, action_dtype
from tests.parallel_toy import Echo

SPACES = {
    "Discrete from one number on": (
        {"a": Discrete(3, start=5), "b": Discrete(2, start=5)}, PaddedDiscrete([3, 2], start=5),
        [[7, 6]], {"a": 7, "b": 6},
    ),
    "Discrete from several": (
        {"a": Discrete(3, start=5), "b": Discrete(3, start=-1)}, Discrete(3), [[2, 0]], {"a": 7, "b": -1},
    ),
    "MultiDiscrete": (
        {"a": MultiDiscrete([2, 3], start=[1, 4]), "b": MultiDiscrete([2, 3], start=[1, 4])},
        MultiDiscrete([2, 3], start=[1, 4]), [[[1, 6], [2, 4]]], {"a": [1, 6], "b": [2, 4]},
    ),
    "MultiDiscrete from several": (
        {"a": MultiDiscrete([2, 3], start=[1, 4]), "b": MultiDiscrete([2, 3])},
        MultiDiscrete([2, 3]), [[[1, 2], [0, 2]]], {"a": [2, 6], "b": [0, 2]},
    ),
    "a table of choices": (
        {"a": MultiDiscrete([[2, 3], [4, 5]])}, MultiDiscrete([2, 3, 4, 5]), [[[1, 2, 3, 4]]], {"a": [[1, 2], [3, 4]]},
    ),
    "MultiBinary": ({"a": MultiBinary(2)}, MultiDiscrete([2, 2]), [[[0, 1]]], {"a": [0, 1]}),
    "Box": (
        {"a": Box(-1, 2, (2, 1), np.float64)}, Box(-1, 2, (2,), np.float32), [[[9, -0.5]]], {"a": [[2], [-0.5]]},
    ),
    "Box without bounds": ({"a": Box(-np.inf, np.inf, (1,))}, Box(-np.inf, np.inf, (1,)), [[[1e6]]], {"a": [1e6]}),
    "Boxes that differ": (
        {"a": Box(-1, 1, (2,)), "b": Box(0, 3, (1,))}, Box(np.float32([-1, -1]), np.float32([3, 1])),
        [[[3, 0.5], [-1, 7]]], {"a": [1, 0.5], "b": [0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPACES)
def test_agents_with_any_actions_share_a_space_and_are_given_their_own(kind):
    spaces, common, actions, received = SPACES[kind]
    env = batched_from(lambda: Echo(spaces), 1)  # whose rewards are measured with random actions, each in its space
    assert env.action_space == common
    env.reset(0)
    step = env.step(np.array(actions, action_dtype(common)))
    given = env.envs[0].received[-1]
    assert given.keys() == received.keys()
    for agent, action in given.items():
        assert np.array_equal(action, received[agent])
    assert step.reward.tolist() == [[np.sum(action) for action in received.values()]]


def test_unlike_boxes_keep_their_widths():
    env = batched_from(lambda: Echo({"a": Box(-1, 1, (2,)), "b": Box(0, 3, (1,))}), 1)
    assert isinstance(env.action_space, PaddedBox) and env.action_space.widths == (2, 1)


@pytest.mark.parametrize(
    "spaces",
    [
        {"a": Discrete(2), "b": Box(0, 1, (1,))},
        {"a": MultiDiscrete([2, 3]), "b": MultiDiscrete([3, 2])},
        {"a": Tuple((Discrete(2), Discrete(2)))},
    ],
    ids=["kinds", "sizes", "tuple"],
)
def test_actions_without_a_common_space_are_refused(spaces):
    with pytest.raises(
        ValueError, match=r"^--env toy: agents must all have Discrete actions, .*: wrap the env"
    ) as error:
        batched_from(lambda: Echo(spaces), 1, ByNameConfig("toy"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("space", "width"),
    [
        (Discrete(4, start=2), 4),
        (MultiDiscrete([2, 3]), 5),
        (MultiBinary(3), 3),
        (Tuple((Discrete(2), Box(0, 1, (2, 2)))), 6),
        (Dict({"near": Discrete(3), "far": Dict({"x": Box(0, 1, (1,))})}), 4),
    ],
    ids=["Discrete", "MultiDiscrete", "MultiBinary", "Tuple", "Dict"],
)
def test_observations_are_flattened_as_gymnasium_does(space, width):
    env = batched_from(lambda: Echo({"a": Discrete(2)}, {"a": space}), 1)
    seen = env.reset(0)
    assert env.observation_space.shape == (width,)
    space.seed(0)
    assert np.array_equal(seen.obs[0, 0], flatten(space, space.sample()))


def test_observations_without_a_fixed_length_are_refused():
    with pytest.raises(ValueError, match=r"^--env toy: observations of .* have no fixed length: wrap"):
        batched_from(lambda: Echo({"a": Discrete(2)}, {"a": Sequence(Discrete(2))}), 1, ByNameConfig("toy"))


MASKS = {"a": [[1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 1, 1]], "b": [[0, 1], [1, 0], [1, 1], [1, 1]]}


def masked() -> Echo:
    """Agent `a` has a mask in its info, `b` in its observation, `c` none."""
    parts = {"observation": Box(0, 9, (2,)), "action_mask": Box(0, 1, (2,), np.int8)}
    return Echo(
        {"a": Discrete(3, start=1), "b": Discrete(2, start=1), "c": Discrete(2, start=1)},
        {"a": Box(0, 9, (2,)), "b": Dict(parts), "c": Box(0, 9, (2,))},
        MASKS,
    )


def test_masks_are_passed_on_and_are_no_part_of_what_is_observed():
    env = batched_from(masked, 2)
    assert env.observation_space.shape == (2,)
    seen = env.reset(0)
    first = [[True, False, True], [False, True, False], [True, True, False]]
    assert seen.avail.tolist() == [first] * 2
    step = env.step(np.array([[1, 2, 2]] * 2))
    assert step.avail.tolist() == [[[False, True, False], [True, False, False], [True, True, False]]] * 2
    env.step(np.array([[2, 1, 1]] * 2))
    assert env.step(np.array([[3, 2, 1]] * 2)).avail.tolist() == [first] * 2  # of the next episode


def test_masks_that_come_late_are_refused():
    class Late(Echo):
        def reset(self, seed=None, options=None):
            seen, _ = super().reset(seed, options)
            return seen, {}

    env = batched_from(lambda: Late({"a": Discrete(2)}, masks={"a": [[1, 1]] * 4}), 1, ByNameConfig("toy", 9, 0.0, 1.0))
    env.reset(0)
    with pytest.raises(
        ValueError, match=r"^--env toy: a has an action_mask now and had none at first: give it in reset"
    ):
        env.step(np.array([[0]]))


def test_agents_that_left_have_no_masks():
    spaces = {"a": Discrete(2), "b": Discrete(2)}
    env = batched_from(lambda: Echo(spaces, masks=dict.fromkeys(spaces, [[0, 1]] * 4)), 1)
    env.reset(0)
    env.envs[0].agents.remove("b")
    assert env.step(np.array([[1, 1]])).avail.tolist() == [[[False, True], [True, True]]]


@pytest.mark.parametrize(
    ("space", "masks", "message"),
    [
        (MultiDiscrete([2, 2]), [[1, 1, 1, 1]] * 4, "the action_mask of a needs Discrete actions"),
        (Discrete(2), [[1, 1], [0, 0], [1, 1], [1, 1]], "the action_mask of a allows nothing: allow an action"),
    ],
)
def test_masks_that_do_not_fit_are_refused(space, masks, message):
    with pytest.raises(ValueError, match=f"^--env toy: {message}"):
        batched_from(lambda: Echo({"a": space}, masks={"a": masks}), 1, ByNameConfig("toy"))
    with pytest.raises(ValueError, match=f"^--env toy: {message}"):
        env = batched_from(lambda: Echo({"a": space}, masks={"a": masks}), 1, ByNameConfig("toy", 9, 0.0, 1.0))
        env.reset(0)
        env.step(np.array([[0]]))


def test_masks_of_a_method_are_heeded():
    class Masking(gymnasium.Env):
        observation_space, action_space = Box(0, 1, (1,)), Discrete(3)

        def reset(self, seed=None, options=None):
            self.allowed = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            assert action == self.allowed
            self.allowed = (action + 1) % 3
            return np.zeros(1, np.float32), 0.0, False, False, {}

        def action_masks(self):
            return np.arange(3) == self.allowed

    env = batched_from(lambda: gymnasium.wrappers.TimeLimit(Masking(), 5), 1, ByNameConfig("toy", 5))
    assert env.reset(0).avail.tolist() == [[[True, False, False]]]
    assert env.step(np.array([[0]])).avail.tolist() == [[[False, True, False]]]


def test_what_looks_like_a_mask_is_said_to_be_observed(capsys):
    seen = Dict({"observation": Box(0, 9, (2,)), "legal_moves": MultiBinary(2)})
    batched_from(lambda: Echo({"a": Discrete(2), "b": Discrete(2)}, {"a": seen, "b": seen}), 1, ByNameConfig("toy"))
    assert capsys.readouterr().err.strip() == (
        "--env toy: legal_moves is a part of what agents see: name it action_mask if it says what they can do"
    )


@pytest.mark.parametrize("mask", [[1], [[1, 0]], [0, 2], [0.5, 1], "10"])
def test_masks_of_another_form_are_refused(mask):
    class Wrong(Echo):
        def _shown(self):
            seen, infos = super()._shown()
            return seen, {agent: {"action_mask": mask} for agent in infos}

    with pytest.raises(ValueError, match=r"^--env toy: the action_mask of a must be 0 or 1 for each of 2 actions"):
        batched_from(lambda: Wrong({"a": Discrete(2)}), 1, ByNameConfig("toy"))


@pytest.mark.parametrize(
    "boxes", [[Box(-1e300, 1e300, (1,), np.float64)], [Box(-1e300, 1, (1,), np.float64), Box(0, 1, (1,))]]
)
def test_bounds_of_actions_beyond_single_precision_are_none(boxes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert common_space(boxes, "--env toy").low.tolist() == [-np.inf]


@pytest.mark.parametrize(
    "space",
    [
        Box(-1, 1, (2, 3)), Box(0, 255, (3, 2), np.uint8), Discrete(4, start=-2), MultiDiscrete([[2, 3], [4, 5]]),
        MultiDiscrete([2, 3], start=[1, -1]), MultiBinary((2, 2)), Tuple((Discrete(2), Box(0, 1, (2, 2), np.float64))),
        Dict({"b": Discrete(3), "a": Tuple((MultiBinary(2), Dict({"x": Box(0, 1, (1,))}))), "1": Box(0, 1, ())}),
    ],
    ids=str,
)  # fmt: skip
def test_a_flat_observation_is_gymnasiums(space):
    own = spaces_of(space, Discrete(2), Discrete(2)).observation
    space.seed(0)
    for _ in range(20):
        value = space.sample()
        assert np.array_equal(own.flat(value), flatten(space, value).astype(np.float32))
    assert own.width == flatdim(space)


@pytest.mark.parametrize("value", [-1, 4, 1.0, [1, 2], None, "1"])
def test_a_choice_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="must be"):
        spaces_of(Discrete(4), Discrete(2), Discrete(2)).observation.flat(value)
