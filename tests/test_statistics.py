"""Statistics against hand-computed numbers, intervals against what they promise, and the evaluation's table."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from scipy.stats import trim_mean

from rqe_mappo.evaluation import report
from rqe_mappo.functional.risk import CVaR, Entropic, VaR, WorstCase
from rqe_mappo.statistics import (
    Estimate,
    compare,
    cvar,
    entropic,
    interval,
    iqm,
    over_runs,
    rate,
    ratio,
    seed_interval,
    stratified,
)

RETURNS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


def test_cvar_counts_the_sample_on_the_boundary_with_its_fraction():
    assert cvar([7, 3, 10, 1, 5, 2, 8, 4, 9, 6], 0.25) == pytest.approx((1 + 2 + 0.5 * 3) / 2.5)


def test_cvar_ends_at_the_minimum_and_the_mean():
    samples = [4.0, -2.0, 1.0]
    assert cvar(samples, 1.0) == pytest.approx(1.0)
    assert cvar(samples, 1 / 3) == cvar(samples, 0.01) == -2.0


@given(RETURNS, st.floats(0.01, 1.0))
def test_cvar_solves_its_variational_form(samples, level):
    """Rockafellar and Uryasev: CVaR = max over v of v - E(v - x)+ / level, attained at a sample."""
    x = np.array(samples)
    best = max(v - np.maximum(v - x, 0).mean() / level for v in x)
    assert cvar(x, level) == pytest.approx(best, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("level", [0.0, -0.1, 1.5, math.nan])
def test_cvar_refuses_a_level_that_is_no_share(level):
    with pytest.raises(ValueError, match=r"level of CVaR must lie in \(0, 1\]"):
        cvar([1.0], level)


def test_entropic_value_of_a_coin():
    assert entropic([0, 1], 1.0) == pytest.approx(0.37988549304172, rel=1e-13)  # -log((1 + 1/e) / 2)


@pytest.mark.parametrize("tau", [0.01, 0.3, 10, 1e3, 1e5, 1e7])
def test_entropic_agrees_with_fifty_digits(tau):
    samples = np.random.default_rng(0).normal(-15, 12, 50)
    with mp.workdps(50):
        exact = -mp.mpf(tau) * mp.log(mp.fsum(mp.exp(-mp.mpf(x) / mp.mpf(tau)) for x in samples) / len(samples))
    assert entropic(samples, tau) == pytest.approx(float(exact), rel=1e-12)


def test_entropic_limits_are_mean_and_minimum():
    samples = [-1e6, 0.0, 1e6]
    assert entropic(samples, math.inf) == 0.0
    assert entropic(samples, 0.01) == pytest.approx(-1e6, abs=0.02)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_entropic_refuses_a_tau_that_is_no_tolerance(tau):
    with pytest.raises(ValueError, match="tau must be > 0"):
        entropic([1.0], tau)


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm([1000, 3, 1, 5, -100, 2, 6, 4]) == 3.5
    samples = np.random.default_rng(1).normal(size=37)
    assert iqm(samples) == trim_mean(samples, 0.25)


@pytest.mark.parametrize("statistic", [cvar, iqm, seed_interval, lambda x: entropic(x, 1.0)])
def test_no_samples_are_refused(statistic):
    with pytest.raises(ValueError, match="no samples"):
        statistic([])


def test_interval_is_reproducible_and_its_seed_matters():
    samples = np.random.default_rng(0).normal(size=(60, 3))
    assert interval(np.mean, samples, seed=1) == interval(np.mean, samples, seed=1)
    assert interval(np.mean, samples, seed=1) != interval(np.mean, samples, seed=2)


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    samples = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = interval(np.mean, samples)
    half = 1.96 * samples.std() / 20
    assert found.value == samples.mean()
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [interval(np.mean, rng.normal(size=40), seed=i, resamples=500) for i in range(400)]
    covered = np.mean([each.low <= 0 <= each.high for each in found])
    assert 0.91 <= covered <= 0.97  # the percentile bootstrap is slightly short at n = 40; 0.011 is one standard error


def test_agents_that_share_an_episode_add_no_evidence():
    episodes = np.random.default_rng(0).normal(size=50)
    alone = interval(cvar, episodes)
    together = interval(cvar, np.repeat(episodes[:, None], 4, axis=1))
    assert together.n == 50
    assert (together.value, together.low, together.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_interval_counts_only_counted_samples_and_episodes_with_some():
    samples = np.array([[1.0, 99.0], [3.0, 5.0], [99.0, 99.0]])
    counted = np.array([[True, False], [True, True], [False, False]])
    found = interval(np.mean, samples, counted)
    assert (found.value, found.n) == (3.0, 2)
    # two episodes with sums 1, 8 and counts 1, 2: drawn as (1, 1), (1, 2), (2, 1) or (2, 2)
    assert (found.low, found.high) == (1.0, 4.0)


def test_interval_survives_resamples_that_would_hold_nothing():
    counted = np.zeros((30, 2), bool)
    counted[:2, 0] = True
    found = interval(np.mean, np.arange(60.0).reshape(30, 2), counted)
    assert (found.value, found.low, found.high, found.n) == (1.0, 0.0, 2.0, 2)


def test_one_episode_gives_no_interval():
    found = interval(np.mean, np.array([[2.0, 4.0]]))
    assert (found.value, found.n) == (3.0, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_samples_give_a_point():
    assert interval(cvar, np.full(20, -5.0)) == Estimate(-5.0, -5.0, -5.0, 20)


def test_interval_refuses_nothing_and_a_mask_of_another_shape():
    with pytest.raises(ValueError, match="no samples"):
        interval(np.mean, np.ones((3, 2)), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="same shape"):
        interval(np.mean, np.ones((3, 2)), np.ones(3, bool))


def test_none_seen_is_not_never():
    found = rate(np.zeros(1000, bool))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.003682, abs=1e-6)  # (1 - high)^1000 = 0.025
    always = rate(np.ones((4, 2), bool))
    assert (always.low, always.high) == (pytest.approx(0.397635, abs=1e-6), 1.0)


def test_rate_between_none_and_all_is_the_bootstrap_of_the_mean():
    flags = np.random.default_rng(0).random((100, 4)) < 0.1
    assert rate(flags, seed=3) == interval(np.mean, flags, seed=3)


def test_seed_interval_is_students():
    found = seed_interval([1, 2, 3])
    half = 4.302652729911275 / math.sqrt(3)  # the 97.5 % point of Student's t with two degrees of freedom, s = 1
    assert (found.value, found.n) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert math.isnan(seed_interval([1.0]).low)


def test_iqm_cuts_whole_samples_and_works_along_an_axis():
    assert iqm([0, 1, 2, 3, 100]) == 2.0
    assert iqm([1, 2, 6]) == 3.0
    assert iqm(np.array([[0, 2, 4, 99], [1, 1, 3, 9]])).tolist() == [3.0, 2.0]


def test_stratified_draws_each_stratum_by_itself():
    """Where runs of a task are alike, only the strata's sizes could vary, and they are kept."""
    assert stratified(np.mean, [[1.0, 1.0], [5.0, 5.0, 5.0, 5.0]]) == Estimate(22 / 6, 22 / 6, 22 / 6, 6)
    found = stratified(np.mean, [[0.0, 2.0], [10.0, 10.0]])
    assert (found.value, found.low, found.high, found.n) == (5.5, 5.0, 6.0, 4)  # (0, 0), (0, 2), (2, 0) or (2, 2)
    assert stratified(iqm, [[3.0, 1.0, 2.0]], seed=1) == stratified(iqm, [[3.0, 1.0, 2.0]], seed=1)
    assert math.isnan(stratified(iqm, [[1.0, 2.0], [3.0]]).low)


