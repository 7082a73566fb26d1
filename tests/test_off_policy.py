"""Learners from replay: they learn, go on exactly, and say what they cannot do."""

import contextlib
import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import rqe_mappo
from rqe_mappo import checkpoint, registry
from rqe_mappo.algorithms import divergence
from rqe_mappo.config import ConfigError, TrainConfig
from rqe_mappo.data import vector
from rqe_mappo.files import load_tensors
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run

RIVALS = (
    "iql", "central-q", "vdn", "qmix", "qtran", "qplex", "maven",
    "c51", "qr-dqn", "ddn", "dmix", "riskq", "rmix", "drima",
)  # fmt: skip
QUANTILES = ("ddn", "dmix", "riskq", "rmix", "drima")  # of teams


def settings(algo: str, folder: Path, **changes):
    config = rqe_mappo.default_config("cliff", algo=algo)
    small = dict(
        total_timesteps=24_000, num_envs=8, num_steps=32, eval_episodes=0, save_interval=5, keep=100,
        buffer_episodes=40, batch_episodes=4, replay_ratio=1.0, out=str(folder),
    )  # fmt: skip
    return config.replace(**small | changes)


@pytest.mark.slow
@pytest.mark.parametrize("algo", [name for name in RIVALS if name != "central-q"])
def test_every_rival_learns_saves_and_acts_again(tmp_path, algo):
    config = settings(algo, tmp_path / "run", total_timesteps=6000, recurrent=algo in ("qmix", "maven"))
    folder = train(config, quiet=True)
    policy = rqe_mappo.Policy.load(folder)
    obs = np.zeros((2, policy.spec.obs_dim), np.float32)
    first = policy.act(obs)
    assert np.array_equal(first, rqe_mappo.Policy.load(folder).act(obs))
    assert np.array_equal(policy.probabilities(obs).max(-1), np.ones(2, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_run_that_keeps_its_buffer_goes_on_exactly(tmp_path, recurrent):
    whole = train(settings("qmix", tmp_path / "whole", keep_buffer=True, recurrent=recurrent), quiet=True)
    stopped = settings("qmix", tmp_path / "stopped", keep_buffer=True, recurrent=recurrent)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, quiet=True, on_update=lambda step, _: _stop_at(step, 12_000))
    train(stopped, resume=Path(stopped.out), quiet=True)
    assert_same_end(whole, Path(stopped.out))


def assert_same_end(*runs: Path) -> None:
    one, other = (checkpoint.load_policy_file(checkpoint.newest(run)[0]) for run in runs)
    assert one["timesteps"] == other["timesteps"]
    for name, weights in one["modules"].items():
        for key, value in weights.items():
            assert torch.equal(value, other["modules"][name][key]), (name, key)


def _stop_at(step: int, when: int) -> None:
    if step >= when:
        raise KeyboardInterrupt


def small_steps(out: Path, **changes: Any) -> TrainConfig:
    return replaying("vdn", out, **{"total_timesteps": 256, "keep_buffer": True} | changes)


@pytest.mark.slow
@pytest.mark.parametrize("algo", RIVALS)
def test_every_rival_goes_on_exactly(tmp_path, algo):
    few = {"keep_buffer": True, "save_interval": 1, "num_steps": 16, "replay_ratio": 2.0}
    whole = train(replaying(algo, tmp_path / "whole", **few), quiet=True)
    stopped = replaying(algo, tmp_path / "stopped", **few)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, quiet=True, on_update=lambda step, _: _stop_at(step, 256))
    train(stopped, resume=Path(stopped.out), quiet=True)
    assert_same_end(whole, Path(stopped.out))


@pytest.mark.slow
def test_priorities_go_on_exactly_too(tmp_path):
    few = {
        "keep_buffer": True, "save_interval": 1, "num_steps": 16, "replay_ratio": 2.0, "priority": 0.6,
        "buffer_episodes": 20,
    }  # fmt: skip
    whole = train(replaying("qr-dqn", tmp_path / "whole", **few), quiet=True)
    stopped = replaying("qr-dqn", tmp_path / "stopped", **few)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, quiet=True, on_update=lambda step, _: _stop_at(step, 256))
    train(stopped, resume=Path(stopped.out), quiet=True)
    assert_same_end(whole, Path(stopped.out))


