"""The rivals: what each learns where the answer is known, and what all runs promise."""

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
from rqe_mappo.algorithms.actor_critic import ActorCriticConfig
from rqe_mappo.algorithms.advantages import AdvantageInputs, SoFar
from rqe_mappo.algorithms.value_critic import Predicted
from rqe_mappo.config import ConfigError, default_config, from_json, to_json
from rqe_mappo.data.trajectory import Past
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation import film
from rqe_mappo.functional import categorical, returns
from rqe_mappo.functional.risk import MeanVariance
from rqe_mappo.training.loop import train
from tests import toy
from tests.test_bad_input import complaint
from tests.test_training import assert_equal, curve, interrupt_after, weights
from tests.wide_toy import BEGIN, ENTRY, Wide, collected, toy_config

ON_POLICY = [name for name in registry.ALGORITHMS if issubclass(registry.algorithm(name).Config, ActorCriticConfig)]
RIVALS = [name for name in ON_POLICY if name not in ("rqe-mappo", "exact-rqe", "fcp")]  # fcp needs partners
AGENT = torch.zeros(1, dtype=torch.int64)
SCALAR = [name for name in RIVALS if name != "c51-cvar"]


@pytest.fixture(autouse=True)
def toy_environment(monkeypatch):
    monkeypatch.setitem(registry.ENVIRONMENTS, "toy", ENTRY)


# --- what they learn ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mappo_learns_cartpole(tmp_path):
    config = default_config("cartpole", "cartpole-v1", "mappo").replace(
        total_timesteps=61_440, num_envs=32, num_steps=64,
        out=str(tmp_path / "run"),
    )  # fmt: skip
    assert float(curve(train(config))[-1]) > 400


def gambler(algo, scenario, lam=0.95, **own):
    """A run trained to its end on a gamble, and what it sees at the choice."""
    config = default_config("gamble", scenario, algo)
    steps = gambles.game(scenario).horizon
    config = config.replace(
        eps=0.0, gae_lambda=lam, num_envs=256, num_steps=steps, total_timesteps=80 * 256 * steps,
        num_minibatches=1, update_epochs=2, norm_adv=True, learning_rate=0.05, critic_learning_rate=0.1,
        critic_first=0.25, **own,
    )  # fmt: skip
    run = trained(config)
    return run.algorithm, gambles.choices(scenario, "value", run.algorithm.actor.spec.obs_dim)


def probability_of_gambling(*args, **own):
    rival, obs = gambler(*args, **own)
    return rival.actor.logits(obs, AGENT).softmax(-1)[0, gambles.RISKY].item()


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "lam"), [("mappo", 0.0), ("mappo", 0.95), ("mappo", 1.0), ("ippo", 0.95)])
def test_neutral_rivals_take_the_gamble_with_the_higher_mean(algo, lam):
    """Mean 1 against a sure 0.5, at every lambda, drawn at once and later."""
    for scenario in ("m1", "m2"):
        assert probability_of_gambling(algo, scenario, lam) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("spread", ["moment", "deviation"])
def test_mean_variance_switches_at_its_threshold(spread):
    """m1: lambda* = 1/18, tau = 9."""
    assert gambles.threshold("m1", "mean-variance") == pytest.approx(9.0)
    assert probability_of_gambling("mean-variance", "m1", tau=0.8 * 9, spread=spread) < 0.1
    assert probability_of_gambling("mean-variance", "m1", tau=1.25 * 9, spread=spread) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_mean_variance_gradient_sees_what_is_drawn_later(lam):
    assert probability_of_gambling("mean-variance", "m2", lam, tau=4.5) < 0.1
    assert probability_of_gambling("mean-variance", "m2", lam, tau=18.0) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "lam", "gambles_"), [("m1", 0.95, True), ("m2", 0.95, True), ("m2", 0.0, False)])
def test_mean_variance_surrogate_is_blind_where_predicted(scenario, lam, gambles_):
    """As GAE on any risk-adjusted value (docs/risk.md): the gamble is the worse choice at tau = 4.5 throughout."""
    probability = probability_of_gambling("mean-variance", scenario, lam, tau=4.5, form="surrogate")
    assert probability > 0.9 if gambles_ else probability < 0.1


