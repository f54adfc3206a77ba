"""Copies and reads: ``t = latency + bytes / bandwidth``, with the bandwidth that one large transfer achieves.

The form that gpu-benches and nvbandwidth results follow for pinned host memory. Assumes one transfer at a time on a
link and direction; what waits is the engine's business.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def transfer_s(num_bytes: ArrayLike, latency_s: float, bandwidth_bytes_per_s: float) -> NDArray[np.float64]:
    """Seconds that transfers of ``num_bytes`` hold their link."""
    return latency_s + np.asarray(num_bytes, dtype=np.float64) / bandwidth_bytes_per_s
