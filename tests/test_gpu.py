"""Training, checkpoints and policies where the networks live on a card: numbers as on the CPU, and few interruptions.

On a machine without a card, a device that is pretended (`tests.pretend_device`) refuses what a card refuses, and counts
what makes a card wait. The two exclude each other: in a process that pretends, PyTorch takes the pretended device for
its accelerator, and gradients on a real one fail.
"""

import collections
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rqe_mappo import Policy, cli, registry
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.off_policy import OffPolicyConfig
from rqe_mappo.config import TrainConfig, default_config
from rqe_mappo.data import finite, vector
from rqe_mappo.data.trajectory import Trajectory
from rqe_mappo.deploy.interpolation import interpolate
from rqe_mappo.evaluation.evaluation import evaluate
from rqe_mappo.training import logs
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run

CARD = torch.cuda.is_available()
if not CARD:
    pretend_device = pytest.importorskip("tests.pretend_device", exc_type=ImportError)

PRETEND = "pretend"
pretends = pytest.mark.skipif(CARD, reason="there is a card")
DEVICES = [
    pytest.param(PRETEND, marks=pretends),
    pytest.param("cuda", marks=pytest.mark.skipif(not CARD, reason="there is no card")),
]
EPOCHS, MINIBATCHES, STEPS = 2, 2, 8
SMALL = {
    "num_envs": 4, "num_steps": STEPS, "total_timesteps": 1000, "eval_episodes": 0, "update_epochs": EPOCHS,
    "critic_epochs": EPOCHS, "num_minibatches": MINIBATCHES, "actor_hidden": (8,), "critic_hidden": (8,), "gru_size": 8,
    "world": "4x3", "n_atoms": 31, "shared_actor": True, "settle": 0.0, "average": 0.0, "critic_first": 0.0,
}  # fmt: skip
AVERSE = {"return_scale": 10.0, "warmup_fraction": 0.0, "risk_anneal_fraction": 0.0}
TRAJECTORY = 13  # copies of a trajectory: random numbers, what is seen last, what the CPU kept, one look


