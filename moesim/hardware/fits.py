"""Fitted constants: facts about a GPU and a software stack, one YAML card per GPU below ``cards/fit/``.

``cards/fit/class.yaml`` holds the constants of the class: fitted to all GPUs that have data, for those that have none.
``moesim hardware fit`` writes the cards from tables of measurements (:mod:`moesim.studies.hardware_fit`); the tables
are not part of the repository. Kind ``measured``: fitted to a table of measurements, inside ``fitted_range``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from moesim import units
from moesim.documents import read_yaml, validate
from moesim.errors import CardError
from moesim.hardware.sourced import Kind

CARDS = Path(__file__).parent / "cards" / "fit"
CLASS = "class"
ANY = "any"
#: (GPU's card or ``class``, operation, stack or ``any`` of a variant).
FitKey = tuple[str, str, str]
Value = TypeVar("Value")


class Residuals(BaseModel):
    """Errors of the fit on its own rows, in percent: mean and median of the absolute, 90th percentile, mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mape: float
    median: float
    p90: float
    bias: float


class Measured(BaseModel):
    """What was measured of one shape: ``ratio`` of the measured time to the form's, at sizes ``at`` that grow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: list[float]
    at: list[float] = Field(min_length=1)
    ratio: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)


class Profile(BaseModel):
    """A user's own measurements beside the constants fitted to them: shapes that were measured are interpolated.

    ``columns``: the sizes that make a shape; ``axis``: the one along which it was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: list[str]
    axis: str
    measured: list[Measured]


class Fit(BaseModel):
    """The constants of one operation in one software stack, and what they rest on.

    ``constants``: times as quantities (``"33.8 us"``), shares as plain numbers; in Python seconds and shares.
    ``assumed``: those on which the rows have no bearing; they stay where the fit started. ``profile``: of a user's own
    table; the shipped cards hold constants alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: str
    stack: str
    constants: dict[str, float]
    assumed: list[str] = []
    kind: Kind
    source: str = Field(min_length=1)
    gpus: list[str]
    rows: int
    shapes: int
    fitted_range: dict[str, tuple[float, float]]
    residuals: Residuals
    profile: Profile | None = None

    @field_validator("constants", mode="before")
    @classmethod
    def _with_units(cls, constants: Mapping[str, str | float]) -> dict[str, float]:
        return {
            name: units.parse(value, "time") if isinstance(value, str) else value for name, value in constants.items()
        }


class FitCard(BaseModel):
    """All fits of a GPU, or of the class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    fits: list[Fit]


def read_fit_card(path: Path) -> FitCard:
    """The card in a file.

    Raises:
        FileError: the file can't be read.
        CardError: the card is wrong.
    """
    return validate(read_yaml(path, CardError), FitCard, CardError)


@cache
def shipped_fits() -> dict[FitKey, Fit]:
    """(GPU or ``class``, operation, stack) -> fit, of all shipped cards."""
    cards = [read_fit_card(path) for path in sorted(CARDS.glob("*.yaml"))]
    return {(card.name, fit.operation, fit.stack): fit for card in cards for fit in card.fits}


def with_own(paths: Iterable[Path]) -> Mapping[FitKey, Fit]:
    """The shipped fits with users' own (``moesim hardware import table``) in their place; the last file wins.

    Raises:
        FileError, CardError: a file can't be read, or is wrong.
    """
    own = [read_fit_card(path) for path in paths]
    return {**shipped_fits(), **{(card.name, fit.operation, fit.stack): fit for card in own for fit in card.fits}}


#: Older releases, and the stack whose kernels are most like theirs: where no GPU of the class was measured with one.
#: vLLM 0.14 and SGLang share the fixed tiles of their Triton kernels.
LIKE = {"vllm triton 0.14": "sglang triton", "trtllm cutlass 1.0": "trtllm cutlass"}
#: What kernels of other precisions are called; what ends so is a variant of its own.
_VARIANTS = ("fp8_block", "fp8 kv")


def any_stack(operation: str, stack: str) -> str:
    """The class's name over all stacks of the same variant: its precision, or a collective's operation and level."""
    if operation == "collective":
        return f"{ANY} {stack.partition(' ')[2]}"
    return next((f"{ANY} {variant}" for variant in _VARIANTS if stack.endswith(variant)), ANY)


def find(known: Mapping[FitKey, Value], operation: str, gpu: str, stack: str) -> tuple[Value, str] | None:
    """The GPU's own value for a stack (``fitted``), else the class's: of the stack, of one like it, of any."""
    if (own := known.get((gpu, operation, stack))) is not None:
        return own, "fitted"
    for name in (stack, LIKE.get(stack, stack), any_stack(operation, stack)):
        if (of_class := known.get((CLASS, operation, name))) is not None:
            return of_class, "class"
    return None
