"""The roofline with launch overhead: ``t = n_kernels * t_launch + max(FLOP / F, bytes / B)``.

F and B are what the device achieves (peak times efficiency), not its peaks. Assumes that arithmetic and memory
traffic of one operation overlap fully, and that kernels of one operation follow each other in one stream.
Source: Williams, Waterman & Patterson, "Roofline", CACM 52(4), 2009; for language-model inference Yuan et al.,
"LLM Inference Unveiled" (arXiv 2402.16363).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Device:
    """What a processor achieves: operations per second, bytes per second, seconds per kernel launch."""

    flop_per_s: float
    bytes_per_s: float
    launch_s: float = 0.0


@dataclass(frozen=True)
class OpTime:
    """Seconds of operations, split by what bounds each: one of ``compute_s`` and ``memory_s`` is zero everywhere."""

    compute_s: Floats
    memory_s: Floats
    launch_s: Floats

    @property
    def total_s(self) -> Floats:
        """Seconds of each operation."""
        return self.launch_s + (self.compute_s + self.memory_s)

    def __add__(self, other: OpTime) -> OpTime:
        return OpTime(self.compute_s + other.compute_s, self.memory_s + other.memory_s, self.launch_s + other.launch_s)


def roofline(flop: ArrayLike, bytes_moved: ArrayLike, kernels: ArrayLike, device: Device) -> OpTime:
    """Time of operations by the equation above; the arguments broadcast against each other.

    Args:
        flop: floating-point operations, a multiply-add counting as two.
        bytes_moved: bytes read and written in the device's memory.
        kernels: dependent kernel launches.
    """
    compute = np.asarray(flop, dtype=np.float64) / device.flop_per_s
    memory = np.asarray(bytes_moved, dtype=np.float64) / device.bytes_per_s
    compute, memory, kernels = np.broadcast_arrays(compute, memory, np.asarray(kernels, dtype=np.float64))
    bound_by_compute = compute >= memory
    return OpTime(
        compute_s=np.where(bound_by_compute, compute, 0.0),
        memory_s=np.where(bound_by_compute, 0.0, memory),
        launch_s=kernels * device.launch_s,
    )
