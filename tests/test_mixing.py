"""Mixers: whose greatest value agents find alone, what they can represent, and targets by hand."""

import contextlib
import itertools

import pytest
import torch

from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.data.replay import team_state_size
from rqe_mappo.functional import mixing, q_learning
from rqe_mappo.nets.distributions import ActionSpec
from rqe_mappo.nets.joint_utilities import JointUtilities
from rqe_mappo.nets.mixers import DuplexMixer, MonotonicMixer
from rqe_mappo.nets.utilities import UtilitySpec
from rqe_mappo.training.run import Run

AGENTS, ACTIONS, STATE = 3, 4, 5


def every() -> torch.Tensor:
    """All joint actions, `[joint, A]`."""
    return torch.tensor(list(itertools.product(range(ACTIONS), repeat=AGENTS)))


def utilities_and_states(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, AGENTS, ACTIONS, generator=generator) * 3,
        torch.randn(count, STATE, generator=generator),
    )


@pytest.mark.parametrize("method", ["vdn", "qmix", "qplex"])
def test_the_best_joint_action_is_the_agents_best_actions(method):
    """Individual-global-max, by enumeration: 0 violations on 1000 random states and 10 random networks."""
    values, states = utilities_and_states(1000)
    violated = 0
    for seed in range(10):
        torch.manual_seed(seed)
        part, state = values[seed::10], states[seed::10]
        joint = every()
        chosen = part[:, None].expand(-1, len(joint), -1, -1).gather(-1, joint.expand(len(part), -1, -1)[..., None])
        chosen, seen = chosen.squeeze(-1), state[:, None].expand(-1, len(joint), -1)
        with torch.no_grad():
            if method == "vdn":
                total = chosen.sum(-1)
            elif method == "qmix":
                total = MonotonicMixer(STATE, AGENTS, 8, 16)(chosen, seen)
            else:
                best = part.amax(-1)[:, None].expand_as(chosen)
                there = torch.ones_like(chosen, dtype=torch.bool)
                mixer = DuplexMixer(STATE, AGENTS, ACTIONS, 16, 4, 2)
                total = mixer(chosen, best, seen, joint.expand(len(part), -1, -1), there)
        greedy = (part.argmax(-1) * ACTIONS ** torch.arange(AGENTS - 1, -1, -1)).sum(-1)
        at_greedy = total.gather(-1, greedy[:, None]).squeeze(-1)
        violated += int((total.amax(-1) > at_greedy + 1e-4).sum())
    assert violated == 0


@pytest.mark.parametrize("method", ["vdn", "qmix", "qplex"])
def test_the_best_joint_action_is_the_agents_best_actions_after_training(method, tmp_path):
    """The same on networks that learned the two-step game, for 1000 observations and states."""
    few = {"num_envs": 8, "batch_episodes": 8, "exploration": 1.0, "replay_ratio": 2.0, "out": str(tmp_path)}
    config = default_config("step-games", "two-step", method).replace(**few)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, tmp_path, env)
        run.collector.start(env.reset(0))
        for _ in range(25):
            run.algorithm.learn(run.collector.collect(1.0)[0], Progress(0, 1))
    assert run.algorithm.steps > 30
    agents, actions = len(env.possible_agents), env.action_space.n
    generator = torch.Generator().manual_seed(0)
    obs = torch.rand(1000, agents, env.observation_space.shape[0], generator=generator)
    state = torch.rand(1000, team_state_size(env), generator=generator)
    joint = torch.tensor(list(itertools.product(range(actions), repeat=agents)))
    with torch.no_grad():
        values, _ = run.algorithm.actor.values(obs, torch.arange(agents).expand(1000, -1))
        totals = []
        for action in joint.expand(1000, -1, -1).unbind(1):
            chosen = q_learning.of_actions(values, action)
            if method == "vdn":
                totals.append(chosen.sum(-1))
            elif method == "qmix":
                totals.append(run.algorithm.mixer(chosen, state))
            else:
                there = torch.ones_like(chosen, dtype=torch.bool)
                totals.append(run.algorithm.mixer(chosen, values.amax(-1), state, action, there))
        total = torch.stack(totals, -1)
    greedy = (values.argmax(-1) * actions ** torch.arange(agents - 1, -1, -1)).sum(-1)
    assert (total.gather(-1, greedy[:, None]).squeeze(-1) >= total.amax(-1) - 1e-5).all()


def test_a_utility_that_rises_never_lowers_qmix_by_finite_differences():
    values, states = utilities_and_states(1000)
    mixer, chosen = MonotonicMixer(STATE, AGENTS, 8, 16), values[..., 0]
    with torch.no_grad():
        before = mixer(chosen, states)
        for agent in range(AGENTS):
            raised = chosen.clone()
            raised[:, agent] += 0.1
            assert (mixer(raised, states) >= before - 1e-5).all()


