"""SRPO: what its losses are, what it gives back, and where it ends in games whose equilibria are known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rqe_mappo import checkpoint, registry
from rqe_mappo.algorithms.adversaries import copy_for_pairs
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.ppo import Batch, Minibatch
from rqe_mappo.baselines.srpo import Srpo
from rqe_mappo.config import ConfigError, TrainConfig, default_config
from rqe_mappo.data import vector
from rqe_mappo.data.trajectory import flat
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.functional import policy_gradient, returns
from rqe_mappo.nets import ActionSpec
from rqe_mappo.nets.distributions import Categorical, Gaussian
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests.small_tasks import small_config
from tests.test_training import interrupt_after

BEGIN = Progress(0, 100)


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    entry = registry.Environment("tests.toy:Toy", "tests.toy:SCENARIOS", "tests.toy:recipe")
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", entry)


def started(config: TrainConfig) -> Run:
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(config.seed))
    return run


def small(env: str = "TOY", **changes) -> Run:
    """A run of three agents, one of whom may leave before the others."""
    return started(small_config(env, "srpo", **{"num_envs": 6, "num_steps": 8, "strategic_tau": 0.7} | changes))


def apart(run: Run, by: float = 1.0) -> None:
    """Move the adversaries away from the partners that they begin as."""
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in run.algorithm.adversaries.actor.parameters():
            weights.add_(by * torch.randn_like(weights))


# --- divergences -------------------------------------------------------------------------------------------------


def test_kl_by_hand():
    half, third = torch.tensor([0.0, 0.0]), torch.tensor([0.0, math.log(2)])
    assert float(policy_gradient.kl(half, third)) == pytest.approx(0.5 * math.log(1.5) + 0.5 * math.log(0.75))
    masked = torch.tensor([policy_gradient.NO_ACTION])
    assert float(policy_gradient.kl(torch.cat((half, masked)), torch.cat((third, masked)))) == pytest.approx(
        0.5 * math.log(1.125), abs=1e-6
    )


@pytest.mark.parametrize("squash", ["tanh", "none"])
def test_kl_of_gaussians_is_the_mean_difference_of_log_densities(squash):
    spec = ActionSpec("box", (2,), low=(-1.0, -1.0), high=(1.0, 1.0), squash=squash)
    own = torch.tensor([True, False])
    one = Gaussian(spec, torch.tensor([0.3, 9.0]), torch.tensor([-0.2, 1.0]), own)
    other = Gaussian(spec, torch.tensor([-0.1, 0.0]), torch.tensor([0.1, 0.0]), own)
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    drawn = Gaussian(spec, one.mean.expand(20_000, 2), one.log_std.expand(20_000, 2), own).sample(
        uniform[:, None].expand(-1, 2)
    )
    sampled = (one.log_prob(drawn) - other.log_prob(drawn)).mean()
    assert_close(one.kl(other), sampled, rtol=1e-3, atol=1e-4)


def test_kl_of_several_choices_is_the_sum_of_theirs():
    spec, logits = ActionSpec("multi-discrete", (2, 3)), torch.randn(4, 5)
    parts = [
        Categorical(ActionSpec("discrete", (n,)), part)
        for n, part in zip((2, 3), logits.split((2, 3), -1), strict=True)
    ]
    zeros = [Categorical(part.spec, torch.zeros_like(part.logits)) for part in parts]
    whole = Categorical(spec, logits).kl(Categorical(spec, torch.zeros(4, 5)))
    assert_close(whole, sum(part.kl(zero) for part, zero in zip(parts, zeros, strict=True)))


# --- who plays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("env", ["TOY", "NUMBERS"])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("hidden", [(8,), ()])
def test_adversaries_begin_as_copies_of_the_partners(shared, env, recurrent, hidden):
    run = small(
        env, shared_actor=shared, recurrent=recurrent, actor_hidden=hidden, normalise_obs=True, eps=(0.1, 0.2, 0.1)
    )
    actor = run.algorithm.actor
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in actor.parameters():
            weights.add_(torch.randn_like(weights))
    copy, obs = copy_for_pairs(actor), torch.rand(9, 2)
    pair = torch.arange(9)
    mine, theirs = copy(obs, pair)[0], actor(obs, pair % 3)[0]
    assert_close(mine.kl(theirs), torch.zeros(9), atol=1e-6, rtol=0)
    assert_close(mine.mode(), theirs.mode())


@pytest.mark.parametrize(("shared", "recurrent"), [(True, False), (False, True)])
def test_each_agent_acts_by_itself_in_its_own_copies_and_by_adversaries_in_the_others(shared, recurrent):
    run = small(shared_actor=shared, recurrent=recurrent)
    apart(run)
    own = run.algorithm.adversaries.own
    assert own.tolist() == [[copy % 3 == agent for agent in range(3)] for copy in range(6)]
    for _ in range(3):  # memories of earlier trajectories count
        chunk, _ = run.collector.collect()
        assert torch.equal(chunk.action, chunk.extras["drawn"][..., 0])
        mine = run.algorithm.adversaries.own_part(chunk)
        _, theirs, _ = run.algorithm.adversaries.targets(chunk)
        whole = run.algorithm.agents.policy, run.algorithm.adversaries.policy
        nothing = torch.zeros_like(chunk.reward)
        for update, batch in zip(whole, (Batch.of(mine, nothing, nothing[..., None]), theirs), strict=True):
            (part,) = batch.minibatches(1, torch.Generator())
            where = batch.rows[part.rows]
            policy = update._policy(batch.chunk, where, batch.agent[part.rows], part.sequences)
            drawn, before = (flat(chunk.extras[name])[where] for name in ("drawn", "log_prob"))
            assert_close(policy.log_prob(drawn), before, atol=1e-5, rtol=0)
        assert len(theirs.rows)


def test_evaluation_and_saved_policies_use_the_agents_alone(tmp_path):
    folder = train(small_config("TOY", "srpo", num_envs=6, total_timesteps=300, out=str(tmp_path / "run")))
    policy = Policy.load(folder)
    modules = checkpoint.load_policy_file(folder)["modules"]
    assert set(modules) == {"actor", "critic", "adversary", "adversary_critic"}
    obs = np.full((5, 2), 0.5, np.float32)
    expected = policy.actor.logits(torch.tensor(obs), torch.ones(5, dtype=torch.int64)).argmax(-1)
    assert policy.act(obs, agent=1, deterministic=True).tolist() == expected.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("own", [{}, {"recurrent": True, "strategic_kl": 0.1}, {"tau": 1.0, "return_scale": 1.0}])
def test_a_resumed_run_ends_bitwise_equal_to_an_unbroken_one(tmp_path, own):
    def config(name):
        changes = {"num_envs": 6, "num_steps": 8, "total_timesteps": 700, "save_interval": 1, **own}
        return small_config("TOY", "srpo", **changes, out=str(tmp_path / name))

    whole, stopped = train(config("whole")), config("stopped")
    interrupt_after(stopped, updates=3)
    part = train(stopped, resume=Path(stopped.out))
    one, other = (checkpoint.load_policy_file(run)["modules"] for run in (whole, part))
    assert set(one) == {"actor", "critic", "adversary", "adversary_critic"}
    for name, weights in one.items():
        for key, value in weights.items():
            assert torch.equal(value, other[name][key]), (name, key)


# --- tied adversaries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["TOY", "NUMBERS"])
def test_with_an_infinite_tolerance_it_is_ippo(env):
    """Losses, gradients (as the first step of Adam shows them) and weights, update after update."""
    runs = [started(small_config(env, "srpo", strategic_tau=math.inf)), started(small_config(env, "ippo"))]
    for update in range(3):
        shown = [run.algorithm.learn(run.collector.collect()[0], Progress(update, 100)) for run in runs]
        assert shown[0].keys() == shown[1].keys()
        assert_close(*[torch.tensor(list(each.values())) for each in shown], atol=1e-6, rtol=1e-6, equal_nan=True)
        for one, other in zip(*[run.algorithm.actor.parameters() for run in runs], strict=True):
            assert_close(one, other, atol=1e-6, rtol=0)
            assert_close(one.grad, other.grad, atol=1e-6, rtol=0)


def test_an_adversary_tied_to_the_partners_leaves_ippos_loss_and_gradient():
    """A copy of the partners: what agents learn of their own rows is what IPPO learns of those."""
    run, ippo = small(norm_adv=False), started(small_config("TOY", "ippo", num_envs=6, num_steps=8, norm_adv=False))
    ippo.algorithm.actor.load_state_dict(run.algorithm.actor.state_dict())
    ippo.algorithm.critic.load_state_dict(run.algorithm.agents.critic.state_dict())
    chunk, plain = run.collector.collect()[0], ippo.collector.collect()[0]
    assert torch.equal(chunk.action[chunk.active], plain.action[plain.active])
    own = replace(plain, active=plain.active & run.algorithm.adversaries.own)
    found = []
    for algorithm, part in ((run.algorithm.agents, run.algorithm.adversaries.own_part(chunk)), (ippo.algorithm, own)):
        batch, _, _ = algorithm.targets(part)
        shown = algorithm.policy.step(batch, Minibatch(torch.arange(len(batch.rows))))
        found.append([shown["losses/policy_loss"], *[weights.grad for weights in algorithm.actor.parameters()]])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, atol=1e-6, rtol=0)


# --- what adversaries learn --------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["kl", "reverse-kl"])
@pytest.mark.parametrize("env", ["TOY", "NUMBERS"])
def test_gradient_of_an_adversary_is_that_of_its_objective(penalty, env):
    """`mean(ratio A(-r_i)) - tau D`, by finite differences of numbers that this test computes itself."""
    run = small(env, strategic_penalty=penalty, norm_adv=False, max_grad_norm=1e9, clip_coef=1e6)
    apart(run, 0.3)
    chunk, _ = run.collector.collect()
    adversaries = run.algorithm.adversaries
    paid, batch, _ = adversaries.targets(chunk)
    rows = batch.rows.tolist()
    agent, copy, step = [r % 3 for r in rows], [r // 3 % 6 for r in rows], [r // 18 for r in rows]
    pair = torch.tensor([e % 3 * 3 + a for e, a in zip(copy, agent, strict=True)])
    obs = chunk.obs[step, copy, agent]
    drawn, before = chunk.extras["drawn"][step, copy, agent], chunk.extras["log_prob"][step, copy, agent]
    values = adversaries.value.predict(paid.chunk)
    advantage = returns.gae(
        -chunk.reward, values.value[..., 0], values.next_value[..., 0], values.terminated, values.ended,
        run.config.gamma, run.config.algorithm.gae_lambda,
    )[step, copy, [e % 3 for e in copy]]  # fmt: skip
    partner = run.algorithm.actor(obs, torch.tensor(agent))[0]
    weights = list(adversaries.actor.parameters())

    @torch.no_grad()
    def objective():
        policy, _ = adversaries.actor(obs, pair)
        divergence = policy.kl(partner) if penalty == "kl" else partner.kl(policy)
        return float(((policy.log_prob(drawn) - before).exp().double() * advantage - 0.7 * divergence.double()).mean())

    start = [value.clone() for value in weights]
    adversaries.policy.step(batch, Minibatch(torch.arange(len(rows))))
    gradient = [value.grad.clone() for value in weights]
    torch.manual_seed(1)
    for _ in range(3):
        direction = [torch.randn_like(value) for value in weights]
        moved = []
        for size in (5e-3, -5e-3):
            with torch.no_grad():
                for value, old, by in zip(weights, start, direction, strict=True):
                    value.copy_(old + size * by)
            moved.append(objective())
        slope = -sum(float((g * by).sum()) for g, by in zip(gradient, direction, strict=True))
        assert (moved[0] - moved[1]) / 0.01 == pytest.approx(slope, rel=0.02, abs=2e-3)
    assert max(float(g.abs().max()) for g in gradient) > 0.02


def test_adversaries_are_paid_until_their_agents_end_and_not_beyond():
    run = small(num_envs=6, num_steps=12, gae_lambda=1.0, gamma=0.9)
    chunk, _ = run.collector.collect()
    paid, batch, _ = run.algorithm.adversaries.targets(chunk)
    counted = torch.zeros(chunk.active.numel(), dtype=torch.bool)
    counted[batch.rows] = True
    counted = counted.view(chunk.active.shape)
    advantage = torch.zeros(chunk.active.numel()).index_put((batch.rows,), batch.advantage).view(counted.shape)
    value = run.algorithm.adversaries.value.predict(paid.chunk).value[..., 0].detach()
    left_before = left_after = 0
    for e in range(6):
        victim = e % 3
        for j in set(range(3)) - {victim}:
            both = chunk.active[:, e, j] & chunk.active[:, e, victim]
            assert torch.equal(counted[:, e, j], both)
            left_after += int((chunk.active[:, e, j] & ~both).sum())
            left_before += int((chunk.active[:, e, victim] & ~both).sum())
            for t in both.nonzero()[:, 0].tolist():
                gained, weight = 0.0, 1.0
                for later in range(t, 12):
                    gained -= weight * float(chunk.reward[later, e, victim])
                    weight *= 0.9
                    if chunk.terminated[later, e, victim]:
                        weight = 0.0
                    if weight == 0 or chunk.truncated[later, e, victim]:
                        break
                if weight == 0:  # the agent's end was seen
                    assert float(advantage[t, e, j]) == pytest.approx(gained - float(value[t, e, victim]), abs=1e-4)
        assert not counted[:, e, victim].any()
    assert left_before and left_after


def test_three_agents_of_whom_some_leave_early_learn_and_stay_finite():
    run = small(tau=1.0, return_scale=1.0)
    before = [weights.clone() for weights in run.algorithm.adversaries.actor.parameters()]
    for update in range(4):
        chunk, _ = run.collector.collect()
        assert (chunk.active.any(2) & ~chunk.active.all(2)).any()
        shown = run.algorithm.learn(chunk, Progress(update, 100))
        for name in ("kl", "entropy", "value_loss", "policy_loss", "tau", "effective_tau"):
            assert math.isfinite(shown[f"adversary/{name}"])
    assert shown["critic/std"] > 0 and shown["risk/inverse_tau"] >= 0  # a distribution, by its risk
    assert any(
        not torch.equal(*pair) for pair in zip(before, run.algorithm.adversaries.actor.parameters(), strict=True)
    )


def test_the_weight_acts_beside_scaled_advantages_like_eps():
    run = small(norm_adv=True, strategic_tau=0.5)
    chunk, _ = run.collector.collect()
    _, batch, _ = run.algorithm.adversaries.targets(chunk)
    shown = run.algorithm.learn(chunk, BEGIN)
    assert shown["adversary/effective_tau"] == pytest.approx(0.5 * float(batch.advantage.std()), rel=1e-4)
    run = small(norm_adv=False, strategic_tau=0.5)
    assert run.algorithm.learn(run.collector.collect()[0], BEGIN)["adversary/effective_tau"] == 0.5


@pytest.mark.parametrize(("target", "way"), [(1e-6, 1), (100.0, -1)])
def test_tau_follows_its_target_of_the_divergence(target, way):
    """Up where adversaries diverge more than they should, down where less; without a target it stays."""
    run, fixed = small(strategic_kl=target), small()
    taus = []
    for update in range(4):
        for one in (run, fixed):
            apart(one, 0.1)
            shown = one.algorithm.learn(one.collector.collect()[0], Progress(update, 100))
        taus.append(run.algorithm.adversaries.policy.tau)
        assert shown["adversary/tau"] == 0.7
    assert all(way * (after - before) > 0 for before, after in zip([0.7, *taus], taus, strict=False))


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategic_tau": 0.0}, "--strategic-tau must be > 0"),
        ({"strategic_tau": -1.0}, "--strategic-tau must be > 0"),
        ({"strategic_tau": math.nan}, "--strategic-tau must be > 0"),
        ({"strategic_kl": 0.0}, "--strategic-kl must be > 0"),
        ({"strategic_kl": 0.1, "strategic_tau": math.inf}, "--strategic-tau must be finite with --strategic-kl"),
        ({"active_masks": False}, "--no-active-masks goes with --strategic-tau inf only"),
    ],
    ids=["zero", "negative", "nan", "no-divergence", "target-of-ippo", "masks"],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        small_config("TOY", "srpo", **changes)


def test_agents_need_copies_of_their_own():
    config = small_config("TOY", "srpo", num_envs=2)
    with pytest.raises(ConfigError, match="--num-envs must be at least 3"):
        config.algorithm.check_environment(vector.make(config, 2))


def test_one_agent_has_no_partners_and_is_told_so():
    config = default_config("gamble", algo="srpo")
    env = vector.make(config, 4)
    assert any("--strategic-tau changes nothing" in note for note in config.algorithm.notes(env))
    assert Srpo(config, env, torch.Generator()).adversaries is None
