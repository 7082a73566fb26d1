"""Benchmarks beside peers: both sides are asked for the same, evaluated alike, and compared."""

import itertools

import pytest
import torch

from benchmarks import beside, cartpole_values, simple_spread, spread_settings
from rqe_mappo.command_line import train_config


@pytest.mark.parametrize("algo", simple_spread.ALGORITHMS)
def test_the_benchmark_asks_both_sides_for_the_same(algo):
    settings = spread_settings.of(algo)
    ours, _ = train_config(settings.ours(3))
    theirs = settings.theirs(3)
    experiment = theirs["experiment"]
    rows, own = ours.num_envs * ours.num_steps, ours.algorithm
    kind = "on_policy" if algo == "mappo" else "off_policy"
    assert ours.algo == theirs["algo"] == algo
    assert ours.seed == theirs["seed"] == 3
    assert ours.total_timesteps == spread_settings.AGENTS * experiment["max_n_frames"]
    assert ours.total_timesteps % (spread_settings.AGENTS * rows) == 0  # neither side rounds up
    assert rows == experiment[f"{kind}_collected_frames_per_batch"]
    assert own.learning_rate == experiment["lr"]
    assert own.max_grad_norm == experiment["clip_grad_val"]
    assert own.actor_hidden == theirs["hidden"]
    if algo == "mappo":
        assert rows == own.num_minibatches * experiment["on_policy_minibatch_size"]
        assert own.update_epochs == own.critic_epochs == experiment["on_policy_n_minibatch_iters"]
        assert own.critic_learning_rate == experiment["lr"] and own.critic_hidden == theirs["hidden"]
        assert not (own.norm_adv or own.anneal_lr or own.value_norm or own.value_clip)
    else:
        learned, length = own.batch_episodes * own.piece, ours.env_config.max_steps
        assert learned == experiment["off_policy_train_batch_size"]
        assert own.replay_ratio * rows == learned * experiment["off_policy_n_optimizer_steps"]
        assert own.buffer_episodes * length == experiment["off_policy_memory_size"] == experiment["max_n_frames"]
        assert (own.target_interval, own.polyak) == (1, experiment["polyak_tau"])
        assert own.exploration_start == experiment["exploration_eps_init"]
        assert own.exploration == experiment["exploration_eps_end"]
        assert own.exploration_fraction == pytest.approx(1 / 3)  # as BenchMARL's exploration_anneal_frames
        assert (own.td_lambda, own.double_q, own.value_unit) == (0, False, spread_settings.AGENTS)


@pytest.mark.parametrize("algo", ["mappo", "qmix"])
def test_the_benchmark_evaluates_an_actor(algo, monkeypatch):
    monkeypatch.setattr(simple_spread, "EPISODES", 12)
    monkeypatch.setattr(simple_spread, "COPIES", 4)
    actor = spread_settings.of(algo).untrained()
    found = simple_spread.evaluated(actor)
    assert found.n == 12
    assert -120 < found.low < found.value < found.high < -10
    assert found == simple_spread.evaluated(actor)


def test_the_benchmark_reads_utilities_that_do_not_see_who_they_are():
    torch.manual_seed(0)
    sizes = [(64, 18), (64, 64), (5, 64)]
    layers = [(torch.randn(size), torch.randn(size[0])) for size in sizes]
    actor = beside.with_weights(spread_settings.of("vdn").untrained(), layers)
    obs, by_hand = torch.randn(4, 3, 18), None
    for weight, bias in layers:
        by_hand = (obs if by_hand is None else by_hand.relu()) @ weight.T + bias
    torch.testing.assert_close(actor.values(obs, torch.arange(3).expand(4, 3))[0], by_hand)


def test_the_benchmark_compares_runs_of_one_algorithm_and_budget():
    runs = [("ours", 1, -20.0), ("ours", 2, -19.0), ("BenchMARL", 1, -22.0), ("BenchMARL", 2, -21.0)]
    rows = [
        {
            "algo": "vdn",
            "side": side,
            "seed": seed,
            "frames": 6000,
            "return": got,
            "decisions_per_cpu_s": 300.0 if side == "ours" else 100,
        }
        for side, seed, got in runs
    ]
    others = [{**rows[0], "frames": 12_000, "return": 0.0}, {**rows[0], "algo": "qmix", "return": 0.0}]
    summary = beside.summarise([*rows, *others])
    assert [(row["algo"], row["frames"]) for row in summary if row["what"] == "ours: return"] == [
        ("vdn", 6000), ("vdn", 12_000), ("qmix", 6000)
    ]  # fmt: skip
    found = {row["what"]: row["value"] for row in summary if (row["algo"], row["frames"]) == ("vdn", 6000)}
    assert found["ours: return"] == -19.5
    assert found["return, ours less BenchMARL's (Welch)"] == 2.0
    assert found["probability that a run of ours has the higher return"] == 1.0
    assert found["decisions per CPU second, ours / BenchMARL's"] == 3.0


