"""What a risk measure offers, and what the measures share."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Atoms = Float[Tensor, "*#batch atoms"]
LogProbs = Float[Tensor, "*#batch atoms"]
Probs = Float[Tensor, "*#batch atoms"]
Rows = Float[Tensor, "*batch"]
Elicited = Float[Tensor, "*batch values"]
RowsOfAtoms = Float[Tensor, "*batch atoms"]
RowsOfGaps = Float[Tensor, "*batch atoms-1"]  # one number between each atom and the next


@runtime_checkable
class RiskMeasure(Protocol):
    """What a risk measure offers.

    `atoms` `[N]`, shared by all rows, or `[*batch, N]`, where rows differ, must ascend within each row; neighbours may
    be equal. This is not checked: sort the values of a quantile critic first (`quantile.as_atoms`). `log_probs`
    `[*batch, N]` or `[N]` come from a log_softmax, or are `-log N` for N equally likely quantiles. The batch axes of
    both broadcast; results have the batch axes of the broadcast.
    """

    @property
    def name(self) -> str:
        """The measure as `--risk` spells it."""
        ...

    @property
    def evaluation_only(self) -> str | None:
        """The line that refuses to train on a measure which can only be reported; None if it can be trained on."""
        return None

    @property
    def comonotonic(self) -> bool:
        """Whether `rho(X + Y) = rho(X) + rho(Y)` where X and Y rise together: then it is linear in sorted quantiles.

        So are the mean, VaR and all distortions. A sum of utilities' quantiles is greatest where each agent's is.
        """
        return False

    def value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        """`rho(Z)`, in units of return; differentiable in `log_probs` (unless `evaluation_only`) and in `atoms`."""
        ...

    def reference(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        """The value inside psi and in logs: `rho`, unless the measure limits how much rare outcomes may count."""
        return self.value(atoms, log_probs)

    def zero_utility_value(self, atoms: Atoms, log_probs: LogProbs) -> Rows:
        """The v with `E utility(Z - v) = 0`, used by `--advantage value`: `rho`, unless the utility is clipped."""
        return self.value(atoms, log_probs)

    def influence(self, atoms: Atoms, log_probs: LogProbs) -> RowsOfAtoms:
        """`psi(z_i; Z)` at every atom, mean zero under Z; ValueError if `evaluation_only`."""
        ...

    @property
    def elicited(self) -> int:
        """How many numbers `identification` needs, `rho` first: 1, unless others must be learned beside it."""
        return 1

    def identification(self, outcome: Rows, values: Elicited) -> Elicited:
        """What an outcome says of `values`: its mean is zero where they are right, and positive where they are too low.

        Descending `-identification * values` in `values`, with the former held fixed, learns them from samples
        (Fissler & Ziegel, 'Higher order elicitability', 2016). Element 0 rises with the outcome as the influence does,
        up to a factor that no action changes. ValueError for a measure that cannot be learned so.

        values: `rho` first, then what else the measure needs (`elicited`); a neutral one ignores the rest.
        """
        return self.utility(outcome - values[..., 0])[..., None]

    def utility(self, delta: Rows) -> Rows:
        """The utility u by which `rho` is the v with `E u(Z - v) = 0`. ValueError if there is none."""
        raise ValueError(
            f"--advantage nested cannot learn --risk {self.name} from samples: "
            "use --risk neutral, entropic, expectile:LEVEL or cvar:LEVEL, or --advantage influence"
        )

    def scaled(self, unit: float) -> "RiskMeasure":
        """The same measure with `tau` times `unit`: a `tau` in multiples of `unit` becomes one in units of return."""
        return self

    def annealed(self, fraction: float) -> "RiskMeasure":
        """The measure with its aversion times `fraction`: 0 is risk-neutral, 1 is the measure itself."""
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
        """The error message for `given`, in one line."""
        left, right = ("<=" if end in "[]" else "<" for end in self.ends)
        neutral = "" if self.neutral is None else f"; {self.spell(self.neutral)} is risk-neutral"
        return ValueError(
            f"--risk {given} must be {self.spelling} with {self.low:g} {left} {self.word} {right} {self.high:g}, "
            f"as in --risk {self.spell(self.example)}{neutral}"
        )


class OneNumber(RiskMeasure):
    """A measure with one number without unit; its `form` says how that is spelled, checked and (linearly) annealed.

    ValueError for a number that the form does not allow.
    """

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
        if self.form.neutral is None:
            raise ValueError(f"{self.name} has no risk-neutral number to begin with")
        return self.of((1 - fraction) * self.form.neutral + fraction * self.number)

    @classmethod
    def of(cls, number: float) -> "OneNumber":
        """The measure of this kind with another number."""
        return cls(**{cls.form.word.lower(): number})


def quantile_weights(measure: RiskMeasure, count: int) -> Float[Tensor, " quantiles"]:
    """The w with `rho = sum_j w_j x_j` of `count` equally likely values in ascending order; they sum to 1.

    Of a distortion D these are `D(j / N) - D((j - 1) / N)`. ValueError for a measure that is not `comonotonic`.
    """
    if not measure.comonotonic:
        raise ValueError(f"{measure.name} is not linear in quantiles")
    if torch.get_default_device().type == "meta":  # to compute for an outline would load PyTorch's compiler
        return torch.empty(count)
    steps = torch.ones(count, count, dtype=torch.float64).triu()  # the j-th row: 1 from the j-th value on
    above = measure.value(steps, steps.new_full((count,), -math.log(count)))
    return (above - torch.nn.functional.pad(above[1:], (0, 1))).float()


def centred(psi: RowsOfAtoms, log_probs: LogProbs) -> RowsOfAtoms:
    """`psi` minus its mean `sum_i p_i psi_i`."""
    return psi - (log_probs.exp() * psi).sum(-1, keepdim=True)


def tails(terms: RowsOfAtoms) -> tuple[RowsOfGaps, RowsOfGaps]:
    """Sums of `terms` up to each atom and after it, for all atoms but the last; small sums have a small error."""
    return terms.cumsum(-1)[..., :-1], terms.flip(-1).cumsum(-1).flip(-1)[..., 1:]


def from_lowest(atoms: Atoms) -> Atoms:
    """Atoms `[*batch, N]` minus the lowest of their row; shared atoms `[N]` as they are.

    An influence depends on differences of atoms only. Rows may lie far from 0, where rounding is coarse; after this
    step rounding errors are relative to the width of a row.
    """
    return atoms if atoms.dim() == 1 else atoms - atoms[..., :1]


def annealed_tau(tau: float, fraction: float) -> float:
    """The tolerance whose inverse is `fraction / tau`."""
    return tau / fraction if fraction > 0 else math.inf


def check_tau(tau: float) -> None:
    """ValueError unless `tau` is a tolerance."""
    if not tau > 0:
        raise ValueError(f"--tau must be > 0 (got {tau:g}); use inf for risk-neutral")
