"""Names of risk measures: how they are written, parsed and refused."""

import math
import re

import pytest

from rqe_mappo.functional.risk import (
    CPW,
    GRAMMAR,
    CVaR,
    DualPower,
    Entropic,
    Expectile,
    Gini,
    MeanStd,
    MeanVariance,
    Neutral,
    Power,
    VaR,
    Wang,
    WorstCase,
    parse_risk,
)
from tests.risk_examples import INF, LOTTERY, MEASURES, NUMBERED, REPORTED, Z, named


@pytest.mark.parametrize("measure", [*NUMBERED, *REPORTED, Neutral(), CVaR(6 / 7), Wang(1e-9)], ids=named)
def test_a_name_parses_back_to_the_measure(measure):
    assert parse_risk(measure.name, math.nan) == measure


@pytest.mark.parametrize(
    "text", ["neutral", "entropic", "mean-variance", "worst-case", "cvar:0.1", "cvar:1", "wang:-0.5"]
)
def test_risk_is_named_as_it_is_parsed(text):
    assert parse_risk(text, 2.0).name == text


def test_the_grammar_is_what_can_be_parsed():
    parts = GRAMMAR.split(" | ")
    for part in parts:
        text = part.replace("[", "").partition(":")[0] + ":0.5" * (":" in part)
        assert parse_risk(text, 1.0).name == text
    kinds = {re.match("[a-z-]+", part)[0] for part in parts}
    assert kinds == {measure.name.partition(":")[0] for measure in [*MEASURES, *REPORTED]}
    assert "\n" not in GRAMMAR


def test_parsed_measures():
    assert parse_risk("neutral", -1) == Neutral()  # tau does not count
    assert parse_risk("entropic", 0.3) == Entropic(0.3, 3.0)
    assert parse_risk("entropic", INF, clip=None) == Entropic(INF, None)
    assert parse_risk("cvar:0.1", math.nan) == CVaR(0.1)
    assert parse_risk("mean-variance", 2) == MeanVariance(2)
    assert parse_risk("worst-case", 1) == WorstCase()
    assert parse_risk("mean-std:-0.5", 1) == MeanStd(-0.5)
    assert parse_risk("var:0.05", 1) == VaR(0.05)
    assert parse_risk("wang:.75", 1) == Wang(0.75)
    assert parse_risk("cpw", 1) == parse_risk("cpw:0.71", 1) == CPW(0.71)
    assert parse_risk("dual-power:2", 1) == DualPower(2)
    assert parse_risk("power:1.5", 1) == Power(1.5)
    assert parse_risk("gini:1", 1) == Gini(1)
    assert parse_risk("expectile:1e-3", 1) == Expectile(0.001)


@pytest.mark.parametrize("text", ["foo", "", "Neutral", "entropic:2", "worst-case:", "gini0.5", ":0.1"])
def test_unknown_risk_gives_one_line_with_the_fix(text):
    with pytest.raises(ValueError) as caught:
        parse_risk(text, 1.0)
    assert str(caught.value) == f"--risk {text} is unknown: use {GRAMMAR}, for example --risk cvar:0.1"


@pytest.mark.parametrize(
    ("kind", "numbers", "fix"),
    [
        ("cvar", ["0", "1.5", "-1"], "cvar:LEVEL with 0 < LEVEL <= 1, as in --risk cvar:0.1; cvar:1 is risk-neutral"),
        ("var", ["0", "1.5", "-1"], "var:LEVEL with 0 < LEVEL <= 1, as in --risk var:0.1"),
        ("wang", [], "wang:ETA with -inf < ETA < inf, as in --risk wang:0.75; wang:0 is risk-neutral"),
        ("cpw", ["0.27", "1.01"], "cpw[:ETA] with 0.28 <= ETA <= 1, as in --risk cpw:0.71; cpw:1 is risk-neutral"),
        ("power", ["0", "-1"], "power:K with 0 < K < inf, as in --risk power:1.5; power:1 is risk-neutral"),
        ("gini", ["-1.1", "2"], "gini:ETA with -1 <= ETA <= 1, as in --risk gini:0.5; gini:0 is risk-neutral"),
        (
            "expectile",
            ["0", "1"],
            "expectile:LEVEL with 0 < LEVEL < 1, as in --risk expectile:0.1; expectile:0.5 is risk-neutral",
        ),
    ],
)
def test_a_bad_number_gives_one_line_with_the_fix(kind, numbers, fix):
    missing = [] if kind == "cpw" else [kind]
    for text in [*missing, *(f"{kind}:{number}" for number in ["", "x", "nan", "inf", "-inf", *numbers])]:
        with pytest.raises(ValueError) as caught:
            parse_risk(text, 1.0)
        assert str(caught.value) == f"--risk {text} must be {fix}"


@pytest.mark.parametrize("risk", ["entropic", "mean-variance"])
@pytest.mark.parametrize(("tau", "shown"), [(0, "0"), (-1, "-1"), (math.nan, "nan"), (-INF, "-inf")])
def test_bad_tau_gives_one_line_with_the_fix(risk, tau, shown):
    with pytest.raises(ValueError) as caught:
        parse_risk(risk, tau)
    assert str(caught.value) == f"--tau must be > 0 (got {shown}); use inf for risk-neutral"


def test_bad_level_and_clip_are_refused():
    with pytest.raises(ValueError, match=r"--risk cvar:0 must be cvar:LEVEL with 0 < LEVEL <= 1"):
        CVaR(0)
    with pytest.raises(ValueError, match="--risk-clip must be > 0"):
        Entropic(1.0, clip=0)


@pytest.mark.parametrize(
    ("measure", "line"),
    [
        (VaR(0.1), "its influence needs a density, which atoms lack; use --risk cvar:0.1 (or rqe-eval to report it)"),
        (
            WorstCase(),
            "its influence is 0 or minus infinity; use --risk dual-power:10 or cvar:0.05 (or rqe-eval to report it)",
        ),
    ],
    ids=["var", "worst-case"],
)
def test_measures_without_a_usable_influence_say_what_to_use(measure, line):
    assert measure.evaluation_only == f"--risk {measure.name} cannot be trained on: {line}"
    for refused in (lambda: measure.influence(Z, LOTTERY), lambda: measure.annealed(0.5)):
        with pytest.raises(ValueError) as caught:
            refused()
        assert str(caught.value) == measure.evaluation_only


@pytest.mark.parametrize("measure", MEASURES, ids=named)
def test_all_others_can_be_trained_on(measure):
    assert measure.evaluation_only is None
