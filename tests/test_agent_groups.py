"""Risk that differs between agents, that looks at whole episodes, and critics that learn alone for a while."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rqe_mappo import command_line, registry
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.groups import agent_groups
from rqe_mappo.config import ConfigError, default_config, from_json, to_json
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.history import History
from rqe_mappo.functional import returns
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests import toy


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)


def prepared(config, steps=1):
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(config.seed))
    for _ in range(steps):
        chunk, _ = run.collector.collect()
    return run, chunk


def estimates(config, chunk, critic):
    """Advantages of an algorithm with `config` and the given critic, before they are scaled."""
    run = Run.build(config.replace(norm_adv=False, return_scale=1.0), Path("unused"), vector.make(config, 1))
    run.algorithm.critic.load_state_dict(critic.state_dict())
    run.algorithm.support.started = run.algorithm.support.fixed = True
    return run.algorithm.targets(chunk, run.algorithm.predict(chunk), run.algorithm.risk.measures(1.0))[0].advantage


def test_command_line_takes_one_value_or_one_an_agent():
    config, _ = command_line.train_config(["--env", "toy", "--tau", "0.3,1,inf", "--eps", "0.01,0.02,0.01"])
    assert config.algorithm.tau == (0.3, 1.0, float("inf")) and config.algorithm.eps == (0.01, 0.02, 0.01)
    assert command_line.train_config(["--env", "toy", "--tau", "0.3"])[0].algorithm.tau == 0.3
    assert from_json(to_json(config)) == config
    assert config.run_name == "toy__tau0.3,1,inf__eps0.01,0.02,0.01__s1"


def test_groups_are_the_different_pairs(tmp_path):
    groups = agent_groups((0.3, 1.0, 0.3), 0.1, 3)
    assert (groups.pairs, groups.of) == (((0.3, 0.1), (1.0, 0.1)), (0, 1, 0))
    assert groups.members == [[0, 2], [1]] and groups.indices == (0, 1, 0)
    same = agent_groups(1.0, 0.01, 3)
    assert (same.pairs, same.of, same.indices) == (((1.0, 0.01),), (0, 0, 0), ())
    with pytest.raises(ConfigError, match=r"--tau 0\.3,1,0\.3 names 3 agents where there are 4"):
        agent_groups((0.3, 1.0, 0.3), 0.1, 4)
    config = default_config("toy").replace(n_agents=4, tau=(0.3, 1.0, 0.3), out=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"names 3 agents where there are 4"):
        train(config)


def test_settings_that_a_file_does_not_know_have_their_default():
    text = to_json(default_config("toy")).replace('"settle": 0.0,', "")
    assert from_json(text) == default_config("toy")
    with pytest.raises(ConfigError, match="does not know: 'sette'"):
        from_json(to_json(default_config("toy")).replace('"settle"', '"sette"'))


def test_agents_with_equal_risk_given_one_by_one_have_the_advantages_of_risk_given_once():
    config = default_config("toy").replace(tau=0.4)
    run, chunk = prepared(config)
    assert_close(
        estimates(config.replace(tau=(0.4, 0.4, 0.4)), chunk, run.algorithm.critic),
        estimates(config, chunk, run.algorithm.critic),
    )


def test_each_agent_has_the_advantage_of_its_own_measure():
    config = default_config("toy")
    run, chunk = prepared(config)
    mixed = config.replace(tau=(0.2, 5.0, 0.2))
    found = estimates(mixed, chunk, run.algorithm.critic)
    agent = torch.arange(3).expand(chunk.active.shape)[chunk.active]
    for tau, agents in ((0.2, (0, 2)), (5.0, (1,))):
        alone = estimates(config.replace(tau=tau), chunk, run.algorithm.critic)
        rows = torch.isin(agent, torch.tensor(agents))
        assert_close(found[rows], alone[rows])
        assert (found[~rows] - alone[~rows]).abs().max() > 1e-3


def test_a_shared_actor_is_told_for_which_group_it_acts(tmp_path):
    config = default_config("toy").replace(tau=(0.2, 5.0, 0.2), out=str(tmp_path / "run"))
    policy = Policy.load(train(config))
    assert policy.spec.groups == (0, 1, 0)
    assert len(policy.measures) == 3 and policy.measure.tau == 0.2
    obs = np.zeros((3, 2), np.float32)
    probabilities = policy.probabilities(obs, np.arange(3))
    assert np.allclose(probabilities[0], probabilities[2]) and not np.allclose(probabilities[0], probabilities[1])
    state = np.full((3, 2), 0.5, np.float32)
    one_by_one = torch.stack([policy.value(state[i], i) for i in range(3)])
    assert_close(policy.value(state, np.arange(3)), one_by_one)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_history_keeps_what_was_gained_since_the_episode_began(gamma):
    plain, kept = toy.Toy(toy.ToyConfig(), 5), History(toy.Toy(toy.ToyConfig(), 5), gamma, shown=True)
    seen, bare = kept.reset(3), plain.reset(3)
    rng = np.random.default_rng(0)
    gained, weight, start = np.zeros((5, 3)), np.ones(5), seen.state.copy()
    extra = 2 if gamma < 1 else 1
    for _ in range(60):
        assert_close(kept.past, gained.astype(np.float32))
        assert_close(kept.discount, weight.astype(np.float32))
        assert np.array_equal(kept.start, start)
        assert (
            np.allclose(seen.obs[..., :2], bare.obs)
            and seen.obs.shape[-1] == kept.observation_space.shape[0] == 2 + extra
        )
        assert np.allclose(seen.state[..., 2], gained / 6 * seen.active, atol=1e-6)
        actions = rng.integers(0, 2, (5, 3))
        seen, bare = kept.step(actions), plain.step(actions)
        gained += weight[:, None] * bare.reward
        weight = weight * gamma
        assert seen.final_state.shape == (len(bare.final_state), 2 + extra)
        if len(bare.final_state):
            copy, agent = np.nonzero(bare.truncated)
            assert np.allclose(seen.final_state[:, 2], gained[copy, agent] / 6, atol=1e-6)
        ended = bare.episodes["copy"]
        gained[ended], weight[ended] = 0.0, 1.0
        start[ended] = seen.state[ended]


def test_history_resumes_exactly():
    config = default_config("gamble", "m4").replace(advantage="static")
    env, other = vector.make(config, 4), vector.make(config, 4)
    env.reset(1)
    env.step(np.ones((4, 1), int))
    other.reset(2)
    other.restore(env.snapshot())
    for name in ("past", "discount", "start"):
        assert np.array_equal(getattr(env, name), getattr(other, name))
    assert np.array_equal(env.step(np.ones((4, 1), int)).obs, other.step(np.ones((4, 1), int)).obs)


def test_static_risk_of_the_neutral_measure_is_the_gae_of_means():
    """With psi_0 linear, H_t is the mean of the episode's return, and its GAE is GAE(lambda) times gamma^t."""
    config = default_config("toy").replace(
        risk="neutral", advantage="static", gamma=0.9, n_atoms=301, gae_lambda=0.8,
        time_limit="bootstrap",
    )  # fmt: skip
    run, chunk = prepared(config)
    atoms = run.algorithm.critic.atoms
    mean = run.algorithm.critic(chunk.state, chunk.agent).softmax(-1) @ atoms
    mean, following = mean[:-1], mean[1:].clone()
    where = chunk.truncated.nonzero()
    following[chunk.truncated] = run.algorithm.critic(chunk.final_state, where[:, 2]).softmax(-1) @ atoms
    ended = chunk.terminated | chunk.truncated
    gae = returns.gae(chunk.reward, mean, following, chunk.terminated, ended, 0.9, 0.8)
    static = torch.zeros_like(gae)
    static[chunk.active] = estimates(config, chunk, run.algorithm.critic)
    expected = gae * chunk.past.discount[..., None]
    assert_close(static[chunk.active].detach(), expected[chunk.active].detach(), atol=5e-3, rtol=0)