@pytest.fixture(autouse=True)
def _parameters_move() -> Iterator[None]:
    """A parameter that moves to the pretend device becomes another object."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(before)


@dataclass(frozen=True)
class Case:
    """A run, and how often it may make a card wait.

    step: per decision: observations go there, actions come back.
    collect: per trajectory, beside `TRAJECTORY`.
    update: per update. epoch: per pass over a trajectory, whose order goes there. minibatch: in each minibatch.
    """

    env: str
    algo: str
    settings: dict[str, Any]
    step: int = 2
    collect: int = 0
    update: int = 5
    epoch: int = 1
    minibatch: int = 0
    share: float = 0.0

    def config(self, device: str) -> TrainConfig:
        default = default_config(self.env, "default", self.algo)
        known = default.flat()
        wanted = (SMALL | AVERSE | {"device": device} | self.settings).items()
        return default.replace(**{name: value for name, value in wanted if name in known or name in self.settings})


UPDATE = {"rqe-mappo": 8, "c51-cvar": 6, "exact-rqe": 4, "mean-variance": 6}  # others 5
START = {"rqe-mappo": 4, "c51-cvar": 4}  # the first update's more, others none: critics begin where returns are seen
SEEN = 2  # what returns were seen, and what episodes brought
PAST, BEGUN, BOX = 3, 6, 2  # copies of: what episodes brought before; what starts with them, twice; bounds of actions


def cases() -> Iterator[tuple[str, Case]]:
    for algo in registry.ALGORITHMS:
        if issubclass(registry.algorithm(algo).Config, OffPolicyConfig):
            continue  # their replay lies on the CPU: each batch is a transfer
        if algo == "fcp":
            continue  # needs partners
        update, past = UPDATE.get(algo, 5), PAST if algo == "mean-variance" else 0
        if algo == "exact-rqe":
            yield algo, Case("matrix", algo, {}, update=update, epoch=0)
            continue
        yield algo, Case("cartpole", algo, {}, collect=past, update=update)
        adversaries = 22 if algo == "srpo" else 0  # of which each has a batch, and a critic, of its own
        memory = {"collect": past + BEGUN, "update": update + 1 + adversaries, "epoch": 3}
        yield f"{algo} recurrent", Case("cliff", algo, {"recurrent": True}, 3, **memory)
        yield f"{algo} continuous", Case("gymnasium:Pendulum-v1", algo, {}, 2, past + BOX, update + 2)
        finer = 3 if algo in ("rqe-mappo", "c51-cvar") else 0  # the finer grid of targets
        yield f"{algo} settles", Case("cartpole", algo, {"settle": 0.4}, 2, past, update + finer, share=0.7)
    yield "sumo", Case("sumo", "rqe-mappo", {"num_steps": 24}, update=9)
    yield "an actor each", Case("cliff", "rqe-mappo", {"shared_actor": False}, 3, update=9, minibatch=1)
    apart = {"shared_actor": False, "recurrent": True}
    yield "an actor each, recurrent", Case("cliff", "ippo", apart, 4, BEGUN, 6, 3, STEPS)
    yield "several tau", Case("cliff", "rqe-mappo", {"tau": (0.5, 3.0), "eps": (0.01, 0.02)}, update=12)
    yield "several tau, mean-variance", Case("cliff", "mean-variance", {"tau": (0.5, 3.0)}, collect=PAST, update=8)
    yield "several tau, exact", Case("matrix", "exact-rqe", {"tau": (0.5, 3.0), "rqe_form": "aggregate"}, update=6)
    yield "static", Case("cliff", "rqe-mappo", {"advantage": "static"}, collect=PAST, update=9 + STEPS)
    yield "discounted tau", Case("cartpole", "rqe-mappo", {"discount_tau": True}, collect=PAST, update=12 + STEPS)
    yield "surrogate", Case("cliff", "mean-variance", {"form": "surrogate", "spread": "deviation"}, update=6)
    yield "nested", Case("cliff", "rqe-mappo", {"advantage": "nested", "normalise_obs": True}, update=9)
    for risk in ("cvar:0.2", "wang:0.75", "mean-std:0.5", "expectile:0.1"):
        yield risk, Case("gamble", "rqe-mappo", {"risk": risk}, update=5)


def waits() -> contextlib.AbstractContextManager[collections.Counter]:
    """Counts what would make a card wait, where one is pretended."""
    return contextlib.nullcontext(collections.Counter()) if CARD else pretend_device.waits()


def learned(case: Case, device: str) -> tuple[Run, Trajectory, dict[str, float]]:
    """A run after one trajectory and one update."""
    config = case.config(device)
    env = vector.make(config, config.num_envs)
    try:
        config.algorithm.check_environment(env)
        run = Run.build(config, Path(), env)
        run.collector.start(env.reset(config.seed))
        with waits() as collecting:
            chunk, _ = run.collector.collect()
        with waits() as learning:
            scalars = run.algorithm.learn(chunk, Progress(int(case.share * 1000), 1000))
    finally:
        env.close()
    passes = EPOCHS * (case.epoch + MINIBATCHES * case.minibatch)
    assert collecting.total() <= config.num_steps * case.step + TRAJECTORY + case.collect, dict(collecting)
    assert learning.total() <= case.update + SEEN + START.get(case.algo, 0) + passes, dict(learning)
    return run, chunk, scalars


def assert_same(found: Any, wanted: Any, device: str) -> None:
    """To the last bit on the pretend device, which leaves all work to the CPU."""
    tolerance = 0.0 if device == PRETEND else 1e-4
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True, check_device=False)


def weights(run: Run) -> dict[str, Tensor]:
    return {
        f"{name} {key}": value.cpu()
        for name, module in run.algorithm.modules.items()
        for key, value in module.state_dict().items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in cases()])
def test_first_update_is_that_of_the_cpu_and_seldom_waits(case, device):
    there, chunk, scalars = learned(case, device)
    here, expected_chunk, expected = learned(case, "cpu")
    assert chunk.obs.device.type == chunk.reward.device.type == device
    for name in ("obs", "state", "action", "reward", "active", "final_obs"):
        assert_same(getattr(chunk, name).cpu(), getattr(expected_chunk, name), device)
    assert_same(scalars, expected, device)
    assert_same(weights(there), weights(here), device)


VALUES = [name for name in registry.ALGORITHMS if issubclass(registry.algorithm(name).Config, OffPolicyConfig)]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory", [False, True], ids=["feed-forward", "recurrent"])
@pytest.mark.parametrize("algo", VALUES)
def test_value_methods_learn_on_a_card_what_they_learn_on_the_cpu(algo, memory, device):
    if memory and algo in ("c51", "qr-dqn"):
        pytest.skip("learns from single steps, without memory")
    found = []
    for where in (device, "cpu"):
        few = {"batch_episodes": 4, "replay_ratio": 2.0, "target_interval": 10, "total_timesteps": 96}
        case = Case("step-games", algo, few | {"recurrent": memory})
        config = case.config(where)
        with contextlib.closing(vector.make(config, config.num_envs)) as env:
            run = Run.build(config, Path(), env)
            run.collector.start(env.reset(1))
            scalars = [run.algorithm.learn(run.collector.collect(1.0)[0], Progress(0, 1)) for _ in range(3)]
        assert scalars[-1]["replay/learning_steps"] > 0
        found.append((scalars, weights(run)))
    assert_same(*found, device)


@pretends
@pytest.mark.parametrize("algo", ["rqe-mappo", "mappo"])
def test_later_updates_wait_no_more_than_before_returns_were_looked_at_but_twice(algo):
    case = dict(cases())[algo]
    config = case.config(PRETEND)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, Path(), env)
        run.collector.start(env.reset(1))
        for _ in range(3):
            chunk, _ = run.collector.collect()
            with pretend_device.waits() as learning:
                run.algorithm.learn(chunk, Progress(0, 1000))
    assert learning.total() <= case.update + SEEN + EPOCHS * case.epoch, dict(learning)


@pretends
@pytest.mark.parametrize("steps", [8, 64])
@pytest.mark.parametrize("name", ["rqe-mappo", "rqe-mappo recurrent"])
def test_looking_whether_all_is_finite_waits_once_a_trajectory_and_once_an_update(name, steps):
    config = dict(cases())[name].config(PRETEND).replace(num_steps=steps)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, Path(), env)
        run.collector.start(env.reset(1))
        chunk, _ = run.collector.collect()
    names = env.possible_agents
    for look in (lambda: finite.check_trajectory(chunk, names), lambda: finite.check_weights(run.algorithm.modules)):
        with pretend_device.waits() as counted:
            look()
        assert counted.total() == 1, dict(counted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("env", ["cartpole", "sumo"])
def test_rqe_train_on_a_card_logs_what_the_cpu_logs(env, device, tmp_path):
    rows = {}
    for where in (device, "cpu"):
        flags = (
            "--num-envs 4 --num-steps 24 --total-timesteps 96 --num-minibatches 2 --actor-hidden 8 --critic-hidden 8 "
            "--log-interval 1 --eval-episodes 0 --return-scale 10 --warmup-fraction 0"
        )
        cli.train(["--env", env, *flags.split(), "--device", where, "--out", str(tmp_path / where)])
        lines = (tmp_path / where / "metrics.csv").read_text().splitlines()
        rows[where] = dict(zip(lines[0].split(","), map(_number, lines[1].split(",")), strict=True))
        for timed in logs.TIMED:
            rows[where].pop(timed)
    assert_same(rows[device], rows["cpu"], device)


def _number(text: str) -> float:
    return float(text) if text else float("nan")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "case",
    [
        Case("cliff", "ippo", {"recurrent": True, "normalise_obs": True}),
        Case("cartpole", "rqe-mappo", {"settle": 0.4, "average": 0.5}),
        Case("cartpole", "rqe-mappo", {"settle": 0.4, "average": 0.5, "average_of": "best"}),
    ],
    ids=["memory", "mean weights", "best weights"],
)
def test_a_run_goes_on_where_it_is_resumed(case, device, tmp_path):
    """Half on the CPU and half on the card, in either order, is the whole on the CPU."""
    found = []
    for first, second in (("cpu", "cpu"), (device, "cpu"), ("cpu", device)):
        folder = tmp_path / f"{first} {second}"
        config = case.config(first).replace(total_timesteps=96, save_interval=1, out=str(folder))
        train(config, on_update=lambda step, scalars: True)
        train(config.replace(device=second), resume=folder)
        found.append({name: module.state_dict() for name, module in Policy.load(folder).modules.items()})
    for other in found[1:]:
        assert_same(other, found[0], device)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Short runs on the CPU."""
    folders = {}
    for name, settings in {"safe": {"tau": 0.5}, "neutral": {}, "recurrent": {"recurrent": True}}.items():
        out = tmp_path_factory.mktemp("runs") / name
        folders[name] = train(
            Case("cliff", "rqe-mappo", settings | {"out": str(out), "total_timesteps": 64}).config("cpu")
        )
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["safe", "recurrent"])
def test_a_policy_acts_and_predicts_on_a_card_as_on_the_cpu(name, device, runs):
    there, here = Policy.load(runs[name], device), Policy.load(runs[name])
    rng = np.random.default_rng(0)
    obs, agents = rng.random((5, 2, here.spec.obs_dim)), np.arange(2)
    state = rng.random((5, 2, here.returns.view_dim))
    for deterministic in (False, True):
        np.testing.assert_array_equal(there.act(obs, agents, deterministic), here.act(obs, agents, deterministic))
    assert_same(there.probabilities(obs, agents), here.probabilities(obs, agents), device)
    assert_same(there.value(state, agents).cpu(), here.value(state, agents), device)
    assert_same(there.distribution(state, agents).probs.cpu(), here.distribution(state, agents).probs, device)
    assert there.value(state).device.type == device
    found, expected = evaluate(there, 4, seed=1), evaluate(here, 4, seed=1)
    np.testing.assert_array_equal(found.records["return"], expected.records["return"])
    known = ({k: v for k, v in each.calibration.as_dict().items() if k != "risk"} for each in (found, expected))
    assert_same(*known, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["probability", "episode", "logit"])
