"""The tables of a sweep: means over seeds, differences seed by seed, fronts and hypervolumes, by hand."""

import numpy as np
import pytest

from rqe_mappo.sweeps import front_plots, fronts, plots, tables
from rqe_mappo.sweeps.metrics import FRONTS

RETURN_AND_TAIL = FRONTS[0]  # more is better in both
RETURN_AND_COLLISIONS = FRONTS[3]


def made(returns: dict[tuple[str, int], tuple[float, float]], family: str = "f") -> list[dict[str, str]]:
    """Rows of results.csv: (label, seed) to mean return and collision rate."""
    return [
        {
            "run": f"{label}__s{seed}", "label": label, "family": family, "point": label, "seed": str(seed),
            "episodes": "100", "mean return (agent)": str(x), "mean return (agent) low": "",
            "collision rate (agent)": str(y), "collision rate (agent) low": "", "train_seconds": "60",
        }
        for (label, seed), (x, y) in returns.items()
    ]  # fmt: skip


RESULTS = made({
    ("tau 0.3", 1): (1.0, 0.1), ("tau inf", 1): (3.0, 0.5), ("tau 2", 1): (2.0, 0.3), ("bad", 1): (0.0, 0.6),
    ("tau 0.3", 2): (2.0, 0.2), ("tau inf", 2): (4.0, 0.4), ("tau 2", 2): (3.0, 0.3), ("bad", 2): (1.0, 0.6),
})  # fmt: skip


def test_summary_is_mean_and_interval_over_seeds():
    found = {(row["label"], row["metric"]): row for row in tables.summarise(RESULTS)}
    row = found["tau 0.3", "mean return (agent)"]
    assert (row["mean"], row["runs"], row["episodes"], row["better"]) == (1.5, 2, 200, "more")
    assert (row["low"], row["high"]) == (
        pytest.approx(1.5 - 12.7062 / 2, abs=1e-4),
        pytest.approx(1.5 + 12.7062 / 2, abs=1e-4),
    )
    assert (row["iqm"], row["iqm_low"], row["iqm_high"]) == pytest.approx((row["mean"], row["low"], row["high"]))
    assert found["tau 0.3", "collision rate (agent)"]["better"] == "less"


def test_comparisons_go_seed_by_seed_and_positive_is_better():
    found = {(row["label"], row["metric"]): row for row in tables.comparisons(RESULTS, "tau inf")}
    assert not any(label == "tau inf" for label, _ in found)
    row = found["tau 0.3", "collision rate (agent)"]
    assert row["better_by"] == pytest.approx(0.3) and row["probability"] == 1 and row["pairs"] == 2
    assert found["tau 0.3", "mean return (agent)"]["better_by"] == pytest.approx(-2.0)
    assert tables.comparisons(RESULTS, "not there") == []


def test_settings_that_differ_in_tau_go_from_averse_to_neutral_whatever_the_order_of_their_runs():
    others = [{**row, "family": "g", "label": f"g {row['label']}", "point": row["label"]} for row in RESULTS[:2]]
    goes = [RESULTS[1], others[1], RESULTS[3], RESULTS[2], others[0], RESULTS[0], *RESULTS[4:]]
    assert list(tables.by_label(goes)) == ["tau 0.3", "g tau 0.3", "bad", "tau 2", "g tau inf", "tau inf"]
    foreign = [{**row, "point": "tau of another kind"} for row in RESULTS]
    assert list(tables.by_label(foreign)) == ["tau 0.3", "tau inf", "tau 2", "bad"]


def test_runs_that_lack_an_objective_are_left_out_of_its_front():
    lacking = [{**row, "collision rate (agent)": ""} if row["label"] == "bad" else row for row in RESULTS]
    assert tables.front_rows(lacking)[0]["settings"] == 3
    assert {text.get_text() for text in front_plots.front(lacking, [], RETURN_AND_COLLISIONS).axes[0].texts} == {
        "τ 0.3", "τ ∞", "τ 2",
    }  # fmt: skip
    assert tables.pairs_of([{**row, "collision rate (agent)": ""} for row in RESULTS]) == []