def test_a_buffer_that_was_not_kept_is_filled_anew_and_may_be_kept_from_then_on(tmp_path, capsys):
    """Also after it was kept for a while."""
    out = tmp_path / "run"
    for steps, keep, said in (
        (256, True, ""),
        (512, False, "anew"),
        (768, True, "kept from here on"),
        (1024, True, ""),
    ):
        resume = out if out.exists() else None
        train(replaying("vdn", out, total_timesteps=steps, keep_buffer=keep), resume=resume)
        assert said in (found := capsys.readouterr().out) and ("anew" in found) == bool(said)
    assert list((out / "replay").iterdir())


def replaying(algo: str, out: Path, **changes: Any) -> TrainConfig:
    few = {"total_timesteps": 512, "num_envs": 4, "batch_episodes": 8, "eval_episodes": 0}
    return rqe_mappo.default_config("step-games", algo=algo).replace(**few | changes, out=str(out))


def learner(algo: str, env: Any, config: TrainConfig) -> Any:
    return registry.algorithm(algo)(config, env, torch.Generator().manual_seed(0))


def test_recipes_have_settings_for_learners_from_replay_alone():
    for name, env in registry.ENVIRONMENTS.items():
        for scenario in registry.scenarios(name):
            recipe = registry.load(env.recipe)(scenario)
            config = rqe_mappo.default_config(name, scenario, algo="vdn")
            unknown = set(recipe.get("off_policy", {})) - set(config.flat())
            assert not unknown, (name, unknown)
    qmix, c51, ppo = (rqe_mappo.default_config("sumo", algo=algo).flat() for algo in ("qmix", "c51", "rqe-mappo"))
    assert qmix["window"] > 1 == c51["window"]  # whose own defaults come first
    assert qmix["normalise_obs"] and not ppo["normalise_obs"]


def test_a_recipe_that_is_a_dict_of_its_own_stays_as_it_is(monkeypatch):
    recipe = {"num_envs": 4, "num_steps": 64, "off_policy": {"window": 7}}
    monkeypatch.setattr("tests.toy.recipe", lambda scenario: recipe)
    kept = copy.deepcopy(recipe)
    assert rqe_mappo.default_config("tests.toy:ENTRY", algo="qmix").algorithm.window == 7
    assert recipe == kept
    assert rqe_mappo.default_config("tests.toy:ENTRY").num_steps == 64


def test_pieces_longer_than_all_that_the_buffer_holds_are_learned_from_once_it_is_full(tmp_path):
    few = {"window": 1000, "num_steps": 16, "num_envs": 4, "total_timesteps": 512}
    with contextlib.closing(vector.make(config := replaying("vdn", tmp_path, **few), 4)) as env:
        run = Run.build(config, tmp_path, env)
        run.collector.start(env.reset(0))
        run.algorithm.learn(run.collector.collect(1.0)[0], run.progress)
        said = run.algorithm.warnings()[0]
        assert "28 episodes ended (56 steps)" in said and "8 pieces of --window 1000 are 8000" in said
    folder = train(replaying("vdn", tmp_path / "run", **few, buffer_episodes=40), quiet=True)
    steps = load_tensors(checkpoint.newest(folder)[1])["algorithm"]["steps"]
    assert steps > 0


def test_memory_learns_from_whole_episodes_whatever_the_window_and_says_so(tmp_path):
    config = replaying("vdn", tmp_path, window=3, recurrent=True)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        assert any("not pieces of --window 3" in line for line in config.algorithm.notes(env))
        run = Run.build(config, tmp_path, env)
        run.collector.start(env.reset(0))
        for _ in range(4):
            run.algorithm.learn(run.collector.collect(1.0)[0], run.progress)
        batch = run.algorithm.batch()
    assert bool(batch.ended.any(0).all()) and len(batch.reward) == 2  # steps of the two-step game


def test_a_run_that_learned_nothing_says_why(tmp_path):
    config = replaying("vdn", tmp_path, batch_episodes=500)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        vdn = learner("vdn", env, config)
        assert "no episode ended" in vdn.warnings()[0] and "lower --num-envs 4" in vdn.warnings()[0]
        vdn.replay.count = 3
        assert "3 episodes ended, and --batch-episodes is 500: lower --batch-episodes" in vdn.warnings()[0]


