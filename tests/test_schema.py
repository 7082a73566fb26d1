"""What is read back is of the type that its place asks for, or refused in one line that names the place."""

import dataclasses
import json
import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from rqe_mappo import registry, schema
from rqe_mappo.config import ConfigError, default_config, from_json, to_json
from rqe_mappo.schema import Count, SchemaError


@dataclass(frozen=True)
class Inner:
    widths: tuple[int, ...]
    low: float = -math.inf


class Outer(TypedDict):
    inner: Inner
    kind: Literal["a", "b"]
    values: dict[str, Float[Tensor, "E A"]]
    steps: Count
    maybe: NotRequired[list[float] | None]


GOOD: dict[str, Any] = {"inner": {"widths": [1, 2]}, "kind": "a", "values": {"x": torch.zeros(2, 3)}, "steps": 4}


def test_plain_values_become_what_the_type_says():
    known = schema.read(Outer, GOOD | {"maybe": [1, "inf"]}, "file")
    assert known["inner"] == Inner((1, 2)) and known["maybe"] == [1.0, math.inf]
    assert all(type(value) is float for value in known["maybe"])
    assert schema.read(Outer, GOOD | {"maybe": None}, "file")["maybe"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 4.0}, r"file\.steps must be a whole number \(got 4\.0\)"),
        ({"steps": True}, r"file\.steps must be a whole number"),
        ({"steps": -1}, r"file\.steps must be 0 or more \(got -1\)"),
        ({"steps": 10**400}, r"file\.steps must be a whole number"),
        ({"kind": "c"}, r"file\.kind must be a or b"),
        ({"kind": ["a"]}, r"file\.kind must be a or b"),
        ({"inner": {"widths": 3}}, r"file\.inner\.widths must be a list"),
        ({"inner": {"widths": ["x"]}}, r"file\.inner\.widths\[0\] must be a whole number"),
        ({"inner": {}}, r"file\.inner lacks widths"),
        ({"inner": {"widths": [], "low": math.nan}}, r"file\.inner\.low must be a number \(got nan\)"),
        ({"inner": {"widths": [], "low": 10**400}}, r"file\.inner\.low must be a number"),
        ({"inner": {"widths": [], "high": 1.0}}, r"file\.inner holds what this version does not know: 'high'"),
        ({"values": {"x": torch.zeros(2)}}, r"file\.values\.x must be Float"),
        ({"values": {3: torch.zeros(2, 3)}}, r"a name in file\.values must be text"),
        ({"values": {"\ud800": torch.zeros(2, 3)}}, r"a name in file\.values must be text \(got '\\ud800'\)"),
        ({"maybe": "inf"}, r"file\.maybe must be a list"),
        ({"values": {"x\ny" * 100: torch.zeros(2, 3), "z": 1}}, r"file\.values\.z must be Float"),
        ({"more": 1}, r"file holds what this version does not know: 'more'"),
    ],
)
def test_wrong_values_are_refused_by_their_place(change, message):
    with pytest.raises(SchemaError, match=f"^{message}") as found:
        schema.read(Outer, GOOD | change, "file")
    assert "\n" not in str(found.value) and len(str(found.value)) < 200
    str(found.value).encode()


@pytest.mark.parametrize("name", list(GOOD))
def test_missing_entries_are_refused(name):
    with pytest.raises(SchemaError, match=f"file lacks {name}"):
        schema.read(Outer, {key: value for key, value in GOOD.items() if key != name}, "file")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_whatever_a_file_says_it_is_refused_or_of_its_type(value):
    for kind in (int, float, str, tuple[float, ...], dict[str, int], Literal["a", 3], Inner, Count | None):
        try:
            found = schema.read(kind, value, "file")
        except SchemaError as error:
            assert str(error).startswith(("file", "a name in file"))
            continue
        if isinstance(kind, type) and not typing.get_args(kind):
            assert isinstance(found, kind)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nul", '{"a": ' + "9" * 5000 + "}"])
def test_text_that_is_no_json_is_one_line(text):
    with pytest.raises(SchemaError, match=r"^config\.json is no JSON") as found:
        schema.parse_json(text, "config.json")
    assert "\n" not in str(found.value)


def wrong_for(kind: Any) -> list[Any]:
    """Values of which none is of the type `kind`."""
    if typing.get_origin(kind) is Annotated:
        return wrong_for(typing.get_args(kind)[0])
    kinds = typing.get_args(kind) or (kind,)
    wrong: list[Any] = [{}, [[]]]
    wrong += [] if str in kinds else ["x"]
    wrong += [] if type(None) in kinds else [None]
    wrong += [] if bool in kinds else [True]
    return wrong + ([] if float in kinds else [8.5])


@pytest.mark.slow
@pytest.mark.parametrize("algo", list(registry.ALGORITHMS))
@pytest.mark.parametrize("env", list(registry.ENVIRONMENTS))
def test_every_setting_of_another_type_is_refused_by_its_name(env, algo):
    try:
        config = default_config(env, algo=algo)
    except ConfigError:
        pytest.skip("no recipe")
    whole = json.loads(to_json(config))
    for part, settings in (("", config), ("algorithm", config.algorithm), ("env_config", config.env_config)):
        hints = typing.get_type_hints(type(settings), include_extras=True)
        for field in dataclasses.fields(settings):
            if field.name in ("algorithm", "env_config"):
                continue
            for value in wrong_for(hints[field.name]):
                changed = json.loads(json.dumps(whole))
                (changed[part] if part else changed)[field.name] = value
                with pytest.raises(ConfigError, match=rf"run/config\.json .*{field.name}"):
                    from_json(json.dumps(changed), "run/config.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("num_envs",), 8.5), (("num_envs",), 1e12), (("num_envs",), 10**12), (("num_steps",), 10**12),
        (("keep",), 1.5), (("time_limit",), 3), (("algorithm", "advantage"), "nope"),
        (("algorithm", "regulariser"), "x"), (("algorithm", "tau"), [1.0, "x"]),
        (("algorithm", "actor_hidden"), [64, "64"]), (("algorithm", "defaults"), {}),
        (("env_config", "horizon"), "500"), (("algorithm",), []), (("env_config",), None), (("env",), ["cartpole"]),
        (("algorithm", "gae_lambda"), math.nan), (("momentum",), 1),
    ],
)  # fmt: skip
def test_settings_that_no_command_line_could_ask_for_are_refused(path, value):
    settings = json.loads(to_json(default_config("cartpole")))
    *inside, last = path
    part = settings
    for name in inside:
        part = part[name]
    part[last] = value
    with pytest.raises(ConfigError, match=r"config\.json") as found:
        from_json(json.dumps(settings))
    assert last in str(found.value).replace("-", "_")


@pytest.mark.parametrize("name", ["env", "scenario", "algo", "algorithm", "env_config"])
def test_settings_without_what_the_others_depend_on_are_refused(name):
    settings = json.loads(to_json(default_config("cartpole")))
    del settings[name]
    with pytest.raises(ConfigError, match=r"config\.json does not hold the settings of a run"):
        from_json(json.dumps(settings))
