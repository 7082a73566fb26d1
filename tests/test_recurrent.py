"""Actors and critics with memory: what is remembered while acting, learning, evaluating, and going on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.ppo import Batch
from rqe_mappo.config import ConfigError, default_config
from rqe_mappo.data import vector
from rqe_mappo.data.trajectory import flat
from rqe_mappo.deploy.interpolation import interpolate
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation.episodes import chooser
from rqe_mappo.evaluation.evaluation import evaluate
from rqe_mappo.nets import ActionSpec, ActorSpec, PolicyActor
from rqe_mappo.nets.mlp import AgentNets
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests.small_tasks import small_config

AVERSE = dict(return_scale=1.0, warmup_fraction=0.0, risk_anneal_fraction=0.0)
KINDS = {
    "one actor": ("TOY", "rqe-mappo", {}),
    "an actor each": ("TOY", "rqe-mappo", {"shared_actor": False}),
    "groups of tau": ("TOY", "rqe-mappo", {"tau": (0.5, 1.0, 0.5), **AVERSE}),
    "lost simulations": ("LOSING", "rqe-mappo", {}),
    "normalised": ("TOY", "mappo", {"normalise_obs": True}),
    "critic with memory": ("TOY", "ippo", {}),
    "continuous": ("NUMBERS", "mappo", {"critic_input": "obs"}),
    "continuous, normalised, an actor each": ("NUMBERS", "ippo", {"shared_actor": False, "normalise_obs": True}),
}


def started(kind: str, folder: Path = Path("unused"), **changes) -> Run:
    """A recurrent run whose environment was reset."""
    env, algo, settings = KINDS[kind]
    config = small_config(env, algo, **{"recurrent": True} | settings | changes)
    env = vector.make(config, config.num_envs)
    run = Run.build(config, folder, env)
    run.collector.start(env.reset(config.seed))
    return run


def batch_of(chunk) -> Batch:
    return Batch.of(chunk, torch.zeros(chunk.active.shape), torch.zeros(*chunk.active.shape, 1))


def again(run: Run, chunk, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of a chunk's actions: what the actors now say, and what they said when they acted."""
    batch, before = batch_of(chunk), chunk.extras["log_prob"].flatten()
    now, drawn = torch.full_like(before, torch.nan), chunk.extras["drawn"].flatten(0, 2)
    for part in batch.minibatches(parts, torch.Generator().manual_seed(0)):
        where = batch.rows[part.rows]
        policy = run.algorithm.policy._policy(chunk, where, batch.agent[part.rows], part.sequences)
        now[where] = policy.log_prob(drawn[where]).detach()
    return now[batch.rows], before[batch.rows]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_learning_begins_with_the_probabilities_of_acting(kind):
    """In chunks of five steps of episodes of up to twelve: episodes begin within chunks, and go on after them."""
    run, differ, carried = started(kind), 0.0, False
    for update in range(6):
        chunk, _ = run.collector.collect()
        now, before = again(run, chunk)
        torch.testing.assert_close(now, before, atol=1e-6, rtol=0)
        carried |= bool((chunk.memory[~chunk.begins[0]] != 0).any())
        remembered, chunk.memory = chunk.memory, torch.zeros_like(chunk.memory)
        differ = max(differ, float((again(run, chunk)[0] - before).abs().max()))
        chunk.memory = remembered
        run.algorithm.learn(chunk, Progress(update, 100))
        assert float((again(run, chunk)[0] - before).abs().max()) > 1e-5  # it has learned
    assert carried and differ > 1e-4  # without the memory that was stored the numbers would be others


def test_any_part_of_the_rows_has_the_probabilities_of_the_whole():
    run = started("an actor each")
    chunk, _ = run.collector.collect()
    chunk, _ = run.collector.collect()
    for parts in (2, 5, 100):
        torch.testing.assert_close(again(run, chunk, parts)[0], again(run, chunk)[0], atol=1e-6, rtol=0)


def test_networks_of_agents_that_have_no_row_give_nothing():
    torch.manual_seed(0)
    for hidden in ((8,), ()):
        nets = AgentNets.build((4, *hidden, 2), 3, torch.nn.Tanh, 1.0, memory_size=5)
        inputs, memory = torch.randn(2, 4), torch.randn(2, 5)
        output, after = nets.step(inputs, torch.tensor([2, 2]), memory)
        alone, remembered = nets[2](inputs, memory)
        assert torch.equal(output, alone) and torch.equal(after, remembered)


