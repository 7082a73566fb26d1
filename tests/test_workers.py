"""Worker processes that are killed, stopped or broken are replaced, and what was lost is no crash of vehicles."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rqe_mappo import checkpoint, registry
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.data import vector
from rqe_mappo.data.replay import EpisodeReplay
from rqe_mappo.data.vector import WorkerDied, WorkerEnvs
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.by_name import batched_from
from rqe_mappo.envs.contract import action_dtype
from rqe_mappo.envs.history import History
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.evaluation.evaluation import evaluate
from rqe_mappo.functional import categorical
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests import toy
from tests.parallel_toy import Echo

LIMIT_S = 1.0


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)


@pytest.fixture
def workers():
    """Two workers of two toys each, the lines they log in `logged`, and every process in `seen`; none may be left."""
    env = WorkerEnvs(partial(toy.Faulty, toy.ToyConfig(), 2), 2, seed=3, limit_s=LIMIT_S)
    env.logged, env.seen = [], pids(env)
    env.log = env.logged.append
    yield env
    env.seen |= pids(env)
    env.close()
    assert all(gone(pid) for pid in env.seen)


def pids(env: WorkerEnvs) -> set[int]:
    return {worker.process.pid for worker in env.workers}


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def idle() -> np.ndarray:
    return np.ones((4, 3), np.int64)


FAULTS = {
    "SIGKILL": (signal.SIGKILL, "was killed by SIGKILL"),
    "SIGSTOP": (signal.SIGSTOP, "gave no answer for 1 s"),
    "segfault": (toy.SEGFAULT, "crashed with SIGSEGV"),
    "exception": (toy.EXCEPTION, "failed: ZeroDivisionError: the toy broke"),
    "hang": (toy.HANG, "gave no answer for 1 s"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_failed_worker_is_replaced_and_its_episodes_are_cut_off(workers, fault):
    cause, words = FAULTS[fault]
    twin = toy.Toy(toy.ToyConfig(), 2)
    workers.reset(5)
    twin.reset(5)
    for _ in range(4):
        seen, expected = workers.step(idle()), twin.step(idle()[:2])
        assert seen.sim_crashed is None
    actions = idle()
    if isinstance(cause, signal.Signals):
        os.kill(workers.workers[1].process.pid, cause)
    else:
        actions[3, 0] = cause
    step, expected = workers.step(actions), twin.step(idle()[:2])

    assert step.sim_crashed.tolist() == [False, False, True, True]
    for name in ("obs", "state", "active", "reward", "terminated", "truncated"):
        assert np.array_equal(getattr(step, name)[:2], getattr(expected, name)), name
    assert np.array_equal(step.truncated[2:], seen.active[2:]) and step.truncated[2:].any()
    assert not step.terminated[2:].any() and not step.reward[2:].any() and not step.cost.any()
    assert np.array_equal(step.final_state, seen.state[2:][seen.active[2:]])
    assert np.array_equal(step.final_obs, seen.obs[2:][seen.active[2:]])
    assert (step.obs[2:, :, 0] == 0).all() and step.active[2:].all()
    assert set(step.episodes["copy"]) <= {0, 1}
    assert workers.restarts == [0, 1]
    assert len(workers.logged) == 1 and "worker 1" in workers.logged[0] and words in workers.logged[0]

    ended = set()
    for _ in range(13):
        seen, expected = workers.step(idle()), twin.step(idle()[:2])
        assert seen.sim_crashed is None and np.array_equal(seen.obs[:2], expected.obs)
        ended |= set(seen.episodes["copy"].tolist())
    assert ended == {0, 1, 2, 3}


def test_episodes_after_a_restart_are_new_ones(workers):
    def leavers(seen_from_step: int) -> list[int]:
        return [int(workers.step(idle()).terminated[2:].sum()) for _ in range(seen_from_step)]

    workers.reset(5)
    first = leavers(40)
    for _ in range(2):
        os.kill(workers.workers[1].process.pid, signal.SIGKILL)
        workers.step(idle())
        assert leavers(40) != first
    assert len({vector.fresh_seed(s, w, r) for s in range(5) for w in range(5) for r in range(5)}) == 125


def test_all_workers_lost_at_once_and_in_any_call(workers):
    def lose_all():
        workers.seen |= pids(workers)
        for worker in workers.workers:
            os.kill(worker.process.pid, signal.SIGKILL)

    lose_all()
    assert workers.reset(0).active.all()
    step = workers.step(idle())
    assert step.sim_crashed is None
    lose_all()
    assert workers.snapshot() is None
    step = workers.step(idle())
    assert step.sim_crashed.all() and len(step.episodes["copy"]) == 0
    snapshot = workers.snapshot()
    lose_all()
    assert (workers.restore(snapshot).obs[..., 0] == 0).all()
    assert workers.restarts == [3, 3]


def test_worker_that_always_fails_ends_the_run(workers):
    workers.reset(0)
    with pytest.raises(WorkerDied, match=r"worker 0 failed 3 times in a row.*ZeroDivisionError"):
        for _ in range(9):
            workers.step(idle() * toy.EXCEPTION)
    assert sum(workers.restarts) == 4


def test_what_environments_lose_themselves_is_passed_on():
    env = WorkerEnvs(partial(toy.Losing, toy.ToyConfig(), 2), 1)
    try:
        env.reset(0)
        marks = [env.step(idle()[:2]).sim_crashed for _ in range(7)]
        assert marks[:6] == [None] * 6 and marks[6].tolist() == [False, True]
    finally:
        env.close()


SPACES = {
    "from 5": (Discrete(3, start=5), False),
    "masks": (Discrete(4), True),
    "several": (MultiDiscrete([2, 3], start=[1, 4]), False),
    "continuous": (Box(-1, 2, (3,), np.float32), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPACES)
def test_workers_show_what_their_environments_do_whatever_the_actions(kind):
    space, masks = SPACES[kind]
    build = partial(toy.Choosing, toy.ToyConfig(), 2, space, masks)
    env, twins = WorkerEnvs(build, 2), [build(), build()]
    try:
        seen = env.reset(7)
        expected = [twin.reset(7 + vector.SEED_STRIDE * index) for index, twin in enumerate(twins)]
        space.seed(0)
        cut = 0
        for _ in range(30):
            for field in fields(seen):
                parts = [getattr(part, field.name) for part in expected]
                if field.name not in ("episodes", "sim_crashed") and parts[0] is not None:
                    assert np.array_equal(getattr(seen, field.name), np.concatenate(parts)), field.name
            assert (seen.avail is not None) == masks
            actions = np.array([[space.sample() for _ in range(3)] for _ in range(4)], action_dtype(space))
            seen = env.step(actions)
            expected = [twin.step(part) for twin, part in zip(twins, np.split(actions, 2), strict=True)]
            cut += len(seen.final_obs)
            assert np.array_equal(seen.final_obs, seen.final_state + 1)
        assert cut > 5
        before = seen
        os.kill(env.workers[1].process.pid, signal.SIGKILL)
        seen = env.step(actions)
        lost = np.nonzero(seen.truncated)[0] >= 2
        assert np.array_equal(seen.final_obs[lost], before.obs[2:][before.active[2:]])
        assert seen.avail is None or (seen.avail.shape == (4, 3, 4) and not seen.avail[2:, :, 0].any())
    finally:
        env.close()


def test_workers_keep_what_the_spaces_of_unlike_agents_say():
    boxes = {"a": Box(-1, 1, (2,)), "b": Box(-2, 2, (1,))}
    env = WorkerEnvs(partial(batched_from, partial(Echo, boxes), 1), 2)
    try:
        assert env.action_space.widths == (2, 1) and env.action_space.low.tolist() == [-2, -1]
        env.reset(0)
        step = env.step(np.array([[[9, 0.5], [9, 9]], [[-9, 0], [0.25, 9]]], np.float32))
        assert step.reward.tolist() == [[1.5, 2], [-1, 0.25]]
    finally:
        env.close()


def test_worker_that_cannot_be_built_fails_at_once():
    with pytest.raises(WorkerDied, match="worker 0 failed: TypeError"):
        WorkerEnvs(partial(toy.Toy, toy.ToyConfig(n_agents="three"), 1), 1)


UNGUARDED = """
import torch
from pathlib import Path
from rqe_mappo.data import vector
from rqe_mappo.data.replay import EpisodeReplay
from rqe_mappo.config import default_config
env = vector.make(default_config("cartpole"), 2, num_workers=1)
process = Path(f"/proc/{env.workers[0].process.pid}")
print("libtorch" in (process / "maps").read_text(), b"OMP_NUM_THREADS=1" in (process / "environ").read_bytes())
env.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_load_no_pytorch_and_do_not_run_the_main_program_again(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(UNGUARDED)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_environment_that_needs_its_own_process_gets_it(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", replace(toy.ENTRY, own_process=True))
    config = default_config("toy")
    env = vector.make(config, 2)
    try:
        assert len(env.workers) == 2 and env.reset(0).obs.shape == (2, 3, 2)
    finally:
        env.close()
    with pytest.raises(ConfigError, match=r"--num-workers 2 leaves 2 copies of toy to a process.*use 4"):
        vector.make(config, 4, num_workers=2)


OWNER = """
import time
from functools import partial
import numpy as np
from rqe_mappo.data.vector import WorkerEnvs
from tests import toy
env = WorkerEnvs(partial(toy.Toy, toy.ToyConfig(), 1), 2, limit_s=2.0)
env.reset(0)
print(*[worker.process.pid for worker in env.workers], flush=True)
while True:
    env.step(np.ones((2, 3), int))
    print(sum(env.restarts), flush=True)
    time.sleep(0.01)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="stopped orphans are ended by Linux alone")
def test_owner_may_be_suspended_with_its_workers_and_leaves_none_when_killed():
    root = Path(__file__).resolve().parent.parent
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=root)
    workers = [int(pid) for pid in owner.stdout.readline().split()]
    processes = [*workers, owner.pid]
    for pid in processes:  # the owner last: it waits for an answer then
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
    time.sleep(2.5)
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    assert {owner.stdout.readline() for _ in range(40)} == {"0\n"}

    os.kill(workers[0], signal.SIGSTOP)
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 20
    while not all(gone(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(gone(pid) for pid in workers)


def losing_run(**changes):
    """A run on toys of which the last copy is lost at step 6 of a trajectory of 16, and its first trajectory."""
    averse = {"return_scale": 1.0, "warmup_fraction": 0.0, "risk_anneal_fraction": 0.0}
    config = default_config("toy").replace(gamma=0.9, gae_lambda=0.8, **averse, **changes)
    env = toy.Losing(config.env_config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(1))
    return run, *run.collector.collect()


@pytest.mark.parametrize("time_limit", ["bootstrap", "terminal"])
def test_lost_step_is_bootstrapped_and_not_learned_from(time_limit):
    run, chunk, _ = losing_run(time_limit=time_limit)
    algorithm = run.algorithm
    lost = 6
    cut = chunk.lost[lost - 1, -1]
    assert cut.any() and int(chunk.lost.sum()) == int(chunk.lost[[5, 12]].sum())
    assert not chunk.active[lost, -1].any() and chunk.active[lost, :-1].any() and chunk.active[lost + 1, -1].all()
    assert len(chunk.final_state) == int(chunk.truncated.sum()) and not chunk.truncated[lost, -1].any()

    assert len(chunk.final_obs) == len(chunk.final_state)

    batch, _ = algorithm.targets(chunk, algorithm.predict(chunk), algorithm.risk.measures(1.0))
    means = torch.full(chunk.reward.shape, torch.nan)
    means[chunk.active] = categorical.mean(algorithm.critic.atoms, batch.target)
    value = categorical.mean(algorithm.critic.atoms, algorithm.critic(chunk.state, chunk.agent).softmax(-1))
    by_hand = chunk.reward[lost - 1, -1] + 0.9 * value[lost, -1]
    assert torch.allclose(means[lost - 1, -1][cut], by_hand[cut], atol=1e-4)
    both = cut & chunk.active[lost - 2, -1]
    onward = 0.2 * value[lost - 1, -1] + 0.8 * by_hand
    assert torch.allclose(means[lost - 2, -1][both], (chunk.reward[lost - 2, -1] + 0.9 * onward)[both], atol=1e-4)


def test_trajectory_that_begins_with_a_lost_step_can_be_learned_from(monkeypatch):
    monkeypatch.setattr(toy.Losing, "lose_every", 1)
    run, chunk, _ = losing_run(num_envs=2, num_steps=4)
    assert not chunk.active[:, -1].any() and chunk.active[:, 0].any()
    run.algorithm.learn(chunk, Progress(0, 1))
    for net in (run.algorithm.actor, run.algorithm.critic):
        assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def test_an_end_stays_an_end_where_the_next_episode_is_lost_as_it_begins(monkeypatch):
    monkeypatch.setattr(toy.Losing, "lose_every", 2)
    run, chunk, _ = losing_run(leave_probability=1.0)  # every episode is of one step
    assert chunk.terminated[0].all() and chunk.begins[1].all() and not chunk.active[1, -1].any()
    assert not chunk.lost[0].any()
    chunk.extras["drawn"] = chunk.action[..., None]
    replay = EpisodeReplay(run.env, 100, "bootstrap")
    replay.add(chunk)
    found = replay.newest(len(replay))
    assert len(replay) > 8 and found.terminated.all() and not found.present[1:].any()


def test_evaluation_counts_no_lost_episode():
    env = toy.Losing(toy.ToyConfig(leave_probability=0.3), 3)
    records, starts = run_episodes(env, lambda env, seen: np.ones(seen.active.shape, np.int64), each=6, seed=0)
    assert np.array_equal(np.bincount(records["copy"]), [6, 6, 6]) and len(starts) == 18
    assert all((start.obs[:, 0] == 0).all() for start in starts)
    assert np.allclose(records["discounted"], records["return"])


def test_history_begins_anew_where_the_simulation_was_lost():
    env = History(toy.Losing(toy.ToyConfig(leave_probability=0.0), 2), 0.9, shown=True)
    seen = env.reset(0)
    for _ in range(7):
        before, obs, start = seen.state.copy(), seen.obs.copy(), env.start.copy()
        seen = env.step(np.ones((2, 3), np.int64))
    assert seen.sim_crashed.tolist() == [False, True]
    assert np.array_equal(seen.final_state, before[1]) and np.array_equal(seen.final_obs, obs[1])
    assert (env.past[1] == 0).all() and env.discount[1] == 1 and np.array_equal(env.start[1], seen.state[1])
    assert (env.past[0] > 0).all() and env.discount[0] < 1 and np.array_equal(env.start[0], start[0])


def kill_at(monkeypatch, *steps: int) -> None:
    """Kill worker 1 before the given steps of its environment."""
    plain, count = WorkerEnvs.step, iter(range(1_000_000))

    def step(self, actions):
        if next(count) in steps:
            self.workers[1].process.kill()
        return plain(self, actions)

    monkeypatch.setattr(WorkerEnvs, "step", step)


@pytest.mark.slow
def test_run_counts_restarts_and_saves_what_it_learned_when_it_must_end(tmp_path, monkeypatch, capsys):
    config = default_config("toy").replace(num_workers=2, save_interval=1000, out=str(tmp_path / "run"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(WorkerDied, match="worker 1 failed 3 times in a row"):
        kill_at(patch, 20, 50)
        fresh = vector.fresh_seed
        patch.setattr(vector, "fresh_seed", lambda seed, worker, restart: fresh(seed, worker, restart) if restart < 2
                      else -1)  # no toy accepts it  # fmt: skip
        train(config)
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert counted(tmp_path / "run") == [0.0, 1.0, 1.0]
    folder = train(config, resume=tmp_path / "run")
    assert set(counted(folder)[3:]) == {3.0}
    assert checkpoint.load_training_file(checkpoint.newest(folder)[1])["worker_restarts"] == [0, 3]


def counted(run: Path) -> list[float]:
    with open(run / "metrics.csv", newline="") as file:
        return [float(row["charts/worker_restarts"]) for row in csv.DictReader(file)]


def test_run_without_workers_saves_what_it_learned_when_its_simulation_crashes(tmp_path, monkeypatch):
    plain, count = toy.Toy.step, iter(range(50))

    def step(self, actions):
        if next(count, None) is None:
            raise RuntimeError("SUMO stopped")
        return plain(self, actions)

    monkeypatch.setattr(toy.Toy, "step", step)
    with pytest.raises(RuntimeError, match="SUMO stopped"):
        train(default_config("toy").replace(save_interval=1000, out=str(tmp_path / "run")))
    assert checkpoint.load_policy_file(tmp_path / "run")["timesteps"] > 300  # three times 16 steps of twelve


def test_evaluation_says_how_many_workers_were_replaced(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", replace(toy.ENTRY, own_process=True))
    policy = Policy.load(train(default_config("toy").replace(num_envs=2, total_timesteps=100, out=str(tmp_path))))
    kill_at(monkeypatch, 3)
    found = evaluate(policy, 4, seed=0)
    assert found.worker_restarts == 1 and np.array_equal(np.bincount(found.records["copy"]), [2, 2])


def test_sumo_run_survives_a_kill(tmp_path, monkeypatch, capsys):
    pytest.importorskip("libsumo")
    kill_at(monkeypatch, 30)
    config = default_config("sumo").replace(
        num_workers=2, num_envs=4, total_timesteps=900, num_steps=24, eval_episodes=0, log_interval=1,
        out=str(tmp_path / "run"),
    )  # fmt: skip
    folder = train(config)
    assert counted(folder)[0] == 0.0 and counted(folder)[-1] == 1.0
    assert "environment worker 1 was killed by SIGKILL" in capsys.readouterr().out