@pytest.mark.parametrize("alpha", [0.5, [0.2, 1.0], lambda obs: obs[..., 0].clip(0, 1)], ids=["one", "each", "of obs"])
def test_a_mixture_acts_on_a_card_as_on_the_cpu(alpha, kind, device, runs):
    found = []
    for where in (device, "cpu"):
        mixture = interpolate(*(Policy.load(runs[name], where) for name in ("safe", "recurrent")), alpha, kind)
        mixture.begin(of=5)
        obs = np.random.default_rng(0).random((5, 2, mixture.spec.obs_dim))
        found.append([mixture.act(obs, np.arange(2), deterministic) for deterministic in (False, True)])
    np.testing.assert_array_equal(*found)


@pretends
def test_the_pretend_device_refuses_what_a_card_refuses():
    there, here = torch.ones(3, device=PRETEND), torch.ones(3)
    for refused in (
        lambda: there + here,
        lambda: here[there.long()],
        lambda: torch.cat((there, here)),
        lambda: torch.stack((there[0], here[0])),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            refused()
    for refused in (there.numpy, lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="numpy"):
            refused()
    assert_same((there + torch.tensor(1.0)).cpu(), here + 1, PRETEND)


@pretends
@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x[0].item(), lambda x: float(x[0]), lambda x: bool(x[0] > 0), lambda x: x.tolist(), lambda x: x.cpu(),
        lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x.unique(), lambda x: x[[0, 1]],
        lambda x: x.copy_(torch.ones(3)), lambda x: torch.tensor([1.0], device=PRETEND), lambda x: torch.equal(x, x),
    ],
)  # fmt: skip
def test_the_pretend_device_counts_what_waits(waiting):
    with pretend_device.waits() as counted:
        x = torch.ones(3, device=PRETEND) * 2 + 1
        assert counted.total() == 0
        waiting(x)
    assert counted.total() == 1
