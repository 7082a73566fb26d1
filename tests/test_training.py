"""The loop as a whole, on the toy environment and on CartPole."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rqe_mappo import checkpoint, registry
from rqe_mappo.algorithms.averages import Moments
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.groups import agent_groups
from rqe_mappo.algorithms.rqe_mappo import RqeMappo
from rqe_mappo.algorithms.support import choose_support
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.data.collector import Collector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation.episodes import chooser, copies_for, run_episodes
from rqe_mappo.training.loop import Interrupted, StopRequest, train
from rqe_mappo.training.run import Run
from tests import toy


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C acts as in a terminal, wherever the tests were started from."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def toy_config(tmp_path: Path, **changes):
    return default_config("toy").replace(out=str(tmp_path / "run"), **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    modules = checkpoint.load_policy_file(run)["modules"]
    return {f"{net}.{name}": value for net in ("actor", "critic") for name, value in modules[net].items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("algo", ["rqe-mappo", "mappo", "mean-variance"])
def test_the_entropys_weight_falls_to_eps_in_the_first_eighty_percent_and_stays(algo, tmp_path):
    config = default_config("toy", algo=algo).replace(
        eps=0.02, eps_start=16.0, num_envs=2, num_steps=8, total_timesteps=1000, out=str(tmp_path / "run")
    )
    env = vector.make(config, 2)
    run = Run.build(config, Path(), env)
    run.collector.start(env.reset(1))
    chunk, _ = run.collector.collect()
    for share, times in ((0.0, 16.0), (0.2, 8.0), (0.4, 4.0), (0.8, 1.0), (0.9, 1.0), (1.0, 1.0)):
        scalars = run.algorithm.learn(chunk, Progress(int(share * 1000), 1000))
        acts = scalars["policy/effective_eps"] / scalars["advantage/scale"]
        assert acts == pytest.approx(0.02 * times, rel=1e-5)
    gradients = []
    for eps, times in ((0.02, 16.0), (0.32, 1.0)):  # what the log says is what is climbed
        again = Run.build(config.replace(eps=eps, eps_start=times), Path(), env)
        again.algorithm.learn(chunk, Progress(0, 1000))
        gradients.append([weight.clone() for weight in again.algorithm.actor.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients, strict=True))
    env.close()


def collected(config, steps=1):
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(config.seed))
    for _ in range(steps):
        chunk, episodes = run.collector.collect()
    return run, chunk, episodes


@pytest.mark.slow
@pytest.mark.parametrize("agents", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_any_number_of_agents_learns_to_earn(tmp_path, agents, shared):
    config = toy_config(tmp_path, n_agents=agents, shared_actor=shared, total_timesteps=4000 * agents, tau=0.5, eps=0.0)
    policy = Policy.load(train(config))
    obs = np.array([[0.2, agent / agents] for agent in range(agents)], np.float32)
    assert (policy.probabilities(obs, np.arange(agents))[:, 1] > 0.8).all()


def test_trajectories_with_fewer_rows_than_minibatches_leave_the_weights_finite(tmp_path):
    small = {"n_agents": 1, "num_envs": 1, "num_steps": 2, "num_minibatches": 8, "total_timesteps": 20}
    for value in weights(train(toy_config(tmp_path, **small))).values():
        assert torch.isfinite(value).all()


def test_run_can_be_resumed_before_its_first_regular_checkpoint(tmp_path):
    config = toy_config(tmp_path, save_interval=1000)
    interrupted_at_once(config)
    assert checkpoint.load_policy_file(tmp_path / "run")["timesteps"] == 0
    assert Policy.load(train(config, resume=tmp_path / "run")).timesteps >= config.total_timesteps


def interrupted_at_once(config) -> None:
    """A run that dies in its first rollout, as by kill -9: nothing is saved on the way out."""

    def die(*args):
        raise SystemError("killed")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(Collector, "collect", die)
        train(config)


def test_every_row_belongs_to_an_agent_that_acted(tmp_path):
    _, chunk, _ = collected(toy_config(tmp_path))
    ended = chunk.terminated | chunk.truncated
    assert not (ended & ~chunk.active).any()
    assert not (chunk.terminated & chunk.truncated).any()
    assert len(chunk.final_state) == len(chunk.final_obs) == int(chunk.truncated.sum())
    went_on = chunk.active[:-1] & ~ended[:-1]
    assert chunk.active[1:][went_on].all()


AVERSE = {"return_scale": 1.0, "warmup_fraction": 0.0, "risk_anneal_fraction": 0.0}  # from the first update


def test_what_inactive_agents_hold_changes_nothing(tmp_path):
    config = toy_config(tmp_path, leave_probability=0.4, **AVERSE)
    results = []
    for junk in (0.0, 1e6):
        run, chunk, _ = collected(config)
        empty = ~chunk.active
        assert empty.any()
        chunk.obs[:-1][empty], chunk.state[:-1][empty], chunk.extras["log_prob"][empty] = junk, 1.0, -junk
        chunk.action[empty], chunk.extras["drawn"][empty] = 1, 1
        run.algorithm.learn(chunk, Progress(0, 1))
        results.append({**run.algorithm.actor.state_dict(), **run.algorithm.critic.state_dict()})
    assert_equal(*results)


def test_truncation_bootstraps_and_termination_does_not(tmp_path):
    config = toy_config(tmp_path, leave_probability=0.0, gae_lambda=0.0, gamma=0.9, return_scale=1.0)
    run, chunk, _ = collected(config)
    assert chunk.truncated.any()
    measures = run.algorithm.risk.measures(0.0)
    before = run.algorithm.targets(chunk, run.algorithm.predict(chunk), measures)[0].target
    chunk.final_state += 5.0
    moved = (run.algorithm.targets(chunk, run.algorithm.predict(chunk), measures)[0].target - before).abs().sum(
        -1
    ) > 1e-6
    assert torch.equal(moved, chunk.truncated[chunk.active])
    terminal = RqeMappo(config.replace(time_limit="terminal"), run.env, run.generator)
    target = terminal.targets(chunk, terminal.predict(chunk), measures)[0].target[chunk.truncated[chunk.active]]
    assert torch.allclose((target > 0).sum(-1).float(), torch.ones(len(target)), atol=1.0)


def test_support_holds_every_return_and_lies_on_the_rewards_grid(tmp_path):
    config = toy_config(tmp_path)
    env, n_atoms = toy.Toy(config.env_config, 1), config.algorithm.n_atoms
    atoms = choose_support(env, 1.0, "terminal", n_atoms)
    assert atoms[0] < 0 and atoms[-1] > 6
    assert torch.allclose(torch.remainder(atoms, 0.5), torch.zeros(len(atoms)))
    bootstrapped = choose_support(env, 0.9, "bootstrap", n_atoms)
    assert n_atoms - 2 <= len(bootstrapped) <= n_atoms
    assert bootstrapped[-1] > 5.0 and bootstrapped[0] < 0 and (bootstrapped == 0).any()


def test_unit_of_tau_is_measured_once_and_then_frozen(tmp_path):
    config = toy_config(tmp_path, tau=2.0, warmup_fraction=0.1, risk_anneal_fraction=0.5).algorithm
    schedule = config.schedule(agent_groups(config.tau, config.eps, 1))
    first, second = [Moments(200, 7.0, 0.0)], [Moments(200, 2.0, 200.0)]
    schedule.observe(first, 0.01)
    assert schedule.return_scale is None and schedule.shortfall
    schedule.observe(second, 0.1)
    assert schedule.return_scale == pytest.approx(1.0)
    schedule.observe(first, 0.5)
    assert schedule.return_scale == pytest.approx(1.0) and not schedule.shortfall
    assert schedule.measures(1.0)[0].tau == pytest.approx(2.0)
    assert 1 / schedule.measures(0.35)[0].tau == pytest.approx(0.25)


def test_the_unit_of_tau_is_the_spread_of_agents_returns_about_their_own_means(tmp_path):
    config = toy_config(tmp_path, tau=2.0, warmup_fraction=0.1).algorithm
    schedule = config.schedule(agent_groups(config.tau, config.eps, 1))
    schedule.observe([Moments(100, 10.0, 100.0), Moments(100, -10.0, 100.0)], 0.1)
    assert schedule.return_scale == pytest.approx(1.0)


@pytest.mark.parametrize("unit", [None, 2.5])
def test_warm_up_is_risk_neutral_whether_the_unit_is_measured_or_given(tmp_path, unit):
    config = toy_config(tmp_path, tau=2.0, return_scale=unit, warmup_fraction=0.2, risk_anneal_fraction=0.3).algorithm
    schedule = config.schedule(agent_groups(config.tau, config.eps, 1))
    returns = [Moments(200, 0.0, 200 * 2.5**2)]
    strength = {}
    for share in (0.01, 0.1, 0.2, 0.35, 0.5):
        schedule.observe(returns, share)
        strength[share] = schedule.strength(share)
    assert strength == pytest.approx({0.01: 0, 0.1: 0, 0.2: 0, 0.35: 0.5, 0.5: 1})
    assert schedule.measures(1.0)[0].tau == pytest.approx(5.0)
    assert schedule.measures(0.1)[0].tau == float("inf")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_ends_bitwise_equal_to_the_unbroken_one(tmp_path, workers):
    whole = default_config("cartpole").replace(
        total_timesteps=6 * 256, num_envs=8, num_steps=32, save_interval=1, log_interval=1,
        num_workers=workers, out=str(tmp_path / "whole"), n_atoms=21, settle=0.3, average=0.5,
    )  # fmt: skip
    unbroken = weights(train(whole))
    stopped = whole.replace(out=str(tmp_path / "stopped"))
    interrupt_after(stopped, updates=3)
    resumed = train(stopped, resume=Path(stopped.out))
    assert_equal(unbroken, weights(resumed))
    assert curve(tmp_path / "whole") == curve(resumed)


def curve(run: Path) -> list[str]:
    with open(run / "metrics.csv", newline="") as file:
        return [row["charts/episodic_return"] for row in csv.DictReader(file)]


def interrupt_after(config, updates: int) -> None:
    """Train until the given number of updates, then interrupt as Ctrl-C would."""
    algorithm = registry.algorithm(config.algo)
    learn = algorithm.learn
    calls = []

    def counted(self, *args):
        calls.append(None)
        if len(calls) == updates:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(self, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match="--resume"):
        patch.setattr(algorithm, "learn", counted)
        train(config)


def test_ignored_interrupts_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_second_interrupt_acts_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_run_killed_at_random_moments_always_goes_on(tmp_path):
    run = tmp_path / "run"
    flags = [
        "--num-envs",
        "8",
        "--num-steps",
        "32",
        "--save-interval",
        "1",
        "--log-interval",
        "1",
        "--eval-episodes",
        "0",
    ]
    command = [sys.executable, "-m", "rqe_mappo.cli", "train"]
    moments = random.Random(0)

    def start(args):
        return subprocess.Popen(command + args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    process = start(["--env", "cartpole", *flags, "--total-timesteps", "100000000", "--out", str(run)])
    steps = []
    for _ in range(6):  # benchmarks.faults kills a hundred times
        wait_for_progress(process, run, steps[-1] if steps else -1)
        time.sleep(moments.random() * 0.2)
        process.kill()
        process.wait()
        steps.append(checkpoint.load_policy_file(run)["timesteps"])
        process = start(["--resume", str(run)])
    wait_for_progress(process, run, steps[-1])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert "--resume" in process.stderr.read()
    assert steps == sorted(steps)


def wait_for_progress(process, run: Path, beyond: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        if (run / "latest").is_file() and int((run / "latest").read_text().split("_")[1]) > beyond:
            return
        time.sleep(0.02)
    raise AssertionError("no checkpoint within a minute")


def test_workers_give_the_same_trajectories_as_the_copies_they_hold(tmp_path):
    config = toy_config(tmp_path)
    spread = vector.make(default_config("cartpole"), 6, num_workers=2)
    alone = vector.make(default_config("cartpole"), 3)
    try:
        seen, expected = spread.reset(5), alone.reset(5)
        actions = np.random.default_rng(0).integers(0, 2, (200, 6, 1))
        copies = []
        for step_actions in actions:
            assert np.array_equal(seen.obs[:3], expected.obs)
            seen, expected = spread.step(step_actions), alone.step(step_actions[:3])
            copies += list(seen.episodes["copy"])
        assert {0, 1, 2, 3, 4, 5} == set(copies)
    finally:
        spread.close()
        alone.close()
    assert config.num_workers == 0


def test_evaluation_plays_the_same_number_of_episodes_in_every_copy(tmp_path):
    assert copies_for(1000) == (50, 20)
    assert copies_for(10) == (10, 1)
    policy = Policy.load(train(toy_config(tmp_path, leave_probability=0.5)))
    records, starts = run_episodes(toy.Toy(toy.ToyConfig(3, 0.5), 4), chooser(policy), each=5, seed=0)
    assert np.array_equal(np.bincount(records["copy"]), [5, 5, 5, 5]) and len(starts) == 20
    assert all((start.obs[:, 0] == 0).all() for start in starts)
    assert np.allclose(records["discounted"], records["return"])


def test_collector_repeats_with_its_seed(tmp_path):
    config = toy_config(tmp_path)
    one, other = (collected(config, steps=2)[1] for _ in range(2))
    tensors = [name for name, value in vars(one).items() if isinstance(value, torch.Tensor)]
    assert len(tensors) > 10
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
    assert one.extras.keys() == {"drawn", "log_prob"}
    assert_equal(one.extras, other.extras)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_first_update_on_cuda_agrees_with_the_cpu(tmp_path):
    losses = []
    for device in ("cpu", "cuda"):
        run, chunk, _ = collected(toy_config(tmp_path, device=device, **AVERSE))
        losses.append(run.algorithm.learn(chunk, Progress(0, 1)))
    for name, value in losses[0].items():
        assert losses[1][name] == pytest.approx(value, abs=1e-4), name
