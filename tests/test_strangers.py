"""What the table of strangers averages over."""

import pytest

from benchmarks.strangers import summarised


def test_cells_are_averaged_within_each_run_of_the_one():
    def row(one: str, others: str, value: float) -> dict[str, str]:
        ends = {"": value, " low": value - 1, " high": value + 1}
        return {"one": one, "others": others, "noise": "0"} | {f"return of all{end}": str(ends[end]) for end in ends}

    rows = [
        row("a s1", "a s1", 10), row("a s1", "a s2", 4), row("a s1", "a s3", 6), row("a s1", "random", 1),
        row("a s2", "a s1", 7), row("a s2", "a s2", 20), row("a s2", "a s3", 9), row("a s2", "b s1", 2),
    ]  # fmt: skip
    found = {line["others"]: (line["runs"], line["mean"]) for line in summarised(rows, "return of all")}
    assert found == {"itself": (2, 15.0), "other seeds": (2, 6.5), "random": (1, 1.0), "b": (1, 2.0)}
    (line,) = (line for line in summarised(rows, "return of all") if line["others"] == "other seeds")
    assert line["low"] == pytest.approx(6.5 - 12.706 * 1.5, abs=1e-2), "two runs, whose means are 5 and 8"


def test_chances_of_slipping_are_rows_apart_and_cells_without_interval_are_told():
    def row(noise: str, value: str) -> dict[str, str]:
        return {"one": "a s1", "others": "a s1", "noise": noise} | {
            f"return of all{end}": value for end in ("", " low", " high")
        }

    found = summarised([row("0", "4"), row("0.3", "2")], "return of all")
    assert [(line["noise"], line["mean"]) for line in found] == [(0.0, 4.0), (0.3, 2.0)]
    with pytest.raises(SystemExit, match="a s1 among a s1 has no interval of return of all: play more --episodes"):
        summarised([row("0", "")], "return of all")
