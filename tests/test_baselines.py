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
from rqe_mappo.algorithms.actor_critic import ActorCriticConfig
from rqe_mappo.algorithms.advantages import AdvantageInputs, SoFar
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.algorithms.ppo import Minibatch
from rqe_mappo.algorithms.value_critic import Predicted, huber, unmasked, value_loss
from rqe_mappo.config import ConfigError, default_config, from_json, to_json
from rqe_mappo.data import vector
from rqe_mappo.data.trajectory import Past, flat
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation import film
from rqe_mappo.functional import categorical, returns
from rqe_mappo.functional.risk import MeanVariance
from rqe_mappo.nets.value_norm import ValueNorm
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests import toy
from tests.test_bad_input import complaint
from tests.test_training import assert_equal, curve, interrupt_after, weights

ON_POLICY = [name for name in registry.ALGORITHMS if issubclass(registry.algorithm(name).Config, ActorCriticConfig)]
RIVALS = [name for name in ON_POLICY if name not in ("rqe-mappo", "exact-rqe", "fcp")]  # fcp needs partners
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
    return default_config("toy", algo=algo).replace(leave_probability=leave_probability, **(own or {}), **changes)


def collected(config):
    """An algorithm at its beginning, and the first trajectory."""
    env = vector.make(config, config.num_envs)
    run = Run.build(config, Path("unused"), env)
    run.collector.start(env.reset(config.seed))
    return run.algorithm, run.collector.collect()[0]


BEGIN = Progress(0, 1)


# --- value normalisation, in one place ---------------------------------------------------------------------------


def test_value_norm_against_numpy():
    rng, norm = np.random.default_rng(0), ValueNorm(2)
    memory, first, second, weight = ValueNorm.MEMORY, np.zeros(2), np.zeros(2), 0.0
    x = torch.tensor([[3.0, -1.0]])
    assert torch.equal(norm.normalise(x), x) and torch.equal(norm.restore(x), x)
    for n in (5, 50, 500):
        batch = rng.normal([100.0, -3e-3], [20.0, 1e-3], (n, 2))  # of any size
        norm.update(torch.tensor(batch))
        first = memory * first + (1 - memory) * batch.mean(0)
        second = memory * second + (1 - memory) * (batch**2).mean(0)
        weight = memory * weight + (1 - memory)
    mean = first / weight
    std = np.sqrt(second / weight - mean**2)
    assert np.allclose(norm.normalise(x), (x.numpy() - mean) / std, rtol=1e-5)
    assert torch.allclose(norm.restore(norm.normalise(x)), x, atol=1e-5)
    constant = ValueNorm(1)  # whose variance is what rounding leaves
    constant.update(torch.full((7, 1), 0.1))
    assert constant.normalise(torch.full((1, 1), 0.1)).abs() < 1e-3
    constant.update(torch.zeros(7, 1))
    assert constant.normalise(torch.full((1, 1), 0.1)) == pytest.approx(1.0, rel=0.01)


def test_whatever_reads_the_critic_reads_units_of_the_return():
    """The advantages' values, those after a truncation, the policy's: none misses the denormalisation."""
    rival, chunk = collected(toy_config("mappo", gae_lambda=0.0, gamma=0.9, norm_adv=False))
    norm = rival.critic.norm
    norm.update(torch.tensor([[50.0], [150.0]]))
    rival.value.started = True
    agent = torch.arange(3).expand(4, 3)
    raw = rival.critic.normalised(chunk.state[3], agent)
    value = rival.critic(chunk.state[3], agent)
    assert torch.allclose(value, raw * 50 + 100) and (value > 20).all()
    assert torch.equal(rival.returns.mean(chunk.state[3], agent), value[..., 0])
    known = rival.value.predict(chunk)
    assert torch.allclose(known.value[3], value) and torch.allclose(known.raw[3], raw)
    assert chunk.truncated.any() and (known.next_value[chunk.truncated] > 20).all()
    expected = chunk.reward + 0.9 * known.next_value[..., 0] * ~chunk.terminated
    batch, _, _ = rival.targets(chunk)
    assert torch.allclose(norm.restore(batch.target)[:, 0], expected[chunk.active], atol=1e-4)
    assert torch.allclose(batch.advantage, (expected - known.value[..., 0])[chunk.active], atol=1e-4)


