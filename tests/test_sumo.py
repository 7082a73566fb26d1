"""The intersection on real SUMO: collisions count once, copies do not disturb each other, seeds repeat."""

import multiprocessing as mp
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("libsumo")

from pettingzoo.test import parallel_api_test, parallel_seed_test

from benchmarks import crossings
from rqe_mappo import checkpoint
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.contract import Step
from rqe_mappo.envs.sumo_intersection import SCENARIOS, BatchedIntersection, IntersectionConfig, parallel_env, scripted
from rqe_mappo.envs.sumo_intersection import observation as observations
from rqe_mappo.envs.sumo_intersection.batched_intersection import return_bounds, reward_step
from rqe_mappo.envs.sumo_intersection.geometry import conflict_zones
from rqe_mappo.envs.sumo_intersection.network import SumoMissing, sumo_home
from rqe_mappo.envs.sumo_intersection.reward import braked_hard, rewards
from rqe_mappo.envs.sumo_intersection.simulation import SimulationCrashed
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.training.loop import train

DEFAULT = SCENARIOS["default"]


@pytest.fixture
def opened():
    """Opens batched environments and closes them after the test."""
    envs = []

    def open_(config: IntersectionConfig = DEFAULT, copies: int = 1) -> BatchedIntersection:
        envs.append(BatchedIntersection(config, copies))
        return envs[-1]

    yield open_
    for env in envs:
        env.close()


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        ("ModuleNotFoundError('No module named sumo')", r"not installed: pip install 'rqe-mappo\[sumo\]'"),
        ("ImportError('libGL.so.1: cannot open shared object file')", r"libGL\.so\.1: .* apt-get install libgl1"),
    ],
)
def test_what_keeps_sumo_from_loading_is_named(failure, says, tmp_path, monkeypatch):
    (tmp_path / "sumo.py").write_text(f"raise {failure}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sumo", raising=False)
    with pytest.raises(SumoMissing, match=says):
        sumo_home()


def trajectory(env: BatchedIntersection, seed: int, decisions: int = 60) -> np.ndarray:
    seen = env.reset(seed)
    rng = np.random.default_rng(0)
    rows = [np.concatenate((seen.obs.ravel(), seen.state.ravel()))]
    for _ in range(decisions):
        step = env.step(rng.integers(0, 4, env.active.shape))
        rows.append(np.concatenate((step.obs.ravel(), step.state.ravel(), step.reward.ravel())))
    return np.concatenate(rows)


def remote_trajectory(queue) -> None:
    env = BatchedIntersection(DEFAULT, 3)
    queue.put(trajectory(env, seed=11))
    env.close()


def forced_crash(env: BatchedIntersection) -> list[Step]:
    """The first two vehicles meet head on to side at full speed in every copy; what each decision led to."""
    env.reset(0)
    world = env.world
    vehicle = world.sim.vehicle
    for k in range(env.num_envs):
        for j, (arm, name) in enumerate(zip((0, 1), world.ids[k], strict=True)):
            vehicle.remove(name)
            world.ids[k][j] = fresh = f"{2 * k + j}.crash"
            vehicle.add(fresh, f"{k}.{3 * arm + 1}", typeID="controlled",
                        departPos=f"{world.geometry.approach_m[0] - 30:.2f}", departSpeed="10")  # fmt: skip
            vehicle.setSpeedMode(fresh, 39)
            world.spawn_m[k, j], world.arm[k, j], world.movement[k, j] = 30.0, arm, 3 * arm + 1
            world.pos_m[k, j] = -30.0
    return [env.step(np.full((env.num_envs, env.config.n_agents), scripted.GO)) for _ in range(12)]


@pytest.mark.parametrize("copies", [1, 8])
def test_forced_crash_is_counted_once_for_each_vehicle(opened, copies):
    config = replace(DEFAULT, n_agents=2, n_background=0, accel_noise_mps2=0.0, min_friction=1.0)
    costs = np.array([step.cost for step in forced_crash(opened(config, copies))])
    assert (costs[:8].sum(0) == 1).all()