@pytest.mark.parametrize("spread", ["moment", "deviation"])
def test_moments_and_gradient_are_those_of_the_laws(spread):
    """Against the categorical critic, exact on an aligned grid: targets' moments, and the static advantage."""
    config = toy_config(
        "mean-variance", {"spread": spread}, gamma=1.0, time_limit="terminal", gae_lambda=0.7, tau=3.0,
        norm_adv=False, value_norm=False,
    )  # fmt: skip
    rival, chunk = collected(config)
    generator = torch.Generator().manual_seed(0)
    shape = chunk.reward.shape
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
    every = torch.ones_like(chunk.active)  # one row as good as another
    chunk = replace(chunk, active=every, reward=reward, past=Past(past, discount, chunk.state[:-1]))
    known = Predicted(moments(here), moments(after), moments(here), terminated, ended)
    rival.value.predict = lambda chunk: known
    rival.critic = lambda view, agent: moments(start)
    batch, _, _ = rival.targets(chunk, [MeanVariance(3.0)])
    target, advantage = batch.target.view(*shape, 2), batch.advantage.view(shape)

    law = returns.lambda_targets(atoms, reward, after.exp(), terminated, ended, 1.0, 0.7)
    mean = categorical.mean(atoms, law)
    assert torch.allclose(target[..., 0], mean)
    about = 0.0 if spread == "moment" else moments(here)[..., 0]
    assert torch.allclose(target[..., 1], categorical.mean(atoms**2, law) - 2 * about * mean + about**2)
    each = discount[..., None].expand(shape)
    inputs = AdvantageInputs(
        atoms, reward, terminated, ended, here, after.exp(), law, 1.0, 0.7, SoFar(past, each, start)
    )
    assert torch.allclose(advantage, advantages.static(inputs, MeanVariance(3.0)), atol=1e-5)


# --- what they share ---------------------------------------------------------------------------------------------


SHORT = {"total_timesteps": 6 * 256, "num_envs": 8, "num_steps": 32, "save_interval": 1, "log_interval": 1}


def short(tmp_path, algo, name="run", own=None, **changes):
    atoms = {} if algo in SCALAR else {"n_atoms": 21}
    return default_config("cartpole", algo=algo).replace(
        **SHORT, **atoms, **changes, **(own or {}), out=str(tmp_path / name)
    )


@pytest.mark.slow
def test_c51_cvar_is_the_core_learner_with_two_flags(tmp_path):
    schedule = {
        "return_scale": 1.0,
        "warmup_fraction": 0.0,
        "risk_anneal_fraction": 0.0,
    }  # averse from the first update
    rival = train(short(tmp_path, "c51-cvar", risk="cvar:0.1", **schedule))
    core = train(short(tmp_path, "rqe-mappo", "core", risk="cvar:0.1", advantage="value", **schedule))
    assert_equal(weights(rival), weights(core))


@pytest.mark.slow
def test_shaped_rewards_at_no_price_are_mappo(tmp_path):
    assert_equal(
        weights(train(short(tmp_path, "reward-shaped", own={"cost_weight": 0.0}))),
        weights(train(short(tmp_path, "mappo", "mappo"))),
    )


@pytest.mark.slow
def test_shaped_rewards_teach_but_are_not_reported(tmp_path):
    shaped = train(short(tmp_path, "reward-shaped", own={"cost_weight": 1000.0}))
    plain = train(short(tmp_path, "mappo", "mappo"))
    assert curve(shaped)[0] == curve(plain)[0] and float(curve(shaped)[-1]) > 0
    assert not torch.equal(weights(shaped)["critic.norm.first"], weights(plain)["critic.norm.first"])
    rival, chunk = collected(toy_config("reward-shaped", {"cost_weight": 2.0}, gae_lambda=1.0, gamma=0.9))
    assert torch.equal(chunk.cost, chunk.active.float())
    rival.learn(chunk, BEGIN)
    assert rival.critic.norm.restore(torch.zeros(1)) < 0  # every step costs 2 and brings at most 0.5


@pytest.mark.slow
@pytest.mark.parametrize("algo", SCALAR)
def test_resumed_rival_ends_bitwise_equal_to_the_unbroken_one(tmp_path, algo):
    unbroken = train(short(tmp_path, algo, "whole"))
    stopped = short(tmp_path, algo, "stopped")
    interrupt_after(stopped, updates=3)
    resumed = train(stopped, resume=Path(stopped.out))
    assert_equal(weights(unbroken), weights(resumed))
    assert curve(unbroken) == curve(resumed)


