"""Traffic lights on real SUMO: all trips are counted, seeds repeat, lights refuse phases that they do not have."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pettingzoo.test import parallel_api_test

from rqe_mappo import cli
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.contract import PaddedDiscrete, action_counts
from rqe_mappo.envs.history import History
from rqe_mappo.envs.sumo_intersection import BatchedIntersection, IntersectionConfig
from rqe_mappo.envs.sumo_signals import (
    BatchedSignals,
    SignalsConfig,
    SignalsEnv,
    parallel_env,
    scripted,
    trips,
)  # fmt: skip
from rqe_mappo.envs.sumo_signals.nets import bundled
from rqe_mappo.evaluation import report
from rqe_mappo.evaluation.episodes import run_episodes
from rqe_mappo.evaluation.evaluation import evaluate
from rqe_mappo.functional import policy_gradient
from rqe_mappo.nets import ActionSpec, ActorSpec, PolicyActor
from rqe_mappo.training.loop import train
from tests.toy import Toy, ToyConfig

SHORT = SignalsConfig(num_seconds=200)
COLOGNE = replace(SHORT, net="cologne3")
FOUR = ActionSpec("discrete", (4,))
MASKED = ActorSpec(obs_dim=4, n_agents=3, actions=replace(FOUR, counts=(2, 4, 3)), hidden=(8,))


@pytest.fixture
def opened():
    """Opens the environment and closes it after the test."""
    envs = []

    def open_(config: SignalsConfig = SHORT) -> BatchedSignals:
        envs.append(BatchedSignals(config, 1))
        return envs[-1]

    yield open_
    for env in envs:
        env.close()


def trajectory(env: BatchedSignals, seed: int, decisions: int = 50) -> np.ndarray:
    """What is seen and earned over more than one episode under random phases, with the records of its trips."""
    seen = env.reset(seed)
    choose = scripted.random(0)
    rows = [seen.obs.ravel(), seen.state.ravel()]
    for _ in range(decisions):
        step = env.step(choose(env))
        rows += [step.obs.ravel(), step.state.ravel(), step.reward.ravel(), *step.episodes.values()]
    return np.concatenate([np.ravel(row) for row in rows])


@pytest.mark.parametrize("config", [SHORT, COLOGNE], ids=["one light", "three lights"])
def test_same_seed_same_trajectory_another_seed_another(opened, config):
    env = opened(config)
    first = trajectory(env, seed=11)
    assert not np.array_equal(first, trajectory(env, seed=12))
    assert np.array_equal(first, trajectory(env, seed=11))


def test_episodes_of_one_reset_differ(opened):
    env = opened()
    records, _ = run_episodes(env, lambda env, seen: scripted.greedy(env), 3, seed=4)
    assert len(np.unique(records["return"])) == 3


def test_return_is_minus_the_waiting_of_all_trips(opened):
    """One light alone sees every vehicle of its net, so that rewards and SUMO's own account must agree."""
    env = opened(replace(SHORT, reward="waiting", num_seconds=600, most_waiting=10_000))
    records, _ = run_episodes(env, lambda env, seen: scripted.random(1)(env), 1, seed=5)
    waited_min = records["waiting_mean_s"] * records["trips"] / 60
    assert records["not_inserted_trips"] > 0  # these count in both
    assert -records["return"][0, 0] == pytest.approx(waited_min[0], rel=0.03)


def test_a_long_wait_of_w_minutes_costs_w_and_half_its_square(opened, tmp_path):
    known, routes = bundled("single-intersection"), tmp_path / "one vehicle.rou.xml"
    routes.write_text('<routes><vehicle id="a" depart="0"><route edges="n_t t_s"/></vehicle></routes>')
    env = opened(replace(SHORT, net_file=known.net_file, route_file=str(routes)))
    env.reset(0)
    light = env.world.lights[0]
    red = int(np.flatnonzero(~light.served[:, light.lanes.index("n_t_0")])[0])
    records, _ = run_episodes(env, lambda env, seen: np.array([[red]]), 1, seed=0)
    wait_min = records["waiting_max_s"][0] / 60
    assert wait_min > 2
    assert -records["return"][0, 0] == pytest.approx(wait_min + wait_min**2 / 2, rel=0.02)


