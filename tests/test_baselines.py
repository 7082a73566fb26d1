"""The rivals: what each learns where the answer is known, each factor of MAPPO by itself, and what all runs promise."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gambles
from benchmarks.silent import trained
from rqe_mappo import checkpoint, cli, registry
from rqe_mappo.algorithms import advantages
from rqe_mappo.algorithms.advantages import Evidence
from rqe_mappo.baselines.mappo import Foretold, huber, local, unmasked, value_loss
from rqe_mappo.config import ConfigError, default_config, from_json, to_json
from rqe_mappo.data import vector
from rqe_mappo.data.collector import PastOfRollout
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation import film
from rqe_mappo.functional import categorical, returns
from rqe_mappo.functional.risk import MeanVariance, Neutral
from rqe_mappo.nets import ValueNorm
from rqe_mappo.training.loop import build, train
from tests import toy
from tests.test_bad_input import complaint
from tests.test_training import assert_equal, curve, interrupt_after, weights

RIVALS = [name for name in registry.ALGORITHMS if name != "rqe-mappo"]
AGENT = torch.zeros(1, dtype=torch.int64)
SCALAR = [name for name in RIVALS if name != "c51-cvar"]


class Wide(toy.Toy):
    """The toy whose state says one thing more than observations do, and where every step costs 1."""

    state_space = toy.Box(0, 1, (3,), np.float32)

    @staticmethod
    def wider(view: np.ndarray) -> np.ndarray:
        return np.concatenate((view, np.full_like(view[..., :1], 0.5)), -1)

    def _observed(self) -> toy.Observed:
        seen = super()._observed()
        return toy.Observed(seen.obs, self.wider(seen.state) * seen.active[..., None], seen.active)

    def step(self, actions: np.ndarray) -> toy.Step:
        acted = self.active.copy()
        step = super().step(actions)
        step.final_state, step.cost = self.wider(step.final_state), acted.astype(np.float32)
        return step


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    entry = registry.Environment("tests.test_baselines:Wide", "tests.toy:SCENARIOS", "tests.toy:recipe")
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", entry)


def toy_config(algo, own=None, leave_probability=0.1, **changes):
    config = default_config("toy", algo=algo)
    return replace(
        config,
        knobs=replace(config.knobs, leave_probability=leave_probability),
        options=replace(config.options, **(own or {})),
        **changes,
    )


def collected(config):
    """A run at its beginning, and its first rollout."""
    env = vector.make(config, config.num_envs)
    run = build(config, Path("unused"), env)
    run.collector.start(env.reset(config.seed))
    return run.learner, run.collector.collect(run.learner.actor)[0]


def neutral(learner):
    return [Neutral() for _ in learner.agents_of]


# --- value normalisation, in one place ---------------------------------------------------------------------------


def test_value_norm_against_numpy():
    rng, norm = np.random.default_rng(0), ValueNorm(2)
    memory, first, second, weight = ValueNorm.MEMORY, np.zeros(2), np.zeros(2), 0.0
    x = torch.tensor([[3.0, -1.0]])
    assert torch.equal(norm.normalise(x), x) and torch.equal(norm.restore(x), x)
    for n in (5, 50, 500):
        batch = rng.normal([100.0, -3.0], [20.0, 0.001], (n, 2))
        norm.update(torch.tensor(batch))
        first = memory * first + (1 - memory) * batch.mean(0)
        second = memory * second + (1 - memory) * (batch**2).mean(0)
        weight = memory * weight + (1 - memory)
    mean = first / weight
    std = np.sqrt(np.maximum(second / weight - mean**2, ValueNorm.LEAST_VARIANCE))
    assert std[1] == 0.1  # the floor: 0.01 in variance
    assert np.allclose(norm.normalise(x), (x.numpy() - mean) / std, rtol=1e-5)
    assert torch.allclose(norm.restore(norm.normalise(x)), x, atol=1e-5)


def test_whatever_reads_the_critic_reads_units_of_the_return():
    """The advantages' values, those after a truncation, the policy's: none misses the denormalisation."""
    learner, rollout = collected(toy_config("mappo", gae_lambda=0.0, gamma=0.9))
    norm = learner.critic.norm
    norm.update(torch.tensor([[50.0], [150.0]]))
    agent = torch.arange(3).expand(4, 3)
    raw = learner.critic.normalised(rollout.state[3], agent)
    value = learner.critic(rollout.state[3], agent)
    assert torch.allclose(value, raw * 50 + 100) and (value > 20).all()
    known, _ = learner._foretold(rollout)
    assert torch.allclose(known.value[3], value)
    assert rollout.truncated.any() and (known.next_value[rollout.truncated] > 20).all()
    target, advantage = learner._judged(rollout, known, [])
    expected = rollout.reward + 0.9 * known.next_value[..., 0] * ~rollout.terminated
    assert torch.allclose(target[..., 0], expected, atol=1e-4)
    assert torch.allclose(advantage, expected - known.value[..., 0], atol=1e-4)


@pytest.mark.parametrize("on", [True, False])
def test_value_norm_switch(on):
    learner, rollout = collected(toy_config("mappo", {"value_norm": on}))
    rollout.reward += 50
    batch, _ = learner._targets(rollout, neutral(learner))
    assert (learner.critic.norm.weight > 0) == on
    assert (abs(float(batch.target.mean())) < 1e-4) == on
    assert float(learner.critic.norm.restore(batch.target).mean()) > 40


# --- value clipping and the Huber loss ---------------------------------------------------------------------------


def test_huber_by_hand():
    error = torch.tensor([0.5, -2.0, 3.0])
    assert torch.allclose(huber(error, 2.0), torch.tensor([0.125, 2.0, 4.0]))
    assert torch.allclose(huber(error, math.inf), error**2 / 2)


def test_value_clip_by_hand():
    """A value that has moved further than the clip towards its target earns nothing more, and has no gradient."""
    value = torch.tensor([0.1, 0.5, -0.5], requires_grad=True)
    target, old = torch.ones(3), torch.zeros(3)
    loss = value_loss(value, target, old, clip=0.2, delta=10.0)
    assert torch.allclose(loss, torch.tensor([0.9**2, 0.8**2, 1.5**2]) / 2)
    loss.sum().backward()
    assert torch.allclose(value.grad, torch.tensor([-0.9, 0.0, -1.5]))


@pytest.mark.parametrize(("own", "delta", "clip"), [
    ({}, 10.0, 0.2), ({"value_clip": False}, 10.0, math.inf), ({"huber_delta": 0.1}, 0.1, 0.2),
])  # fmt: skip
def test_loss_follows_its_switches(own, delta, clip):
    learner, rollout = collected(toy_config("mappo", own))
    batch, _ = learner._targets(rollout, neutral(learner))
    batch.old = batch.old - 0.5  # as if the critic had moved since
    rows = torch.arange(len(batch.agent))
    value = learner.critic.normalised(batch.state, batch.agent)
    expected = value_loss(value, batch.target, batch.old, clip, delta).mean()
    assert torch.equal(learner._critic_loss(batch, rows), expected)
    assert not torch.equal(expected, value_loss(value, batch.target, batch.old, 0.3, 0.2).mean())


# --- what the critic sees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algo", "own", "sees"), [
    ("mappo", {}, "state"), ("mappo", {"critic_input": "obs"}, "obs"), ("ippo", {}, "obs"),
])  # fmt: skip
def test_critic_input(algo, own, sees):
    config = toy_config(algo, own)
    results = []
    for name in (None, "state", "obs"):
        learner, rollout = collected(config)
        if name is not None:
            for part in (name, f"next_{name}"):
                getattr(rollout, part)[:] = 0.9
            rollout.final_state[:] = 0.9 if name == "state" else rollout.final_state
        learner.update(rollout, neutral(learner), 0.0)
        results.append(learner.critic.state_dict()["net.0.weight"])
    assert learner.shapes.state_dim == (3 if sees == "state" else 2)
    assert torch.equal(results[0], results[1]) == (sees == "obs")
    assert torch.equal(results[0], results[2]) == (sees == "state")


def test_local_critic_bootstraps_from_what_was_observed_last():
    learner, rollout = collected(toy_config("ippo", gae_lambda=0.0, gamma=0.9, leave_probability=0.0))
    cut = rollout.truncated
    assert cut[1:-1].any()
    seen = local(rollout, bootstrapped=True)
    assert not (seen.active & cut).any() and torch.equal(seen.active | cut, rollout.active)
    known, _ = learner._foretold(seen)
    target, _ = learner._judged(seen, known, [])
    t, e, a = (cut[1:] & rollout.active[:-1]).nonzero()[0]  # the step after t is the episode's last
    expected = rollout.reward[t, e, a] + 0.9 * learner.critic(rollout.obs[t + 1, e, a], a)[0]
    assert torch.isclose(target[t, e, a, 0], expected, atol=1e-6)
    assert known.ended[t, e, a] and not known.terminated[t, e, a]
    assert torch.equal(local(rollout, bootstrapped=False).active, rollout.active)


# --- masks and the scale of advantages ---------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_active_masks(masks):
    learner, rollout = collected(toy_config("mappo", {"active_masks": masks}, leave_probability=0.4))
    empty = ~rollout.active
    assert empty.any()
    seen = rollout if masks else unmasked(rollout)
    batch, _ = learner._targets(seen, neutral(learner))
    assert len(batch.agent) == (int(rollout.active.sum()) if masks else rollout.active.numel())
    if not masks:
        absent = (batch.state == 0).all(-1)
        assert int(absent.sum()) == int(empty.sum())
        worth = learner.critic.norm.restore(batch.target[absent])
        assert torch.allclose(worth, torch.zeros_like(worth), atol=1e-5)
    lost = rollout.active & (rollout.state != 0).any(-1)
    rollout.active[lost] = False  # rows of a simulation that was lost are no empty places
    assert not unmasked(rollout).active[lost].any()


def test_advantages_are_normalised_over_the_rows_in_which_agents_acted():
    learner, rollout = collected(toy_config("mappo", leave_probability=0.4))
    rollout.reward[~rollout.active] = 1e6
    batch, scalars = learner._targets(rollout, neutral(learner))
    assert float(batch.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(batch.advantage.std()) == pytest.approx(1, abs=1e-5)
    assert scalars["advantage/scale"] == pytest.approx(scalars["advantage/std"])
    learner, rollout = collected(toy_config("mappo", norm_adv=False))
    batch, scalars = learner._targets(rollout, neutral(learner))
    assert float(batch.advantage.std()) == pytest.approx(scalars["advantage/std"])


def test_adv_memory_averages_the_scale_over_rollouts():
    learner, rollout = collected(toy_config("mappo", {"adv_memory": 0.5}))
    first = learner._targets(rollout, neutral(learner))[1]["advantage/std"]
    rollout.reward *= 10
    _, second = learner._targets(rollout, neutral(learner))
    expected = math.sqrt((0.25 * first**2 + 0.5 * second["advantage/std"] ** 2) / 0.75)
    assert second["advantage/scale"] == pytest.approx(expected, rel=1e-4)


# --- what they learn ---------------------------------------------------------------------------------------------


def test_mappo_learns_cartpole(tmp_path):
    config = replace(
        default_config("cartpole", "cartpole-v1", "mappo"), total_timesteps=61_440, num_envs=32, num_steps=64,
        out=str(tmp_path / "run"),
    )  # fmt: skip
    assert float(curve(train(config))[-1]) > 400


def gambler(algo, scenario, lam=0.95, tau=math.inf, **own):
    """A run trained to its end on a gamble, and what it sees at the choice."""
    config = default_config("gamble", scenario, algo)
    steps = gambles.game(scenario).horizon
    config = replace(
        config, tau=tau, eps=0.0, gae_lambda=lam, num_envs=256, num_steps=steps, total_timesteps=80 * 256 * steps,
        num_minibatches=1, update_epochs=2, norm_adv=True, learning_rate=0.05, critic_learning_rate=0.1,
        critic_first=0.25, options=replace(config.options, **own),
    )  # fmt: skip
    run = trained(config)
    return run.learner, gambles.choices(scenario, "value", run.learner.shapes.obs_dim)


def probability_of_gambling(*args, **own):
    learner, obs = gambler(*args, **own)
    return learner.actor(obs, AGENT).softmax(-1)[0, gambles.RISKY].item()


@pytest.mark.parametrize(("algo", "lam"), [("mappo", 0.0), ("mappo", 0.95), ("mappo", 1.0), ("ippo", 0.95)])
def test_neutral_rivals_take_the_gamble_with_the_higher_mean(algo, lam):
    """Mean 1 against a sure 0.5, at every lambda, drawn at once and later."""
    for scenario in ("m1", "m2"):
        assert probability_of_gambling(algo, scenario, lam) > 0.9


@pytest.mark.parametrize("spread", ["moment", "deviation"])
def test_mean_variance_switches_at_its_threshold(spread):
    """m1: lambda* = 1/18, tau = 9."""
    assert gambles.threshold("m1", "mean-variance") == pytest.approx(9.0)
    assert probability_of_gambling("mean-variance", "m1", tau=0.8 * 9, spread=spread) < 0.1
    assert probability_of_gambling("mean-variance", "m1", tau=1.25 * 9, spread=spread) > 0.8


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_mean_variance_gradient_sees_what_is_drawn_later(lam):
    assert probability_of_gambling("mean-variance", "m2", lam, tau=4.5) < 0.1
    assert probability_of_gambling("mean-variance", "m2", lam, tau=18.0) > 0.9


@pytest.mark.parametrize(("scenario", "lam", "gambles_"), [("m1", 0.95, True), ("m2", 0.95, True), ("m2", 0.0, False)])
def test_mean_variance_surrogate_is_blind_where_foretold(scenario, lam, gambles_):
    """As GAE on any risk-adjusted value (docs/risk.md): the gamble is the worse choice at tau = 4.5 throughout."""
    probability = probability_of_gambling("mean-variance", scenario, lam, tau=4.5, form="surrogate")
    assert probability > 0.9 if gambles_ else probability < 0.1


@pytest.mark.parametrize("spread", ["moment", "deviation"])
def test_moments_and_gradient_are_those_of_the_laws(spread):
    """Against the categorical critic, exact on an aligned grid: targets' moments, and the static advantage."""
    config = toy_config("mean-variance", {"spread": spread}, gamma=1.0, time_limit="terminal", gae_lambda=0.7, tau=3.0)
    learner, rollout = collected(config)
    generator = torch.Generator().manual_seed(0)
    shape = rollout.reward.shape
    atoms = torch.arange(-60, 61).double() / 2  # double: the identity is to be seen to 1e-6
    middle = torch.where(atoms.abs() < 5, 0.0, -math.inf)

    def laws(*size):
        return (torch.randn(*size, len(atoms), generator=generator).double() + middle).log_softmax(-1)

    here, after, start = laws(*shape), laws(*shape), laws(*shape)
    reward = torch.randint(-4, 5, shape, generator=generator).double() / 2
    past = torch.randint(-4, 5, shape, generator=generator).double() / 2
    terminated = torch.rand(shape, generator=generator) < 0.2
    ended = terminated | (torch.rand(shape, generator=generator) < 0.2)
    after[:-1] = torch.where(ended[:-1, ..., None], after[:-1], here[1:])
    for t in range(len(reward) - 1):  # within an episode
        past[t + 1] = torch.where(ended[t], past[t + 1], past[t] + reward[t])
        start[t + 1] = torch.where(ended[t, ..., None], start[t + 1], start[t])

    def moments(log_probs):
        mean, second = (categorical.mean(atoms**k, log_probs.exp()) for k in (1, 2))
        return torch.stack((mean, second if spread == "moment" else second - mean**2), -1)

    discount = torch.ones(shape[:2]).double()
    rollout = replace(rollout, reward=reward, history=PastOfRollout(past, discount, rollout.state))
    learner._start = lambda rollout: moments(start)[..., 0]
    known = Foretold(moments(here), moments(after), terminated, ended)
    target, advantage = learner._judged(rollout, known, [MeanVariance(3.0)])

    law = returns.lambda_targets(atoms, reward, after.exp(), terminated, ended, 1.0, 0.7)
    mean = categorical.mean(atoms, law)
    assert torch.allclose(target[..., 0], mean)
    about = 0.0 if spread == "moment" else moments(here)[..., 0]
    assert torch.allclose(target[..., 1], categorical.mean(atoms**2, law) - 2 * about * mean + about**2)
    each = discount[..., None].expand(shape)
    seen = Evidence(atoms, reward, terminated, ended, here, after.exp(), law, past, each, start)
    assert torch.allclose(advantage, advantages.static(seen, MeanVariance(3.0), config), atol=1e-5)


