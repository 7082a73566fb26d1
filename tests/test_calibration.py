"""A calibrated critic is found right, and another one wrong, in the numbers and the picture."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from rqe_mappo import cli, registry, statistics
from rqe_mappo.config import default_config
from rqe_mappo.deploy.policy import Policy, ReturnDistribution
from rqe_mappo.envs.contract import Observed, Step
from rqe_mappo.evaluation.episodes import Calibration, calibration, completed, run_episodes
from rqe_mappo.evaluation.evaluation import evaluate
from rqe_mappo.evaluation.plots import calibration_plot
from rqe_mappo.functional import categorical
from rqe_mappo.functional.risk import CVaR, Entropic, MeanVariance, Neutral
from rqe_mappo.training.loop import train
from tests import toy

ATOMS = torch.linspace(-20, 20, 41)
EPISODES, AGENTS = 600, 2
MEASURES = [Neutral(), Entropic(4.0), Entropic(4.0, clip=None), CVaR(0.1), MeanVariance(4.0)]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Two hundred place the interval's ends well enough for a test."""
    monkeypatch.setattr("rqe_mappo.evaluation.episodes.RESAMPLES", 200)


class Oracle:
    """A critic of states that predicts the distribution `predict(state)` `[rows, N]`, whoever acts."""

    def __init__(self, predict, measure=None, return_scale=None, atoms=ATOMS):
        self.predict, self.measure, self.return_scale, self.atoms = predict, measure or Neutral(), return_scale, atoms

    in_reward = Policy.in_reward

    def view_of(self, obs, state):
        return state

    def distribution(self, state, agent):
        assert len(agent) == len(state)
        probs = self.predict(torch.as_tensor(state)[:, 0].double()).clamp_min(1e-30)
        return ReturnDistribution(self.atoms, (probs / probs.sum(-1, keepdim=True)).log().float())


def bell(mean: torch.Tensor, std: float) -> torch.Tensor:
    """The distribution of a normal return as ATOMS can hold it, `[rows, N]`.

    Shared by its neighbours, x gives atom z the mass max(0, 1 - |x - z|): the second difference of E max(0, z - x).
    """

    def below(shift: float) -> torch.Tensor:
        z = (ATOMS.double() + shift - mean[:, None]) / std
        return std * (z * torch.special.ndtr(z) + torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))

    return below(1) - 2 * below(0) + below(-1)


def calibrated(state: torch.Tensor) -> torch.Tensor:
    """The distribution that `known_returns` follow."""
    return bell(state, 2.0)


def known_returns(seed: int = 0) -> tuple[list[Observed], dict[str, np.ndarray]]:
    """Starts in state -3 or 3, by chance, and the returns that followed: normal about the state with std 2."""
    rng = np.random.default_rng(seed)
    state = rng.choice([-3.0, 3.0], (EPISODES, AGENTS, 1))
    active = np.ones((EPISODES, AGENTS), bool)
    starts = [Observed(view, view, acts) for view, acts in zip(state, active, strict=True)]
    returns = state[..., 0] + 2 * rng.standard_normal((EPISODES, AGENTS))
    finals = {name: np.zeros_like(state) for name in ("final_obs", "final_state")}
    return starts, {"discounted": returns, "remaining": np.zeros_like(returns), **finals}


def judged(predict, measure=None) -> Calibration:
    starts, records = known_returns()
    return calibration(Oracle(predict, measure), starts, records, seed=0, time_limit="bootstrap")


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_calibrated_critic_is_found_right(measure):
    found = judged(calibrated, measure)
    assert found.ks < found.ks_limit == pytest.approx(1.36 / math.sqrt(EPISODES))
    assert found.realised_value_low < found.predicted_value < found.realised_value_high
    assert abs(found.value_gap_in_std) < 0.1
    assert found.predicted_mean == pytest.approx(found.realised_mean, abs=0.3)
    assert found.predicted_std == pytest.approx(math.sqrt(9 + 4), rel=0.05)  # of the mixture, not of one start
    assert found.edge_mass_low < 1e-6 and found.edge_mass_high < 1e-6 and found.completion_weight == 0
    assert found.episodes == EPISODES and len(found.pit) == EPISODES * AGENTS


def test_shifted_critic_is_caught_with_its_sign():
    found = judged(lambda state: bell(state + 1, 2.0), Entropic(4.0))
    assert found.ks > 3 * found.ks_limit  # 2 Phi(1/4) - 1 = 0.197
    assert found.predicted_mean - found.realised_mean == pytest.approx(1, abs=0.3)
    assert found.predicted_value > found.realised_value_high and found.value_gap_in_std > 0.2
    assert found.pit.mean() < 0.4


@pytest.mark.parametrize(("std", "edges"), [(4.0, 0.5), (1.0, 2.0)], ids=["too wide", "too narrow"])
def test_wrong_spread_shows_in_the_shape_of_the_pit(std, edges):
    found = judged(lambda state: bell(state, std), Entropic(4.0))
    assert found.ks > 2 * found.ks_limit
    outer = ((found.pit < 0.1) | (found.pit > 0.9)).mean() / 0.2
    assert outer < edges if edges < 1 else outer > edges
    assert (found.predicted_std > found.realised_std) == (std > 2)