@pytest.mark.parametrize("count", [1, 3])
def test_unrolling_is_stepping_where_agents_rest_and_episodes_begin(count):
    torch.manual_seed(0)
    nets = AgentNets.build((4, 8, 2), count, torch.nn.Tanh, 1.0, memory_size=5)
    inputs, memory, agent = torch.randn(9, 7, 4), torch.randn(7, 5), torch.arange(7) % 3
    begins, active = torch.rand(9, 7) < 0.2, torch.rand(9, 7) < 0.6
    outputs, memories = nets.unroll(inputs, agent, memory, begins, active)
    for t in range(9):
        memory = torch.where(begins[t, :, None], 0.0, memory)
        output, after = nets.step(inputs[t], agent, memory)
        memory = torch.where(active[t, :, None], after, memory)
        torch.testing.assert_close(outputs[t], output)
        torch.testing.assert_close(memories[t], memory)


def test_minibatches_are_whole_sequences_each_in_one_of_them():
    run = started("one actor", num_steps=16)
    run.collector.collect()
    chunk, _ = run.collector.collect()
    batch, generator = batch_of(chunk), torch.Generator().manual_seed(0)
    first, second = ([part.rows for part in batch.minibatches(5, generator)] for _ in range(2))
    assert sorted(torch.cat(first).tolist()) == list(range(len(batch.rows)))
    sequence = batch.rows % (chunk.active.shape[1] * chunk.active.shape[2])
    owners = [set(sequence[rows].tolist()) for rows in first]
    assert len(first) == 5 and sum(map(len, owners)) == len(set().union(*owners))
    assert [set(sequence[rows].tolist()) for rows in second] != owners  # shuffled anew
    few = [part.rows for part in batch.minibatches(100, generator)]
    assert len(few) == len(sequence.unique()) and all(len(rows) for rows in few)


def policy_of(run: Run) -> Policy:
    return Policy(run.policy_content())


@pytest.mark.parametrize("kind", ["one actor", "an actor each", "groups of tau", "continuous"])
def test_a_policy_remembers_what_the_collector_does(kind):
    """By arrays of all copies, and, copy by copy, by dicts of the agents that are there."""
    run = started(kind)
    policy, each = policy_of(run), [policy_of(run) for _ in range(run.env.num_envs)]
    agents = np.arange(3)
    for _ in range(4):
        chunk, _ = run.collector.collect()
        for obs, active, begins in zip(chunk.obs.numpy(), chunk.active.numpy(), chunk.begins.numpy(), strict=False):
            policy.begin(np.flatnonzero(begins), of=len(begins))
            policy.act(obs, np.broadcast_to(agents, active.shape), active=active)
            for copy, alone in enumerate(each):
                if begins[copy]:
                    alone.begin()
                there = {policy.agents[agent]: obs[copy, agent] for agent in agents if active[copy, agent]}
                assert set(alone.act(there)) == set(there)
        torch.testing.assert_close(policy.memory.actor, run.collector.memory, atol=1e-6, rtol=0)
        for copy, alone in enumerate(each):
            torch.testing.assert_close(alone.memory.actor, run.collector.memory[copy], atol=1e-6, rtol=0)
    assert (run.collector.memory != 0).any()


def test_evaluation_tells_a_policy_when_episodes_begin():
    run = started("one actor")
    policy, env = policy_of(run), run.env
    choose, memory = chooser(policy), torch.zeros(4, 3, 6)
    seen, begins = env.reset(5), np.ones(4, bool)
    actor, agents = run.algorithm.actor, torch.arange(3).expand(4, 3)
    for _ in range(40):
        obs, active = torch.from_numpy(seen.obs.copy()), torch.from_numpy(seen.active.copy())
        actions = choose(env, seen)
        memory[torch.from_numpy(begins)] = 0
        after = actor.act(obs, agents, memory, uniform=None).memory
        memory = torch.where(active[..., None], after, memory).detach()
        torch.testing.assert_close(policy.memory.actor, memory, atol=1e-6, rtol=0)
        seen = env.step(actions)
        begins = np.zeros(4, bool)
        begins[seen.episodes["copy"]] = True


