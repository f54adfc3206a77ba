"""Which operation each second of the GPU's work is for, and on which constants it rests.

The engine needs a time for what comes before a visit's experts, for shared experts, for an expert, and for the end of
a step. Each is a sum over operations (projections, attention, router, ...); a :class:`Charge` keeps one operation's
share of it, so that a Result can say how well its time is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moesim.costs.fitted import Floats
from moesim.costs.part import Basis, Bools, Part
from moesim.costs.roofline import OpTime

Place = Literal["before", "shared", "expert", "low", "after"]
#: What bounds a term of a form: everything that is not named here is launches and bookkeeping.
_MEMORY = ("memory", "KV cache", "expert weights", "activations")
_COMPUTE = ("arithmetic", "dequantisation")
_NETWORK = ("link", "latency", "copying")


def resource_of(term: str) -> str:
    """What a term of a form is limited by, in words."""
    if term in _MEMORY:
        return "GPU memory bandwidth"
    if term in _COMPUTE:
        return "arithmetic"
    if term in _NETWORK:
        return "network between GPUs"
    return "host" if term == "host" else "launches and bookkeeping"


@dataclass(frozen=True)
class Charge:
    """One operation's seconds in one of the engine's times.

    Attributes:
        place: the field of ``Times``, or ``low``: experts in low precision; ``seconds`` and ``extrapolated`` have its
            shape.
        reasons: in words, what was extrapolated.
    """

    name: str
    place: Place
    basis: Basis
    seconds: Floats
    extrapolated: Bools
    reasons: tuple[str, ...]


#: Operation -> its part, all over the same entries.
Ledger = dict[str, Part]


def add(ledger: Ledger, parts: Iterable[Part]) -> Ledger:
    """A new ledger with more parts in it."""
    found = dict(ledger)
    for part in parts:
        found[part.name] = found[part.name] + part if part.name in found else part
    return found


def op_time(ledger: Ledger, shape: tuple[int, ...]) -> OpTime:
    """The sum of a ledger, split by what bounds it."""
    sums = {"compute": np.zeros(shape), "memory": np.zeros(shape), "launch": np.zeros(shape)}
    for part in ledger.values():
        for name, seconds in part.terms.items():
            bound = "memory" if name in _MEMORY else "compute" if name in _COMPUTE else "launch"
            sums[bound] = sums[bound] + seconds
    return OpTime(sums["compute"], sums["memory"], sums["launch"])


def charges(ledger: Ledger, place: Place, shape: tuple[int, ...]) -> list[Charge]:
    """The charges of a ledger."""
    return [
        Charge(
            part.name,
            place,
            part.basis,
            np.broadcast_to(part.seconds, shape),
            np.broadcast_to(part.extrapolated, shape),
            part.reasons,
        )
        for part in ledger.values()
        if part.seconds.any()
    ]


def columns(ledgers: Sequence[Ledger], rows: int) -> Ledger:
    """Ledgers over the same steps, one for each layer, as one over [steps, layers] in row order; absent is zero."""
    names = dict.fromkeys(name for ledger in ledgers for name in ledger)
    return {name: _column([ledger.get(name) for ledger in ledgers], rows) for name in names}


def _column(parts: Sequence[Part | None], rows: int) -> Part:
    known = next(part for part in parts if part is not None)
    shape, terms = (rows, len(parts)), dict.fromkeys(term for part in parts if part for term in part.terms)
    found: Mapping[str, Floats] = {term: np.zeros(shape) for term in terms}
    outside = np.zeros(shape, dtype=bool)
    for layer, part in enumerate(parts):
        if part is not None:
            for term, seconds in part.terms.items():
                found[term][:, layer] = seconds
            outside[:, layer] = part.extrapolated
    reasons = tuple(dict.fromkeys(reason for part in parts if part for reason in part.reasons))
    flat = {term: seconds.reshape(-1) for term, seconds in found.items()}
    return Part(known.name, flat, known.basis, outside.reshape(-1), reasons)