def test_coarse_atoms_alone_do_not_make_a_critic_wrong():
    """All that 41 atoms can hold of a return of 0.3 is 0.7 on atom 0 and 0.3 on atom 1."""
    starts, records = known_returns()
    records["discounted"][:] = 0.3
    oracle = Oracle(lambda state: categorical.dirac(ATOMS.double(), 0.3 + 0 * state))
    found = calibration(oracle, starts, records, seed=0, time_limit="bootstrap")
    assert found.ks < found.ks_limit
    assert found.predicted_std == pytest.approx(math.sqrt(0.21), rel=1e-5) and found.realised_std == 0
    assert math.isnan(found.value_gap_in_std) and found.as_dict()["value_gap_in_std"] is None
    assert "nan" not in str(found)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [(Neutral(), np.mean), (CVaR(0.1), lambda x: statistics.cvar(x, 0.1)),
     (Entropic(2.0, clip=None), lambda x: statistics.entropic(x, 2.0)),
     (MeanVariance(2.0), lambda x: x.mean() - x.var() / 4)],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_value_had_is_that_of_the_samples_themselves_also_where_some_are_equal(measure, expected):
    starts, records = known_returns()
    records["discounted"] = np.round(records["discounted"])
    oracle = Oracle(calibrated, measure)
    found = calibration(oracle, starts, records, seed=0, time_limit="bootstrap")
    assert found.realised_value == pytest.approx(expected(records["discounted"].ravel()), abs=1e-9)


def test_unit_of_tau_is_the_return_scale():
    starts, records = known_returns()
    oracle = Oracle(calibrated, Entropic(0.5), return_scale=4.0)
    found = calibration(oracle, starts, records, seed=0, time_limit="bootstrap")
    assert found.realised_value == judged(calibrated, Entropic(2.0)).realised_value
    assert found.tau == 0.5 and found.value_name == "V (entropic, tau 0.5)"


def test_what_a_softmax_leaves_on_the_lowest_atom_moves_the_exact_value_only():
    clean, leaking = (
        judged(lambda state, leak=leak: calibrated(state) + leak * (ATOMS == -20), Entropic(0.5)) for leak in (0, 1e-6)
    )
    assert leaking.predicted_exact < clean.predicted_exact - 3
    assert leaking.predicted_value == pytest.approx(clean.predicted_value, abs=1e-3)
    assert "without --risk-clip" in str(leaking) and "without --risk-clip" not in str(judged(calibrated, CVaR(0.1)))


def test_mass_on_the_edge_atoms_is_told_apart():
    found = judged(lambda state: calibrated(state) + 0.02 * (ATOMS == -20) + 0.01 * (ATOMS == 20))
    assert found.edge_mass_low == pytest.approx(0.02 / 1.03, rel=1e-4)
    assert found.edge_mass_high == pytest.approx(0.01 / 1.03, rel=1e-4)
    assert "1.94 % low, 0.97 % high" in str(found)


class Script:
    """Two copies of two agents; the first episode of a copy lasts two steps, all later ones one.

    Copy 0: agent 0 is cut off at the first step, agent 1 ends at the second. Copy 1: agent 0 ends at the first step,
    agent 1 is cut off at the second.
    """

    num_envs, possible_agents = 2, ("one", "other")

    def reset(self, seed: int) -> Observed:
        self.t = 0
        return self._observed(np.ones((2, 2), bool))

    def _observed(self, active: np.ndarray) -> Observed:
        return Observed(np.zeros((2, 2, 1), np.float32), np.full((2, 2, 1), self.t, np.float32), active)

    def step(self, actions: np.ndarray) -> Step:
        self.t += 1
        none, every = np.zeros((2, 2), bool), np.ones((2, 2), bool)
        acting, cut, ended, reward = {
            1: ([[0, 1], [0, 1]], [[1, 0], [0, 0]], [[0, 0], [1, 0]], [[1, 2], [3, 4]]),
            2: (every, [[0, 0], [0, 1]], [[0, 1], [0, 0]], [[0, 10], [0, 20]]),
        }.get(self.t, (every, none, every, [[1, 2], [3, 4]]))
        seen, cut, over = self._observed(np.array(acting, bool)), np.array(cut, bool), np.arange(2 * (self.t > 1))
        return Step(
            seen.obs, seen.state, seen.active, np.array(reward, np.float32), np.zeros((2, 2), np.float32),
            np.array(ended, bool), cut, *[np.full((cut.sum(), 1), 70.0 + self.t, np.float32)] * 2, {"copy": over},
        )  # fmt: skip


def test_run_episodes_keeps_what_a_time_limit_hides():
    records, starts = run_episodes(Script(), lambda env, seen: np.zeros((2, 2), int), each=2, seed=0, gamma=0.5)
    assert np.array_equal(records["copy"], [0, 1, 0, 1])
    assert np.array_equal(records["discounted"], [[1, 2 + 10 / 2], [3, 4 + 20 / 2], [1, 2], [3, 4]])
    assert np.array_equal(records["remaining"], [[0.5, 0], [0, 0.25], [0, 0], [0, 0]])
    for name in ("final_obs", "final_state"):
        assert np.array_equal(records[name][..., 0], [[71, 0], [0, 72], [0, 0], [0, 0]])
    assert [start.state[0, 0] for start in starts] == [0, 0, 2, 2]