def test_c51_asks_cleanrl_for_the_same():
    settings = cartpole_values.SETTINGS["c51"]
    ours, _ = train_config(settings.ours(3))
    theirs, own = settings.theirs(3), ours.algorithm
    assert ours.seed == theirs["seed"] == 3
    assert ours.total_timesteps == theirs["total-timesteps"]
    assert ours.gamma == theirs["gamma"]
    assert own.learning_rate == theirs["learning-rate"]
    assert (own.n_atoms, own.return_low, own.return_high) == (theirs["n-atoms"], theirs["v-min"], theirs["v-max"])
    learned = own.batch_episodes * own.window
    assert learned == theirs["batch-size"] == theirs["learning-starts"]
    assert own.replay_ratio * theirs["train-frequency"] == learned  # one step for so many steps of the environment
    assert own.target_interval * theirs["train-frequency"] == theirs["target-network-frequency"]
    assert (own.exploration_start, own.exploration) == (1.0, theirs["end-e"])  # CleanRL's first one is its default
    assert own.exploration_fraction == theirs["exploration-fraction"]
    assert (own.td_lambda, own.double_q, own.value_unit) == (0, False, 1)


def test_qr_dqn_asks_sb3_contrib_for_the_same():
    settings = cartpole_values.SETTINGS["qr-dqn"]
    ours, _ = train_config(settings.ours(3))
    theirs, own = settings.theirs(3), ours.algorithm
    asked, between = theirs["settings"], ours.num_envs * ours.num_steps
    assert ours.seed == theirs["seed"] == 3
    assert ours.total_timesteps == theirs["frames"] == asked["buffer_size"]
    assert ours.total_timesteps % between == 0  # neither side rounds up
    assert ours.gamma == asked["gamma"]
    assert own.learning_rate == asked["learning_rate"]
    assert own.actor_hidden == theirs["hidden"]
    assert own.quantiles == theirs["quantiles"]
    assert (own.kappa, own.value_unit) == (1, 1)  # sb3-contrib's loss turns linear at 1 of the reward
    assert own.batch_episodes * own.window == asked["batch_size"] == asked["learning_starts"]
    assert between == asked["train_freq"] == asked["target_update_interval"]
    assert own.replay_ratio * between == asked["gradient_steps"] * asked["batch_size"]
    assert own.target_interval == asked["gradient_steps"]
    assert (own.exploration_start, own.exploration) == (1.0, asked["exploration_final_eps"])
    assert own.exploration_fraction == asked["exploration_fraction"]
    assert (own.td_lambda, own.double_q) == (0, False)


@pytest.mark.parametrize("algo", ["c51", "qr-dqn"])
def test_a_peers_weights_give_its_distributions(algo):
    torch.manual_seed(0)
    settings = cartpole_values.SETTINGS[algo]
    sizes = [4, *settings.hidden, 2 * settings.size]
    layers = [(torch.randn(n_out, n_in) / n_in**0.5, torch.randn(n_out)) for n_in, n_out in itertools.pairwise(sizes)]
    actor = beside.with_weights(settings.untrained(), layers)
    obs, by_hand = torch.randn(5, 1, 4), None
    for weight, bias in layers:
        by_hand = (obs if by_hand is None else by_hand.relu()) @ weight.T + bias
    of_actions = by_hand.unflatten(-1, (2, settings.size))
    atoms = torch.linspace(-100, 100, settings.size)
    means = (of_actions.softmax(-1) * atoms).sum(-1) if algo == "c51" else of_actions.mean(-1)
    nothing = torch.zeros(5, 1, 0)
    acted = actor.act(obs, torch.zeros(5, 1, dtype=torch.int64), nothing, uniform=torch.rand(5, 1, actor.draws))
    assert acted.action.tolist() == means.argmax(-1).tolist()