# --- what they share ---------------------------------------------------------------------------------------------


SHORT = {"total_timesteps": 6 * 256, "num_envs": 8, "num_steps": 32, "save_interval": 1, "log_interval": 1,
         "n_atoms": 21}  # fmt: skip


def short(tmp_path, algo, name="run", own=None, **changes):
    config = default_config("cartpole", algo=algo)
    options = replace(config.options, **(own or {}))
    return replace(config, **SHORT, **changes, options=options, out=str(tmp_path / name))


def test_c51_cvar_is_the_core_learner_with_two_flags(tmp_path):
    schedule = {"return_scale": 1.0, "risk_anneal_fraction": 0.0}  # averse from the first update
    rival = train(short(tmp_path, "c51-cvar", risk="cvar:0.1", **schedule))
    core = train(short(tmp_path, "rqe-mappo", "core", risk="cvar:0.1", advantage="value", **schedule))
    assert_equal(weights(rival), weights(core))


def test_shaped_rewards_at_no_price_are_mappo(tmp_path):
    assert_equal(
        weights(train(short(tmp_path, "reward-shaped", own={"cost_weight": 0.0}))),
        weights(train(short(tmp_path, "mappo", "mappo"))),
    )


def test_shaped_rewards_teach_but_are_not_reported(tmp_path):
    shaped = train(short(tmp_path, "reward-shaped", own={"cost_weight": 1000.0}))
    plain = train(short(tmp_path, "mappo", "mappo"))
    assert curve(shaped)[0] == curve(plain)[0] and float(curve(shaped)[-1]) > 0
    assert not torch.equal(weights(shaped)["critic.norm.first"], weights(plain)["critic.norm.first"])
    learner, rollout = collected(toy_config("reward-shaped", {"cost_weight": 2.0}, gae_lambda=1.0, gamma=0.9))
    assert torch.equal(rollout.cost, rollout.active.float())
    learner.update(rollout, neutral(learner), 0.0)
    assert learner.critic.norm.restore(torch.zeros(1)) < 0  # every step costs 2 and brings at most 0.5


