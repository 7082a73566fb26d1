"""`--advantage nested` learns V(s) = rho(r + gamma V(s')), and the right side of choices, at every lambda."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rqe_mappo import checkpoint, registry
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import default_config
from rqe_mappo.data import vector
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.envs.gambles import SCENARIOS, gamble_game
from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk import CVaR, Entropic, Expectile, Neutral
from rqe_mappo.training.loop import Interrupted, train
from rqe_mappo.training.run import Run
from tests import nested_examples as examples
from tests import toy
from tests.nested_examples import GAMBLE, SURE
from tests.risk_examples import named, random_logits

GAMMAS = (0.5, 1.0)
UNIFORM = [np.full((7, 2), 0.5)]
MEASURES = [("neutral", 1.0), ("entropic", 3.0), ("expectile:0.2", 1.0), ("cvar:0.6", 1.0)]
ELICITED = [Neutral(), Entropic(0.8), Entropic(0.8, None), Expectile(0.2), Expectile(0.7), CVaR(0.3), CVaR(1.0)]


def test_exact_nested_values_by_hand():
    """Two coins, each worth its expectile at 1/4: 3/4 of the worse and 1/4 of the better."""
    game = examples.two_coins()
    value = examples.nested(game, examples.always(game, GAMBLE), "expectile:0.25", 1, 0.5)
    tails, heads = -6 + 8 / 4, 2 + 4 / 4
    first = 0.5 * (tails + (heads - tails) / 4)
    assert value == pytest.approx([0.5 * first, 0, first, tails, heads, 0])


def test_a_late_gamble_is_worth_its_own_value_discounted():
    """The entropic value of a late lottery at tau, not at tau / gamma^3 as in the value of the whole return."""
    game = gamble_game(SCENARIOS["m6"])
    policy = examples.always(game, GAMBLE)
    value, static = (f(game, policy, "entropic", 5.0, 0.5) for f in (examples.nested, examples.static))
    rho = -5 * np.log((np.exp(-4 / 5) + np.exp(2 / 5)) / 2)
    assert value[0] == pytest.approx(rho / 8) and value[0] == pytest.approx(0.019, abs=5e-4)
    assert static > 0.0625 > value[0]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize(("risk", "tau"), MEASURES)
def test_nested_and_static_values_agree_only_where_theory_says(risk, tau, gamma):
    game = examples.two_coins()
    policy = examples.always(game, GAMBLE)
    value, static = examples.nested(game, policy, risk, tau, gamma)[0], examples.static(game, policy, risk, tau, gamma)
    agree = risk == "neutral" or (risk == "entropic" and gamma == 1)
    assert (abs(value - static) < 1e-9) == agree and value <= static + 1e-9


@pytest.mark.parametrize("measure", ELICITED, ids=named)
def test_identification_is_zero_at_the_value_on_average_and_rises_with_the_outcome(measure):
    atoms = torch.linspace(-3, 5, 41, dtype=torch.float64)
    log_probs = (3 * random_logits(50, 41)).log_softmax(-1)
    values = [measure.zero_utility_value(atoms, log_probs)]
    if isinstance(measure, CVaR):
        values.append(categorical.quantile(atoms, log_probs.exp(), min(measure.level, 0.999)))
    says = measure.identification(atoms.expand(50, -1), torch.stack(values, -1)[:, None].expand(-1, 41, -1))
    average = (log_probs.exp()[..., None] * says).sum(1)
    assert average[:, 0].abs().max() < 1e-6
    assert (says[..., 0].diff() >= -1e-12).all()
    lower = torch.stack(values, -1)[:, None].expand(-1, 41, -1) - torch.tensor([0.1] + [0.0] * (len(values) - 1))
    assert ((log_probs.exp() * measure.identification(atoms.expand(50, -1), lower)[..., 0]).sum(1) > 0).all()


def test_cvar_is_found_by_descending_its_identification():
    """From a wrong start, with the steps that training takes, to rho and the quantile of a normal sample."""
    outcomes = torch.randn(1_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    worst = outcomes.sort().values[:200]
    values = torch.tensor([1.0, 1.0], dtype=torch.float64)
    for _ in range(200):
        values = values + 0.5 * CVaR(0.2).identification(outcomes, values.expand(len(outcomes), 2)).mean(0)
    assert values.tolist() == pytest.approx([float(worst.mean()), float(worst[-1])], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "lam"), [(0.5, 0.95), (1.0, 0.0)])
@pytest.mark.parametrize(("risk", "tau"), MEASURES)
def test_the_learned_value_is_the_exact_one(risk, tau, gamma, lam):
    """Of a policy that does not change, within what a batch of samples leaves open (payoffs span 12)."""
    game = examples.two_coins()
    run = examples.learned(game, risk, tau, gamma, lam, act=False)
    exact = examples.nested(game, UNIFORM, risk, tau, gamma)
    assert np.abs(examples.learned_values(run, game) - exact).max() < 0.35


@pytest.mark.slow
@pytest.mark.parametrize(("risk", "tau", "gamma"), [(*MEASURES[1], 1.0), (*MEASURES[2], 0.5), (*MEASURES[3], 1.0)])
def test_training_ends_on_the_side_of_the_exact_nested_value(risk, tau, gamma):
    """With a sure reward between the nested and the static value, where they differ; else on either side of both.

    At lambda 0, where the value of the whole return misleads.
    """
    free = examples.two_coins()
    policy = examples.always(free, GAMBLE)
    worth, static = examples.nested(free, policy, risk, tau, gamma)[0], examples.static(free, policy, risk, tau, gamma)
    gap = max(static - worth, 0.8 * gamma**2)
    for sure, side in ((worth + gap / 2, SURE), (worth - gap / 2, GAMBLE)):
        game = examples.two_coins(sure / gamma**2)
        probability = examples.probability_of_gambling(examples.learned(game, risk, tau, gamma, lam=0.0), game)
        assert probability < 0.1 if side == SURE else probability > 0.9, (sure, probability)


@pytest.fixture
def toy_environment(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)


def seen(settings):
    """A run on the toy environment with one trajectory, and premiums that are not zero."""
    run = Run.build(settings, Path(), vector.make(settings, settings.num_envs))
    run.collector.start(run.env.reset(0))
    chunk, _ = run.collector.collect()
    with torch.no_grad():
        for weights in run.algorithm.nested.premium.parameters():
            weights.add_(0.3 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
    return run.algorithm, chunk


def nested_config(**settings):
    return default_config("toy").replace(advantage="nested", return_scale=2.0, warmup_fraction=0.0, **settings)


@pytest.mark.parametrize("time_limit", ["bootstrap", "terminal"])
def test_outcomes_reach_one_step_ahead_within_the_episode(toy_environment, time_limit):
    """`r + gamma V(s')`, V(s') of the true next state: 0 after an end, of the final state where time ran out."""
    config = nested_config(gamma=0.9, time_limit=time_limit)
    algorithm, chunk = seen(config)
    critic, premium = algorithm.critic, algorithm.nested.premium

    def value(state, agent):
        return critic.mean(state, agent) - 2.0 * premium(state, agent)[..., 0]

    algorithm.targets(chunk, algorithm.predict(chunk), algorithm.risk.measures(1.0))
    found = algorithm.nested.one_step(chunk, algorithm.known, 2.0)
    following = value(chunk.state[1:], chunk.agent[1:])
    following[chunk.truncated] = value(chunk.final_state, chunk.truncated.nonzero()[:, 2])
    following = following.clamp(*algorithm.support.bounds)  # no value lies beyond all returns
    ended = chunk.terminated | chunk.truncated if time_limit == "terminal" else chunk.terminated
    assert chunk.truncated.any() and chunk.terminated.any()
    assert_close(found.outcome, chunk.reward + 0.9 * following * ~ended)
    assert_close(found.values[..., 0], value(chunk.state[:-1], chunk.agent[:-1]))


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 100.0), (1.0, -100.0), (1e3, 0.0), (1e-3, 0.0)])
def test_premiums_learn_the_same_from_returns_far_from_zero_large_or_small(toy_environment, factor, shift):
    """If the critic's means are moved or scaled with the returns, in reward units."""

    def learned(factor, shift):
        algorithm, chunk = seen(nested_config(gamma=0.9, tau=0.7))
        nested = algorithm.nested
        measure = Entropic(0.7 * 2.0 * factor)
        mean, next_mean = torch.rand(2, *chunk.reward.shape, generator=torch.Generator().manual_seed(2))
        terminated = chunk.terminated | chunk.truncated
        reward = factor * chunk.reward + shift * (1 - 0.9 * ~terminated)  # moves every return by the shift
        known = nested.know(
            replace(chunk, reward=reward), factor * mean + shift, factor * next_mean + shift,
            terminated, (torch.zeros(0, dtype=torch.int64),), factor * torch.tensor([-9.0, 9.0]) + shift,
            [measure], 2.0 * factor,
        )  # fmt: skip
        batch, _ = algorithm.targets(chunk, algorithm.predict(chunk), [measure])
        for _ in range(20):
            nested.step(batch, known, torch.arange(len(batch.rows)))
        return nested.premium(chunk.state, chunk.agent)

    assert_close(learned(factor, shift), learned(1.0, 0.0), atol=2e-3, rtol=0)