def test_records_equal_the_sums_of_rewards_and_everybody_is_truncated(opened):
    env = opened(COLOGNE)
    env.reset(0)
    total, choose = np.zeros(3), scripted.random(0)
    for decision in range(1, 81):
        step = env.step(choose(env))
        low, high = env.reward_bounds
        assert (low <= step.reward).all() and (step.reward <= high).all()
        assert step.active.all() and not step.terminated.any()
        total += step.reward[0]
        assert step.truncated.all() == (decision % 40 == 0)
        if decision % 40 == 0:
            assert np.allclose(step.episodes["return"], total, atol=1e-4)
            assert step.episodes["length"].tolist() == [[40, 40, 40]]
            assert step.final_state.shape == (3, *env.state_space.shape)
            assert (step.final_obs[:, 0] == 1).all()  # the time, which is 0 again in `obs`
            assert step.obs[0, 0, 0] == 0  # of the next episode
            assert step.episodes["trips"] > 0
            total[:] = 0
        else:
            assert len(step.final_state) == 0 and not len(step.episodes["copy"])
        assert all(env.observation_space.contains(row) for row in step.obs[0])
        assert all(env.state_space.contains(row) for row in step.state[0])


def test_what_truncation_hides_is_what_the_single_form_sees(opened):
    config = replace(COLOGNE, num_seconds=30)
    env = opened(config)
    env.reset(3)
    steps = [env.step(np.array([[1, 2, 0]])) for _ in range(6)]
    env.close()
    single = SignalsEnv(config)
    single.reset(seed=3)
    for _ in range(6):
        last, *_ = single.step(dict(zip(single.agents, (1, 2, 0), strict=True)))
    state = single.state()
    single.close()
    assert steps[-1].truncated.all() and not any(len(step.final_obs) for step in steps[:-1])
    assert np.array_equal(steps[-1].final_obs, np.stack(list(last.values())))
    assert np.array_equal(steps[-1].final_state, state)
    assert not np.array_equal(steps[-1].final_obs, steps[-1].obs[0])


def test_tails_of_waiting_by_hand():
    known = trips.waiting(np.arange(1.0, 41.0))
    assert known["waiting_mean_s"] == 20.5 and known["waiting_max_s"] == 40.0
    assert known["waiting_cvar95_s"] == 39.5  # the worst two of forty
    assert trips.waiting(np.zeros(0))["waiting_max_s"] == 0.0


def test_trips_without_an_end_count_with_what_they_waited(tmp_path):
    trip = '<tripinfo id="{}" depart="{}" departDelay="{}" arrival="{}" waitingTime="{}"/>'
    rows = [
        trip.format("done", 1, 2, 30, 5),
        trip.format("on its way", 1, 0, -1, 50),
        trip.format("out", -1, 90, -1, 0),
    ]
    (tmp_path / "trips.xml").write_text(f"<tripinfos>{''.join(rows)}</tripinfos>")
    safety = '<safety collisions="1" emergencyStops="2" emergencyBraking="3"/><teleports total="4"/>'
    (tmp_path / "statistics.xml").write_text(f"<statistics>{safety}</statistics>")
    found = trips.read(tmp_path)
    assert (found["waiting_mean_s"], found["waiting_max_s"]) == (49.0, 90.0)
    assert (found["trips"], found["unfinished_trips"], found["not_inserted_trips"]) == (3, 2, 1)
    assert [found[name] for name in trips.COUNTS] == [1, 2, 3, 4]


def test_critic_sees_its_own_light_first_and_all_of_them(opened):
    env = opened(COLOGNE)
    seen = env.reset(2)
    width = env.layout.width + 1
    for agent in range(3):
        for other in range(3):
            start = (other - agent) % 3 * width
            assert np.array_equal(seen.state[0, agent, start : start + width - 1], seen.obs[0, other])


def test_a_light_refuses_a_phase_that_it_does_not_have(opened):
    env = opened(COLOGNE)
    env.reset(0)
    assert env.action_space.counts == (3, 4, 4) == action_counts(env)
    with pytest.raises(ValueError, match="has 3 green phases: it cannot choose phase 3"):
        env.step(np.array([[3, 3, 3]]))


def test_fixed_cycle_shows_its_phases_in_turn_for_whole_decisions(opened):
    env = opened()
    env.reset(0)
    chosen = scripted.fixed((5, 10, 5, 5))
    shown = []
    for _ in range(6):
        shown.append(int(chosen(env)[0, 0]))
        env.step(np.array([[0]]))
    assert shown == [0, 1, 1, 2, 3, 0]