@pytest.mark.parametrize("algo", SCALAR)
def test_resumed_rival_ends_bitwise_equal_to_the_unbroken_one(tmp_path, algo):
    unbroken = train(short(tmp_path, algo, "whole"))
    stopped = short(tmp_path, algo, "stopped")
    interrupt_after(stopped, updates=3)
    resumed = train(stopped, resume=Path(stopped.out))
    assert_equal(weights(unbroken), weights(resumed))
    assert curve(unbroken) == curve(resumed)


def test_neutral_rqe_mappo_and_mappo_learn_the_same():
    """Their policies, and the mean return that their critics foretell of them."""
    core, obs = gambler("rqe-mappo", "m2")
    rival, _ = gambler("mappo", "m2")
    chances = [learner.actor(obs, AGENT).softmax(-1)[0, gambles.RISKY] for learner in (core, rival)]
    assert min(chances) > 0.9
    known = categorical.mean(core.critic.atoms, core.critic(obs, AGENT).softmax(-1))
    assert torch.isclose(known, rival.critic(obs, AGENT)[:, 0], atol=0.2)
    assert torch.isclose(known, torch.ones(1), atol=0.2)


def test_every_rival_runs_where_agents_leave(tmp_path):
    for algo in RIVALS:
        config = toy_config(algo, leave_probability=0.4, shared_actor=False, out=str(tmp_path / algo))
        for value in weights(train(config)).values():
            assert torch.isfinite(value).all()