def test_a_row_alone_remembers_as_rows_do():
    run = started("one actor")
    one, many = policy_of(run), policy_of(run)
    obs = np.random.default_rng(0).standard_normal((5, 2), np.float32)
    for row in obs:
        one.act(row, 1)
        many.act(row[None], [1])
    torch.testing.assert_close(one.memory.actor, many.memory.actor[0])
    assert one.probabilities(obs[0], 1).shape == (2,)
    one.begin()
    assert one.memory is None


def test_begin_forgets_in_the_copies_that_it_names_alone():
    policy = policy_of(started("one actor"))
    obs = np.random.default_rng(0).standard_normal((4, 3, 2), np.float32)
    for rows, agent in (
        (obs, np.broadcast_to(np.arange(3), (4, 3))),
        (obs[:, 0], 0),
    ):  # of copies and agents; of copies
        policy.begin()
        policy.act(rows, agent)
        known = policy.memory.actor.clone()
        policy.begin([], of=4)
        assert torch.equal(policy.memory.actor, known)
        policy.begin([1, 3], of=4)
        assert torch.equal(policy.memory.actor[[0, 2]], known[[0, 2]]) and (policy.memory.actor[[1, 3]] == 0).all()
        policy.begin(of=4)
        assert policy.memory is None
    policy.act({"agent_0": obs[0, 0], "agent_2": obs[0, 2]})
    known = policy.memory.actor.clone()
    assert (known[1] == 0).all() and (known[[0, 2]] != 0).any()
    policy.begin([], of=1)
    assert torch.equal(policy.memory.actor, known)


def test_probabilities_are_those_of_the_next_action_and_change_no_memory():
    policy = policy_of(started("one actor"))
    obs = np.random.default_rng(1).standard_normal((6, 3, 2), np.float32)
    agents = np.arange(3)
    for row in obs:
        before = policy.memory
        probs = policy.probabilities(row, agents)
        assert policy.memory is before
        assert np.array_equal(policy.act(row, agents, deterministic=True), probs.argmax(-1))
    fresh = policy_of(started("one actor"))
    assert not np.allclose(fresh.probabilities(obs[0], agents), policy.probabilities(obs[0], agents), atol=1e-7)


