"""Statistics against hand-computed numbers, intervals against what they promise, and the evaluation's table."""

import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from scipy.stats import binomtest, chi2, trim_mean

from rqe_mappo.evaluation import report
from rqe_mappo.functional.risk import CVaR, Entropic, VaR, WorstCase
from rqe_mappo.statistics import (
    POSITIVE,
    SHARE,
    Estimate,
    compare,
    cvar,
    entropic,
    interval,
    iqm,
    iqm_interval,
    mean,
    mean_interval,
    of_samples,
    over_runs,
    p95,
    rate,
    ratio,
    seed_interval,
    std,
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
    assert mean_interval(samples, seed=1) == mean_interval(samples, seed=1)
    assert mean_interval(samples, seed=1) != mean_interval(samples, seed=2)


def test_interval_of_a_mean_is_that_of_the_normal_distribution_and_a_little_wider():
    samples = np.random.default_rng(0).normal(3.0, 2.0, 4000)
    found = mean_interval(samples)
    half = 1.96 * samples.std() / math.sqrt(4000)
    assert found.value == samples.mean()
    assert 0.95 * half < found.high - found.value < 1.15 * half  # 0.03 is what chance moves an end by
    assert 0.95 * half < found.value - found.low < 1.15 * half


@pytest.mark.parametrize("statistic", [mean, std, p95, cvar, functools.partial(of_samples, CVaR(0.05).value)])
def test_a_statistic_of_weights_is_that_of_samples_as_often_as_their_weights(statistic):
    rng = np.random.default_rng(0)
    samples, often = np.sort(rng.normal(100, 1, 50)), rng.integers(1, 9, (7, 50))
    if statistic is p95:  # without weights it lies between two neighbours
        repeated = [np.percentile(np.repeat(samples, times), 95, method="inverted_cdf") for times in often]
    else:
        repeated = [float(statistic(np.repeat(samples, times))) for times in often]
    assert statistic(samples, weights=often * 0.3) == pytest.approx(repeated)


def test_interval_of_a_share_is_clopper_and_pearsons():
    flags = np.arange(200) < 12
    found, exact = interval(mean, flags, resamples=40_000), binomtest(12, 200).proportion_ci(0.95)
    # where flags tell nothing of a value beyond them, the further row is of them
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.003)


TAILS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "3 % crashes": lambda rng, n: rng.normal(-10, 2, n) - 30 * (rng.random(n) < 0.03),
    "falls": lambda rng, n: np.minimum(np.where(rng.random(n) < 0.4, 20 + rng.exponential(150, n), 650), 700),
    "4 vehicles": lambda rng, n: (
        rng.normal(-10, 2, (n, 4)) - 30 * ((rng.random((n, 1)) < 0.05) & (np.arange(4) < 2))
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("statistic, n", [(cvar, 100), (cvar, 400), (mean, 100), (std, 100)])
@pytest.mark.parametrize("returns", TAILS.values(), ids=TAILS)
def test_intervals_of_one_run_cover(returns, statistic, n):
    truth = statistic(returns(np.random.default_rng(1), 1_000_000).ravel())
    rng = np.random.default_rng(0)
    of = mean_interval if statistic is mean else functools.partial(interval, statistic)
    found = [of(returns(rng, n), seed=i, resamples=300) for i in range(200)]
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.9  # 0.93 less two standard errors


@given(st.integers(1, 300), st.data())
def test_a_rate_of_single_agents_is_exact(n, data):
    count = data.draw(st.integers(0, n))
    found, exact = rate(np.arange(n) < count), binomtest(count, n).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    events = ratio(np.arange(n) < count, np.full(n, 2.0))
    garwood = (chi2.ppf(0.025, 2 * count) / 2 if count else 0, chi2.ppf(0.975, 2 * count + 2) / 2)
    if n >= 100:
        assert (events.low, events.high) == pytest.approx(np.array(garwood) / (2 * n), abs=1e-9)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([1, 20]))
def test_an_incident_more_moves_no_end_towards_none(rows, agents, seed, times):
    rng = np.random.default_rng(seed)
    fewer = np.tile(rng.random((rows, agents)) < rng.random(), (times, 1))
    more = fewer.copy()
    more[rng.integers(len(more)), rng.integers(agents)] = True
    exposure = np.ones(more.shape)
    for before, after in ((rate(fewer), rate(more)), (ratio(fewer, exposure), ratio(more, exposure))):
        assert after.low >= before.low - 1e-12 and after.high >= before.high - 1e-12


