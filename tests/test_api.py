"""The package from Python: train, evaluate, callbacks, and the README's lines."""

import re
import runpy
import threading
from pathlib import Path

import optuna
import pytest
import torch

import rqe_mappo
from rqe_mappo.config import ConfigError
from rqe_mappo.deploy.policy import Policy
from rqe_mappo.training.loop import Interrupted

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"total_timesteps": 1024, "num_envs": 8, "num_steps": 32, "settle": 0.0, "average": 0.0, "quiet": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return rqe_mappo.train("cartpole", **SMALL, out=str(tmp_path_factory.mktemp("api") / "run"))


def test_training_gives_a_run_folder_and_prints_nothing_if_quiet(tmp_path, capsys):
    folder = rqe_mappo.train("cartpole", **SMALL, out=str(tmp_path / "run"))
    assert Policy.load(folder).timesteps == 1024
    assert capsys.readouterr() == ("", "")


def test_scenario_and_algorithm_are_named_beside_the_environment(tmp_path):
    few = {"total_timesteps": 512, "num_envs": 8, "eval_episodes": 0, "quiet": True, "out": str(tmp_path / "run")}
    policy = Policy.load(rqe_mappo.train("cartpole", scenario="calm", algo="iql", batch_episodes=4, **few))
    assert policy.timesteps >= 512
    assert '"algo": "iql"' in policy.config_json and '"scenario": "calm"' in policy.config_json
    with pytest.raises(ConfigError, match="other settings"):
        rqe_mappo.train(rqe_mappo.default_config("cartpole"), algo="iql")


def test_threads_and_the_smallest_numbers_are_given_back(tmp_path):
    before, seen = torch.get_num_threads(), []
    tiny = torch.tensor(1e-38)
    torch.set_num_threads(2)
    try:
        rqe_mappo.train("cartpole", **SMALL, out=str(tmp_path / "run"), on_update=lambda *_: seen.append(tiny * 0.1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen and not any(seen), "training took denormal numbers for 0, with which it is slow"
    assert tiny * 0.1 > 0


def test_it_trains_in_a_thread(tmp_path):
    folders = []
    thread = threading.Thread(
        target=lambda: folders.append(rqe_mappo.train("cartpole", **SMALL, out=str(tmp_path / "r")))
    )
    thread.start()
    thread.join(60)
    assert folders and (folders[0] / "latest").is_file()


def test_evaluation_prints_its_table_and_gives_its_numbers(run):
    found = rqe_mappo.evaluate(run, episodes=16)
    assert "mean return" in str(found) and "predicted" in str(found)
    estimate = found["mean return"]
    assert estimate.low <= estimate.value <= estimate.high and found.episodes == 16
    assert found["mean return"].value == pytest.approx(found.records["return"].mean())
    with pytest.raises(KeyError, match="mean return"):
        found["happiness"]


def test_a_mixture_is_evaluated_like_a_policy(run):
    policy = Policy.load(run)
    mixed = rqe_mappo.evaluate(rqe_mappo.interpolate(policy, Policy.load(run), alpha=0.5), episodes=8)
    assert mixed.episodes == 8 and mixed.calibration is None


def test_callbacks_see_every_update_and_every_episode(tmp_path):
    steps, episodes = [], []
    folder = rqe_mappo.train(
        "cartpole", **SMALL, out=str(tmp_path / "run"),
        on_update=lambda step, scalars: steps.append((step, scalars["policy/entropy"])) and None,
        on_episodes=lambda step, records: episodes.extend(records) and None,
    )  # fmt: skip
    assert [step for step, _ in steps] == [256, 512, 768, 1024]
    assert all(0 < entropy < 0.7 for _, entropy in steps)
    decisions = sum(int(record["length"].sum()) for record in episodes)
    assert 0 < decisions <= 1024 and Policy.load(folder).timesteps == 1024


@pytest.mark.parametrize("callback", ["on_update", "on_episodes"])
def test_a_callback_that_is_content_stops_the_run_which_saves_and_can_go_on(tmp_path, callback):
    config = rqe_mappo.default_config("cartpole").replace(
        **{name: value for name, value in SMALL.items() if name != "quiet"}, out=str(tmp_path / "run")
    )
    folder = rqe_mappo.train(config, quiet=True, **{callback: lambda step, found: step >= 512})
    assert Policy.load(folder).timesteps == 512
    rqe_mappo.train(config, resume=folder, quiet=True)
    assert Policy.load(folder).timesteps == 1024


def test_an_exception_in_a_callback_reaches_the_caller(tmp_path):
    def fail(step, scalars):
        raise Interrupted(tmp_path)

    with pytest.raises(KeyboardInterrupt):
        rqe_mappo.train("cartpole", **SMALL, out=str(tmp_path / "run"), on_update=fail)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"env": "cartpol"}, "--env cartpol is unknown"),
        ({"env": "cartpole", "tau": -1.0}, "must be > 0"),
        ({"env": "cartpole", "taw": 1.0}, "--taw is no setting"),
        ({"env": "cartpole", "algo": "mapo"}, "--algo mapo is unknown"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        rqe_mappo.default_config(**settings)
    assert "\n" not in str(error.value)


def test_settings_go_where_they_belong_by_their_own_names():
    config = rqe_mappo.default_config("sumo", tau=0.3, collision_cost=50.0, num_envs=4)
    assert (config.algorithm.tau, config.env_config.collision_cost, config.num_envs) == (0.3, 50.0, 4)
    names = [set(vars(part)) for part in (config, config.algorithm, config.env_config)]
    assert sum(map(len, names)) == len(set.union(*names))  # no name has two owners
    with pytest.raises(ConfigError):
        config.replace(nothing=1)


def test_the_optuna_example_searches_and_prunes(tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: trial.number == 1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    example = runpy.run_path(str(ROOT / "examples" / "optuna_search.py"))
    study = example["main"](["--trials", "2", "--timesteps", "9000", "--out", str(tmp_path)])
    states = [trial.state for trial in study.trials]
    assert states == [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    assert Policy.load(tmp_path / "trial_1").timesteps <= 9000 + 8192


def test_the_python_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    assert len(first.splitlines()) <= 7 and "200_000" in first
    code = first.replace("total_timesteps=200_000", "total_timesteps=1024, num_envs=8").replace(
        "episodes=200", "episodes=8"
    )
    names: dict[str, object] = {}
    exec(code, names)
    assert names["actions"].shape == (1,) and "mean return" in capsys.readouterr().out


def test_the_package_offers_what_it_lists():
    assert set(rqe_mappo.__all__) <= set(dir(rqe_mappo))
    assert all(getattr(rqe_mappo, name) is not None for name in rqe_mappo.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        rqe_mappo.nothing  # noqa: B018
