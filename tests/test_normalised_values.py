"""Value methods whose observations are normalised: shift and scale of what is seen change nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rqe_mappo
from rqe_mappo import checkpoint
from rqe_mappo.data import vector
from rqe_mappo.evaluation import rigm
from rqe_mappo.nets.normaliser import LARGEST
from rqe_mappo.nets.utilities import Utilities
from rqe_mappo.registry import Environment
from rqe_mappo.training.loop import train
from rqe_mappo.training.run import Run
from tests.test_off_policy import RIVALS, assert_same_end
from tests.toy import Toy, recipe

SCALE, SHIFT = 64.0, 1024.0  # kept exactly enough by single precision
PLAIN = Environment(Toy, "tests.toy:SCENARIOS", recipe)


class MovedToy(Toy):
    """The toy, with observations and states in another unit and about another zero."""

    def _view(self) -> np.ndarray:
        return (super()._view() * SCALE + SHIFT).astype(np.float32)


MOVED = Environment(MovedToy, "tests.toy:SCENARIOS", recipe)


def config(env: str, algo: str, **changes: Any) -> Any:
    few = {
        "num_envs": 4, "num_steps": 16, "total_timesteps": 2000, "eval_episodes": 0, "batch_episodes": 4,
        "replay_ratio": 4.0, "actor_hidden": (8,), "exploration": 1.0, "td_lambda": 0.5, "seed": 3,
    }  # fmt: skip
    few |= {"central-q": {"n_agents": 1}, "maven": {"latent_policy": "uniform"}}.get(algo, {})
    default = rqe_mappo.default_config(f"tests.test_normalised_values:{env}", algo=algo)
    return default.replace(**few | {"normalise_obs": True} | changes)


def after_some(env: str, algo: str, folder: Path, updates: int = 8, **changes: Any) -> Run:
    """A run that has learned from so many trajectories of random play."""
    settings = config(env, algo, **changes)
    run = Run.build(settings, folder, vector.make(settings, settings.num_envs, in_process=True))
    run.collector.start(run.env.reset(settings.seed))
    for _ in range(updates):
        chunk, _ = run.collector.collect(1.0)
        run.algorithm.learn(chunk, run.progress)
    assert run.algorithm.steps > 10
    return run


@torch.no_grad()
def utilities(run: Run, obs: torch.Tensor) -> torch.Tensor:
    """What each agent's actions are worth to it."""
    actor: Any = run.algorithm.actor
    return actor.values(obs, torch.arange(obs.shape[-2]).expand(obs.shape[:-1]))[0]


@pytest.mark.parametrize("algo", RIVALS)
def test_shift_and_scale_of_observations_change_nothing(algo, tmp_path):
    runs = {env: after_some(env, algo, tmp_path / env) for env in ("PLAIN", "MOVED")}
    raw = {env: after_some(env, algo, tmp_path / env, normalise_obs=False) for env in ("PLAIN", "MOVED")}
    agents = len(runs["PLAIN"].env.possible_agents)
    view = torch.rand(50, agents, 2, generator=torch.Generator().manual_seed(0))
    known, found = utilities(runs["PLAIN"], view), utilities(runs["MOVED"], view * SCALE + SHIFT)
    assert torch.allclose(found, known, atol=2e-3)
    assert (known.amax((0, 1)) - known.amin((0, 1))).max() > 0.02  # they have learned something
    gap = utilities(raw["PLAIN"], view) - utilities(raw["MOVED"], view * SCALE + SHIFT)
    assert gap.abs().max() > 0.1


def test_statistics_are_of_what_agents_saw_when_they_acted(tmp_path):
    settings = config("MOVED", "qmix")
    run = Run.build(settings, tmp_path, vector.make(settings, 4, in_process=True))
    run.collector.start(run.env.reset(0))
    rows, states = [], []
    for _ in range(3):
        chunk, _ = run.collector.collect(1.0)
        run.algorithm.learn(chunk, run.progress)
        rows.append(chunk.obs[:-1][chunk.active].double())
        for state, active in zip(chunk.state[:-1].flatten(0, 1), chunk.active.flatten(0, 1), strict=True):
            if active.any():
                states.append(state[active][0].double())
    nets = run.algorithm.nets
    for normaliser, seen in ((nets["actor"].normaliser, torch.cat(rows)), (nets["state"], torch.stack(states))):
        assert int(normaliser.count) == len(seen)
        assert torch.allclose(normaliser.mean, seen.mean(0))
        assert torch.allclose(normaliser.variance, seen.var(0, correction=0))
    assert run.algorithm.target["actor"].normaliser is nets["actor"].normaliser


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"recurrent": True}, {"window": 3}])
def test_a_normalised_run_goes_on_exactly_and_its_policy_sees_as_it_did(tmp_path, changes):
    few = {"keep_buffer": True, "save_interval": 1, "total_timesteps": 1500} | changes
    whole = train(config("MOVED", "qmix", out=str(tmp_path / "whole"), **few), quiet=True)
    stopped = config("MOVED", "qmix", out=str(tmp_path / "stopped"), **few)

    def stop(step: int, _: Any) -> None:
        if step >= 700:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, quiet=True, on_update=stop)
    train(stopped, resume=tmp_path / "stopped", quiet=True)
    assert_same_end(whole, tmp_path / "stopped")
    actor: Any = rqe_mappo.Policy.load(whole).actor
    assert isinstance(actor, Utilities)
    assert actor.normaliser is not None and SHIFT < actor.normaliser.mean[0] < SHIFT + SCALE


def test_violations_of_rigm_are_counted_with_what_the_mixer_sees(tmp_path, monkeypatch):
    run, shown = after_some("MOVED", "riskq", tmp_path), []
    mixed = run.algorithm.mixed

    def seen(nets: Any, quantiles: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        shown.append(given)
        return mixed(nets, quantiles, *given)

    monkeypatch.setattr(run.algorithm, "mixed", seen)
    rigm._of(run.algorithm, run.algorithm.replay.newest(10), "cvar:0.25", 20)
    largest = [max(float(part.abs().max()) for part in parts) for parts in list(zip(*shown, strict=True))[:2]]
    assert all(0.1 < value <= LARGEST for value in largest)  # of states and of observations


@pytest.mark.parametrize("algo", ["ddn", "riskq"])
def test_rounding_beside_large_values_is_no_violation_of_rigm(tmp_path, algo):
    algorithm = after_some("PLAIN", algo, tmp_path).algorithm
    with torch.no_grad():
        for net in algorithm.actor.nets:
            last = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)][-1]
            last.bias.add_(1e6)
    found = rigm._of(algorithm, algorithm.replay.newest(50), "wang:0.75", 300)
    assert found.rate.value == 0


@pytest.mark.parametrize("fault", ["state", "mixer", "shape"])
def test_violations_of_rigm_of_a_policy_that_lacks_something_end_in_one_line(tmp_path, fault):
    content = after_some("PLAIN", "riskq", tmp_path).policy_content()
    if fault == "shape":
        content["modules"]["state"]["mean"] = torch.zeros(3, dtype=torch.float64)
    else:
        del content["modules"][fault]
    path = tmp_path / "step_7.policy.pt"
    torch.save({"format": checkpoint.POLICY_FORMAT, **content}, path)
    said = "does not fit its own settings" if fault == "shape" else f"holds no network '{fault}'"
    with pytest.raises(checkpoint.CheckpointError, match=said) as refused:
        rigm.violations(path, ["cvar:0.25"], 20, 0)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