@pytest.mark.parametrize(("algo", "width"), [("mappo", 3), ("ippo", 2), ("mean-variance", 3)])
def test_policy_of_a_scalar_critic(tmp_path, capsys, monkeypatch, algo, width):
    run = train(toy_config(algo, out=str(tmp_path / "run")))
    policy = Policy.load(run)
    views = np.full((4, width), 0.5, np.float32)
    value = policy.value(views, 1)
    assert value.shape == (4,)
    assert torch.equal(value, policy.critic(torch.tensor(views), torch.ones(4, dtype=torch.int64))[:, 0].detach())
    with pytest.raises(ValueError, match="mean return, no distribution"):
        policy.distribution(views)
    observed = Wide(toy.ToyConfig(), 1).reset(0)
    (halo,) = film._predicted(policy, observed, distributions=False)
    assert halo.shape == (3,) and np.isfinite(halo).all()
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", replace(registry.ENVIRONMENTS["toy"], camera="none:needed"))
    with pytest.raises(ValueError, match="--laws"):
        film.film(
            from_json(policy.config_json), None, policy, tmp_path / "out.gif", film.FilmSettings(distributions=True)
        )
    cli.evaluate([str(run), "--episodes", "8"])
    assert "no calibration" in capsys.readouterr().out
    assert "critic" not in json.loads((run / "eval.json").read_text())


