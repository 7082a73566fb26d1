"""The commands that a tab may send. Anything else is refused, with one line that says why."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

LONGEST = 1024  # bytes of a message


class Message(BaseModel):
    """Types are not converted, unknown fields not ignored, infinities and nan not accepted."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class Alpha(Message):
    """The weight of the safe policy, from the next decision on."""

    do: Literal["alpha"]
    value: Annotated[float, Field(ge=0, le=1)]


class Tau(Message):
    """The tau of the value that is shown, in units of the return scale; it does not change the driving."""

    do: Literal["tau"]
    value: Annotated[float, Field(ge=0.01, le=1000)] | Literal["inf"]


class Speed(Message):
    """Simulated seconds for each real one, or as fast as possible."""

    do: Literal["speed"]
    value: Annotated[float, Field(ge=0.1, le=16)] | Literal["max"]


class Pause(Message):
    """Stop before the next decision, or go on."""

    do: Literal["pause"]
    value: bool


class Step(Message):
    """One decision, then pause."""

    do: Literal["step"]


class Reset(Message):
    """A new simulation with this seed."""

    do: Literal["reset"]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]


Command = Alpha | Tau | Speed | Pause | Step | Reset
_ANY: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="do")])


def read(text: str) -> Command:
    """The command in `text`, JSON; ValueError with one line otherwise."""
    if len(text.encode()) > LONGEST:
        raise ValueError(f"a message may have {LONGEST} bytes")
    try:
        return _ANY.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