def test_what_central_q_cannot_learn_in_is_refused_before_there_is_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="needs agents who all observe the same"):
        rqe_mappo.train(settings("central-q", tmp_path / "run"), quiet=True)
    assert not list(tmp_path.iterdir())


def test_what_central_q_cannot_learn_in_is_refused_with_the_first_trajectory(tmp_path):
    config = settings("central-q", tmp_path, batch_episodes=40)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, tmp_path, env)
        run.collector.start(env.reset(0))
        chunk, _ = run.collector.collect(1.0)
        with pytest.raises(ConfigError, match="needs agents who all observe the same"):
            run.algorithm.learn(chunk, run.progress)
        chunk.obs[:] = chunk.obs[:, :, :1]
        chunk.avail = torch.ones(*chunk.obs.shape[:3], 2, dtype=torch.bool)
        chunk.avail[0, 0, 1, 0] = False
        with pytest.raises(ConfigError, match="may always choose any action"):
            run.algorithm.learn(chunk, run.progress)
        chunk.active[3, 0, 1] = False
        with pytest.raises(ConfigError, match="act until the episode is over"):
            run.algorithm.learn(chunk, run.progress)


def test_values_beyond_what_returns_allow_are_said_to_have_diverged(tmp_path):
    few = {"num_steps": 16, "target_interval": 1, "td_lambda": 0.0, "gamma": 0.9}
    runs = [learned(tmp_path, **few), learned(tmp_path, **few, learning_rate=3.0, max_grad_norm=1e6)]
    assert [len(found.warnings()) for found in runs] == [0, 1]
    assert "values have diverged" in runs[1].warnings()[0]


def learned(out: Path, **changes: Any) -> Any:
    """VDN after some trajectories of the cliff."""
    config = settings("vdn", out, **changes)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, out, env)
        run.collector.start(env.reset(0))
        for _ in range(8):
            run.algorithm.learn(run.collector.collect(1.0)[0], run.progress)
    return run.algorithm


def test_values_are_learned_in_the_unit_that_is_given(tmp_path):
    given, measured = learned(tmp_path, value_unit=5.0), learned(tmp_path)
    assert given.unit == 5.0 != measured.unit
    batch = given.replay.newest(4)
    nothing = torch.zeros_like(batch.reward)
    torch.testing.assert_close(given.targets(batch, nothing)[-1], batch.reward[-1] / 5)
    with pytest.raises(ConfigError, match="--value-unit must be > 0"):
        settings("vdn", tmp_path, value_unit=0.0)
    with pytest.raises(ConfigError, match="--value-unit must be in \\[1e-30, inf\\]"):
        settings("vdn", tmp_path, value_unit=1e-40)


@pytest.mark.parametrize(("algo", "said"), [("vdn", ["80%", "5%"]), ("mappo", [])])
def test_progress_says_how_often_agents_act_at_random(algo, said, tmp_path, capsys):
    few = {"total_timesteps": 768, "num_envs": 4, "eval_episodes": 0, "log_interval": 1, "num_steps": 32}
    more = {"exploration_start": 0.8, "exploration_fraction": 0.1} if algo == "vdn" else {}
    train(rqe_mappo.default_config("step-games", algo=algo).replace(**few, **more, out=str(tmp_path)))
    found = [line.split("exploring ")[1].split()[0] for line in capsys.readouterr().out.splitlines() if "expl" in line]
    assert list(dict.fromkeys(found)) == said


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_exploration_is_that_of_the_decisions_made_so_far(fraction, tmp_path):
    config = settings("vdn", tmp_path, total_timesteps=2048, exploration=0.1, exploration_fraction=fraction)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, tmp_path, env)
        run.collector.start(env.reset(0))
        for _ in range(3):
            share = run.step / 2048
            wanted = 1 - 0.9 * min(1, share / fraction) if fraction else 0.1
            assert run.algorithm.explore == pytest.approx(wanted)
            chunk, _ = run.collector.collect(run.algorithm.explore)
            assert run.algorithm.learn(chunk, run.progress)["policy/exploration"] == pytest.approx(wanted)
            run.step += int(chunk.active.sum())


