"""Nothing that is not finite is learned from, saved or rotated over: a run stops with one line that says where."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from torch import nn

from rqe_mappo import Policy, cli, registry
from rqe_mappo.algorithms.averages import Moments
from rqe_mappo.algorithms.rqe_mappo import RqeMappo
from rqe_mappo.checkpoint import newest
from rqe_mappo.config import TrainConfig, default_config
from rqe_mappo.data import finite
from rqe_mappo.data.finite import NotFinite
from rqe_mappo.envs.contract import LARGEST, Step
from rqe_mappo.evaluation.episodes import chooser
from rqe_mappo.evaluation.evaluation import evaluate
from rqe_mappo.training.loop import train
from tests import small_tasks, toy

SICK = 40  # the step at which the environment is sick: in the third of a run's trajectories
POISON = [math.nan, math.inf, -math.inf, 1e38, -1e38]
DOORS = ["obs", "state", "reward", "cost", "final_obs", "final_state", "return"]


class Sick(toy.Toy):
    """A toy whose copy 1 gives its agent 2 the number `poison` for `door` at step `SICK`."""

    door, poison, steps, sick = "obs", math.nan, 0, True

    def step(self, actions: np.ndarray) -> Step:
        assert np.isfinite(actions).all()
        self.steps += 1
        step = super().step(actions)
        if self.steps >= SICK and self.sick:
            self._spoil(step)
        return step

    def _spoil(self, step: Step) -> None:
        if self.door.startswith("final"):
            value = getattr(step, self.door).copy()  # the toy gives one array as both
            value[:, 0] = self.poison
            setattr(step, self.door, value)
        elif self.door == "return":
            step.episodes["return"][:, 2] = self.poison
        else:
            getattr(step, self.door)[1, 2] = self.poison


class Masking(toy.Choosing):
    """Agent 2 of copy 1 has nothing to choose from step `SICK` on, or masks come and go."""

    steps, missing = 0, False

    def __init__(self, config: Any, num_envs: int):
        super().__init__(config, num_envs, Discrete(3), masks=True)

    def step(self, actions: np.ndarray) -> Step:
        self.steps += 1
        step = super().step(actions)
        if self.steps >= SICK:
            step.avail[1, 2] &= ~step.active[1, 2]
            step.avail = None if self.missing else step.avail
        return step


def sick(monkeypatch, **changes: Any) -> type[Sick]:
    """Registered as the environment `sick`."""
    kind = type("SickNow", (Sick,), changes)
    monkeypatch.setitem(registry.ENVIRONMENTS, "sick", registry.Environment(kind, "tests.toy:SCENARIOS", toy.recipe))
    return kind


def settings(folder: Path, env: str = "sick", **changes: Any) -> TrainConfig:
    return default_config(env).replace(out=str(folder), save_interval=1, keep=2, **changes)


def all_finite(policy: Policy) -> bool:
    return all(bool(value.isfinite().all()) for net in policy.modules.values() for value in net.state_dict().values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("door", "poison"), [*((door, math.nan) for door in DOORS), *(("reward", poison) for poison in POISON[1:])]
)
def test_poison_at_any_door_ends_the_run_with_what_was_learned_before(tmp_path, monkeypatch, door, poison):
    kind = sick(monkeypatch, door=door, poison=poison)
    with pytest.raises(NotFinite) as stop:
        train(settings(tmp_path / "run"), quiet=True)
    said = str(stop.value)
    words = [f"{poison:g}", "--env sick", "agent_", "in copy", "after step", f"rqe-train --resume {tmp_path / 'run'}"]
    if door in ("obs", "state", "reward", "cost"):
        words += ["agent_2 in copy 1"]
    assert all(word in said for word in words) and "\n" not in said, said
    assert door.replace("obs", "observation").replace("_", " ") in said
    policy = Policy.load(tmp_path / "run")
    assert all_finite(policy) and 0 < policy.timesteps == int(re.search(r"after step (\d+)", said)[1])

    monkeypatch.setattr(kind, "sick", False)
    train(settings(tmp_path / "run"), resume=tmp_path / "run", quiet=True)
    assert all_finite(Policy.load(tmp_path / "run")) and Policy.load(tmp_path / "run").timesteps >= 2000


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (False, r"--env sick: agent_2 in copy 1 was given no action to choose from at decision \d+ of 16"),
        (True, "avail at some steps and not at others"),
    ],
)
def test_masks_that_leave_nothing_or_come_and_go_end_the_run(tmp_path, monkeypatch, missing, words):
    kind = type("MaskingNow", (Masking,), {"missing": missing})
    monkeypatch.setitem(registry.ENVIRONMENTS, "sick", registry.Environment(kind, "tests.toy:SCENARIOS", toy.recipe))
    with pytest.raises(NotFinite, match=words):
        train(settings(tmp_path / "run"), quiet=True)
    assert Policy.load(tmp_path / "run").timesteps > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "algo", [name for name in registry.ALGORITHMS if name not in ("exact-rqe", "central-q", "fcp")]
)
@pytest.mark.parametrize("recurrent", [False, True])
def test_every_algorithm_stops_before_it_learns_from_poison(tmp_path, monkeypatch, algo, recurrent):
    if recurrent and algo in ("c51", "qr-dqn"):
        pytest.skip("learns from single steps, without memory")
    sick(monkeypatch)
    config = default_config("sick", algo=algo).replace(out=str(tmp_path), recurrent=recurrent, save_interval=1)
    with pytest.raises(NotFinite, match="agent_2 in copy 1 was given nan in its observation"):
        train(config, quiet=True)
    assert all_finite(Policy.load(tmp_path))


def test_no_action_that_is_not_finite_reaches_an_environment(tmp_path, monkeypatch):
    class SickNumbers(Sick, small_tasks.ToyOfNumbers):
        """Its `step` asserts that actions are finite."""

    entry = registry.Environment(SickNumbers, "tests.toy:SCENARIOS", small_tasks.recipe)
    monkeypatch.setitem(registry.ENVIRONMENTS, "sick", entry)
    with pytest.raises(NotFinite, match="agent_2 in copy 1 was given nan in its observation at decision"):
        train(settings(tmp_path, num_steps=64, num_envs=4), quiet=True)


@pytest.mark.slow
def test_poison_passes_through_no_worker(tmp_path, monkeypatch):
    config = default_config("tests.test_finite:ENTRY").replace(out=str(tmp_path), num_envs=4, num_workers=2)
    with pytest.raises(NotFinite, match=r"agent_2 in copy [13] was given nan in its observation"):
        train(config, quiet=True)


ENTRY = registry.Environment(Sick, "tests.toy:SCENARIOS", toy.recipe)


@pytest.mark.parametrize("spoilt", ["actor", "critic", "loss"])
def test_learning_that_spoils_weights_is_neither_saved_nor_rotated_over(tmp_path, monkeypatch, spoilt):
    """By a gradient, of whichever network, or by a loss: three updates later than the last save."""

    class Spoiling(RqeMappo):
        updates = 0

        def learn(self, chunk, progress):
            self.updates += 1
            if self.updates == 6:
                if spoilt == "loss":
                    chunk.extras["log_prob"][0] = math.nan
                else:
                    net = self.modules[spoilt]
                    optimiser = self.policy.optimiser if spoilt == "actor" else self.critic_optimiser
                    optimiser.descend(sum(weight.sum() for weight in net.parameters()) * math.inf)
            return super().learn(chunk, progress)

    monkeypatch.setitem(registry.ALGORITHMS, "spoiling", Spoiling)
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
    config = default_config("toy", algo="spoiling").replace(out=str(tmp_path), save_interval=3, keep=1)
    with pytest.raises(NotFinite) as stop:
        train(config, quiet=True)
    said = str(stop.value)
    for word in ("--env toy", "--algo spoiling", "numbers in actor nets", "losses/", "after step", "--resume"):
        assert word in said
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [p.name for p in newest(tmp_path)]
    assert all_finite(Policy.load(tmp_path)) and Policy.load(tmp_path).timesteps > 0


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    class Drifting(RqeMappo):
        def learn(self, chunk, progress):
            scalars = super().learn(chunk, progress)
            if progress.share > 0.5:
                self.risk.measured = (Moments(3, math.nan, 1.0),)
            return scalars

    monkeypatch.setitem(registry.ALGORITHMS, "drifting", Drifting)
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
    config = default_config("toy", algo="drifting").replace(out=str(tmp_path), save_interval=1, keep=1)
    with pytest.raises(NotFinite, match="the algorithm's risk measured 0 mean is nan"):
        train(config, quiet=True)
    assert Policy.load(tmp_path).timesteps > 900


@pytest.mark.parametrize(("door", "poison"), [("obs", math.nan), ("reward", -math.inf), ("reward", 1e38)])
def test_an_evaluation_makes_no_figures_of_poison(tmp_path, monkeypatch, door, poison):
    kind = sick(monkeypatch, sick=False, door=door, poison=poison)
    policy = Policy.load(train(settings(tmp_path, total_timesteps=64), quiet=True))
    monkeypatch.setattr(kind, "sick", True)
    with pytest.raises(NotFinite, match=re.escape(f"--env sick: agent_2 in copy 1 was given {poison:g}")):
        evaluate(policy, 200, seed=1)


BY_NAME = '''
import gymnasium
import numpy as np


class Rewards(gymnasium.Env):
    """Every reward but the first is `reward`."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    reward = float("{poison}")

    def reset(self, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {{"action_mask": np.array({mask})}}

    def step(self, action):
        self.t += 1
        seen = np.zeros(1, np.float32)
        return seen, self.reward if self.t > 1 else 0.0, self.t > 3, False, {{"action_mask": np.array({mask})}}
'''


@pytest.mark.parametrize(
    ("poison", "mask", "words"),
    [
        *((str(value), "[1, 1]", f"agent was given the reward {value:g} for random actions") for value in POISON),
        ("1", "[np.nan, 1]", "the action_mask of agent must be 0 or 1 for each of 2 actions"),
        ("1", "[0.5, 1]", "the action_mask of agent must be 0 or 1 for each of 2 actions"),
    ],
)
def test_rqe_train_says_in_one_line_what_an_environment_by_name_must_not_give(
    tmp_path, monkeypatch, capsys, poison, mask, words
):
    (tmp_path / "poisonous.py").write_text(BY_NAME.format(poison=poison, mask=mask))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "poisonous", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.train(["--env", "poisonous:Rewards", "--out", "run", "--total-timesteps", "64"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert f"rqe-train: --env poisonous:Rewards: {words}" in said


def test_numbers_up_to_the_limit_are_learned_from(tmp_path, monkeypatch):
    sick(monkeypatch, door="obs", poison=LARGEST)
    assert all_finite(Policy.load(train(settings(tmp_path), quiet=True)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_and_states_are_looked_at_whole(value):
    net = nn.Linear(3, 2)
    finite.check_weights({"net": net})
    with torch.no_grad():
        net.bias[1] = value
    with pytest.raises(NotFinite, match="1 of the 2 numbers in net bias are not finite"):
        finite.check_weights({"net": net})
    finite.check_state(
        {"a": [1, None, "nan", -math.inf], "empty": torch.zeros(0), "flags": torch.ones(2, dtype=bool)}, "s"
    )
    with pytest.raises(NotFinite, match="1 of the 2 numbers in s a 0 b are not finite"):
        finite.check_state({"a": [{"b": torch.tensor([0.0, value])}]}, "s")


def test_every_step_of_a_trajectory_is_looked_at(tmp_path, monkeypatch):
    """A number that is spoilt in any place of any part is found and named rightly."""
    from tests.test_training import collected

    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
    _, chunk, _ = collected(default_config("toy").replace(out=str(tmp_path)))
    names = ("agent_0", "agent_1", "agent_2")
    finite.check_trajectory(chunk, names)
    rng = np.random.default_rng(0)
    for name in ("obs", "state", "reward", "cost"):
        value = getattr(chunk, name)
        for _ in range(20):
            place = tuple(int(rng.integers(size)) for size in value.shape)
            poison = POISON[rng.integers(len(POISON))]
            before, value[place] = value[place].clone(), poison
            given = f"was given {re.escape(format(poison, 'g'))} in its {name.replace('obs', 'observation')}"
            said = f"{names[place[2]]} in copy {place[1]} {given}"
            with pytest.raises(NotFinite, match=f"{said} at decision {place[0] + 1} of 16"):
                finite.check_trajectory(chunk, names)
            value[place] = before
    for name in ("final_obs", "final_state"):
        for row, (t, copy, agent) in enumerate(chunk.truncated.nonzero().tolist()):
            value = getattr(chunk, name)
            before, value[row, 0] = value[row, 0].clone(), math.inf
            with pytest.raises(NotFinite, match=f"{names[agent]} in copy {copy} was given inf .* decision {t + 1} of"):
                finite.check_trajectory(chunk, names)
            value[row, 0] = before
    finite.check_trajectory(chunk, names)


def test_a_policy_evaluated_by_hand_is_checked_too(tmp_path, monkeypatch):
    from rqe_mappo.evaluation.episodes import drive

    kind = sick(monkeypatch, sick=False)
    policy = Policy.load(train(settings(tmp_path, total_timesteps=64), quiet=True))
    monkeypatch.setattr(kind, "sick", True)
    with pytest.raises(NotFinite):
        drive(settings(tmp_path), chooser(policy), 200, 1)


MAY_BE_INFINITE = {"tau", "huber_delta", "strategic_tau"}


@pytest.mark.parametrize(
    ("env", "algo"),
    [*(("cartpole", algo) for algo in registry.ALGORITHMS), *((env, "rqe-mappo") for env in registry.ENVIRONMENTS)],
)
def test_no_setting_is_nan_and_few_are_infinite(env, algo):
    config = default_config(env, "default", algo)
    numbers = [name for name, value in config.flat().items() if isinstance(value, float)]
    for name in [*numbers, *({"return_scale"} & set(config.flat()))]:
        for value in (math.nan, math.inf)[: 1 if name in MAY_BE_INFINITE else 2]:
            with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} "):
                config.replace(**{name: value})
