"""What holds for all games of fixed length: copies, seeds, records, bounds, spaces, ends, and both public forms."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.spaces import Box
from pettingzoo.test import parallel_api_test

from rqe_mappo import registry
from tests.fixed_length_games import CASES, GAMES, batched, mixed_actions, random_actions, single

each_case = pytest.mark.parametrize("case", CASES)
ALL = ("obs", "state", "active", "reward", "cost", "terminated", "truncated", "final_obs", "final_state")


class Tape:
    """A generator that keeps what it gives."""

    def __init__(self, seed: int):
        self.rng, self.kept = np.random.default_rng(seed), []

    def random(self, shape: tuple[int, int]) -> np.ndarray:
        self.kept.append(self.rng.random(shape))
        return self.kept[-1]


class Row:
    """A generator that gives to a single copy what a tape gave to one of many."""

    def __init__(self, tape: Tape, copy: int):
        self.kept = iter([numbers[copy : copy + 1] for numbers in tape.kept])

    def random(self, shape: tuple[int, int]) -> np.ndarray:
        numbers = next(self.kept)
        assert numbers.shape == shape
        return numbers


@pytest.mark.slow
@each_case
def test_a_batch_is_its_copies_one_by_one(case):
    """Three episodes of three copies, and each of these alone in the PettingZoo form, given the same numbers."""
    env, rng, tape = batched(case, 3), np.random.default_rng(0), Tape(7)
    env.rng = tape
    seen = [env.restart()]
    played = []
    for _ in range(3 * env.horizon):
        played.append(mixed_actions(case, env, rng))
        seen.append(env.step(played[-1]))
    for copy in range(3):
        alone = single(case)
        alone.batch.rng = Row(tape, copy)
        shown, _ = alone.reset()
        for actions, before, after in zip(played, seen, seen[1:], strict=False):
            np.testing.assert_array_equal(list(shown.values()), before.obs[copy])
            np.testing.assert_array_equal(alone.state(), before.state[copy])
            shown, rewards, terminated, truncated, infos = alone.step(
                dict(zip(alone.agents, actions[copy], strict=True))
            )
            np.testing.assert_array_equal(list(rewards.values()), after.reward[copy])
            np.testing.assert_array_equal([info["cost"] for info in infos.values()], after.cost[copy])
            np.testing.assert_array_equal(list(terminated.values()), after.terminated[copy])
            np.testing.assert_array_equal(list(truncated.values()), after.truncated[copy])
            if after.truncated.any():
                ours = slice(copy * len(shown), (copy + 1) * len(shown))
                np.testing.assert_array_equal(list(shown.values()), after.final_obs[ours])
                np.testing.assert_array_equal(alone.state(), after.final_state[ours])
                assert not alone.agents
                shown, _ = alone.reset()


@each_case
def test_the_single_form_gives_what_a_batch_of_one_gives_for_the_same_seed(case):
    env, alone, rng = batched(case, 1), single(case), np.random.default_rng(1)
    seen, (shown, _) = env.reset(5), alone.reset(seed=5)
    for _ in range(env.horizon):
        np.testing.assert_array_equal(list(shown.values()), seen.obs[0])
        actions = random_actions(env, rng)
        seen, (shown, *_) = env.step(actions), alone.step(dict(zip(alone.agents, actions[0], strict=True)))
    np.testing.assert_array_equal(list(shown.values()), seen.final_obs)


@each_case
def test_copies_do_not_depend_on_each_other(case):
    one, two, rng = batched(case, 5), batched(case, 5), np.random.default_rng(2)
    one.reset(1), two.reset(1)
    for _ in range(one.horizon + 7):
        actions, others = random_actions(one, rng), random_actions(one, rng)
        others[0] = actions[0]
        ours, theirs = one.step(actions), two.step(others)
        for name in ("obs", "state", "reward", "cost"):
            np.testing.assert_array_equal(getattr(ours, name)[0], getattr(theirs, name)[0])
    assert not np.array_equal(ours.obs, theirs.obs)


def played(case: str, seed: int) -> str:
    """A digest of all that 60 steps gave."""
    env, rng, digest = batched(case, 4), np.random.default_rng(3), hashlib.sha256()
    env.reset(seed)
    for _ in range(60):
        step = env.step(random_actions(env, rng))
        for array in (*(getattr(step, name) for name in ALL), *step.episodes.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@pytest.mark.slow
def test_seeds_repeat_everything_in_any_process():
    code = "from tests.test_fixed_length import *; print([played(case, 3) for case in CASES])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = [played(case, 3) for case in CASES]
    assert done.stdout.strip() == str(ours)
    others = [played(case, 4) for case in CASES if case != "kitchen, one cook"]  # who has one start, and finds nothing
    assert len({*ours, *others}) == len(ours) + len(others)


@each_case
def test_a_snapshot_goes_on_exactly(case):
    env, rng = batched(case, 4), np.random.default_rng(4)
    env.reset(6)
    for _ in range(env.horizon + 7):
        env.step(random_actions(env, rng))
    saved, actions = pickle.dumps(env.snapshot()), [random_actions(env, rng) for _ in range(env.horizon + 3)]
    ours = [env.step(choice) for choice in actions]
    for again in (batched(case, 4), env):
        seen = again.restore(pickle.loads(saved))
        assert seen.active.all()
        for mine, choice in zip(ours, actions, strict=True):
            other = again.step(choice)
            for name in ALL:
                np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
            for name, value in mine.episodes.items():
                np.testing.assert_array_equal(value, other.episodes[name])


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in GAMES if name not in CASES)]
)
def test_records_are_sums_and_rewards_and_returns_from_any_step_on_keep_their_bounds(case):
    env, rng = batched(case, 18), np.random.default_rng(5)
    env.reset(8)
    rewards, costs, counts = [], [], []
    play = env.game.play

    def counted(*given):
        outcome = play(*given)
        counts.append(outcome.counts)
        return outcome

    env.game.play = counted
    for _ in range(2 * env.horizon):
        step = env.step(mixed_actions(case, env, rng))
        rewards.append(step.reward.astype(float))
        costs.append(step.cost.astype(float))
        assert len(step.episodes["copy"]) == 18 * step.truncated.all()
        if not step.truncated.any():
            continue
        assert step.episodes["copy"].tolist() == list(range(18)) and (step.episodes["length"] == env.horizon).all()
        left = np.cumsum(rewards[::-1], axis=0)
        np.testing.assert_allclose(step.episodes["return"], left[-1], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(step.episodes["cost"], np.sum(costs, axis=0))
        for name in counts[0]:
            np.testing.assert_array_equal(step.episodes[name], np.sum([count[name] for count in counts], axis=0))
        for (low, high), found in ((env.return_bounds, left), (env.reward_bounds, np.array(rewards))):
            slack = 1e-5 * (1 + np.abs(found).max())
            assert low - slack <= found.min() and found.max() <= high + slack
        if env.reward_step:
            steps = np.array(rewards) / env.reward_step
            np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
        assert (np.ptp(rewards, axis=2) == 0).all() or not env.common_reward
        rewards, costs, counts = [], [], []


@each_case
def test_spaces_contain_all_that_is_seen_and_the_end_is_a_truncation_of_all_at_once(case):
    env, rng = batched(case, 9), np.random.default_rng(6)
    seen = env.reset(9)
    for t in range(1, 2 * env.horizon + 1):
        rows = [(env.observation_space, seen.obs.reshape(-1, seen.obs.shape[2]))]
        rows += [(env.state_space, seen.state.reshape(-1, seen.state.shape[2]))]
        if t > 1:
            rows += [(env.observation_space, seen.final_obs), (env.state_space, seen.final_state)]
        for space, given in rows:
            assert given.dtype == np.float32 == space.dtype and given.shape[1:] == space.shape
            assert (given >= space.low).all() and (given <= space.high).all()
        seen = env.step(mixed_actions(case, env, rng))
        late = t % env.horizon == 0
        assert not seen.terminated.any() and (seen.truncated == late).all() and seen.active.all()
        assert len(seen.final_obs) == len(seen.final_state) == late * 9 * len(env.possible_agents)
        if env.time_in_observation:
            np.testing.assert_allclose(seen.obs[..., -1], 1 - t % env.horizon / env.horizon, atol=1e-6)
            assert not late or not (seen.final_obs[:, -1].any() or seen.final_state[:, -1].any())


@each_case
def test_pettingzoo_accepts_all(case):
    env = single(case)
    parallel_api_test(env, num_cycles=2 * env.batch.horizon)
    rows = {agent: env.observation_space(agent) for agent in env.possible_agents}
    seen, _ = env.reset(seed=1)
    assert all(rows[agent].contains(row) for agent, row in seen.items()) and env.state_space.contains(env.state())
    assert env.metadata["common_reward"] == env.batch.common_reward


@each_case
def test_actions_that_do_not_exist_or_are_missing_are_refused(case):
    env, alone = batched(case, 2), single(case)
    env.reset(0), alone.reset(seed=0)
    good = random_actions(env, np.random.default_rng(0))
    unknown = good * np.float32("nan") if isinstance(env.action_space, Box) else good + env.action_space.n
    for bad in (unknown, good[:1], np.concatenate([good, good])):
        with pytest.raises(ValueError, match=r"^actions must be \[[^\n]*$"):
            env.step(bad)
    last = alone.agents[-1]
    with pytest.raises(ValueError, match=f"missing: {last}"):
        alone.step(dict(zip(alone.agents[:-1], good[0], strict=False)))
    with pytest.raises(ValueError, match=r"^num_envs must be at least 1 \(got 0\)$"):
        batched(case, 0)


@pytest.mark.parametrize("name", ["kitchen", "stag-hunt", "tag"])
def test_scripted_policies_refuse_what_they_do_not_know(name):
    with pytest.raises(ValueError, match=r"^--driver sleep is unknown: use [^\n]*random$"):
        registry.load(registry.environment(name).drivers)("sleep", 0)
