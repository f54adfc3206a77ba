"""A price: seconds by term, the constants that they rest on, and where they are extrapolated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.costs.fitted import Floats, Terms, total
from moesim.hardware import Kind, Sourced, weakest

Bools = NDArray[np.bool_]
How = Literal["fitted", "class", "card", "assumed"]


@dataclass(frozen=True)
class Constant:
    """A number that a time rests on: its dotted name, value and SI unit, where it comes from, how well it is known."""

    name: str
    value: float
    unit: str
    source: str
    kind: Kind


@dataclass(frozen=True)
class Basis:
    """What a price rests on.

    Attributes:
        how: ``fitted`` on this GPU, of the ``class`` of GPUs and scaled by this one's datasheet, from the GPU's
            ``card`` alone, or ``assumed`` here.
        constants: all of them.
    """

    operation: str
    stack: str
    how: How
    constants: tuple[Constant, ...]

    @property
    def kind(self) -> Kind:
        """Of the weakest constant; inside of the fitted range."""
        return weakest(constant.kind for constant in self.constants)

    @property
    def source(self) -> str:
        """Of the first constant, which stands for the others."""
        return self.constants[0].source


@dataclass(frozen=True)
class Part:
    """Seconds of one kind of operation, and how well they are known.

    Attributes:
        terms: seconds by name; they add up to :attr:`seconds`. Arrays of one shape.
        extrapolated: where a size lies outside of what the constants were fitted to. [same]
        reasons: in words, what lies outside anywhere.
    """

    name: str
    terms: Terms
    basis: Basis
    extrapolated: Bools
    reasons: tuple[str, ...] = ()

    @property
    def seconds(self) -> Floats:
        """The sum of the terms."""
        return total(self.terms)

    def times(self, count: ArrayLike, name: str = "") -> Part:
        """So many of them one after the other."""
        number = np.asarray(count, dtype=np.float64)
        terms = {key: np.asarray(value * number) for key, value in self.terms.items()}
        return replace(self, terms=terms, name=name or self.name)

    def at(self, places: NDArray[np.int64]) -> Part:
        """Some of the entries, each as often as asked for."""
        shape = np.broadcast_shapes(*(value.shape for value in self.terms.values()), self.extrapolated.shape)
        terms = {key: np.broadcast_to(value, shape)[places] for key, value in self.terms.items()}
        return replace(self, terms=terms, extrapolated=np.broadcast_to(self.extrapolated, shape)[places])

    def total(self) -> Part:
        """The sum over the last axis: layers one after the other."""
        terms = {key: np.asarray(value.sum(axis=-1)) for key, value in self.terms.items()}
        return replace(self, terms=terms, extrapolated=np.asarray(self.extrapolated.any(axis=-1)))

    def __add__(self, other: Part) -> Part:
        """One after the other, as the first's name, on the weaker basis of the two."""
        names = dict.fromkeys((*self.terms, *other.terms))
        zero = np.zeros(())
        terms = {name: self.terms.get(name, zero) + other.terms.get(name, zero) for name in names}
        shape = np.broadcast_shapes(*(value.shape for value in terms.values()))
        terms = {name: np.broadcast_to(value, shape) for name, value in terms.items()}
        weaker = self if weakest((self.basis.kind, other.basis.kind)) == self.basis.kind else other
        outside = np.broadcast_to(self.extrapolated | other.extrapolated, shape)
        reasons = tuple(dict.fromkeys((*self.reasons, *other.reasons)))
        return Part(self.name, terms, weaker.basis, outside, reasons)

    def by_kind(self) -> dict[Kind, Floats]:
        """Seconds by how well they are known: what is extrapolated counts as assumed."""
        seconds = self.seconds
        known = np.where(self.extrapolated, 0.0, seconds)
        if self.basis.kind == "assumed":
            return {"assumed": seconds}
        return {self.basis.kind: known, "assumed": seconds - known}


def card_constant(name: str, number: Sourced[float] | Sourced[int], unit: str) -> Constant:
    """A card's number as a constant."""
    return Constant(name, float(number.value), unit, number.source, number.kind)


def also(part: Part, where: Bools, reason: str) -> Part:
    """The part with some more entries extrapolated, for a reason."""
    if not where.any():
        return part
    return replace(part, extrapolated=part.extrapolated | where, reasons=(*part.reasons, reason))


def choose(first: Bools, one: Part, other: Part) -> Part:
    """``one`` where ``first``, else ``other``; they rest on the same kind, and on the weaker basis altogether."""
    terms = {name: np.where(first, one.terms[name], other.terms[name]) for name in one.terms}
    weaker = one if weakest((one.basis.kind, other.basis.kind)) == one.basis.kind else other
    reasons = tuple(dict.fromkeys((*one.reasons, *other.reasons)))
    outside = np.where(first, one.extrapolated, other.extrapolated)
    return Part(one.name, terms, weaker.basis, outside, reasons)
