"""A number together with where it came from: the only form in which a card holds a number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

#: How well a number is known: ``measured`` by moesim's own suite or fitted to a table of measurements, ``published`` by
#: others (who may have measured it), ``datasheet`` of its maker, or ``assumed`` (from memory, by analogy, or computed
#: from something assumed). From strongest to weakest.
Kind = Literal["measured", "published", "datasheet", "assumed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: A share of a peak, above 0 and at most 1. The only number on a card that has no unit.
Fraction = Annotated[float, Field(gt=0, le=1, strict=True)]
#: A whole number of cores, SMs, GPUs.
Count = Annotated[int, Field(gt=0, strict=True)]


class Sourced(BaseModel, Generic[T]):
    """A value, how it is known, and from where, in enough words to find it again.

    On a card ``value`` is a quantity string (``"1008 GB/s"``), in Python an SI number (``1.008e12``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: T
    kind: Kind
    source: str = Field(min_length=1)
    note: str = ""


def weakest(kinds: Iterable[Kind]) -> Kind:
    """The weakest of some kinds: what a figure computed from all of them may be called.

    Raises:
        ValueError: ``kinds`` is empty.
    """
    return max(kinds, key=KINDS.index)