def test_stratified_covers_as_the_bootstrap_of_few_runs_does():
    """With ten runs a percentile bootstrap of a mean covers some 90 %: the reason for t-intervals over seeds."""
    rng = np.random.default_rng(0)
    found = [stratified(np.mean, [rng.normal(size=10)], seed=i, resamples=500) for i in range(300)]
    assert 0.85 <= np.mean([each.low <= 0 <= each.high for each in found]) <= 0.95


def test_over_runs_counts_runs_and_their_episodes():
    alike = [np.array([[1.0, math.nan], [1.0, 1.0]])] * 3
    assert over_runs(np.mean, alike) == Estimate(1.0, 1.0, 1.0, 3)
    # without spread within runs, that of their mean is over runs: here of two, 0 or 4
    found = over_runs(np.mean, [np.zeros(5), np.full(5, 4.0)])
    assert (found.value, found.low, found.high, found.n) == (2.0, 0.0, 4.0, 2)
    assert math.isnan(over_runs(np.mean, [np.arange(5.0)]).low)
    rng = np.random.default_rng(0)
    found = over_runs(np.mean, [rng.normal(mean, 1.0, 100) for mean in rng.normal(0, 1, 60)])
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt((1 + 0.01 + 0.01) / 60), rel=0.25)


def test_comparison_by_hand():
    found = compare([1, 2, 3], [0, 2, 2])
    assert found.difference == seed_interval([1, 0, 1])
    assert found.improvement.value == pytest.approx((1 + 2 + 3) / 9)  # wins and half wins of 1, 2 and 3
    assert (found.improvement.low, found.improvement.high, found.improvement.n) == (0.5, 1.0, 3)
    turned = compare([0, 2, 2], [1, 2, 3])
    assert turned.improvement.value == pytest.approx(1 - 6 / 9)
    assert compare([2.0], [1.0]).improvement.value == 1 and math.isnan(compare([2.0], [1.0]).improvement.low)


