"""What files hold, checked against types: the one way in which anything that is read back becomes a value.

A type is a dataclass or TypedDict, or made of numbers, strings, tensors, `Literal`, unions, tuples, lists and dicts.
"""

import dataclasses
import json
import math
import reprlib
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

LARGEST = 2**63 - 1  # of whole numbers
WORDS = {"inf": math.inf, "-inf": -math.inf}  # JSON has no infinity
NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    type(None): "null",
}


class SchemaError(ValueError):
    """A value of another type than its place asks for; the message says where, in one line."""


@dataclass(frozen=True)
class Rule:
    """What `Annotated` adds to a type: which values are valid, and in words what a value must do."""

    holds: Callable[[Any], bool]
    words: str


Count = Annotated[int, Rule(lambda value: value >= 0, "be 0 or more")]
Positive = Annotated[float, Rule(lambda value: 0 < value < math.inf, "be above 0 and finite")]


def read(kind: Any, value: Any, place: str) -> Any:
    """`value`, from JSON or a checkpoint, as the type `kind`: lists as tuples and whole numbers as floats where asked.

    Infinite numbers may be spelled "inf" and "-inf"; nan is none. Classes outside the above are checked by isinstance,
    jaxtyping's too (`Float[Tensor, "E A"]`); what is no class is taken as it is.

    >>> read(tuple[float, ...], [1, "inf"], "tau")
    (1.0, inf)

    place: what the value is called, for the message. Raises SchemaError.
    """
    if (reader := READERS.get(typing.get_origin(kind))) is not None:
        return reader(typing.get_args(kind), value, place)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind(**fields(kind, value, place, _without_default(kind)))
    if typing.is_typeddict(kind):
        return fields(kind, value, place, kind.__required_keys__)
    return _plain(kind, value, place) if isinstance(kind, type) and kind is not Any else value


def fields(kind: Any, value: Any, place: str, needed: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    """The entries of a dict, each as the type that `kind`, a dataclass or TypedDict, has for it; some may be missing.

    Raises SchemaError for entries that are not known, and for `needed` ones that are missing.
    """
    given, known = _plain(dict, value, place), typing.get_type_hints(kind, include_extras=True)
    if dataclasses.is_dataclass(kind):  # class variables are none of its fields
        known = {field.name: known[field.name] for field in dataclasses.fields(kind)}
    if missing := sorted(needed - set(given)):
        raise SchemaError(f"{place or 'it'} lacks {', '.join(missing)}")
    if unknown := sorted(map(_shown, set(given) - set(known))):
        raise SchemaError(f"{place or 'it'} holds what this version does not know: {', '.join(unknown[:3])}")
    return {name: read(known[name], item, f"{place}.{name}" if place else name) for name, item in given.items()}


def parse_json(text: str, place: str) -> Any:
    """The contents of JSON; SchemaError for what is none, or nested too deep to be ours."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{place} is no JSON that can be read ({error})") from None


def _wrong(place: str, rule: str, value: Any) -> SchemaError:
    return SchemaError(f"{place} must {rule} (got {_shown(value)})")


def _shown(value: Any) -> str:
    """A value in a few words on one line, whatever it is."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a larger one"
    return " ".join(reprlib.repr(value).split())


Arguments = tuple[Any, ...]


def _ruled(arguments: Arguments, value: Any, place: str) -> Any:
    kind, *rules = arguments
    value = read(kind, value, place)
    for rule in rules:
        if isinstance(rule, Rule) and not rule.holds(value):
            raise _wrong(place, rule.words, value)
    return value


def _one_of(arguments: Arguments, value: Any, place: str) -> Any:
    errors = []
    for kind in arguments:
        try:
            return read(kind, value, place)
        except SchemaError as error:
            errors.append(error)
    raise errors[0]


def _literal(arguments: Arguments, value: Any, place: str) -> Any:
    if any(type(value) is type(known) and value == known for known in arguments):
        return value
    raise _wrong(place, f"be {' or '.join(map(str, arguments))}", value)


def _list(arguments: Arguments, value: Any, place: str) -> list[Any]:
    return list(_tuple((*arguments, Ellipsis), value, place))


def _tuple(arguments: Arguments, value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(place, "be a list", value)
    of_each = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(of_each) != len(value):
        raise _wrong(place, f"have {len(of_each)} entries", value)
    items = zip(of_each, value, strict=True)
    return tuple(read(kind, one, f"{place}[{index}]") for index, (kind, one) in enumerate(items))


def _dict(arguments: Arguments, value: Any, place: str) -> dict[Any, Any]:
    of_key, of_item = arguments
    return {
        read(of_key, key, f"a name in {place}"): read(of_item, item, f"{place}.{key}")
        for key, item in _plain(dict, value, place).items()
    }


READERS: dict[Any, Callable[[Arguments, Any, str], Any]] = {
    Annotated: _ruled,
    typing.Required: _ruled,
    typing.NotRequired: _ruled,
    typing.Union: _one_of,
    types.UnionType: _one_of,
    typing.Literal: _literal,
    list: _list,
    tuple: _tuple,
    dict: _dict,
}


def _without_default(kind: Any) -> set[str]:
    none = dataclasses.MISSING
    return {field.name for field in dataclasses.fields(kind) if field.default is field.default_factory is none}


def _plain(kind: type, value: Any, place: str) -> Any:
    if kind is float:
        if isinstance(value, str):
            value = WORDS.get(value, value)
        elif type(value) is int and abs(value) <= LARGEST:
            value = float(value)
        right = isinstance(value, float) and not math.isnan(value)
    elif kind is int:
        right = type(value) is int and abs(value) <= LARGEST
    elif kind is str:
        right = isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    else:
        right = isinstance(value, kind)
    if not right:
        raise _wrong(place, f"be {NAMES.get(kind, kind.__name__)}", value)
    return value
