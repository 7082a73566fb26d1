"""Live page, films and evaluations show policies with memory as they were when they decided."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rqe_mappo import cli
from rqe_mappo.config import from_json
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.evaluation import film
from rqe_mappo.evaluation.episodes import chooser
from rqe_mappo.training.loop import train
from tests import small_tasks
from tests.small_tasks import small_config

SMALL = "--total-timesteps 300 --num-envs 4 --num-steps 16 --eval-episodes 0 --recurrent --gru-size 6"


@pytest.fixture(scope="module")
def carts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carts") / "run"
    cli.train([*f"--env cartpole --algo ippo {SMALL} --out".split(), str(folder)])
    return folder


def decided(policy: Policy, out: list) -> None:
    """Let a policy note, with each decision, the probabilities and the value that led to it."""
    act, critic = policy.act, policy.modules["critic"]

    def noted(obs, agent, *args, active=None, **masks):
        rows, agents = torch.from_numpy(obs.copy()), torch.as_tensor(np.array(agent))
        known = policy._remembered(rows)
        with torch.no_grad():
            probs = policy.actor(rows, agents, known.actor)[0].probs
            value = critic(rows, agents, known.critic)[..., 0]
        out.append((probs[0].numpy(), value[0].numpy()))
        return act(obs, agent, *args, active=active, **masks)

    policy.act = noted


def test_live_page_shows_the_probabilities_and_values_of_the_decision(carts):
    session_module = pytest.importorskip("rqe_mappo.live.session")
    policy, noted, shown = Policy.load(carts), [], []
    with torch.no_grad():
        policy.actor.nets[0].output[-1].weight.mul_(10)
    decided(policy, noted)
    session = session_module.Session(
        (policy,), lambda kind, content: shown.append(content) if kind == "decision" else 0
    )
    session.paused = True  # so that every decision is shown
    try:
        with torch.no_grad():
            session._open(1)
            for _ in range(150):
                session._decide(session.env)
    finally:
        session._close()
    thoughts = [content["agents"] for content in shown if content["agents"] is not None]
    assert len(thoughts) == len(noted) == 150 and sum(bool(content["outcome"]) for content in shown) >= 1
    for agents, (probs, value) in zip(thoughts, noted, strict=True):
        np.testing.assert_allclose(agents[0]["mixture"], probs[0], atol=1e-4)
        np.testing.assert_allclose(agents[0]["policies"][0]["probs"], probs[0], atol=1e-4)
        np.testing.assert_allclose(agents[0]["policies"][0]["value"], value[0], atol=1e-3)
    assert policy.memory is None or policy.memory.actor.shape == (1, 1, 6)


class Camera:
    """Notes what it is told of the agents' values."""

    told: list[np.ndarray]

    def __init__(self, env):
        self.env, Camera.told = env, []

    def watch(self, call):
        step = self.env.step

        def watched(actions):
            found = step(actions)
            call()
            return found

        self.env.step = watched

    def forget(self):
        del self.env.step

    def frame(self, title, value=None):
        Camera.told.append(value)
        return Image.new("RGB", (8, 8))


def test_films_colour_agents_by_the_values_of_the_decision(tmp_path, monkeypatch):
    config = small_config("TOY", "ippo", recurrent=True, total_timesteps=200, out=str(tmp_path / "run"))
    policy, noted = Policy.load(train(config)), []
    decided(policy, noted)
    monkeypatch.setattr(small_tasks, "TOY", replace(small_tasks.TOY, camera=Camera))
    film.film(
        from_json(policy.config_json), chooser(policy), policy, tmp_path / "out.gif", film.FilmSettings(3, seed=1)
    )
    assert len(Camera.told) == len(noted) > 10
    for told, (_, value) in zip(Camera.told, noted, strict=True):
        there = ~np.isnan(told)
        assert there.any()
        np.testing.assert_allclose(told[there], value[there], atol=1e-5)


def test_evaluation_from_the_command_line(carts, tmp_path, capsys):
    cli.evaluate([str(carts), "--episodes", "20"])
    assert "return" in capsys.readouterr().out and (carts / "eval.json").is_file()
    run = train(small_config("bandit", "rqe-mappo", total_timesteps=100, out=str(tmp_path / "run")))
    cli.evaluate([str(run), "--episodes", "20"])
    assert json.loads((run / "eval.json").read_text())["critic"]["samples"] == 20


def test_memory_can_be_kept_and_set_again(carts):
    policy = Policy.load(carts)
    policy.act(np.ones((1, policy.spec.obs_dim), np.float32))
    kept, obs = policy.memory, np.full((1, policy.spec.obs_dim), 0.1, np.float32)
    first = policy.probabilities(obs)
    policy.act(obs)
    assert not np.array_equal(policy.probabilities(obs), first)
    policy.memory = kept
    assert np.array_equal(policy.probabilities(obs), first)
    policy.memory = None
    assert not np.array_equal(policy.probabilities(obs), first)


def test_live_page_refuses_continuous_actions(tmp_path, monkeypatch):
    session_module = pytest.importorskip("rqe_mappo.live.session")
    run = train(small_config("NUMBERS", "mappo", total_timesteps=100, out=str(tmp_path / "run")))
    monkeypatch.setattr(small_tasks, "NUMBERS", replace(small_tasks.NUMBERS, scene=Camera))
    with pytest.raises(ValueError, match="probabilities of actions"):
        session_module.Session((Policy.load(run),), print)
