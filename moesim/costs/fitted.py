"""Forms with fitted constants: seconds as a sum of named terms, each a formula over sizes, peaks and a few constants.

Every operation here is one module-level :class:`Form`: its equation in its docstring, its constants with their meaning
and the bounds inside which a fit may move them. Constants are dimensionless shares of the datasheet's peaks or
seconds, so that one set can serve GPUs that nobody measured. :mod:`moesim.hardware.fits` holds the fitted values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.hardware import GpuSpec, load_network

Floats = NDArray[np.float64]
Work = Mapping[str, Floats]
Constants = Mapping[str, float]
Terms = dict[str, Floats]

#: Streaming multiprocessors and L2 of a GPU whose card doesn't say: of a mid-size part.
_SMS, _L2_BYTES = 100, 0.0


@dataclass(frozen=True)
class Peaks:
    """What a GPU's card promises: bytes and operations per second, L2 bytes, SMs, NVLink bytes per second one way."""

    bytes_per_s: float
    flop_per_s: float
    l2_bytes: float
    sms: float
    link_bytes_per_s: float


@dataclass(frozen=True)
class Constant:
    """A constant of a form. ``unit`` is ``us`` (kept in seconds) or ``1``; a fit starts at ``start``, inside bounds."""

    name: str
    unit: str
    start: float
    low: float
    high: float
    meaning: str


@dataclass(frozen=True)
class Form:
    """An operation's cost: ``terms(work, peaks, constants)`` gives additive seconds by name, broadcasting over work."""

    operation: str
    constants: tuple[Constant, ...]
    terms: Callable[[Work, Peaks, Constants], Terms]

    def seconds(self, work: Work, peaks: Peaks, constants: Constants) -> Floats:
        """The sum of the terms."""
        return total(self.terms(work, peaks, constants))


def total(terms: Terms) -> Floats:
    """The sum of the terms."""
    parts = list(terms.values())
    return sum(parts[1:], start=np.asarray(parts[0], dtype=np.float64))


def peaks_of(gpu: GpuSpec, arithmetic: str = "bf16") -> Peaks:
    """A GPU's peaks for one type of operands; the next wider type where the card doesn't rate it."""
    rate = next(gpu.compute[name] for name in (arithmetic, "bf16", "fp16", "fp32") if name in gpu.compute)
    link = load_network(gpu.nvlink).bandwidth_raw.value if gpu.nvlink else 0.0
    return Peaks(
        bytes_per_s=gpu.memory_bandwidth.value,
        flop_per_s=rate.value,
        l2_bytes=float(gpu.l2.value) if gpu.l2 else _L2_BYTES,
        sms=float(gpu.sm_count.value) if gpu.sm_count else _SMS,
        link_bytes_per_s=link,
    )


def overlapped(first: ArrayLike, second: ArrayLike, sharpness: float) -> tuple[Floats, Floats]:
    """``(a^p + b^p)^(1/p)``, shared out between a and b in proportion to their p-th powers.

    p = 1 is one after the other, p -> infinity perfect overlap (the roofline's maximum).
    """
    a, b = np.broadcast_arrays(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    larger = np.maximum(np.maximum(a, b), 1e-30)
    power_a, power_b = (a / larger) ** sharpness, (b / larger) ** sharpness
    both = np.maximum(power_a + power_b, 1e-30)
    whole = larger * both ** (1 / sharpness)
    return whole * power_a / both, whole * power_b / both