def test_returns_cut_by_a_time_limit_are_completed_by_the_critic():
    """A critic that is sure of state - 60: 11 after the first step, 12 after the second, beside -5 at the starts."""
    records, starts = run_episodes(Script(), lambda env, seen: np.zeros((2, 2), int), each=2, seed=0, gamma=0.5)
    sure = Oracle(lambda state: categorical.dirac(ATOMS.double(), torch.where(state > 50, state - 60, -5.0)))
    expected = np.array([[1 + 0.5 * 11, 7], [3, 14 + 0.25 * 12], [1, 2], [3, 4]])
    assert np.allclose(completed(sure, records, np.random.default_rng(0)), expected)
    found = calibration(sure, starts, records, seed=0, time_limit="bootstrap")
    assert found.realised_mean == pytest.approx(expected.mean()) and found.predicted_mean == pytest.approx(-5)
    assert found.completion_weight == pytest.approx(0.75 / 8) and "completed by a draw from the critic: 9.4 %" in str(
        found
    )
    as_an_end = calibration(sure, starts, records, seed=0, time_limit="terminal")
    assert as_an_end.realised_mean == pytest.approx(records["discounted"].mean())
    assert as_an_end.completion_weight == 0 and "time limit" not in str(as_an_end)


def test_completion_draws_from_the_distribution_and_repeats_with_its_seed():
    cut = {
        "discounted": np.zeros((4000, 1)),
        "remaining": np.full((4000, 1), 0.5),
        "final_obs": np.zeros((4000, 1, 1)),
        "final_state": np.zeros((4000, 1, 1)),
    }
    oracle = Oracle(lambda state: bell(state, 4.0))
    drawn = [completed(oracle, cut, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    assert drawn[0].mean() == pytest.approx(0, abs=0.15) and drawn[0].std() == pytest.approx(2, rel=0.05)


def test_agents_that_took_no_part_do_not_count():
    starts, records = known_returns()
    for start in starts[: EPISODES // 2]:
        start.active[1] = False
    for start in starts[-10:]:
        start.active[:] = False
    found = calibration(Oracle(calibrated), starts, records, seed=0, time_limit="bootstrap")
    assert found.episodes == EPISODES - 10 and len(found.pit) == 2 * EPISODES - EPISODES // 2 - 20


@pytest.mark.parametrize("case", ["known", "one return", "two atoms", "beyond the atoms"])
def test_picture_is_a_png(tmp_path, case):
    found = judged(calibrated, Entropic(4.0))
    if case == "one return":
        found = replace(found, pit=found.pit[:1], realised=found.realised[:1], episodes=1, realised_value_low=math.nan)
    if case == "two atoms":
        found = replace(found, atoms=np.array([-20.0, 20.0]), predicted=np.array([0.5, 0.5]))
    if case == "beyond the atoms":
        found = replace(found, realised=found.realised + 100)
    path = tmp_path / "calibration.png"
    calibration_plot(found, path)
    assert path.read_bytes().startswith(PNG)
    assert "matplotlib.pyplot" not in sys.modules or sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of the toy environment, whose time limit is bootstrapped."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.ENVIRONMENTS, "toy", toy.ENTRY)
        yield train(default_config("toy").replace(total_timesteps=1000, out=str(out)))


def test_evaluation_reports_the_critic_in_print_file_and_picture(run, capsys):
    (run / "calibration.png").unlink(missing_ok=True)
    cli.evaluate([str(run), "--episodes", "40"])
    printed = capsys.readouterr().out
    found = json.loads((run / "eval.json").read_text())["critic"]
    assert found["episodes"] == 40 and found["samples"] == 120 and found["risk"] == "entropic" and found["tau"] == 1.0
    assert found["realised_value_low"] is None and found["realised_value_high"] is None  # of too few episodes
    del found["realised_value_low"], found["realised_value_high"]
    assert 0.1 < found["completion_weight"] < 0.99**12  # most agents leave before the twelfth step, the limit
    assert all(isinstance(value, float | int | str) for value in found.values())
    assert "critic at the start of episodes" in printed and "completed by a draw from the critic" in printed
    assert (run / "calibration.png").read_bytes().startswith(PNG)


def test_most_probable_actions_are_another_policy_than_the_critics(run, capsys):
    assert evaluate(Policy.load(run), 4, seed=0, deterministic=True).calibration is None
    cli.evaluate([str(run), "--episodes", "4", "--deterministic"])
    assert "critic" not in capsys.readouterr().out
    assert "critic" not in json.loads((run / "eval.json").read_text())


def test_infinite_tau_is_written_as_json_can_hold_it():
    assert json.loads(json.dumps(judged(calibrated, Entropic(math.inf)).as_dict(), allow_nan=False))["tau"] == "inf"
    assert judged(calibrated).as_dict()["tau"] is None