def test_what_crossings_counts_is_what_the_records_say(opened):
    env = opened(copies=8)
    watch = crossings.Watch(env, 10)
    records, _ = run_episodes(env, lambda env, seen: scripted.always_go(env), 10, seed=5)
    watch.close()
    vehicles = records["length"] > 0
    # a vehicle that meets two others has two partners
    assert 1.0 <= watch.partners.total() / records["collision"][vehicles].sum() < 1.1
    assert len(watch.waited_s) == records["length"].size
    assert {kind for kind, _ in watch.partners} == {"agent", "lawful", "ignorant"}
    late, first = (np.array(each) for each in zip(*watch.first, strict=True))
    assert first[late < -1].mean() > 0.8  # nobody brakes: who is earlier goes first
    assert first[late > 1].mean() < 0.2
    assert env.world.sim.step.__self__ is env.world.sim and env._begin.__self__ is env


@pytest.mark.parametrize("copies", [1, 3])
def test_same_seed_and_copies_same_trajectory(opened, copies):
    env = opened(copies=copies)
    first = trajectory(env, seed=11)
    assert not np.array_equal(first, trajectory(env, seed=12))
    assert np.array_equal(first, trajectory(env, seed=11))


@pytest.mark.slow
def test_same_trajectory_in_another_process(opened):
    context = mp.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=remote_trajectory, args=(queue,))
    process.start()
    there = queue.get(timeout=60)
    process.join()
    assert np.array_equal(there, trajectory(opened(copies=3), seed=11))


def shares(env: BatchedIntersection, driver, each: int) -> tuple[float, float, int]:
    records, _ = run_episodes(env, lambda env, observed: driver(env), each, seed=3)
    return records["collision"].mean(), records["collision"].any(1).mean(), len(records["return"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "agents", "episodes"),
    [(scripted.always_go, 0.405, 0.75), (scripted.caution(0.0), 0.175, 0.417), (scripted.caution(1.0), 0.002, 0.007)],
    ids=["always go", "caution 0", "caution 1"],
)
def test_scripted_policies_crash_as_often_in_one_copy_as_in_sixty_four(opened, driver, agents, episodes):
    single = opened(copies=1)
    one = shares(single, driver, each=192)
    single.close()
    many = opened(copies=64)
    other = shares(many, driver, each=8)
    for known, found in ((episodes, one), (episodes, other)):
        error = np.sqrt(max(known * (1 - known), 0.01) / found[2])
        assert abs(found[1] - known) < 3.3 * error + 0.03
    pooled = (one[1] * one[2] + other[1] * other[2]) / (one[2] + other[2])
    error = np.sqrt(max(pooled * (1 - pooled), 0.005) * (1 / one[2] + 1 / other[2]))
    assert abs(one[1] - other[1]) < 2.6 * error
    assert abs(other[0] - agents) < 0.05


@pytest.mark.parametrize("agents", [1, 2, 5])
def test_any_number_of_agents_and_exactly_one_end_for_each(opened, agents):
    config = replace(DEFAULT, n_agents=agents, horizon_s=15.0)
    env = opened(config, 4)
    seen = env.reset(0)
    rng = np.random.default_rng(1)
    total, finished = np.zeros((4, agents)), 0
    for _ in range(120):
        acted = seen.active
        assert env.observation_space.contains(seen.obs[0, 0]) and not seen.obs[~acted].any()
        step = env.step(rng.integers(0, 4, (4, agents)))
        assert not (step.terminated & ~acted).any() and not step.truncated.any()
        assert not step.reward[~acted].any()
        assert step.final_obs.shape == (0, *env.observation_space.shape)
        assert step.final_state.shape == (0, *env.state_space.shape)
        total += step.reward
        for row, copy in enumerate(step.episodes["copy"]):
            assert np.allclose(step.episodes["return"][row], total[copy], atol=1e-4)
            assert (env.return_bounds[0] <= total[copy]).all() and (total[copy] <= env.return_bounds[1]).all()
            total[copy] = 0
            finished += 1
        going = np.ones(4, bool)
        going[step.episodes["copy"]] = False
        assert np.array_equal(step.active[going], (acted & ~step.terminated)[going])
        assert step.active[~going].all()
        seen = step
    assert finished > 4


