"""What a risk measure offers, and what the measures share."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Atoms = Float[Tensor, " atoms"]
Rows = Float[Tensor, "*batch"]
RowsOfAtoms = Float[Tensor, "*batch atoms"]
RowsOfGaps = Float[Tensor, "*batch atoms-1"]  # what belongs between an atom and the next


@runtime_checkable
class RiskMeasure(Protocol):
    """What a risk measure offers; `atoms` `[N]` ascending, `log_probs` `[..., N]` from a log_softmax."""

    @property
    def name(self) -> str:
        """The measure as `--risk` spells it."""
        ...

    @property
    def evaluation_only(self) -> str | None:
        """The line that refuses to train on a measure which can only be reported; None if it can be trained on."""
        return None

    def value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        """`rho(Z)`, in units of return; differentiable in `log_probs`, unless `evaluation_only`."""
        ...

    def reference(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        """The value within psi and in logs: `rho`, unless the measure bounds how much rare outcomes may count."""
        return self.value(atoms, log_probs)

    def zero_utility_value(self, atoms: Atoms, log_probs: RowsOfAtoms) -> Rows:
        """The v with `E utility(Z - v) = 0`, for `nested` and `value`: `rho`, unless the utility is clipped."""
        return self.value(atoms, log_probs)

    def influence(self, atoms: Atoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
        """`psi(z_i; Z)` at every atom, mean zero under Z; ValueError if `evaluation_only`."""
        ...

    def utility(self, delta: Rows) -> Rows:
        """The utility of a temporal-difference error whose zero mean makes the nested value; ValueError if none."""
        raise ValueError(
            f"--advantage nested has no utility for --risk {self.name}: "
            "use --risk neutral, entropic or expectile:LEVEL, or --advantage influence"
        )

    def scaled(self, unit: float) -> "RiskMeasure":
        """The same measure with tau, until now in multiples of `unit`, in units of return."""
        return self

    def annealed(self, fraction: float) -> "RiskMeasure":
        """The measure with its aversion times `fraction`: 0 is risk-neutral, 1 the measure itself."""
        ...


@dataclass(frozen=True)
class Form:
    """How `--risk` spells a measure that takes one number, and which numbers those are."""

    kind: str
    word: str
    """The number's name in capitals; in lower case the field that holds it."""
    low: float
    high: float
    ends: Literal["()", "(]", "[]"]
    """Whether `low` and `high` themselves are allowed."""
    neutral: float | None
    """The number that gives the mean; None if none does."""
    example: float
    optional: bool = False
    """Whether `kind` alone will do; the field then has a default."""

    @property
    def spelling(self) -> str:
        """The form as the grammar shows it, `kind:WORD`."""
        return f"{self.kind}[:{self.word}]" if self.optional else f"{self.kind}:{self.word}"

    def spell(self, number: float) -> str:
        """The measure with `number`, in as many digits as give the number back."""
        short = f"{number:g}"
        return f"{self.kind}:{short if float(short) == number else repr(float(number))}"

    def takes(self, number: float) -> bool:
        """Whether `number` is allowed; nan never is."""
        closed = (number == self.low and self.ends[0] == "[") or (number == self.high and self.ends[1] == "]")
        return closed or self.low < number < self.high

    def refusal(self, given: str) -> ValueError:
        """The error for `given`, in one line."""
        left, right = ("<=" if end in "[]" else "<" for end in self.ends)
        neutral = "" if self.neutral is None else f"; {self.spell(self.neutral)} is risk-neutral"
        return ValueError(
            f"--risk {given} must be {self.spelling} with {self.low:g} {left} {self.word} {right} {self.high:g}, "
            f"as in --risk {self.spell(self.example)}{neutral}"
        )


class OneNumber(RiskMeasure):
    """A measure with one number free of units: spelled, checked and annealed (linearly) as its `form` says."""

    form: ClassVar[Form]

    def __post_init__(self):
        if not self.form.takes(self.number):
            raise self.form.refusal(self.name)

    @property
    def number(self) -> float:
        """The measure's one field."""
        return getattr(self, self.form.word.lower())

    @property
    def name(self) -> str:
        return self.form.spell(self.number)

    def annealed(self, fraction: float) -> RiskMeasure:
        return type(self)((1 - fraction) * self.form.neutral + fraction * self.number)


def centred(psi: RowsOfAtoms, log_probs: RowsOfAtoms) -> RowsOfAtoms:
    """`psi` less its mean."""
    return psi - (log_probs.exp() * psi).sum(-1, keepdim=True)


def tails(terms: RowsOfAtoms) -> tuple[RowsOfGaps, RowsOfGaps]:
    """Sums of `terms` up to and beyond each atom but the last; each is exact, relatively, where it is small."""
    return terms.cumsum(-1)[..., :-1], terms.flip(-1).cumsum(-1).flip(-1)[..., 1:]


def annealed_tau(tau: float, fraction: float) -> float:
    """The tolerance whose inverse is `fraction / tau`."""
    return tau / fraction if fraction > 0 else math.inf


def check_tau(tau: float) -> None:
    """ValueError unless `tau` is a tolerance."""
    if not tau > 0:
        raise ValueError(f"--tau must be > 0 (got {tau:g}); use inf for risk-neutral")
