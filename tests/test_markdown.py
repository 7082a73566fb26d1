"""Tables of a sweep as Markdown."""

import pytest

from rqe_mappo.sweeps import cli, tables

SUMMARY = [
    {"label": "tau 1", "metric": "mean return (agent)", "mean": -11.392, "low": -11.5, "high": -11.28},
    {"label": "tau 1", "metric": "collision rate (agent)", "mean": 0.0213, "low": None, "high": None},
    {"label": "tau 1", "metric": "decisions (agent)", "mean": 23.0, "low": 22.0, "high": 24.0},
    {"label": "a | b", "metric": "mean return (agent)", "mean": 0.004, "low": -0.004, "high": 0.014},
]
COMPARISONS = [
    {
        "label": "tau 1", "reference": "tau inf", "metric": "mean return (agent)", "pairs": 5, "better_by": 0.05,
        "low": -0.14, "high": 0.24, "probability": 0.6, "probability_low": 0.15, "probability_high": 0.95,
    }
]  # fmt: skip


def test_tables_hold_means_and_intervals_and_leave_out_what_is_not_known(tmp_path, capsys):
    tables.write(tmp_path / "summary.csv", SUMMARY)
    tables.write(tmp_path / "comparisons.csv", COMPARISONS)
    cli.report([str(tmp_path), "--markdown"])
    assert capsys.readouterr().out.splitlines() == [
        "| setting | mean return | collision rate |",
        "| --- | --- | --- |",
        "| τ 1 | −11.39 [−11.50, −11.28] | 0.0213 |",  # noqa: RUF001
        "| a \\| b | 0.00 [0.00, 0.01] |  |",
        "",
        "Better than τ ∞ by, seed by seed:",
        "",
        "| setting | pairs | mean return |",
        "| --- | --- | --- |",
        "| τ 1 | 5 | 0.05 [−0.14, 0.24] |",  # noqa: RUF001
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"comparisons.csv", "summary.csv"}


def test_groups_of_agents_have_a_table_of_their_own(tmp_path, capsys):
    of_groups = [
        {"label": "mixed", "metric": f"{name} ({group})", "mean": mean, "low": mean - 0.1, "high": mean + 0.1}
        for group, mean in (("tau 0.3 eps 0.01", 0.625), ("tau inf eps 0.01", 0.375))
        for name in ("mean return", "crosses later than others")
    ]
    tables.write(tmp_path / "summary.csv", [*SUMMARY, *of_groups])
    cli.report([str(tmp_path), "--markdown"])
    assert capsys.readouterr().out.splitlines()[6:] == [
        "| setting | agents | mean return | crosses later than others |",
        "| --- | --- | --- | --- |",
        "| mixed | τ 0.3 ε 0.01 | 0.62 [0.53, 0.72] | 0.625 [0.525, 0.725] |",
        "| mixed | τ ∞ ε 0.01 | 0.38 [0.28, 0.47] | 0.375 [0.275, 0.475] |",
    ]


def test_a_folder_without_tables_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.report([str(tmp_path), "--markdown"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{tmp_path} has no summary.csv" in said