def by_hand(run: Run, chunks) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Values of a critic with memory before and after each step, one step after the other; 0 where nobody acted."""
    critic, found = run.algorithm.critic, []
    memory = torch.zeros(*chunks[0].active.shape[1:], critic.memory_size)
    for chunk in chunks:
        values, following = (torch.zeros(chunk.active.shape) for _ in range(2))
        finals = iter(chunk.final_obs)
        for t, e, a in np.ndindex(*chunk.active.shape):
            if chunk.begins[t, e] and a == 0:
                memory[e] = 0
            if not chunk.active[t, e, a]:
                continue
            agent = torch.tensor(a)
            output, after = critic.nets.step(critic.inputs(chunk.obs[t, e, a], agent), agent, memory[e, a])
            memory[e, a] = after
            values[t, e, a] = critic.norm.restore(output)[0]
            goes_on = next(finals) if chunk.truncated[t, e, a] else chunk.obs[t + 1, e, a]
            following[t, e, a] = critic(goes_on, agent, after)[0]
        found.append((values, following))
    return found


@torch.no_grad()
def test_a_critic_with_memory_values_what_follows_with_the_memory_after_the_step():
    run = started("critic with memory")
    run.algorithm.critic.norm.update(torch.randn(100, 1) * 3 + 2)
    truncated, chunks, predicted = 0, [], []
    for _ in range(8):
        chunk, _ = run.collector.collect()
        copied = {name: value.clone() for name, value in vars(chunk).items() if isinstance(value, torch.Tensor)}
        chunks.append(type(chunk)(**copied))
        predicted.append(run.algorithm.value.predict(chunk))
        truncated += int(chunk.truncated.sum())
    assert truncated > 10
    for chunk, found, (values, following) in zip(chunks, predicted, by_hand(run, chunks), strict=True):
        active, goes_on = chunk.active, chunk.active & ~chunk.terminated
        torch.testing.assert_close(found.value[..., 0][active], values[active], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.next_value[..., 0][goes_on], following[goes_on], atol=1e-5, rtol=0)


def test_a_critic_learns_from_what_it_predicted():
    """At the first epoch its predictions, from the memory that was stored, are those from which targets were made."""
    run = started("critic with memory")
    for _ in range(4):
        chunk, _ = run.collector.collect()
        batch, predicted, _ = run.algorithm.targets(chunk)
        old = flat(predicted.raw)[batch.rows]
        for part in batch.minibatches(3, run.generator):
            where, agent = batch.rows[part.rows], batch.agent[part.rows]
            now = run.algorithm.value._predicted(chunk, where, agent, part.sequences)
            torch.testing.assert_close(now, old[part.rows], atol=1e-5, rtol=0)
        for part in batch.minibatches(3, run.generator):
            run.algorithm.value.step(batch, old, part)


def test_values_of_a_policy_go_on_with_its_memory():
    run = started("critic with memory")
    policy, critic = policy_of(run), run.algorithm.critic
    obs = np.random.default_rng(2).standard_normal((5, 3, 2), np.float32)
    agents, memory = torch.arange(3), torch.zeros(3, 6)
    with torch.no_grad():
        for row in obs:
            expected, memory = critic.nets.step(critic.inputs(torch.from_numpy(row), agents), agents, memory)
            found = policy.value(row, agents.numpy())
            torch.testing.assert_close(found, critic.norm.restore(expected)[..., 0])
            policy.act(row, agents.numpy())
    policy.begin()
    fresh = policy.value(obs[-1], agents.numpy())
    assert not torch.allclose(fresh, found, atol=1e-6)


@pytest.mark.parametrize("algo", ["rqe-mappo", "mappo", "ippo"])
def test_running_statistics_are_those_of_all_rows_that_were_seen(algo, tmp_path):
    config = small_config("TOY", algo, recurrent=algo != "mappo", normalise_obs=True)
    env = vector.make(config, config.num_envs)
    run = Run.build(config, tmp_path, env)
    run.collector.start(env.reset(1))
    seen = []
    for update in range(5):
        chunk, _ = run.collector.collect()
        now, before = again(run, chunk)
        torch.testing.assert_close(now, before, atol=1e-6, rtol=0)
        seen.append(chunk.obs[:-1][chunk.active].double())
        run.algorithm.learn(chunk, Progress(update, 100))
    rows = torch.cat(seen)
    for net in (run.algorithm.actor, run.algorithm.critic):
        torch.testing.assert_close(net.normaliser.mean, rows.mean(0))
        torch.testing.assert_close(net.normaliser.variance, rows.var(0, correction=0))
        assert int(net.normaliser.count) == len(rows)
    run.save()
    policy = Policy.load(tmp_path)
    assert torch.equal(policy.actor.normaliser.mean, run.algorithm.actor.normaliser.mean)
    with torch.no_grad():
        found = policy.actor.normaliser(rows.float())
    torch.testing.assert_close(found.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)


def test_statistics_of_actors_that_settle_rest():
    """Else the policy would go on changing while the critic learns its returns."""
    run = started("normalised", settle=0.3)
    chunk, _ = run.collector.collect()
    run.algorithm.learn(chunk, Progress(0, 100))
    actor, critic = run.algorithm.actor.normaliser.mean.clone(), run.algorithm.critic.normaliser.mean.clone()
    chunk, _ = run.collector.collect()
    run.algorithm.learn(chunk, Progress(80, 100))
    assert torch.equal(run.algorithm.actor.normaliser.mean, actor)
    assert not torch.equal(run.algorithm.critic.normaliser.mean, critic)


class Killed(Exception):
    """In the middle of a run."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one actor", "critic with memory", "continuous, normalised, an actor each"])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_killed(kind, tmp_path):
    env, algo, settings = KINDS[kind]
    config = small_config(env, algo, recurrent=True, total_timesteps=500, save_interval=3, **settings)

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


