"""Fictitious co-play: who plays beside whom, and what is learned from."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import rqe_mappo
from rqe_mappo import registry
from rqe_mappo.algorithms.contract import Progress
from rqe_mappo.baselines import fcp
from rqe_mappo.baselines.fcp import Beside
from rqe_mappo.checkpoint import CheckpointError
from rqe_mappo.config import ConfigError
from rqe_mappo.data import vector
from rqe_mappo.data.collector import Collector
from rqe_mappo.envs.matrix_games import PayoffTable
from rqe_mappo.nets.contract import Acted
from rqe_mappo.training.run import Run
from tests.test_training import interrupt_after

FEW = {"total_timesteps": 2048, "num_envs": 8, "num_steps": 4, "eval_episodes": 0}


class Always:
    """Takes one action, and says so."""

    spec, draws, memory_size = None, 1, 0

    def __init__(self, action: int):
        self.action = action

    def act(self, obs, agent, memory, *, uniform, avail=None, explore=0.0):
        taken = torch.full(agent.shape, self.action)
        return Acted(taken, memory, {"log_prob": -taken.float()})


def beside(copies: int, agents: int, others: int) -> Beside:
    own = (torch.arange(copies) % agents)[:, None] == torch.arange(agents)
    return Beside(Always(9), [Always(number) for number in range(others)], own)


def test_one_agent_of_each_copy_acts_by_itself_and_all_others_by_one_partner():
    playing = beside(600, 3, 4)
    uniform = torch.rand(600, generator=torch.Generator().manual_seed(0))
    memory = playing.begin(torch.zeros(600, 3, 1), torch.ones(600, dtype=torch.bool), None, uniform)
    agent = torch.arange(3).expand(600, 3)
    acted = playing.act(torch.zeros(600, 3, 2), agent, memory, uniform=torch.rand(600, 3, 1))
    assert (acted.action[playing.own] == 9).all() and torch.equal(acted.memory, memory)
    theirs = acted.action[~playing.own].reshape(600, 2)
    assert (theirs[:, 0] == theirs[:, 1]).all() and torch.equal(theirs[:, 0], (uniform * 4).floor().long())
    assert np.bincount(theirs[:, 0]).min() > 100


def test_partners_stay_for_their_episode():
    playing = beside(4, 2, 3)
    every, one = torch.ones(4, dtype=torch.bool), torch.tensor([False, True, False, False])
    memory = playing.begin(torch.zeros(4, 2, 1), every, None, torch.tensor([0.0, 0.4, 0.99, 0.7]))
    later = playing.begin(memory, one, None, torch.full((4,), 0.99))
    assert memory[:, 0, 0].tolist() == [0, 1, 2, 2] and later[:, 0, 0].tolist() == [0, 2, 2, 2]


@pytest.fixture(scope="module")
def population(tmp_path_factory) -> list[Path]:
    """Two runs of a game of two."""
    folder = tmp_path_factory.mktemp("partners")
    found = []
    for seed in (1, 2):
        config = rqe_mappo.default_config("matrix", "penalty-2x2", "ippo", **FEW, keep=100, save_interval=4)
        found.append(Path(rqe_mappo.train(config.replace(seed=seed, out=str(folder / str(seed))), quiet=True)))
    return found


def learner(population: list[Path], **changes):
    names = tuple(map(str, population))
    return rqe_mappo.default_config("matrix", "penalty-2x2", "fcp", **FEW | changes, partners=names)


@pytest.mark.slow
def test_a_run_stands_for_itself_early_midway_and_at_the_end(population):
    own = learner(population).algorithm
    steps = [file.name for file in own.files()]
    every = sorted(file.name for file in (population[0] / "checkpoints").glob("*.policy.pt"))
    assert len(every) >= 5 and steps == 2 * [every[0], every[round((len(every) - 1) / 2)], every[-1]]
    assert [file.name for file in learner(population, stages=1).algorithm.files()] == 2 * [every[-1]]
    one = population[0] / "checkpoints" / every[1]
    assert learner([one]).algorithm.files() == [one]


@pytest.mark.slow
def test_partners_rest_and_only_the_rows_of_the_learner_are_learned_from(population, tmp_path):
    config = learner(population, out=str(tmp_path / "run"))
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, tmp_path / "run", env)
        model = run.algorithm
        collector = Collector(env, model.rollout, config.num_steps, torch.device("cpu"), run.generator)
        collector.start(env.reset(0))
        chunk = collector.collect(0.0)[0]
        before = [{k: v.clone() for k, v in other.state_dict().items()} for other in model.rollout.others]
        seen = []
        model.agents.learn = lambda given, progress: seen.append(given) or {}
        model.learn(chunk, Progress(0, 1))
    assert torch.equal(seen[0].active, chunk.active & model.rollout.own) and seen[0].memory.shape[-1] == 0
    for old, other in zip(before, model.rollout.others, strict=True):
        assert all(torch.equal(old[k], v) for k, v in other.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("theirs", [0, 1])
def test_fcp_answers_its_partners(theirs, tmp_path, monkeypatch):
    """In penalty-2x2 who does otherwise than the partner is fined: the best response is to do the same."""
    many = {"total_timesteps": 60_000, "num_envs": 128, "anneal_lr": False}
    config = learner([tmp_path], out=str(tmp_path / "run"), eps=0.01, **many)
    always = fcp.Partner(tmp_path / "always", "", Always(theirs), config, config.total_timesteps)
    monkeypatch.setattr(fcp, "partners", lambda *given: [always])
    monkeypatch.setattr(fcp.FcpConfig, "files", lambda self: [always.file])
    policy = rqe_mappo.Policy.load(rqe_mappo.train(config, quiet=True))
    with contextlib.closing(vector.make(config, 1)) as env:
        seen = env.reset(0)
    assert (policy.probabilities(seen.obs, np.arange(2))[0][:, theirs] > 0.9).all()


@pytest.mark.slow
def test_a_run_resumes_exactly(population, tmp_path):
    whole = rqe_mappo.train(learner(population, out=str(tmp_path / "whole")), quiet=True)
    stopped = learner(population, out=str(tmp_path / "stopped"))
    interrupt_after(stopped, updates=3)
    resumed = rqe_mappo.train(stopped, resume=tmp_path / "stopped", quiet=True)
    ours, theirs = (rqe_mappo.Policy.load(run).actor.state_dict() for run in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def refused(config, match: str) -> None:
    with contextlib.closing(vector.make(config, config.num_envs)) as env, pytest.raises(ConfigError, match=match):
        config.algorithm.check_environment(env)
        registry.algorithm("fcp")(config, env, torch.Generator())


@pytest.mark.slow
def test_partners_stay_what_they_were_when_a_run_is_resumed(population, tmp_path):
    """One of them trains on, with more checkpoints; another's file is replaced."""
    theirs = [Path(shutil.copytree(run, tmp_path / run.name)) for run in population]
    config = learner(theirs, out=str(tmp_path / "run"))
    interrupt_after(config, updates=2)
    before = [file.name for file in config.algorithm.files()]
    longer = sorted((theirs[0] / "checkpoints").glob("*.policy.pt"))[-1]
    for kind in ("policy", "training"):
        shutil.copy(longer, theirs[0] / "checkpoints" / f"step_{10**9:012d}.{kind}.pt")
    assert [file.name for file in config.algorithm.files()] != before
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        run = Run.build(config, Path(config.out), env)
        run.restore()
        assert [one.file.name for one in run.algorithm.partners] == before
        shutil.copy(sorted((theirs[1] / "checkpoints").glob("*.policy.pt"))[1], run.algorithm.partners[-1].file)
        with pytest.raises(CheckpointError, match=r"--partners [^\n]* is not what it was when the run began[^\n]*$"):
            run.restore()