def test_discounted_tau_is_tau_over_gamma_to_the_t():
    config = default_config("toy").replace(gamma=0.5, tau=0.4, discount_tau=True, time_limit="bootstrap")
    run, chunk = prepared(config)
    found = estimates(config, chunk, run.algorithm.critic)
    discount = chunk.past.discount[..., None].expand(chunk.active.shape)[chunk.active]
    for t in (0, 1, 3):
        at = discount == 0.5**t
        assert at.any()
        alone = estimates(config.replace(tau=0.4 / 0.5**t, discount_tau=False), chunk, run.algorithm.critic)
        assert_close(found[at], alone[at])


@pytest.mark.parametrize(("critic_first", "settle", "moves"), [(0.4, 0.0, "actor late"), (0.0, 0.4, "actor early")])
def test_actors_rest_while_the_critic_learns_alone(critic_first, settle, moves):
    config = default_config("toy").replace(critic_first=critic_first, settle=settle, return_scale=1.0)
    run, chunk = prepared(config)
    algorithm, total = run.algorithm, config.total_timesteps

    def moved(step):
        before = {name: [p.clone() for p in net.parameters()] for name, net in algorithm.modules.items()}
        algorithm.learn(chunk, Progress(step, total))
        return {
            name: any(not torch.equal(p, q) for p, q in zip(algorithm.modules[name].parameters(), old, strict=True))
            for name, old in before.items()
        }

    early, late = moved(total // 10), moved(9 * total // 10)
    assert early["critic"] and late["critic"]
    assert (early["actor"], late["actor"]) == ((False, True) if moves == "actor late" else (True, False))


def test_the_final_policy_has_the_mean_weights_of_the_last_updates():
    run, chunk = prepared(default_config("toy").replace(settle=0.2, average=0.3, return_scale=1.0))

    def after(share):
        """The actors' weights after an update at a share of the time before they rest, 0.8 of the run."""
        run.algorithm.learn(chunk, Progress(round(800 * share), 1000))
        return [parameter.detach().clone() for parameter in run.algorithm.actor.parameters()]

    after(0.95)  # of a run that was to be shorter
    after(0.69)  # the mean looks at the actors from 0.7 on
    looked_at = [after(share) for share in (0.71, 0.8, 0.99)]
    mean = [sum(moments) / 3 for moments in zip(*looked_at, strict=True)]
    for share in (1.0, 1.1):
        for found, wanted in zip(after(share), mean, strict=True):
            torch.testing.assert_close(found, wanted)


def test_step_sizes_fall_over_the_time_in_which_actors_act():
    run, chunk = prepared(default_config("toy").replace(settle=0.2, return_scale=1.0))
    algorithm, rates = run.algorithm, []
    for step in (0, 400, 792, 800, 900):  # shares of the time before the actors rest: 0, 0.5, 0.99, 1 and 1.125
        algorithm.learn(chunk, Progress(step, 1000))
        rates.append([each.learning_rate for each in (algorithm.policy.optimiser, algorithm.critic_optimiser)])
    critic = [rate[1] / 2e-3 for rate in rates]
    assert critic == pytest.approx([1.0, 0.5, 0.05, 1.0, 0.5])
    assert [rate[0] / 1e-3 for rate in rates[:3]] == pytest.approx([1.0, 0.5, 0.05])


@pytest.mark.parametrize(("measured_at", "words"), [(None, "stayed risk-neutral"), (0.8, "at 50%"), (0.2, "")])
def test_a_schedule_that_comes_short_says_so(measured_at, words):
    settings = default_config("cartpole").replace(risk_anneal_fraction=0.4).algorithm
    schedule = settings.schedule(agent_groups(0.3, 0.01, 1))
    assert "stayed risk-neutral" in schedule.shortfall
    if measured_at is not None:
        schedule.return_scale, schedule.started = 10.0, measured_at
    assert words in schedule.shortfall and bool(words) == bool(schedule.shortfall)


def test_one_row_of_a_rollout_leaves_the_actors_finite():
    config = default_config("cartpole").replace(num_envs=2, num_steps=4)
    env = vector.make(config, 2)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(0))
    chunk, _ = run.collector.collect()
    chunk.active[:] = False
    chunk.active[1, 0, 0] = True
    run.algorithm.learn(chunk, Progress(0, 100))
    assert all(bool(weights.isfinite().all()) for weights in run.algorithm.actor.parameters())