def test_greedy_serves_the_longest_queue_and_beats_random(opened):
    env = opened(replace(SHORT, num_seconds=600))
    dice = scripted.random(0)
    chance, _ = run_episodes(env, lambda env, seen: dice(env), 1, seed=6)
    queue, _ = run_episodes(env, lambda env, seen: scripted.greedy(env), 1, seed=6)
    assert queue["waiting_mean_s"] < 0.5 * chance["waiting_mean_s"]


def test_scripted_policies_have_names_for_rqe_eval(opened, capsys):
    env = opened()
    env.reset(0)
    for name in ("fixed", "fixed:25,15,10,10", "greedy", "random"):
        assert scripted.by_name(name)(env).shape == (1, 1)
    for name, message in (
        ("fixed:a", "needs seconds"),
        ("fixed:-1", "needs seconds"),
        ("best", "--driver best is unknown"),
    ):
        with pytest.raises(ValueError, match=message):
            scripted.by_name(name)
    with pytest.raises(ValueError, match="has 4 phases, and 2 times"):
        scripted.by_name("fixed:10,10")(env)
    env.close()
    cli.evaluate(["sumo-signals", "--driver", "fixed:25,15,10,10", "--episodes", "1"])
    assert "waiting" in capsys.readouterr().out


@pytest.mark.parametrize("reward", ["waiting", "diff-waiting-time", "average-speed", "queue", "pressure"])
def test_every_reward_keeps_its_bounds(opened, reward):
    env = opened(replace(SHORT, reward=reward, num_seconds=100))
    env.reset(1)
    choose = scripted.random(3)
    rewards = np.array([env.step(choose(env)).reward for _ in range(20)])
    assert np.ptp(rewards) > 0
    assert env.reward_bounds[0] <= rewards.min() and rewards.max() <= env.reward_bounds[1]


def test_demand_is_scaled_by_a_factor_that_the_seed_decides(opened):
    env = opened(replace(SHORT, demand_spread=0.5))
    records, _ = run_episodes(env, lambda env, seen: scripted.greedy(env), 4, seed=1)
    again, _ = run_episodes(env, lambda env, seen: scripted.greedy(env), 4, seed=1)
    assert len(set(records["trips"])) > 2 and np.array_equal(records["trips"], again["trips"])


def test_parallel_environment_conforms():
    env = parallel_env(net="cologne3", num_seconds=100)
    try:
        parallel_api_test(env, num_cycles=60)
        first = env.reset(seed=1)[0]
        second = env.reset()[0]
        assert [env.action_space(agent).n for agent in env.possible_agents] == [3, 4, 4]
        assert all(env.observation_space(agent).contains(first[agent]) for agent in first) and set(second) == set(first)
        assert env.state_space.contains(env.state())
        while env.agents:
            *_, infos = env.step({agent: 0 for agent in env.agents})
        assert all(set(trips.METRICS) < set(info) for info in infos.values())
    finally:
        env.close()


def test_closing_leaves_no_file_and_lets_others_open(opened):
    env = opened()
    folder = Path(env.folder.name)
    env.reset(0)
    with pytest.raises(RuntimeError, match=r"already open.*close"):
        opened()
    with pytest.raises(RuntimeError, match=r"already open.*close"):
        BatchedIntersection(IntersectionConfig(), 1)
    env.close()
    env.close()
    assert not folder.exists()
    with pytest.raises(RuntimeError, match="closed"):
        env.reset(0)
    opened().reset(0)


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_lights_leave_traci_to_others():
    opened = "from rqe_mappo.envs.sumo_signals import *; BatchedSignals(SignalsConfig(), 1).close()"
    asked = "import os, traci; print(traci.isLibsumo(), 'LIBSUMO_AS_TRACI' in os.environ)"
    for code in (f"{opened}; {asked}", f"import traci; {opened}; {asked}"):
        assert run(code).stdout == "False False\n"


@pytest.mark.slow
def test_lights_open_after_sumo_rl_with_traci():
    code = (
        "import os, sumo; os.environ['SUMO_HOME'] = sumo.SUMO_HOME; import sumo_rl.environment.env; "
        "from rqe_mappo.envs.sumo_signals import *; env = BatchedSignals(SignalsConfig(), 1); env.reset(0); "
        "env.close(); print('opened')"
    )
    assert run(code).stdout == "opened\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"net": "atlantis"}, "--net atlantis is unknown: use 2way"),
        ({"net_file": "my.net.xml"}, "--net-file needs a --route-file"),
        ({"route_file": "my.rou.xml"}, "--route-file needs a --net-file"),
        ({"delta_time_s": 2}, "--delta-time-s must be greater than --yellow-time-s"),
        ({"num_seconds": 0}, "--num-seconds must be at least 1"),
        ({"demand": 0.0}, "--demand must be > 0"),
        ({"demand_spread": 1.0}, "--demand-spread must lie in"),
        ({"teleport_s": 0}, "--teleport-s"),
    ],
)
def test_wrong_settings_name_flag_and_fix(change, words):
    with pytest.raises(ValueError, match=words):
        replace(SHORT, **change)