def test_winning_five_times_is_no_proof_of_always():
    found = compare([5, 6, 7, 8, 9], [0, 1, 2, 3, 4])
    assert (found.improvement.value, found.improvement.high) == (1, 1)
    assert found.improvement.low == pytest.approx(0.025 ** (1 / 5))
    assert compare([0, 1], [5, 6]).improvement.low == 0
    with pytest.raises(ValueError, match="in pairs"):
        compare([1, 2], [1])


def test_an_estimate_reads_as_value_and_interval():
    assert str(Estimate(0.012, 0.008, 0.017, 1000)) == "0.012 [0.008, 0.017]"


# Two episodes of two vehicles; in the second a lone vehicle waits until the time limit.
RECORDS = {
    "copy": np.array([0, 1]),
    "return": np.array([[-10.0, -20.0], [-40.0, 0.0]]),
    "cost": np.array([[0.0, 1.0], [0.0, 0.0]]),
    "length": np.array([[3, 5], [4, 0]]),
    "collision": np.array([[False, True], [False, False]]),
    "timed_out": np.array([[False, False], [True, False]]),
    "travel_time_s": np.array([[10.0, 7.0], [40.0, 0.0]]),
    "hard_brakes": np.array([[2, 0], [1, 0]]),
}


def test_report_agrees_with_numbers_computed_by_hand():
    found = {(row.metric, row.level): (row.estimate.value, row.estimate.n, row.samples) for row in report.rows(RECORDS)}
    agents = math.sqrt((100 + 400 + 1600) / 3 - (70 / 3) ** 2)
    expected = {
        ("mean return", "agent"): (-70 / 3, 2, 3),
        ("mean return", "team"): (-27.5, 2, 2),  # of -15 and -40
        ("std of return", "agent"): (agents, 2, 3),
        ("std of return", "team"): (12.5, 2, 2),
        ("CVaR5 of return", "agent"): (-40.0, 2, 3),
        ("CVaR5 of return", "team"): (-40.0, 2, 2),
        ("collision rate", "agent"): (1 / 3, 2, 3),
        ("collision rate", "episode"): (0.5, 2, 2),
        ("time-out rate", "agent"): (1 / 3, 2, 3),
        ("travel time s", "agent"): (10.0, 1, 1),  # one vehicle crossed
        ("travel time p95 s", "agent"): (10.0, 1, 1),
        ("hard brakes", "agent"): (1.0, 2, 3),
        ("decisions", "agent"): (4.0, 2, 3),
    }
    assert found.keys() == expected.keys()
    for key, numbers in expected.items():
        assert found[key] == pytest.approx(numbers), key


def test_report_of_a_single_agent_has_no_team_and_only_the_metrics_there_are():
    length = np.full((100, 1), 7)
    fell = np.arange(100)[:, None] < 3
    found = report.rows({"return": length * 1.0, "length": length, "fell": fell})
    named = ["mean return", "std of return", "CVaR5 of return", "fall rate", "decisions"]
    assert [(row.metric, row.level) for row in found] == [(name, "agent") for name in named]
    assert found[3].estimate.value == 0.03