def test_an_incident_apart_from_the_others_does_not_make_few_episodes_look_alike():
    fewer = np.array([[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]])
    more = fewer.copy()
    more[0, 0] = 1
    assert rate(more).high > rate(fewer).high and rate(more).low > rate(fewer).low


def test_one_incident_is_worse_than_none():
    none, one = np.zeros((1000, 4), bool), np.zeros((1000, 4), bool)
    one[0, 0] = True
    assert rate(one).high > rate(none).high > 0.0036
    assert ratio(one, np.ones((1000, 4))).high > ratio(none, np.ones((1000, 4))).high
    assert rate(one[:, :1]).high == pytest.approx(0.005558924)  # Clopper and Pearson, 1 of 1000


def test_agents_that_share_incidents_count_less_and_never_more_than_one_by_one():
    rng = np.random.default_rng(0)
    together = np.repeat(rng.random((1000, 1)) < 0.05, 4, axis=1)
    alone = rng.permuted(together.ravel()).reshape(1000, 4)
    assert rate(together).high == pytest.approx(rate(together[:, 0]).high)
    assert rate(together).low == pytest.approx(rate(together[:, 0]).low)
    width, one_by_one = rate(alone).high - rate(alone).low, rate(alone.ravel()).high - rate(alone.ravel()).low
    assert one_by_one <= width < 1.2 * one_by_one < 0.7 * (rate(together).high - rate(together).low)


@pytest.mark.parametrize("hit", [1, 2, 4])
def test_rates_of_vehicles_that_share_crashes_cover(hit):
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        crashed = (rng.random((150, 1)) < 0.06) & (np.arange(4) < hit)
        for found, truth in ((rate(crashed), 0.06 * hit / 4), (ratio(crashed, np.full((150, 4), 2.0)), 0.03 * hit / 4)):
            covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.93


def test_too_few_episodes_give_a_value_and_no_interval():
    samples = np.arange(40.0)
    assert interval(cvar, samples).value == 0.5 and math.isnan(interval(cvar, samples).low)
    assert math.isnan(interval(cvar, samples).high)
    assert mean_interval(samples).low < 19.5 < mean_interval(samples).high


def test_agents_that_share_an_episode_add_no_evidence():
    episodes = np.random.default_rng(0).normal(size=200)
    alone = mean_interval(episodes)
    together = mean_interval(np.repeat(episodes[:, None], 4, axis=1))
    assert together.n == 200
    assert (together.value, together.low, together.high) == pytest.approx(
        (alone.value, alone.low, alone.high), abs=5e-3
    )


def test_interval_counts_only_counted_samples_and_episodes_with_some():
    samples = np.array([[1.0, 99.0], [3.0, 5.0], [99.0, 99.0]])
    counted = np.array([[True, False], [True, True], [False, False]])
    found = interval(mean, samples, counted, fewest=2)
    assert (found.value, found.n) == (3.0, 2)
    others = np.where(counted, samples, -1e6)
    assert interval(mean, others, counted, fewest=2) == found


def test_one_episode_gives_no_interval():
    found = interval(mean, np.array([[2.0, 4.0]]), fewest=1)
    assert (found.value, found.n) == (3.0, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_samples_give_a_point():
    found = interval(cvar, np.full(200, -5.0))
    assert (found.value, found.n) == (-5.0, 200) and (found.low, found.high) == pytest.approx((-5.0, -5.0))


def test_interval_refuses_nothing_and_a_mask_of_another_shape():
    with pytest.raises(ValueError, match="no samples"):
        interval(mean, np.ones((3, 2)), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="same shape"):
        interval(mean, np.ones((3, 2)), np.ones(3, bool))


def test_none_seen_is_not_never():
    found = rate(np.zeros(1000, bool))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.003682, abs=1e-6)  # (1 - high)^1000 = 0.025
    always = rate(np.ones((4, 2), bool))
    assert (always.low, always.high) == (pytest.approx(0.397635, abs=1e-6), 1.0)


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


@pytest.mark.slow
@pytest.mark.parametrize("runs", [3, 4, 5, 10])
def test_interquartile_means_of_few_runs_cover(runs):
    rng = np.random.default_rng(0)
    found = [iqm_interval(rng.normal(size=runs)) for _ in range(500)]
    assert np.mean([each.low <= 0 <= each.high for each in found]) >= 0.91  # 0.93 less two standard errors
    assert found[0].value == pytest.approx(iqm([*np.random.default_rng(0).normal(size=runs)]))
    assert math.isnan(iqm_interval([1.0]).low)


def test_interquartile_mean_of_three_is_their_mean():
    found, same = iqm_interval([3.0, 1.0, 2.5]), seed_interval([3.0, 1.0, 2.5])
    assert (found.value, found.low, found.high) == pytest.approx((same.value, same.low, same.high))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("runs", [3, 5])