class TwoEpisodes:
    """A replay of two episodes of 4 steps, with rewards of 1 and of -2."""

    finished = (0, 1)

    def __init__(self, cut: bool):
        last = torch.tensor([[False], [False], [False], [True]]).expand(4, 2)
        self.reward, self.filled = torch.tensor([[1.0, -2.0]]).expand(4, 2), torch.ones(4, 2, dtype=torch.bool)
        self.ended, self.terminated = last, last & (not cut)

    def __len__(self) -> int:
        return 2

    def episodes(self, slot: torch.Tensor, device: torch.device) -> Any:
        return self


@pytest.mark.parametrize(("cut", "low", "high"), [(False, -3.75, 1.875), (True, -4.0, 2.0)])
def test_what_follows_a_cut_may_bring_as_much_again(cut, low, high):
    replay: Any = TwoEpisodes(cut)
    assert divergence.allowed(replay, 0.5) == pytest.approx((low, high))
    assert [len(divergence.warnings(mean, replay, 0.5)) for mean in (low, high + 1, low - 2, math.nan)] == [0, 0, 1, 1]


def test_mavens_latent_policy_learns_from_single_episodes(tmp_path):
    """Episode by episode, paid for one latent alone: it is drawn more often."""
    config = replaying("maven", tmp_path, latents=3, latent_entropy=0.0, latent_learning_rate=0.05, num_envs=1)
    with contextlib.closing(vector.make(config, 1)) as env:
        maven = learner("maven", env, config)
        maven.unit = 1.0
        state = torch.zeros(3, 1, maven.actor.spec.state_dim)
        filled = torch.ones(2, 1, dtype=torch.bool)
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            latent = int(torch.randint(3, (), generator=generator))
            reward = torch.tensor([[0.0], [float(latent == 0)]])
            ended = torch.tensor([[False], [True]])
            episode = SimpleNamespace(
                state=state, reward=reward, ended=ended, filled=filled, active=torch.ones(2, 1, 2, dtype=torch.bool),
                extras={"latent": torch.full((2, 1, 2), latent)},
            )  # fmt: skip
            maven.improve(episode)
        assert float(maven.actor.latent_policy(state[0]).exp()[0, 0]) > 0.6


def test_mavens_latent_is_drawn_by_what_the_first_who_is_there_sees(tmp_path):
    config = replaying("maven", tmp_path, latents=3)
    with contextlib.closing(vector.make(config, 4)) as env:
        actor = learner("maven", env, config).actor
    with torch.no_grad():
        last = list(actor.policy.modules())[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))  # whatever is seen
        first = next(layer for layer in actor.policy.modules() if isinstance(layer, torch.nn.Linear))
        first.weight.fill_(1.0)
        first.bias.zero_()
        last.weight[1] = 100.0  # but where anything is
    state = torch.zeros(2, 2, actor.spec.state_dim)
    state[:, 1] = 1.0  # agent 0 is not there
    memory = actor.begin(torch.zeros(2, 2, actor.memory_size), torch.ones(2).bool(), state, torch.full((2,), 0.5))
    assert memory[..., actor.spec.memory :].argmax(-1).eq(1).all()


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("algo", ["vdn", "iql", *QUANTILES])
def test_an_agent_cut_off_while_others_go_on_counts_in_full_whatever_lambda_is(algo, lam, tmp_path):
    """Agent 0 is cut after the first of three steps that pay 2, 1, 1, and would have gone on to earn 10."""
    config = replaying(algo, tmp_path, td_lambda=lam)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        model = learner(algo, env, config)
        model.unit, model.run = 1.0, config.replace(gamma=1.0)
        present = torch.tensor([[[True, True]], [[True, True]], [[False, True]], [[False, False]]])
        active = torch.tensor([[[True, True]], [[False, True]], [[False, True]]])
        last = torch.tensor([[False], [False], [True]])
        batch = SimpleNamespace(
            active=active, present=present, reward=torch.tensor([[2.0], [1.0], [1.0]]), terminated=last, ended=last,
            filled=torch.ones(3, 1, dtype=torch.bool),
        )  # fmt: skip
        following = torch.tensor([[10.0 + 2], [1], [0]])
        if algo in QUANTILES:
            targets = model.distribution_targets(batch, following[..., None].expand(3, 1, 200))
            assert targets.flatten(0, 1).unique(dim=-1).flatten().tolist() == [14, 2, 1]
        else:
            assert model.targets(batch, following).flatten().tolist() == [14, 2, 1]