def test_time_limit_terminates_those_who_wait(opened):
    env = opened(replace(DEFAULT, n_agents=2, n_background=0, horizon_s=5.0), 2)
    env.reset(0)
    for decision in range(1, 11):
        step = env.step(np.full((2, 2), scripted.HARD))
        assert step.terminated.all() == (decision == 10)
    assert step.episodes["timed_out"].all() and not step.episodes["collision"].any()
    assert (step.episodes["travel_time_s"] == 5.0).all()


def test_critic_sees_nothing_hidden_and_every_agent_itself_first(opened):
    env = opened(copies=2)
    env.reset(4)
    world = env.world
    before = observations.critic_view(world)
    world.friction[:] = 0.123
    world.aggressive[:] = ~world.aggressive
    assert np.array_equal(before, observations.critic_view(world))
    width = DEFAULT.max_speed_mps
    assert np.allclose(before[:, :, 3], world.speed_mps[:, :4] / width, atol=1e-6)
    assert (before[..., 2 + 6] == 1).all()  # its own arm, seen from itself, is arm 0


def test_zones_of_two_straight_crossing_paths():
    along_x = np.array([[-10.0, 0.0], [10.0, 0.0]])
    along_y = np.array([[0.0, -10.0], [0.0, 10.0]])
    zones, conflicts = conflict_zones([along_x, along_y], np.eye(2, dtype=bool))
    assert conflicts.tolist() == [[False, True], [True, False]]
    assert zones[0, 1] == pytest.approx([8.0, 12.0, 8.0, 12.0], abs=0.26)


def test_geometry_is_the_same_from_every_arm(opened):
    geometry = opened().world.geometry
    turned = np.roll(np.arange(12).reshape(4, 3), -1, axis=0).ravel()
    assert np.array_equal(geometry.conflicts, geometry.conflicts[np.ix_(turned, turned)])
    assert np.allclose(geometry.zones_m, geometry.zones_m[np.ix_(turned, turned)], atol=0.6)
    assert np.array_equal(geometry.conflicts, geometry.conflicts.T)
    assert geometry.length_m[:3] == pytest.approx([14.2, 14.4, 9.0], abs=0.3)


def test_rewards_by_hand():
    acted, crashed = np.array([[True, True, True, False]]), np.array([[False, True, False, False]])
    braked = braked_hard(np.array([[-6.0, 0.0, -4.5, 0.0]]), np.array([[5.0, 5.0, 0.5, 0.0]]))
    assert braked.tolist() == [[True, False, False, False]]
    alone, another = np.zeros((1, 4), int), np.array([[0, 1, 0, 0]])
    assert rewards(DEFAULT, acted, crashed, braked, alone).tolist() == [[-1.0, -30.5, -0.5, 0.0]]
    assert rewards(DEFAULT, acted, crashed, braked, another).tolist() == [[-1.0, -30.5, -0.5, 0.0]]
    blamed = replace(DEFAULT, blame=0.5)
    assert rewards(blamed, acted, crashed, braked, another).tolist() == [[-1.0, -45.5, -0.5, 0.0]]


@pytest.mark.parametrize("agents", [2, 1])
def test_agents_are_blamed_for_hitting_agents_and_for_no_others(opened, agents):
    config = replace(
        DEFAULT, n_agents=agents, n_background=2 - agents, accel_noise_mps2=0.0, min_friction=1.0, blame=1.0
    )
    env = opened(config, 3)
    crashes = [step.reward[step.cost == 1] for step in forced_crash(env)[:8]]
    assert sum(map(len, crashes)) == 3 * agents
    assert (np.concatenate(crashes) == (-60.5 if agents == 2 else -30.5)).all()
    assert env.reward_bounds[0] <= -60.5 if agents == 2 else env.reward_bounds[0] == -31