def test_fronts_of_a_table_by_hand():
    (row,) = tables.front_rows(RESULTS)
    assert row["front"] == "tau 0.3; tau 2; tau inf" and row["settings"] == 4
    # worst return 0 of a range of 4, worst rate 0.6 of a range of 0.5: a tenth further
    assert (row["reference_first"], row["reference_second"]) == (pytest.approx(-0.4), pytest.approx(0.65))
    first = (1.4 * 0.55) + (1.0 * 0.35) + (1.0 * 0.15)
    second = (2.4 * 0.45) + (1.0 * 0.35) + (1.0 * 0.25)
    assert row["hypervolume"] == pytest.approx((first + second) / 2) and row["seeds"] == 2


POINTS = np.array([[1, 3], [2, 2], [3, 1], [1, 1], [2, 2]], float)


@pytest.mark.parametrize(
    ("pair", "sign"), [(RETURN_AND_TAIL, (1, 1)), (RETURN_AND_COLLISIONS, (1, -1)), (FRONTS[1], (-1, -1))]
)
def test_fronts_and_hypervolumes_by_hand(pair, sign):
    points = POINTS * sign
    assert fronts.non_dominated(points, pair).tolist() == [True, True, True, False, True]
    assert fronts.reference_point(points, pair) == pytest.approx(np.array([0.8, 0.8]) * sign)
    assert fronts.hypervolume(points, [0, 0], pair) == pytest.approx(6)
    assert fronts.hypervolume(points, np.array([1.5, 1.5]) * sign, pair) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("pair", "sign"), [(RETURN_AND_TAIL, (1, 1)), (RETURN_AND_COLLISIONS, (1, -1)), (FRONTS[1], (-1, -1))]
)
def test_median_front_by_hand(pair, sign):
    """Three seeds of a point each: two of them attain (1, 2) and (2, 1)."""
    corners = fronts.median_front(POINTS[:3] * sign, [1, 2, 3], pair)
    expected = np.array([[1, 2], [2, 1]]) * sign
    assert corners == pytest.approx(expected[np.argsort(expected[:, 0])])
    border = fronts.staircase(POINTS[:3] * sign, pair)
    expected = np.array([[1, 3], [1, 2], [2, 2], [2, 1], [3, 1]]) * sign
    assert border == pytest.approx(expected if sign[0] > 0 else expected[::-1])


def test_median_front_of_one_seed_is_its_front():
    corners = fronts.median_front(POINTS, [7] * 5, RETURN_AND_TAIL)
    assert corners == pytest.approx(POINTS[:3])


def test_fronts_refuse_what_is_no_set_of_points():
    for points in (np.empty((0, 2)), np.ones(3), np.array([[1.0, np.nan]])):
        with pytest.raises(ValueError, match="front needs points"):
            fronts.hypervolume(points, [0, 0], RETURN_AND_TAIL)


def test_plots_of_many_settings_say_how_many_runs_stand_behind_them(tmp_path):
    rows = made({(f"tau {t}", seed): (t + seed, 0.1 * t) for t in (1, 2, 3) for seed in (1, 2, 3)})
    figure = front_plots.front(rows, tables.front_rows(rows), RETURN_AND_COLLISIONS)
    axes = figure.axes[0]
    (subtitle,) = figure.artists
    assert "seeds a setting: 3; episodes a run: 100" in subtitle.get_text()
    assert {text.get_text() for text in axes.texts} == {"τ 1", "τ 2", "τ 3"}
    assert "better →" in axes.get_xlabel() and "← better" in axes.get_ylabel()
    (legend,) = figure.legends
    assert "hypervolume" in legend.get_texts()[0].get_text() and "reference point (" in legend.get_title().get_text()


@pytest.mark.parametrize("value", [0.0, -1.0, 3.0])
def test_axes_have_a_range_where_all_results_are_equal(value):
    rows = made({(label, seed): (value, 0.0) for label in "ab" for seed in (1, 2, 3)})
    low, high = front_plots.limits_of([np.full(3, value)], [], (-np.inf, np.inf))
    assert low < value - 0.01 and high > value + 0.01
    figure = plots.bars(rows)
    assert all(axes.get_xlim()[0] < axes.get_xlim()[1] for axes in figure.axes)


def test_bars_say_where_an_interval_goes_on_beyond_the_axis():
    rows = made({("wide", seed): (x, 0.1) for seed, x in ((1, 1.0), (2, 1.1), (3, 9.0))})
    axes = plots.bars(rows).axes[0]
    marks = {line.get_marker(): line.get_xdata() for line in axes.lines if line.get_marker() in "<>"}
    assert list(marks) == [">"] or set(marks) == {"<", ">"}
    assert tables.over_seeds(rows, "mean return (agent)").high > axes.get_xlim()[1] == marks[">"][0]