def test_means_over_few_runs_cover_whatever_the_spread_between_them(runs, spread):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        lengths = rng.integers(50, 200, runs)
        found.append(over_runs([
            mean_interval(rng.normal(spread * rng.normal() / 10, 1, n), resamples=200) for n in lengths
        ]))  # fmt: skip
    assert np.mean([each.low <= 0 <= each.high for each in found]) >= 0.92


def test_runs_without_incidents_leave_a_rate_open():
    none = over_runs([rate(np.zeros(1000))] * 3, SHARE)
    assert none.low == 0 and rate(np.zeros(3000)).high <= none.high <= rate(np.zeros(1000)).high
    always = over_runs([rate(np.ones(1000))] * 3, SHARE)
    assert (always.low, always.high) == pytest.approx((1 - none.high, 1.0))
    alike = over_runs([rate(np.arange(1000) < 1)] * 3, SHARE)
    assert alike.low < 0.001 < rate(np.arange(3000) < 3).high <= alike.high


def test_over_runs_is_students_and_keeps_to_what_is_possible():
    values = [1.0, 2.0, 3.0]
    assert over_runs([Estimate(value, math.nan, math.nan, 9) for value in values]) == seed_interval(values)
    shares = [Estimate(value, value, value, 9) for value in (0.01, 0.02, 0.06)]
    students = seed_interval([0.01, 0.02, 0.06])
    found = over_runs(shares, SHARE)
    assert students.low < 0 == found.low and students.high < found.high < 1
    times = over_runs([Estimate(value, value, value, 9) for value in (1.0, 2.0, 9.0)], POSITIVE)
    assert times.low == 0 and times.high > seed_interval([1.0, 2.0, 9.0]).high
    turned = over_runs([Estimate(1 - each.value, 1 - each.high, 1 - each.low, 9) for each in shares], SHARE)
    assert (1 - turned.high, 1 - turned.low) == pytest.approx((found.low, found.high))
    assert math.isnan(over_runs(shares[:1], SHARE).low)


def test_comparison_by_hand():
    found = compare([1, 2, 3], [0, 2, 2])
    assert found.difference == seed_interval([1, 0, 1])
    assert found.improvement.value == pytest.approx((1 + 2 + 3) / 9)  # wins and half wins of 1, 2 and 3
    assert (found.improvement.low, found.improvement.high) == pytest.approx(
        (rate(np.array([2 / 3] * 3)).low, rate(np.array([2 / 3] * 3)).high)
    )
    assert found.improvement.n == 3
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
def test_table_is_aligned_and_marks_what_too_few_episodes_stand_behind():
    few, many = (report.rows({key: np.repeat(value, n, axis=0) for key, value in RECORDS.items()}) for n in (49, 50))
    lines = report.table(few).splitlines()
    column = lines[0].index("value")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[:-2])
    assert "from 100 episodes on" in next(line for line in lines if line.startswith("CVaR5"))
    assert lines[-2] == "per team: one value an episode, the mean over its agents"
    assert lines[-1] == "caution: 98 episodes are too few for a worst 5 %; use at least 100"
    assert "caution" not in report.table(many)
    marked = [row.metric for row in many if row.too_few]
    assert marked == ["travel time p95 s"]  # half of the episodes' vehicles crossed


def test_four_episodes_mark_their_minimum():
    records = {"copy": np.zeros(4), "return": np.arange(4.0)[:, None], "length": np.ones((4, 1))}
    found = {row.metric: row for row in report.rows(records, measures=[WorstCase(), VaR(0.01)])}
    assert found["CVaR5 of return"].estimate.value == 0 and found["CVaR5 of return"].too_few
    marked = {row["metric"]: row.get("too_few", False) for row in report.as_dict(list(found.values()))}
    assert marked == {name: True for name in found}
    enough = {key: np.resize(value, (400, *value.shape[1:])) for key, value in records.items()}
    found = {row.metric: row for row in report.rows(enough, measures=[WorstCase(), VaR(0.01)])}
    assert {name for name, row in found.items() if row.too_few} == {"worst-case of return", "var:0.01 of return"}
    assert "unknown" in report.table(list(found.values()))


def test_report_as_json_has_no_nan():
    plain = report.as_dict(report.rows({key: value[:1] for key, value in RECORDS.items()}))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain[0] == {"metric": "mean return", "level": "agent", "value": -15.0, "low": None, "high": None,
                        "episodes": 1, "samples": 2, "too_few": True}  # fmt: skip


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