@pytest.mark.slow
def test_partners_of_unfinished_runs_and_of_other_games_are_named(population, tmp_path):
    kinds = [sorted((run / "checkpoints").glob("*.policy.pt"))[1] for run in population]
    config = rqe_mappo.default_config("matrix", "default", "fcp", **FEW, partners=tuple(map(str, kinds)))
    config = config.replace(payoffs=PayoffTable.from_file(game_file(tmp_path)))
    with contextlib.closing(vector.make(config, config.num_envs)) as env:
        notes = Run.build(config, tmp_path, env).notes
    assert sum("was trained in other settings of matrix" in note for note in notes) == 2
    assert sum("of its run's 2,048 steps" in note for note in notes) == 2


def game_file(folder: Path) -> str:
    file = folder / "game.json"
    file.write_text(json.dumps({"payoffs": [[[3.0, 1.0], [0.0, 2.0]], [[3.0, 1.0], [0.0, 2.0]]]}))
    return str(file)


def test_what_cannot_be_a_partner_is_refused_in_one_line(tmp_path):
    refused(learner([]), r"^--algo fcp needs --partners RUN[^\n]*$")
    refused(learner([tmp_path]), r"^--partners [^\n]* holds no checkpoint[^\n]*$")
    refused(learner([tmp_path / "nothing.policy.pt"]), r"^--partners [^\n]*nothing[^\n]*$")
    refused(learner([tmp_path], num_envs=1), r"^--num-envs must be at least 2[^\n]*$")
    refused(learner([tmp_path, tmp_path / "." / "more" / ".."]), r"^--partners names one of them twice[^\n]*$")


def test_a_run_that_kept_only_its_end_has_no_stages(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for step in (8_000, 9_000, 10_000):
        for kind in ("policy", "training"):
            (tmp_path / "checkpoints" / f"step_{step:012d}.{kind}.pt").touch()
    with pytest.raises(
        ConfigError, match=r"^--partners [^\n]* has no early and late checkpoints \(only 8,000 to [^\n]*--stages 1$"
    ):
        learner([tmp_path]).algorithm.files()
    assert [file.name for file in learner([tmp_path], stages=1).algorithm.files()] == ["step_000000010000.policy.pt"]