def test_one_process_holds_one_copy():
    with pytest.raises(ValueError, match="one cannot hold 4 copies"):
        BatchedSignals(SHORT, 4)


def test_actions_that_an_agent_lacks_have_no_part_in_anything():
    actor, counts = PolicyActor(MASKED), MASKED.actions.counts
    obs, agent = torch.randn(40, 3, 4), torch.arange(3).expand(40, 3)
    policy, _ = actor(obs, agent)
    logits, probs = policy.logits, policy.probs
    assert torch.equal(logits, actor.logits(obs, agent)) and torch.equal(probs, logits.softmax(-1))
    for index, count in enumerate(counts):
        assert not probs[:, index, count:].any()
        own = logits[:, index, :count]
        assert torch.allclose(policy_gradient.entropy(logits)[:, index], policy_gradient.entropy(own))
        assert torch.allclose(policy_gradient.log_barrier(logits)[:, index], policy_gradient.log_barrier(own))
    assert torch.equal(policy.entropy(), policy_gradient.entropy(logits))
    assert torch.equal(policy.log_barrier(), policy_gradient.log_barrier(logits))
    assert (policy.sample(torch.ones(40, 3, 1))[..., 0] == torch.tensor(counts) - 1).all()
    (policy.entropy().sum() + policy.log_barrier().sum()).backward()
    assert all(weight.grad.isfinite().all() for weight in actor.parameters())
    assert not any("own" in name for name in actor.state_dict())


def test_actor_without_a_mask_is_the_same_as_with_a_mask_of_nothing():
    torch.manual_seed(0)
    plain = PolicyActor(replace(MASKED, actions=FOUR))
    masked = PolicyActor(replace(MASKED, actions=replace(FOUR, counts=(4, 4, 4))))
    masked.load_state_dict(plain.state_dict())
    obs, agent = torch.randn(40, 3, 4), torch.arange(3).expand(40, 3)
    logits = plain.logits(obs, agent)
    assert torch.equal(logits, masked.logits(obs, agent))
    old = logits.log_softmax(-1).sum(-1)
    assert torch.equal(policy_gradient.log_barrier(logits), old)


def test_environments_without_counts_have_all_actions():
    toy = Toy(ToyConfig(), 1)
    assert action_counts(toy) is None
    toy.action_space = PaddedDiscrete((2, 2, 2))
    assert action_counts(toy) is None
    toy.action_space = PaddedDiscrete((2, 1, 2))
    assert action_counts(History(toy, 0.9, shown=True)) == (2, 1, 2)


@pytest.mark.slow
def test_lights_train_in_a_process_each_and_are_evaluated_with_their_tails(tmp_path):
    config = default_config("sumo-signals", "cologne").replace(
        env_config=COLOGNE, tau=0.5, total_timesteps=360, warmup_fraction=0.0, num_steps=20, eval_episodes=0,
        out=str(tmp_path / "run"),
    )  # fmt: skip
    policy = Policy.load(train(config))
    assert policy.spec.actions.counts == (3, 4, 4)
    obs = np.random.default_rng(0).random((200, policy.spec.obs_dim))
    assert not policy.probabilities(obs, 0)[:, 3].any() and policy.act(obs, 0).max() == 2
    records = evaluate(policy, 2, seed=1).records
    rows = {row.metric: row for row in report.rows(records)}
    assert rows["waiting cvar95 s"].level == "episode" and rows["waiting cvar95 s"].estimate.n == 2
    assert rows["unfinished trips"].estimate.value > 0 and "collisions" in rows


@pytest.mark.slow
def test_every_copy_has_a_process_of_its_own():
    config = default_config("sumo-signals", "uncertain").replace(num_seconds=100)
    env = vector.make(config, 2)
    try:
        seen = env.reset(0)
        assert seen.obs.shape[:2] == (2, 1)
        for _ in range(20):
            step = env.step(np.zeros((2, 1), np.int64))
        assert step.episodes["copy"].tolist() == [0, 1] and len(set(step.episodes["trips"])) == 2
    finally:
        env.close()