def test_grid_and_bounds_of_returns():
    assert reward_step(DEFAULT) == 0.5
    assert reward_step(replace(DEFAULT, time_cost=0.123)) is None
    low, high = return_bounds(DEFAULT)
    assert high == 0 and -95 < low < -80


def test_parallel_environment_conforms():
    env = parallel_env()
    try:
        parallel_api_test(env, num_cycles=200)
        env.reset(seed=1)
        assert env.state_space.contains(env.state())
    finally:
        env.close()


def test_parallel_environments_side_by_side_repeat_their_seeds():
    parallel_seed_test(lambda: parallel_env(own_process=True), num_cycles=60)


def test_second_simulation_in_a_process_is_refused(opened):
    opened()
    with pytest.raises(RuntimeError, match=r"already open.*close"):
        opened()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step_s": 0.5}, "--step-s"),
        ({"n_agents": 0}, "--n-agents"),
        ({"collision_cost": 0.0}, "--collision-cost"),
        ({"p_aggressive": 1.5}, "--p-aggressive"),
        ({"decision_s": 0.25}, "--decision-s"),
        ({"spawn_far_m": 10.0}, "--spawn-near-m"),
    ],
)
def test_wrong_settings_name_flag_and_value(change, words):
    with pytest.raises(ValueError, match=words):
        replace(DEFAULT, **change)


def test_simulations_in_worker_processes_act_as_one_environment():
    env = vector.make(default_config("sumo").replace(env_config=DEFAULT), 4, num_workers=2)
    try:
        seen = env.reset(0)
        assert seen.obs.shape == (4, 4, 33) and not np.array_equal(seen.obs[:2], seen.obs[2:])
        ended = set()
        for _ in range(80):
            step = env.step(np.full((4, 4), scripted.GO))
            ended |= set(step.episodes["copy"].tolist())
        assert ended == {0, 1, 2, 3}
    finally:
        env.close()
    assert not env.workers


@pytest.mark.slow
def test_short_training_is_finite_and_beats_random(tmp_path):
    config = default_config("sumo").replace(
        tau=0.3, total_timesteps=60_000, num_envs=32, num_steps=32, eval_episodes=0, out=str(tmp_path / "run")
    )
    policy = Policy.load(train(config))
    env = BatchedIntersection(DEFAULT, 32)
    try:
        trained, _ = run_episodes(env, lambda env, seen: policy.act(seen.obs), each=4, seed=9)
        dice = scripted.random(0)
        chance, _ = run_episodes(env, lambda env, seen: dice(env), each=4, seed=9)
    finally:
        env.close()
    assert np.isfinite(trained["return"]).all()
    assert trained["return"].mean() > chance["return"].mean() + 5


def test_only_the_ratio_of_costs_counts(tmp_path):
    def trained(factor):
        costs = dict(time_cost=factor, collision_cost=factor * 30, hard_brake_cost=factor * 0.5)
        config = default_config("sumo").replace(
            env_config=DEFAULT, **costs, tau=0.3, total_timesteps=4000, num_envs=8, num_steps=32, eval_episodes=0,
            out=str(tmp_path / f"times{factor}"),
        )  # fmt: skip
        return checkpoint.load_policy_file(train(config))

    once, twice = trained(1.0), trained(2.0)
    for name, weights in once["modules"]["actor"].items():
        assert torch.equal(weights, twice["modules"]["actor"][name]), name


def test_closed_environment_is_not_reset_behind_another_ones_back(opened):
    closed = opened()
    closed.close()
    with pytest.raises(SimulationCrashed, match="closed"):
        closed.reset(0)


def test_scripted_policy_serves_environments_of_any_size(opened):
    drive, small = scripted.caution(0.5), opened()
    small.reset(0)
    assert drive(small).shape == (1, 4)
    small.close()
    large = opened(copies=3)
    large.reset(0)
    assert drive(large).shape == (3, 4)


def test_actions_of_agents_that_left_are_ignored(opened):
    env = opened(replace(DEFAULT, n_agents=2, n_background=0, horizon_s=5.0))
    env.reset(0)
    env.active[0, 1] = False
    env.step(np.array([[scripted.GO, 99]]))