def test_each_agent_learns_by_its_own_measure(toy_environment):
    """Of two agents with one tau each, either learns as if all had it."""

    def learned(tau):
        algorithm, chunk = seen(nested_config(tau=tau))
        batch, _ = algorithm.targets(chunk, algorithm.predict(chunk), algorithm.risk.measures(1.0))
        with torch.no_grad():
            nested, known = algorithm.nested, algorithm.known
            values = torch.zeros(len(batch.rows), 1)
            outcome = torch.linspace(-1, 1, len(batch.rows))
            return nested._identification(known.measures, outcome, values, batch.agent), batch.agent

    (mixed, agent), (low, _), (high, _) = learned((0.3, 0.3, 2.0)), learned(0.3), learned(2.0)
    assert_close(mixed, torch.where((agent == 2)[:, None], high, low))


def test_without_risk_nothing_is_learned_beside_the_critic(toy_environment):
    """Where no agent is averse, nested is GAE of the mean."""
    for settings in ({"risk": "neutral"}, {"tau": float("inf")}):
        config = nested_config(**settings)
        run = Run.build(config, Path(), vector.make(config, config.num_envs))
        assert set(run.algorithm.modules) == {"actor", "critic"}


@pytest.mark.slow
@pytest.mark.parametrize("risk", ["entropic", "cvar:0.3"])
def test_the_nested_value_is_saved_and_resumed_bitwise(toy_environment, tmp_path, risk, monkeypatch):
    whole = nested_config(risk=risk, normalise_obs=True).replace(
        total_timesteps=1000, save_interval=1, keep=9, out=str(tmp_path / "whole")
    )
    unbroken = checkpoint.load_policy_file(train(whole))["modules"]
    assert any(weights.abs().max() > 1e-3 for name, weights in unbroken["premium"].items() if "nets" in name)
    stopped = whole.replace(out=str(tmp_path / "stopped"))
    algorithm, calls = registry.algorithm(whole.algo), []
    learn = algorithm.learn

    def breaks(self, *args):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return learn(self, *args)

    with monkeypatch.context() as patch, pytest.raises((Interrupted, KeyboardInterrupt)):
        patch.setattr(algorithm, "learn", breaks)
        train(stopped)
    resumed = checkpoint.load_policy_file(train(stopped, resume=tmp_path / "stopped"))["modules"]
    assert unbroken.keys() == resumed.keys() == {"actor", "critic", "premium"}
    for module, weights in unbroken.items():
        for name, tensor in weights.items():
            assert torch.equal(tensor, resumed[module][name]), (module, name)
    policy = Policy.load(tmp_path / "whole")
    assert set(policy.modules) == {"actor", "critic", "premium"} and policy.returns is policy.modules["critic"]


@pytest.mark.slow
def test_a_run_of_the_older_nested_is_not_gone_on_with_in_silence(toy_environment, tmp_path, monkeypatch):
    def without_premium(run):
        content = whole(run)
        return content | {key: {"actor": content[key]["actor"], "critic": content[key]["critic"]}
                          for key in ("networks", "modules")}  # fmt: skip

    whole = Run.policy_content
    config = nested_config().replace(total_timesteps=500, out=str(tmp_path / "run"))
    monkeypatch.setattr(Run, "policy_content", without_premium)
    train(config)
    with pytest.raises(CheckpointError, match=r"no network 'premium'.* start a new run"):
        train(config.replace(total_timesteps=1000), resume=tmp_path / "run")