def test_travel_time_where_nobody_arrives_is_unknown():
    found = report.rows(RECORDS | {"timed_out": np.ones((2, 2), bool)})
    travel = next(row for row in found if row.metric == "travel time s")
    assert math.isnan(travel.estimate.value)
    assert (travel.estimate.n, travel.samples) == (0, 0)
    assert "nan" in report.table(found)


@pytest.mark.slow
def test_table_is_aligned_and_cautions_where_the_tail_is_thin():
    few, many = (report.rows({key: np.repeat(value, n, axis=0) for key, value in RECORDS.items()}) for n in (49, 50))
    lines = report.table(few).splitlines()
    column = lines[0].index("value")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[:-1])
    assert lines[-1] == "caution: 98 episodes are too few for a worst 5 %; use at least 100"
    assert "caution" not in report.table(many)


def test_report_as_json_has_no_nan():
    plain = report.as_dict(report.rows({key: value[:1] for key, value in RECORDS.items()}))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain[0] == {"metric": "mean return", "level": "agent", "value": -15.0, "low": None, "high": None,
                        "episodes": 1, "samples": 2}  # fmt: skip


def test_report_of_no_episodes_is_refused():
    with pytest.raises(ValueError, match="no episodes"):
        report.rows({key: value[:0] for key, value in RECORDS.items()})


@pytest.mark.slow
def test_rows_by_group_count_each_group_alone_and_who_crosses_later():
    records = {
        "copy": np.array([0, 1]),
        "return": np.array([[-5.0, -9.0, -7.0], [-6.0, -8.0, -30.0]]),
        "length": np.array([[10, 18, 14], [12, 16, 4]]),
        "collision": np.array([[0, 0, 0], [0, 0, 1]]),
        "timed_out": np.zeros((2, 3)),
        "travel_time_s": np.array([[5.0, 9.0, 7.0], [6.0, 6.0, 2.0]]),
    }
    found = {(row.metric, row.level): row for row in report.by_group(records, {"tau 0.3": [1], "tau inf": [0, 2]})}
    assert found["mean return", "tau 0.3"].estimate.value == pytest.approx(-8.5)
    assert found["collision rate", "tau inf"].estimate.value == pytest.approx(0.25)
    # pairs that both crossed: (9 > 5), (9 > 7), (6 = 6); the crashed vehicle counts in none
    assert found["crosses later than others", "tau 0.3"].estimate.value == pytest.approx(2.5 / 3)
    assert found["crosses later than others", "tau 0.3"].samples == 3
    assert found["crosses later than others", "tau inf"].estimate.value == pytest.approx(0.5 / 3)
    assert not any(level in ("agent", "team", "episode") for _, level in found)


@pytest.mark.slow
def test_rows_report_further_risk_measures():
    returns = np.arange(100.0)[:, None]
    records = {"copy": np.zeros(100), "return": returns, "length": np.ones((100, 1))}
    asked = [VaR(0.1), WorstCase(), CVaR(0.05), Entropic(10.0, None)]
    found = {row.metric: row.estimate.value for row in report.rows(records, measures=asked)}
    assert found["var:0.1 of return"] == 9 and found["worst-case of return"] == 0
    assert found["cvar:0.05 of return"] == pytest.approx(found["CVaR5 of return"]) == pytest.approx(2.0)
    assert found["entropic of return"] == pytest.approx(entropic(returns.ravel(), 10.0))


def test_ratio_is_events_over_exposure_with_its_interval_over_episodes():
    rng = np.random.default_rng(0)
    exposure = rng.uniform(1, 3, 2000)
    found = ratio(rng.poisson(0.2 * exposure), exposure)
    assert found.low < 0.2 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.2 / exposure.sum()), rel=0.15)


def test_no_events_are_no_proof_of_never():
    found = ratio(np.zeros(50), np.full(50, 2.0))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(3.689 / 100, rel=1e-3)
    with pytest.raises(ValueError, match="exposure"):
        ratio(np.zeros(3), np.zeros(3))