def test_iql_values_what_the_team_earns_after_an_agent_left(tmp_path):
    """The target of who leaves after its first step is the team's return, whatever lambda is."""
    config = replaying("iql", tmp_path, td_lambda=0.0)
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        iql, taught = learner("iql", env, config), {}
        iql.unit, steps, own = 1.0, 3, iql.actor.spec.obs_dim
        active = torch.ones(steps, 1, 2, dtype=torch.bool)
        active[1:, :, 0] = False
        last = torch.zeros(steps, 1, dtype=torch.bool)
        last[-1] = True
        batch = SimpleNamespace(
            obs=torch.ones(steps + 1, 1, 2, own), action=torch.zeros(steps, 1, 2, dtype=torch.long), active=active,
            present=torch.cat((active, active[-1:])), avail=None, reward=torch.ones(steps, 1), terminated=last,
            ended=last, filled=torch.ones(steps, 1, dtype=torch.bool),
        )  # fmt: skip
        iql.targets = lambda batch, following: taught.setdefault("following", following) * 0
        iql.loss(batch)
        following = taught["following"]
        assert torch.equal(following[:-1, :, 0], following[:-1, :, 1]) and following[0, 0, 0] != 0


def test_targets_that_hold_what_is_earned_at_random_are_said(tmp_path):
    with contextlib.closing(vector.make(small_steps(tmp_path), 4)) as env:
        for changes, said in (({}, 0), ({"exploration": 1.0}, 1), ({"exploration": 1.0, "td_lambda": 0.0}, 0)):
            notes = small_steps(tmp_path, **changes).algorithm.notes(env)
            assert sum("--td-lambda" in note for note in notes) == said


def test_damaged_episodes_end_in_one_line_and_the_buffer_can_be_filled_anew(tmp_path):
    run = train(small_steps(tmp_path), quiet=True)
    file = max((run / "replay").glob("*.pt"))
    file.write_bytes(b"no archive")
    with pytest.raises(checkpoint.CheckpointError, match=rf"{file.name} holds no episodes .* --no-keep-buffer"):
        train(small_steps(tmp_path, total_timesteps=512), resume=run, quiet=True)
    file.unlink()
    with pytest.raises(checkpoint.CheckpointError, match=r"replay lacks episode \d+ .* --no-keep-buffer"):
        train(small_steps(tmp_path, total_timesteps=512), resume=run, quiet=True)
    train(small_steps(tmp_path, total_timesteps=512, keep_buffer=False), resume=run, quiet=True)
    assert checkpoint.load_policy_file(checkpoint.newest(run)[0])["timesteps"] >= 512


def test_episodes_that_another_run_left_are_no_episodes_of_this_one(tmp_path):
    left = train(small_steps(tmp_path / "left", seed=1), quiet=True) / "replay"
    shutil.copytree(left, tmp_path / "new" / "replay")
    run = train(small_steps(tmp_path / "new", seed=2), quiet=True)
    alone = train(small_steps(tmp_path / "alone", seed=2), quiet=True)
    for file in (alone / "replay").iterdir():
        found, wanted = (load_tensors(place / "replay" / file.name) for place in (run, alone))
        assert all(torch.equal(found["arrays"][name], wanted["arrays"][name]) for name in wanted["arrays"])


def test_what_a_rival_cannot_learn_in_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="--buffer-episodes 1000000000 of up to 200 steps may take"):
        train(settings("vdn", tmp_path / "large", buffer_episodes=10**9), quiet=True)
    with pytest.raises(ConfigError, match="--batch-episodes must be at most --buffer-episodes 40"):
        settings("vdn", tmp_path / "batch", batch_episodes=41)
    with pytest.raises(ConfigError, match=r"may take .* GB.*: use \d+, and as many --batch-episodes at most"):
        train(settings("vdn", tmp_path / "huge", buffer_episodes=10**12, batch_episodes=10**9), quiet=True)
    with pytest.raises(ConfigError, match=r"--replay-ratio must be in .*10000.*got 1000000000"):
        settings("vdn", tmp_path / "busy", replay_ratio=1e9)
    config = rqe_mappo.default_config("gymnasium:Pendulum-v1", algo="qmix").replace(out=str(tmp_path / "box"))
    with pytest.raises(ConfigError, match="needs agents with one choice each"):
        train(replace(config, num_envs=2), quiet=True)