@pytest.mark.parametrize("algo", list(registry.ALGORITHMS))
def test_options_survive_json_and_stand_in_the_folders_name(algo):
    config = default_config("cartpole", algo=algo)
    if algo in SCALAR:
        config = replace(config, options=replace(config.options, huber_delta=math.inf, value_clip=False))
    assert from_json(to_json(config)) == config
    assert (algo in config.run_name) == (algo != "rqe-mappo")


def test_settings_of_before_there_were_rivals_load():
    fields = json.loads(to_json(default_config("cartpole")))
    del fields["algo"], fields["options"]
    assert from_json(json.dumps(fields)) == default_config("cartpole")


def test_algorithm_and_options_belong_together():
    with pytest.raises(ConfigError, match="default_config"):
        replace(default_config("cartpole"), algo="mappo")
    with pytest.raises(ConfigError, match="momentum"):
        from_json(to_json(default_config("cartpole", algo="mappo")).replace("value_clip", "momentum"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--algo", "qmix"], ["--algo qmix is unknown", "mappo", "reward-shaped"]),
        (["--value-clip"], ["--value-clip"]),
        (["--algo", "mappo", "--cost-weight", "1"], ["--cost-weight"]),
        (["--algo", "ippo", "--critic-input", "state"], ["--critic-input"]),
        (["--algo", "mappo", "--tau", "0.3"], ["--algo mappo is risk-neutral", "--tau 0.3", "leave"]),
        (["--algo", "mappo", "--risk", "cvar:0.1"], ["--algo mappo is risk-neutral", "cvar:0.1"]),
        (["--algo", "reward-shaped", "--advantage", "static"], ["has no --advantage static"]),
        (["--algo", "mappo", "--huber-delta", "0"], ["--huber-delta must be > 0"]),
        (["--algo", "ippo", "--num-steps", "2"], ["--num-steps must be at least 3", "time limit"]),
        (["--algo", "mappo", "--adv-memory", "1"], ["--adv-memory must be in [0, 1)"]),
        (["--algo", "reward-shaped", "--cost-weight", "-1"], ["--cost-weight must be in [0, inf)", "-1"]),
        (["--algo", "c51-cvar", "--risk", "entropic"], ["--algo c51-cvar has no --risk entropic", "cvar:LEVEL"]),
        (["--algo", "c51-cvar", "--advantage", "influence"], ["has no --advantage influence", "rqe-mappo"]),
        (["--algo", "mean-variance", "--risk", "cvar:0.1"], ["--algo mean-variance has no --risk cvar:0.1", "--tau"]),
        (["--algo", "mean-variance", "--form", "magic"], ["--form", "magic"]),
    ],
)
def test_wrong_flag(capsys, args, words):
    said = complaint(capsys, cli.train, "--env", "cartpole", *args)
    for word in words:
        assert word in said


def test_resume_keeps_its_algorithm(capsys, tmp_path):
    run = str(train(short(tmp_path, "mappo")))
    assert "--algo cannot change" in complaint(capsys, cli.train, "--resume", run, "--algo", "ippo")
    assert "cannot change" in complaint(capsys, cli.train, "--resume", run, "--no-value-clip")
    cli.train(["--resume", run, "--algo", "mappo", "--eval-episodes", "0", "--total-timesteps", "2000"])
    assert checkpoint.load_policy_file(Path(run))["timesteps"] >= 2000


@pytest.mark.parametrize("algo", RIVALS)
def test_help_shows_the_algorithms_own_flags(capsys, algo):
    with pytest.raises(SystemExit):
        cli.train(["--env", "cartpole", "--algo", algo, "--help"])
    said = capsys.readouterr().out
    for name in vars(default_config("cartpole", algo=algo).options):
        assert f"--{name.replace('_', '-')}" in said