@pytest.mark.parametrize("kind", ["probability", "episode", "logit"])
@pytest.mark.parametrize("both", [True, False])
def test_policies_of_a_mixture_remember_what_they_would_alone(kind, both):
    (first, second), alone = (
        [policy_of(started("one actor", seed=seed, recurrent=both or seed == 1)) for seed in (1, 2)] for _ in range(2)
    )
    mixture = interpolate(first, second, 0.3, kind)
    rng, agents = np.random.default_rng(0), np.broadcast_to(np.arange(3), (4, 3))
    for step in range(12):
        begins, active = np.flatnonzero(rng.random(4) < (1.0 if step == 0 else 0.2)), rng.random((4, 3)) < 0.8
        obs = rng.standard_normal((4, 3, 2), np.float32)
        for policy in (mixture, *alone):
            policy.begin(begins, of=4)
            policy.act(obs, agents, step % 3 == 2, active=active)
        for mixed, own in zip(mixture.policies, alone, strict=True):
            if own.actor.memory_size:
                torch.testing.assert_close(mixed.memory.actor, own.memory.actor)


@pytest.mark.parametrize("kind", ["probability", "episode", "logit"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_mixtures_at_their_ends_act_as_the_pure_policies(kind, alpha):
    first, second = (policy_of(started("one actor", seed=seed)) for seed in (1, 2))
    for policy in (first, second):
        with torch.no_grad():
            policy.actor.nets[0].output[-1].weight.mul_(200)  # so that actions tell the policies apart
    alone, other = (Policy(policy.content) for policy in ((second, first) if alpha == 0 else (first, second)))
    mixture = interpolate(first, second, alpha, kind)
    rng, agents = np.random.default_rng(0), np.broadcast_to(np.arange(3), (4, 3))
    differ = False
    for step in range(12):
        obs = rng.standard_normal((4, 3, 2), np.float32)
        begins = np.arange(4) if step % 5 == 0 else []
        for policy in (mixture, alone, other):
            policy.begin(begins, of=4)
        actions, due, not_due = (policy.act(obs, agents, step % 3 == 2) for policy in (mixture, alone, other))
        assert np.array_equal(actions, due)
        differ |= not np.array_equal(due, not_due)
    assert differ


def test_recurrent_runs_are_evaluated_from_their_folder(tmp_path):
    config = small_config("TOY", "ippo", recurrent=True, total_timesteps=200, out=str(tmp_path / "run"))
    policy = Policy.load(train(config))
    assert policy.actor.memory_size == 6 and policy.returns.memory_size == 6
    found = evaluate(policy, 20, 0)
    assert found.episodes == 20 and found.calibration is None


def test_memory_where_nobody_acts_is_refused():
    with pytest.raises(ConfigError, match="--no-active-masks needs actors without memory"):
        small_config("TOY", "mappo", recurrent=True, active_masks=False)


def test_units_begin_with_memories_of_many_lengths():
    torch.manual_seed(0)
    actor = PolicyActor(ActorSpec(obs_dim=1, n_agents=1, actions=ActionSpec("discrete", (2,)), hidden=(), memory=32))
    cell = actor.nets[0].cell
    kept = cell.bias_ih.chunk(3)[1].sigmoid()  # of the memory, a step, where weights say nothing
    assert (1 / (1 - kept)).min() < 2.1 and (1 / (1 - kept)).max() > 60


@pytest.mark.parametrize("recurrent", [True, False])
def test_a_cue_is_remembered_until_it_is_asked_for(recurrent, tmp_path):
    """Five steps later nothing that is seen depends on it: actors without memory earn 0.5, whatever they do."""
    env, size = "benchmarks.memory_and_control:recall_soon", {"num_envs": 32, "num_steps": 24, "gru_size": 16}
    config = default_config(env, algo="mappo").replace(
        recurrent=recurrent, **size, actor_hidden=(16,), critic_hidden=(16,), gamma=0.95, learning_rate=3e-3,
        critic_learning_rate=3e-3, num_minibatches=2, total_timesteps=20_000, eval_episodes=0, save_interval=1000,
        seed=1, out=str(tmp_path / "run"),
    )  # fmt: skip
    policy = Policy.load(train(config))
    found = evaluate(policy, 640, 0).records["return"].mean()
    assert found > 0.95 if recurrent else 0.4 < found < 0.6