@pytest.mark.slow
def test_neutral_rqe_mappo_and_mappo_learn_the_same():
    """Their policies, and the mean return that their critics predict of them."""
    core, obs = gambler("rqe-mappo", "m2", tau=math.inf)
    rival, _ = gambler("mappo", "m2")
    chances = [found.actor.logits(obs, AGENT).softmax(-1)[0, gambles.RISKY] for found in (core, rival)]
    assert min(chances) > 0.9
    known = categorical.mean(core.critic.atoms, core.critic(obs, AGENT).softmax(-1))
    assert torch.isclose(known, rival.critic(obs, AGENT)[:, 0], atol=0.2)
    assert torch.isclose(known, torch.ones(1), atol=0.2)


@pytest.mark.slow
def test_every_rival_runs_where_agents_leave(tmp_path):
    for algo in RIVALS:
        config = toy_config(algo, leave_probability=0.4, shared_actor=False, out=str(tmp_path / algo))
        for value in weights(train(config)).values():
            assert torch.isfinite(value).all()


@pytest.mark.slow
@pytest.mark.parametrize(("algo", "width"), [("mappo", 3), ("ippo", 2), ("mean-variance", 3)])
def test_policy_of_a_scalar_critic(tmp_path, capsys, monkeypatch, algo, width):
    run = train(toy_config(algo, out=str(tmp_path / "run")))
    policy = Policy.load(run)
    views = np.full((4, width), 0.5, np.float32)
    value = policy.value(views, 1)
    assert value.shape == (4,)
    critic = policy.modules["critic"]
    assert critic is policy.returns
    assert torch.equal(value, critic(torch.tensor(views), torch.ones(4, dtype=torch.int64))[:, 0].detach())
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
def test_settings_survive_json_and_stand_in_the_folders_name(algo):
    config = default_config("cartpole", algo=algo)
    if algo in SCALAR:
        config = config.replace(huber_delta=math.inf, value_clip=False)
    assert from_json(to_json(config)) == config
    assert (algo in config.run_name) == (algo != "rqe-mappo")


def test_settings_of_before_there_were_rivals_load():
    text = (Path(__file__).parent / "data" / "format1" / "cartpole" / "config.json").read_text()
    fields = json.loads(text)
    del fields["algo"], fields["options"]
    assert from_json(json.dumps(fields)) == from_json(text)
    assert from_json(text).algo == "rqe-mappo"


def test_algorithm_and_its_settings_belong_together():
    with pytest.raises(ConfigError, match="default_config"):
        default_config("cartpole").replace(algo="mappo")
    with pytest.raises(ConfigError, match="--huber-delta is no setting of --algo rqe-mappo with --env cartpole"):
        default_config("cartpole").replace(huber_delta=1.0)
    with pytest.raises(ConfigError, match="momentum"):
        from_json(to_json(default_config("cartpole", algo="mappo")).replace("value_clip", "momentum"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--algo", "coma"], ["--algo coma is unknown", "mappo", "reward-shaped"]),
        (["--value-clip"], ["--value-clip"]),
        (["--algo", "mappo", "--cost-weight", "1"], ["--cost-weight"]),
        (["--algo", "ippo", "--critic-input", "state"], ["--critic-input"]),
        (["--algo", "mappo", "--tau", "0.3"], ["--algo mappo is risk-neutral", "--tau 0.3", "leave"]),
        (["--algo", "mappo", "--risk", "cvar:0.1"], ["--algo mappo is risk-neutral", "cvar:0.1"]),
        (["--algo", "reward-shaped", "--advantage", "static"], ["has no --advantage static"]),
        (["--algo", "mappo", "--huber-delta", "0"], ["--huber-delta must be > 0"]),
        (["--algo", "exact-rqe", "--risk", "cvar:0.1"], ["--algo exact-rqe has no --risk cvar:0.1", "--tau"]),
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
    hidden = {"tau", "advantage", "discount_tau", "risk_clip"} if algo == "c51-cvar" else set()
    for name in set(vars(default_config("cartpole", algo=algo).algorithm)) - hidden:
        assert f"--{name.replace('_', '-')}" in said
    for name in hidden:
        assert f"--{name.replace('_', '-')} " not in said