def test_qmix_rises_the_faster_the_higher_the_others_are():
    values, states = utilities_and_states(1000)
    low = values[..., 0]
    for seed, scale in ((0, 1), (1, 10)):
        torch.manual_seed(seed)
        mixer = MonotonicMixer(STATE, AGENTS, 8, 16).double()
        first, second = torch.zeros(2, AGENTS, dtype=torch.float64)
        first[0], second[1] = scale, 0.3 * scale
        with torch.no_grad():
            f = [mixer(low + raised, states.double()) for raised in (first + second, 0 * first, first, second)]
        assert (f[0] + f[1] - f[2] - f[3]).min() >= -1e-9
        assert (f[0] + f[1] - f[2] - f[3]).max() > 1e-3


def test_qplex_can_be_any_table_with_one_greatest_entry():
    """For 100 random tables, utilities and importances above 0 are constructed that reproduce them to 1e-6."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        table = torch.rand(ACTIONS, ACTIONS, generator=generator, dtype=torch.float64) * 2 - 1
        best = divmod(int(table.argmax()), ACTIONS)
        utilities = torch.zeros(2, ACTIONS, dtype=torch.float64) - 1
        for agent, action in enumerate(best):
            utilities[agent, action] = 0
        utilities += table.max() / 2
        for row, column in itertools.product(range(ACTIONS), repeat=2):
            chosen = torch.stack((utilities[0, row], utilities[1, column]))
            greatest = utilities.amax(-1)
            worse = int((chosen < greatest).sum())
            gap = table.max() - table[row, column]
            importance = torch.full((2,), float(gap / worse) if worse else 1.0, dtype=torch.float64)
            assert (importance > 0).all()
            assert abs(float(mixing.duplex(chosen, greatest, importance) - table[row, column])) < 1e-6


def test_qplex_trains_utilities_through_their_sum_alone():
    chosen = torch.tensor([1.0, 2.0], requires_grad=True)
    mixing.duplex(chosen, torch.tensor([3.0, 3.0]), torch.tensor([0.5, 7.0])).backward()
    assert chosen.grad is not None
    assert chosen.grad.tolist() == [1, 1]


def test_lambda_returns_of_an_episode_by_hand():
    """Three steps, the second of which ends an episode at a time limit, and the third a return."""
    reward, value = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 30.0])
    terminated, ended = torch.tensor([False, False, True]), torch.tensor([False, True, True])
    found = q_learning.lambda_returns(reward, value, terminated, ended, 0.5, 0.25)
    second = 2 + 0.5 * 20
    assert found.tolist() == [1 + 0.5 * (0.75 * 10 + 0.25 * second), second, 4]


def test_lambda_returns_of_a_batch_are_those_of_each_row():
    torch.manual_seed(0)
    reward, value = torch.randn(2, 7, 5)
    ended = torch.rand(7, 5) < 0.3
    terminated = ended & (torch.rand(7, 5) < 0.5)
    whole = q_learning.lambda_returns(reward, value, terminated, ended, 0.9, 0.6)
    for row in range(5):
        given = (part[:, row] for part in (reward, value, terminated, ended))
        assert torch.equal(q_learning.lambda_returns(*given, 0.9, 0.6), whole[:, row])


def test_agents_play_parts_of_one_joint_action_where_several_are_equally_good():
    spec = UtilitySpec(obs_dim=1, n_agents=2, hidden=(), actions=ActionSpec("discrete", (2,), (0,)))
    joint, agent = torch.tensor([[0.0, 1, 1, 0], [-5, -7, -9, -5], [1e3, 1e3, 1e3, 1e3]]), torch.tensor([0, 1])
    utilities = JointUtilities(spec).parts(joint[:, None].expand(-1, 2, -1), agent.expand(3, 2))
    assert utilities.argmax(-1).tolist() == [[0, 1], [0, 0], [0, 0]]
    torch.testing.assert_close(utilities.amax(-1), joint.amax(-1, keepdim=True).expand(3, 2))


def test_exploration_takes_each_action_that_is_there_as_often():
    torch.manual_seed(0)
    avail = torch.tensor([True, False, True, True]).expand(30_000, -1)
    greedy = torch.zeros(30_000, dtype=torch.int64)
    found = q_learning.explored(greedy, torch.rand(30_000, 2), avail, 0.6)
    shares = torch.bincount(found, minlength=4) / len(found)
    assert torch.allclose(shares, torch.tensor([0.6, 0.0, 0.2, 0.2]), atol=0.015)


@pytest.mark.parametrize("missing", [-float("inf"), q_learning.masked(torch.ones(1), torch.tensor([False])).item()])
def test_joint_actions_that_are_not_there_hide_no_violation(missing):
    worth = torch.tensor([[0.0, 5.0, missing, 3.0], [5.0, 0.0, missing, 5.0], [2.0, missing, missing, missing]])
    greedy = torch.tensor([0, 3, 0])
    assert mixing.rigm_violations(worth, greedy).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="not a number"):
        mixing.rigm_violations(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]))
