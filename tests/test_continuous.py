"""Policies of continuous actions: from the environment to mixtures, files, and what they learn."""

import json
import math

import numpy as np
import pytest
import torch

from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import ConfigError
from rqe_mappo.data import vector
from rqe_mappo.deploy.interpolation import interpolate
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation.evaluation import evaluate
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests.small_tasks import small_config


def started(env: str = "NUMBERS", algo: str = "mappo", seed: int = 1, **changes) -> Run:
    config = small_config(env, algo, seed=seed, **changes)
    vector_env = vector.make(config, config.num_envs)
    run = Run.build(config, "unused", vector_env)
    run.collector.start(vector_env.reset(config.seed))
    return run


def policy_of(run: Run, gain: float = 100.0) -> Policy:
    """A policy whose means and stds are its own, so that actions tell policies apart."""
    policy = Policy(run.policy_content())
    torch.manual_seed(run.config.seed)
    with torch.no_grad():
        for net in policy.actor.nets:
            last = net.output[-1] if run.algorithm.actor.memory_size else net[-1]
            last.weight.mul_(gain)
        policy.actor.log_std.uniform_(-1, 0)
    return policy


@pytest.mark.parametrize("algo", ["mappo", "rqe-mappo", "ippo", "mean-variance"])
@pytest.mark.parametrize("squash", ["tanh", "clip"])
def test_learning_begins_with_the_densities_of_acting(algo, squash):
    run = started(algo=algo, squash=squash)
    for update in range(4):
        chunk, _ = run.collector.collect()
        assert chunk.action.dtype == torch.float32 and chunk.action.shape == (5, 4, 3, 2)
        assert (chunk.action[:, :, :2, 1] == 0).all()  # numbers that the agent lacks
        where = chunk.active.flatten().nonzero().squeeze(-1)
        policy = run.algorithm.policy._policy(chunk, where, where % 3, None)
        drawn, before = (chunk.extras[name].flatten(0, 2)[where] for name in ("drawn", "log_prob"))
        torch.testing.assert_close(policy.log_prob(drawn), before, atol=1e-6, rtol=0)
        scalars = run.algorithm.learn(chunk, Progress(update, 100))
        assert all(math.isfinite(scalars[name]) for name in ("losses/policy_loss", "policy/entropy"))


class Killed(Exception):
    """In the middle of a run."""


