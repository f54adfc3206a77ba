"""A forward pass: what one is made of, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from moesim.costs.fitted import Floats, Work
from moesim.costs.part import Part
from moesim.hardware import Kind


@dataclass(frozen=True)
class Contexts:
    """What attention of a step sees, by window (0: everything).

    Attributes:
        decode, prefill: window -> load (:func:`moesim.costs.attention.decode_load`, ``prefill_load``).
        decoding, prefilling: requests; ``tokens``: all tokens of the step.
    """

    decode: Mapping[float, Work]
    prefill: Mapping[float, Work]
    decoding: Floats
    prefilling: Floats
    tokens: Floats

    @classmethod
    def of(cls, decode: Mapping[float, Work], prefill: Mapping[float, Work]) -> Contexts:
        """From the loads of each window."""
        first, other = next(iter(decode.values())), next(iter(prefill.values()))
        return cls(decode, prefill, first["batch"], other["batch"], first["batch"] + other["queries"])


@dataclass(frozen=True)
class Step:
    """One forward pass, or an array of them.

    Attributes:
        contexts: of one attention replica (:meth:`moesim.costs.resident.Resident.contexts`).
        pairs, distinct: of the slowest rank in each MoE layer. [..., moe_layers]
        moe_tokens: tokens that the expert-parallel group routes together; None: those of ``contexts``.
        sequences: requests that get a token from the head; None: all decoding, and all prefilling.
        exchange: mode of expert-parallel dispatch (``low_latency``, ``normal``); None: all-reduce instead.
    """

    contexts: Contexts
    pairs: ArrayLike = 0.0
    distinct: ArrayLike = 0.0
    moe_tokens: ArrayLike | None = None
    sequences: ArrayLike | None = None
    exchange: str | None = None


@dataclass(frozen=True)
class Pass:
    """The parts of a forward pass, one after the other."""

    parts: tuple[Part, ...]

    @property
    def seconds(self) -> Floats:
        """The whole pass."""
        return sum((part.seconds for part in self.parts), start=np.zeros(()))

    def by_name(self) -> dict[str, Floats]:
        """Seconds by what takes them."""
        found: dict[str, Floats] = {}
        for part in self.parts:
            found[part.name] = found.get(part.name, np.zeros(())) + part.seconds
        return found

    def by_kind(self) -> dict[Kind, Floats]:
        """Seconds by how well they are known."""
        found: dict[Kind, Floats] = {}
        for part in self.parts:
            for kind, seconds in part.by_kind().items():
                found[kind] = found.get(kind, np.zeros(())) + seconds
        return found

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was extrapolated anywhere."""
        told = (f"{part.name}: {reason}" for part in self.parts for reason in part.reasons)
        return tuple(dict.fromkeys(told))