@pytest.mark.parametrize("on", [True, False])
def test_value_norm_switch(on):
    rival, chunk = collected(toy_config("mappo", {"value_norm": on}))
    chunk.reward += 50
    batch, _, _ = rival.targets(chunk)
    assert (rival.critic.norm.weight > 0) == on
    assert (abs(float(batch.target.mean())) < 1.0) == on
    assert float(rival.critic.norm.restore(batch.target).mean()) > 40


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
    rival, chunk = collected(toy_config("mappo", own))
    batch, predicted, _ = rival.targets(chunk)
    old = flat(predicted.raw)[batch.rows] - 0.5  # as if the critic had moved since
    rows = torch.arange(len(batch.agent))
    value = rival.critic.normalised(flat(chunk.state)[batch.rows], batch.agent)
    expected = value_loss(value, batch.target, old, clip, delta).mean()
    assert torch.equal(rival.value.step(batch, old, Minibatch(rows))["losses/critic_value"], expected)
    assert not torch.equal(expected, value_loss(value, batch.target, old, 0.3, 0.2).mean())


# --- what the critic sees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algo", "own", "sees"), [
    ("mappo", {}, "state"), ("mappo", {"critic_input": "obs"}, "obs"), ("ippo", {}, "obs"),
])  # fmt: skip
def test_critic_input(algo, own, sees):
    config = toy_config(algo, own)
    results = []
    for name in (None, "state", "obs"):
        rival, chunk = collected(config)
        if name is not None:
            for part in (name, f"final_{name}"):
                getattr(chunk, part)[:] = 0.9
        rival.learn(chunk, BEGIN)
        results.append(rival.critic.state_dict()["nets.0.0.weight"])
    assert (rival.critic.view, rival.critic.view_dim) == (sees, 3 if sees == "state" else 2)
    assert torch.equal(results[0], results[1]) == (sees == "obs")
    assert torch.equal(results[0], results[2]) == (sees == "state")


@pytest.mark.parametrize(("algo", "view"), [("ippo", "obs"), ("mappo", "state")])
def test_critics_bootstrap_from_what_is_seen_last_and_no_step_is_dropped(algo, view):
    rival, chunk = collected(toy_config(algo, gae_lambda=0.0, gamma=0.9, leave_probability=0.0, value_norm=False))
    cut = chunk.truncated
    assert cut[1:-1].any()
    batch, _, _ = rival.targets(chunk)
    assert len(batch.rows) == int(chunk.active.sum())  # the last step before a time limit among them
    target = torch.zeros_like(chunk.reward)
    target[chunk.active] = batch.target[:, 0]
    last = rival.critic(chunk.final_view(view), cut.nonzero()[:, 2])[:, 0]
    assert torch.allclose(target[cut], chunk.reward[cut] + 0.9 * last, atol=1e-6)
    t, e, a = (cut[1:] & chunk.active[:-1]).nonzero()[0]  # the step after t is the episode's last
    expected = chunk.reward[t, e, a] + 0.9 * rival.critic(chunk.view(view)[t + 1, e, a], a)[0]
    assert torch.isclose(target[t, e, a], expected, atol=1e-6)
    known = rival.value.predict(chunk)
    assert torch.equal(known.ended, cut) and not known.terminated.any()


# --- masks and the scale of advantages ---------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_active_masks(masks):
    rival, chunk = collected(toy_config("mappo", {"active_masks": masks}, leave_probability=0.4))
    empty = ~chunk.active
    assert empty.any()
    batch, _, _ = rival.targets(chunk)
    assert len(batch.agent) == (int(chunk.active.sum()) if masks else chunk.active.numel())
    if not masks:
        absent = (flat(chunk.state)[batch.rows] == 0).all(-1)
        assert int(absent.sum()) == int(empty.sum())
        worth = rival.critic.norm.restore(batch.target[absent])
        assert torch.allclose(worth, torch.zeros_like(worth), atol=1e-5)
    lost = chunk.active & (chunk.state[:-1] != 0).any(-1)
    chunk.active[lost] = False  # rows of a simulation that was lost are no empty places
    assert not unmasked(chunk).active[lost].any()


def test_advantages_are_normalised_over_the_rows_in_which_agents_acted():
    rival, chunk = collected(toy_config("mappo", leave_probability=0.4))
    chunk.reward[~chunk.active] = 1e6
    batch, _, scalars = rival.targets(chunk)
    assert float(batch.advantage.mean()) == pytest.approx(0, abs=1e-5)
    assert float(batch.advantage.std()) == pytest.approx(1, abs=1e-5)
    assert scalars["advantage/scale"] == pytest.approx(scalars["advantage/std"])
    rival, chunk = collected(toy_config("mappo", norm_adv=False))
    batch, _, scalars = rival.targets(chunk)
    assert float(batch.advantage.std()) == pytest.approx(scalars["advantage/std"])


def test_adv_memory_averages_the_scale_over_trajectories():
    rival, chunk = collected(toy_config("mappo", {"adv_memory": 0.5}))
    first = rival.targets(chunk)[2]["advantage/std"]
    chunk.reward *= 10
    second = rival.targets(chunk)[2]
    expected = math.sqrt((0.25 * first**2 + 0.5 * second["advantage/std"] ** 2) / 0.75)
    assert second["advantage/scale"] == pytest.approx(expected, rel=1e-4)


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