@pytest.mark.slow
@pytest.mark.parametrize("env", ["NUMBERS", "bandit"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_killed(env, tmp_path):
    config = small_config(env, "mappo", total_timesteps=500, save_interval=3, num_envs=4, num_steps=5, eps=0.02)

    def kill(step: int, scalars: dict[str, float]) -> None:
        if step > 300:
            raise Killed

    whole = train(config.replace(out=str(tmp_path / "whole")))
    with pytest.raises(Killed):
        train(config.replace(out=str(tmp_path / "killed")), on_update=kill)
    part = train(config.replace(out=str(tmp_path / "killed")), resume=tmp_path / "killed")
    one, other = Policy.load(whole), Policy.load(part)
    assert one.timesteps == other.timesteps >= 500
    for name, module in one.modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, other.modules[name].state_dict()[key]), (name, key)


def test_a_policy_gives_actions_of_the_space_by_array_by_name_and_alone():
    run = started()
    policy, space = policy_of(run), run.env.action_space
    obs = np.random.default_rng(0).standard_normal((7, 3, 2), np.float32)
    actions = policy.act(obs, np.arange(3))
    assert actions.dtype == np.float32 and actions.shape == (7, 3, 2)
    assert all(space.contains(action) for action in actions.reshape(-1, 2))
    named = policy.act({"agent_2": obs[0, 2], "agent_0": obs[0, 0]}, deterministic=True)
    means = policy.act(obs[0], np.arange(3), deterministic=True)
    assert np.array_equal(named["agent_0"], means[0]) and np.array_equal(named["agent_2"], means[2])
    assert policy.act(obs[0, 0], 0).shape == (2,)
    policy.seed(3)
    first = policy.act(obs, np.arange(3))
    policy.seed(3)
    assert np.array_equal(first, policy.act(obs, np.arange(3)))
    with pytest.raises(ValueError, match="continuous"):
        policy.probabilities(obs, np.arange(3))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["probability", "episode"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_mixtures_at_their_ends_act_as_the_pure_policies(alpha, kind, recurrent):
    safe, neutral = (policy_of(started(seed=seed, recurrent=recurrent)) for seed in (1, 2))
    pure = Policy((neutral if alpha == 0 else safe).content)
    mixture = interpolate(safe, neutral, alpha, kind)
    rng, agents = np.random.default_rng(0), np.broadcast_to(np.arange(3), (4, 3))
    for step in range(8):
        obs = rng.standard_normal((4, 3, 2), np.float32)
        for policy in (mixture, pure):
            policy.begin(np.arange(4) if step == 0 else [], of=4)
        assert np.array_equal(mixture.act(obs, agents, step % 2 == 1), pure.act(obs, agents, step % 2 == 1))


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["probability", "episode"])
def test_a_mixture_draws_which_policy_acts(kind, recurrent):
    """Every action is that of one of the policies, at the same uniform numbers; each acts as often as it weighs."""
    safe, neutral = (policy_of(started(seed=seed, recurrent=recurrent)) for seed in (1, 2))
    alone = [Policy(policy.content) for policy in (safe, neutral)]
    mixture = interpolate(safe, neutral, 0.3, kind)
    rng, agents, acted = np.random.default_rng(0), np.broadcast_to(np.arange(3), (100, 3)), []
    for step in range(12):
        begins = np.arange(100) if step % 3 == 0 else []
        obs = rng.standard_normal((100, 3, 2), np.float32)
        for policy in (mixture, *alone):
            policy.begin(begins, of=100)
            policy.seed(step) if policy is not mixture else policy.generator.manual_seed(step)
        actions, each = mixture.act(obs, agents), [policy.act(obs, agents) for policy in alone]
        is_safe, is_neutral = ((actions == one).all(-1) for one in each)
        assert (is_safe ^ is_neutral).all()
        acted.append(is_safe)
    acted = np.stack(acted)
    if kind == "episode":
        assert (acted == acted[:, :, :1]).all()  # one policy for all agents
        assert all((acted[first : first + 3] == acted[first]).all() for first in range(0, 12, 3))  # to the end
        assert 0.2 < acted[::3, :, 0].mean() < 0.4
        assert acted[0, :, 0].any() and not acted[0, :, 0].all()
    else:
        assert 0.27 < acted.mean() < 0.33
        assert not (acted == acted[:, :, :1]).all()


def test_what_a_mixture_of_continuous_actions_cannot_be_is_refused():
    safe, neutral = (policy_of(started(seed=seed)) for seed in (1, 2))
    with pytest.raises(ValueError, match=r"kind 'logit' needs actions with logits.*use probability"):
        interpolate(safe, neutral, 0.5, "logit")
    clipped = policy_of(started(squash="clip"))
    with pytest.raises(ValueError, match="actions differ"):
        interpolate(safe, clipped, 0.5)


def test_settings_that_continuous_actions_do_not_have_are_refused(tmp_path):
    for changes, words in (({"regulariser": "log-barrier"}, "log-barrier"),):
        with pytest.raises(ConfigError, match=words):
            train(small_config("bandit", "mappo", out=str(tmp_path / "run"), **changes))


@pytest.mark.slow
@pytest.mark.parametrize(("squash", "algo"), [("tanh", "mappo"), ("clip", "rqe-mappo")])
def test_the_best_action_of_a_bandit_is_learned(squash, algo, tmp_path):
    """Best are 0.5 and 1.5, by context; at first actions lie all over [-1, 3] and cost about 2."""
    config = small_config(
        "bandit", algo, squash=squash, total_timesteps=12_000, num_envs=64, num_steps=4, eps=0.0, learning_rate=1e-2,
        critic_learning_rate=1e-2, update_epochs=4, num_minibatches=2, out=str(tmp_path / "run"), save_interval=1000,
        gamma=0.9,
    )  # fmt: skip
    policy = Policy.load(train(config))
    means = policy.act(np.float32([[-1], [1]]), deterministic=True)[:, 0]
    np.testing.assert_allclose(means, [0.5, 1.5], atol=0.15)
    assert evaluate(policy, 640, 0).records["return"].mean() > -0.2


@pytest.mark.slow
def test_the_entropy_bonus_holds_the_std_where_the_reward_balances_it(tmp_path):
    """Of reward `-(a - b)^2` and eps times the entropy a Gaussian's best variance is eps / 2."""
    config = small_config(
        "bandit", "mappo", squash="none", total_timesteps=60_000, num_envs=128, num_steps=4, eps=0.32, norm_adv=False,
        learning_rate=1e-2, critic_learning_rate=1e-2, update_epochs=4, critic_epochs=4, num_minibatches=2,
        out=str(tmp_path / "run"), save_interval=1000, gamma=0.9,
    )  # fmt: skip
    policy = Policy.load(train(config))
    assert float(policy.actor.log_std.exp()) == pytest.approx(math.sqrt(0.32 / 2), rel=0.15)


def test_pretrained_folders_hold_unbounded_actions_too(tmp_path):
    pytest.importorskip("safetensors")
    policy = policy_of(started("unbounded", squash="none"))
    policy.save_pretrained(tmp_path / "folder")
    same = Policy.from_pretrained(tmp_path / "folder")
    assert same.spec == policy.spec and same.spec.actions.high == (math.inf,)
    json.loads((tmp_path / "folder" / "config.json").read_text(), parse_constant=pytest.fail)
    obs = np.ones((3, 1), np.float32)
    assert np.array_equal(same.act(obs), policy.act(obs))
