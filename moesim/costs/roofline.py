"""Seconds of operations, split by what bounds them: the two sides of the roofline, and launches.

The forms of this package smooth the roofline's corner, so an operation can have a share of both sides. Source:
Williams, Waterman & Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OpTime:
    """Seconds of operations: of arithmetic, of memory traffic, and of launches and bookkeeping. Arrays of one shape."""

    compute_s: Floats
    memory_s: Floats
    launch_s: Floats

    @property
    def total_s(self) -> Floats:
        """Seconds of each operation."""
        return self.launch_s + (self.compute_s + self.memory_s)

    def __add__(self, other: OpTime) -> OpTime:
        return OpTime(self.compute_s + other.compute_s, self.memory_s + other.memory_s, self.launch_s + other.launch_s)
